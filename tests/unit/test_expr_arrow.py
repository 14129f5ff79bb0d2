"""pyarrow expressions read as filters: the same answers as pyarrow's, and the columns of the tree."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from vectorlake.errors import InvalidInputError, UnsupportedError
from vectorlake.expr import OpaqueExpr, from_pyarrow, parse_expression, parse_filter

BATCH = pa.record_batch(
    {
        "a": pa.array([1, 2, None, 4], pa.int8()),
        "big": pa.array([1, 2**60 + 1, None, -4], pa.int64()),
        "f": pa.array([1.0, 0.1, None, float("nan")], pa.float32()),
        "name": ["x", "yab", None, "abc"],
        "kind": pa.array(["u", "v", None, "u"]).dictionary_encode(),
        "flag": [True, False, None, True],
        "day": pa.array([0, 20000, None, -1], pa.int32()).cast(pa.date32()),
        "ts": pa.array([0, 1_704_067_200_000_000, None, -1], pa.timestamp("us")),
        "s": [{"b": 1, "c.d": 2}, {"b": 2, "c.d": None}, None, {"b": None, "c.d": 3}],
        "tags": [["p", "q"], ["r"], None, ["q", None]],
    }
)
f = pc.field
NULL = pc.scalar(pa.scalar(None, pa.bool_()))

TRANSLATED = [
    f("a") > 3,
    pc.scalar(2) < f("a"),
    f("a") == 1000,
    f("a") >= 1.5,
    f("f") == 0.1,
    (f("a") > 1) & f("name").isin(["x", "yab"]),
    ~(f("a") > 1) | f("flag"),
    f("name").isin(["x", None]),
    ~f("name").isin(["x", None]),
    f("name").isin(pa.array([], pa.string())),
    pc.is_in(f("kind"), value_set=pa.array(["u"])),
    pc.if_else(f("a").is_valid(), f("a").isin([1, 2]), NULL),
    ~pc.if_else(f("a").is_valid(), f("a").isin(pa.array([1, 2], pa.int8())), NULL),
    f("a").is_null(),
    f("f").is_null(nan_is_null=True),
    f("f").is_valid(),
    f("s", "b") == 1,
    pc.struct_field(f("s"), "b") == 1,
    f("s", "c.d") == 2,
    pc.starts_with(f("name"), "a"),
    pc.match_substring(f("name"), "b"),
    pc.match_like(f("name"), "a%c"),
    pc.match_like(f("name"), "A_C", ignore_case=True),
    f("day") > dt.date(2000, 1, 1),
    f("ts") >= dt.datetime(2000, 1, 1),
    f("a") + 1 > 2,
    f("a").cast("int64") * 100 > 200,
    f("flag"),
    f("flag") == NULL,
    f("kind") == "u",
    pc.coalesce(f("a"), pc.scalar(0)) == 0,
    pc.scalar(True),
]
OPAQUE = [
    (pc.utf8_reverse(f("name")) == "bay", {"name"}),
    ((f("a") / 2 >= 1) & (f("flag")), {"a", "flag"}),
    (pc.list_element(f("tags"), 0) == "p", {"tags"}),
    (pc.starts_with(f("name"), "A", ignore_case=True), {"name"}),
    (pc.struct_field(f("s"), [1]) > 2, {"s"}),
    (f("big").cast("int8", safe=False) == 1, {"big"}),
    (pc.hour(f("ts")) == 0, {"ts"}),
    (f(0) > 3, set(BATCH.schema.names)),
]


def by_pyarrow(expression: pc.Expression, batch: pa.RecordBatch) -> list[bool | None]:
    scanner = ds.Scanner.from_batches([batch], schema=batch.schema, columns={"value": expression})
    return scanner.to_table().column(0).to_pylist()


@pytest.mark.parametrize("expression", TRANSLATED, ids=str)
def test_translates(expression: pc.Expression) -> None:
    ours = from_pyarrow(expression, BATCH.schema)
    assert not any(isinstance(node, OpaqueExpr) for node in ours.walk())
    assert ours.evaluate(BATCH).to_pylist() == by_pyarrow(expression, BATCH)
    assert parse_filter(ours.to_sql(), BATCH.schema) == ours


@pytest.mark.parametrize(("expression", "columns"), OPAQUE, ids=[str(e) for e, _ in OPAQUE])
def test_the_rest_evaluates_through_pyarrow(expression: pc.Expression, columns: set[str]) -> None:
    ours = from_pyarrow(expression, BATCH.schema)
    assert any(isinstance(node, OpaqueExpr) for node in ours.walk())
    assert ours.columns() == columns
    expected = by_pyarrow(expression, BATCH)
    assert ours.evaluate(BATCH).to_pylist() == expected
    # The batch may have its columns in another order, and others beside them.
    shuffled = BATCH.select(sorted(ours.columns(), reverse=True))
    assert ours.evaluate(shuffled).to_pylist() == expected
    assert ours == from_pyarrow(expression, BATCH.schema)
    with pytest.raises(UnsupportedError, match="can't be written as SQL"):
        ours.to_sql()
    assert by_pyarrow(ours.to_pyarrow(), BATCH) == expected


def test_only_the_untranslatable_part_is_opaque() -> None:
    ours = from_pyarrow((f("a") > 1) & (pc.utf8_reverse(f("name")) == "bay"), BATCH.schema)
    known, unknown = ours.conjuncts()
    assert known == parse_filter("a > 1", BATCH.schema)
    assert unknown.columns() == {"name"}


def test_columns_are_not_taken_from_the_text() -> None:
    expression = (f("name") == "flag > 3 and FieldRef.Name(a)") | f("s", "b").is_null()
    assert from_pyarrow(expression, BATCH.schema).columns() == {"name", "s"}


def test_integers_beside_floats_do_not_overflow() -> None:
    # pyarrow refuses to compare an integer above 2^53 with a float.
    ours = from_pyarrow(f("big") > 0.5, BATCH.schema)
    assert ours.evaluate(BATCH).to_pylist() == [True, True, None, False]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (f("zz") > 1, "no column 'zz'"),
        (f("s", "zz") > 1, "no field 'zz'"),
        (f("name") > 3, r"name \(string\)"),
        (f("name") & f("flag"), r"name \(string\) is not"),
        (pc.utf8_reverse(f("a")) == "x", "pyarrow can't apply"),
        (f(99) > 1, "pyarrow can't apply"),
    ],
    ids=str,
)
def test_errors(expression: pc.Expression, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        from_pyarrow(expression, BATCH.schema)


def test_long_chains() -> None:
    expression = f("a") == 0
    for n in range(1, 3000):
        expression |= f("a") == n
    assert from_pyarrow(expression, BATCH.schema).evaluate(BATCH).to_pylist() == [True, True, None, True]


@pytest.mark.parametrize("sql", ["tags[1] = 'p'", "list_contains(tags, 'q')"])
def test_what_pyarrow_expressions_lack(sql: str) -> None:
    with pytest.raises(UnsupportedError, match="pyarrow expressions have no list_"):
        parse_filter(sql, BATCH.schema).to_pyarrow()


EMPTY: list[Callable[[pa.Schema], pa.Array]] = [
    lambda schema: parse_expression("name || 'x'", schema).evaluate(BATCH.slice(0, 0)),
    lambda schema: from_pyarrow(pc.utf8_reverse(f("name")), schema).evaluate(BATCH.slice(0, 0)),
]


@pytest.mark.parametrize("evaluate", EMPTY)
def test_no_rows(evaluate: Callable[[pa.Schema], pa.Array]) -> None:
    assert evaluate(BATCH.schema).equals(pa.array([], pa.string()))


@pytest.mark.parametrize(("constant", "rows"), [(True, 3), (False, 0), (None, 0)])
def test_a_constant_is_a_filter_of_all_rows(constant: bool | None, rows: int) -> None:
    import vectorlake as vl

    table = vl.connect("memory://").create_table("items", {"id": [1, 2, None]})
    scalar = pa.scalar(constant, pa.bool_())
    for pushed in (scalar, pc.scalar(scalar)):
        assert table.to_dataset().to_table(filter=pushed).num_rows == rows
