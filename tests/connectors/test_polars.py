"""Tables as lazy frames of polars: what is pushed down, the same answers as polars' own frames, searches and writing."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from filter_cases import VALUES, rows
from hypothesis import HealthCheck, given, settings

import vectorlake as vl
from vectorlake.errors import AlreadyExistsError, InvalidInputError, NotFoundError, UnsupportedError
from vectorlake.testing.columns import columns

pl = pytest.importorskip("polars")
vectorlake_polars = pytest.importorskip("vectorlake_polars")

from polars.testing import assert_frame_equal  # noqa: E402
from vectorlake_polars._predicate import pushed  # noqa: E402


def rows_from(start: int, rows: int) -> pa.Table:
    ids = np.arange(start, start + rows)
    vectors = np.stack([ids, ids + 1], axis=1).astype("f4")
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 2)
    return pa.table({"id": ids, "name": [f"n{i}" for i in ids], "price": ids * 0.5, "vec": flat})


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    return vl.connect(tmp_path / "lake")


@pytest.fixture
def items(lake: vl.Lake) -> vl.Table:
    table = lake.create_table("ns.items", rows_from(0, 10))
    table.append(rows_from(10, 10))
    return table


def scan(table: vl.Table, **options: Any) -> Any:
    return vectorlake_polars.scan_vectorlake(table, **options)


# --- what is pushed down ---


def break_fragment(table: vl.Table, number: int, column: str | None = None) -> None:
    """Remove the files of a fragment, or the one of a column, so that reading it fails."""
    fragment = list(table.view.fragments())[number]
    field = None if column is None else table.snapshot.schema.field(column).id
    files = fragment.files if field is None else [fragment.file_of(field)]
    for file in files:
        assert file is not None
        (Path(table.uri.removeprefix("file://")) / file.path).unlink()


def test_a_condition_opens_only_fragments_that_may_match(items: vl.Table) -> None:
    break_fragment(items, 0)
    frame = scan(items).filter(pl.col("id") > 12, pl.col("name").str.len_chars() == 3)
    assert frame.select(pl.col("id").max()).collect().item() == 19
    with pytest.raises(vl.CorruptDataError, match="is missing"):
        scan(items).select("id").collect()


def test_columns_that_nobody_asks_for_are_not_read(items: vl.Table) -> None:
    break_fragment(items, 0, "vec")
    assert scan(items).filter(pl.col("price") > 9).select("name").collect().height == 1
    assert scan(items).select(pl.len()).collect().item() == 20


def test_a_limit_ends_the_scan_early(items: vl.Table) -> None:
    break_fragment(items, 1)
    assert scan(items).head(4).collect()["id"].to_list() == [0, 1, 2, 3]


def test_a_limit_below_a_condition_counts_before_it(items: vl.Table) -> None:
    """polars hands over both: the first rows, of which the condition then chooses."""
    assert scan(items).head(5).filter(pl.col("id") > 2).collect()["id"].to_list() == [3, 4]
    assert scan(items).filter(pl.col("id") > 2).head(5).collect()["id"].to_list() == [3, 4, 5, 6, 7]


def test_explain_shows_the_scan(items: vl.Table) -> None:
    plan = scan(items).filter(pl.col("id") > 3).select("name").explain()
    assert "PYTHON[vectorlake] SCAN" in plan
    assert "PROJECT" in plan
    assert "id" in plan.partition("SELECTION")[2]
    assert "FILTER" not in plan


COMPARED = {
    "i": [0, 1, 7, 2**62], "t": [0, 127, 300], "u": [0, 5, 2**64 - 1], "f": [0.0, -0.0, 2.5, math.nan, math.inf, -math.inf],
    "g": [0.1, 4.0, math.nan], "s": ["", "a", "é"], "d": [dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, 12)],
    "m": [dt.datetime(2024, 2, 29, 12, 0, 0, 500_000)], "n": [dt.datetime(2024, 2, 29, 12, 0, 0, 500_001)],
    "z": [dt.datetime(2024, 3, 1, tzinfo=dt.UTC)], "k": [b"", b"a"],
}  # fmt: skip


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A lazy frame of a table in several fragments, and the same rows as a frame of polars' own."""
    lake = vl.connect(tmp_path_factory.mktemp("lake"))
    data = rows()
    table = lake.create_table("ns.items", data.take(list(range(30))))
    for start, stop in ((30, 31), (31, 70), (70, 96)):
        table.append(data.take(list(range(start, stop))))
    table.delete("id = 40")
    return scan(table), pl.from_arrow(data).filter(pl.col("id") != 40)  # type: ignore[union-attr]


def same(wide: tuple[Any, Any], condition: Any) -> None:
    lazy, native = wide
    found = lazy.filter(condition).select("id").collect()["id"].to_list()
    assert found == native.filter(condition)["id"].to_list(), str(condition)


@pytest.mark.parametrize("name", COMPARED)
def test_each_comparison_finds_what_polars_does(wide: tuple[Any, Any], name: str) -> None:
    column = pl.col(name)
    for constant in COMPARED[name]:
        tests = [
            column == constant,
            column != constant,
            column < constant,
            column <= constant,
            column > constant,
            column >= constant,
        ]
        for test in [*tests, constant < column, column.eq_missing(constant), column.ne_missing(constant)]:
            same(wide, test)
            same(wide, ~test)


@pytest.mark.parametrize("name", COMPARED)
def test_each_list_range_and_null_finds_what_polars_does(wide: tuple[Any, Any], name: str) -> None:
    column, constants = pl.col(name), COMPARED[name]
    alike = [value for value in constants if type(value) is type(constants[0])]
    tests = [
        column.is_in(alike),
        column.is_in([*alike, None]),
        column.is_in([*alike, None], nulls_equal=True),
        column.is_null(),
    ]
    tests += [
        column.is_between(pl.lit(alike[0]), pl.lit(alike[-1]), closed=closed)
        for closed in ("both", "left", "right", "none")
    ]
    for test in tests:
        same(wide, test)
        same(wide, ~test)


@pytest.mark.parametrize(
    "condition",
    [
        "pl.col('b')", "~pl.col('b')", "pl.col('b') & pl.col('f').is_nan()", "pl.col('s').str.starts_with('a')",
        "~pl.col('s').str.contains('a|b')", "pl.col('st').struct.field('a') > 1", "pl.col('f') > pl.col('g')",
        "(pl.col('i') > 1) ^ (pl.col('u') > 1)", "pl.col('x') >= pl.lit('1.25').cast(pl.Decimal(10, 2))",
        "~((pl.col('i') > 1) | (pl.col('s').str.to_uppercase() == 'A'))", "(pl.col('i') > 1) | (pl.col('s').str.to_uppercase() == 'A')",
        "pl.col('i').cast(pl.Float32) > 1.5", "pl.lit(True)", "pl.lit(None, dtype=pl.Boolean)", "pl.col('i') > pl.col('i').mean()",
        "pl.col('h') > 3", "(pl.col('i') > 0).fill_null(True)", "pl.when(pl.col('b')).then(pl.col('i') > 0).otherwise(pl.col('f') > 0)",
    ],
)  # fmt: skip
def test_other_conditions_find_what_polars_does(wide: tuple[Any, Any], condition: str) -> None:
    same(wide, eval(condition, {"pl": pl}))


def conditions() -> st.SearchStrategy[Any]:
    def atom(name: str) -> st.SearchStrategy[Any]:
        column, constant = pl.col(name), st.sampled_from(COMPARED[name])
        return st.one_of(
            constant.map(lambda c: column > c), constant.map(lambda c: column <= c), constant.map(lambda c: column == c),
            st.just(column.is_not_null()), constant.map(lambda c: column.is_in([c])),
        )  # fmt: skip

    return st.recursive(
        st.sampled_from(["i", "f", "g", "s"]).flatmap(atom),
        lambda inner: st.one_of(
            st.builds(lambda a, b: a & b, inner, inner),
            st.builds(lambda a, b: a | b, inner, inner),
            inner.map(lambda a: ~a),
        ),
        max_leaves=6,
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(condition=conditions())
def test_any_condition_finds_what_polars_does(wide: tuple[Any, Any], condition: Any) -> None:
    same(wide, condition)


PUSHED = [
    (pl.col("i") > 3, "(i > 3)"),
    ((pl.col("i") > 3) & (pl.col("s").str.to_uppercase() == "A"), "(i > 3)"),
    ((pl.col("i") > 3) | (pl.col("s").str.to_uppercase() == "A"), None),
    (
        ~pl.col("s").is_in(["a", None]),
        'invert(is_in(s, {value_set=string:[\n  "a"\n], null_matching_behavior=MATCH}))',
    ),
    (pl.col("s").is_null(), "is_null(s, {nan_is_null=false})"),
    (pl.col("s").str.to_uppercase() == "A", None),
]


@pytest.mark.parametrize(("condition", "expected"), PUSHED, ids=lambda value: str(value)[:40])
def test_what_a_condition_is_pushed_as(condition: Any, expected: str | None) -> None:
    schema = pl.Schema({"i": pl.Int64, "s": pl.String})
    found = pushed(condition, schema)
    assert (None if found is None else str(found)) == expected


# --- versions and types ---


def test_a_frame_stays_at_its_version(items: vl.Table) -> None:
    frame = scan(items)
    items.tag("v1")
    items.delete("id < 5")
    items.add_column("total", "price * 2")
    assert frame.collect().shape == (20, 4)
    assert scan(items).collect().shape == (15, 5)
    assert scan(items, version="v1").collect().height == scan(items, version=2).collect().height == 20
    assert scan(items, columns=["id"], filter="total > 18", with_row_id=True).collect().rows() == [(19, 19)]
    by_uri = vectorlake_polars.scan_vectorlake(items.uri, version=1)
    assert by_uri.collect()["id"].to_list() == list(range(10))
    with pytest.raises(NotFoundError, match="has no version 9"):
        scan(items, version=9)


@pytest.mark.parametrize("name", list(columns()))
def test_every_type_goes_through_and_back(name: str) -> None:
    array = columns()[name]
    if pa.types.is_fixed_size_list(array.type) and pa.types.is_floating(array.type.value_type):
        # Without the vectors that tables refuse.
        values = [
            None if r is None or any(x is None or x - x != 0 for x in r) else r for r in array.to_pylist()
        ]
        array = pa.array(values, array.type)
    lake = vl.connect(f"memory://polars-type-{name}")
    table = lake.create_table("t.c", pa.table({"n": range(len(array)), "c": array}))
    if name == "decimal256":
        with pytest.raises(UnsupportedError, match=r"no type for column 'c', which is decimal256\(70, 3\)"):
            scan(table)
        assert scan(table, columns=["n"]).collect().height == len(array)
        return
    frame = scan(table).collect()
    assert_frame_equal(frame, pl.from_arrow(table.scan().to_dataset().to_table()))
    assert scan(table).collect_schema() == frame.schema
    again = vectorlake_polars.create_table(scan(table), lake, "t.again")
    assert_frame_equal(scan(again).collect(), frame)
    if pa.types.is_fixed_size_list(array.type):
        assert again.schema.field("c").type.list_size == array.type.list_size


def test_extension_types_show_as_what_they_are_stored_as(lake: vl.Lake) -> None:
    table = lake.create_table(
        "ns.x", pa.schema({"t": vl.text(), "b": vl.blob(), "u": pa.uuid(), "v": vl.vector(2, "f16")})
    )
    storage = {"t": pa.string(), "b": pa.large_binary(), "u": pa.binary(16), "v": pa.list_(pa.float16(), 2)}
    values = {"t": ["a"], "b": [b"x"], "u": [b"0123456789abcdef"], "v": [[1.0, 2.0]]}
    table.append(pa.table({name: pa.array(values[name], kind) for name, kind in storage.items()}))
    assert scan(table).collect().rows() == [("a", b"x", b"0123456789abcdef", [1.0, 2.0])]


# --- searching ---


@pytest.mark.parametrize("lazy", [False, True])
def test_join_is_knn(items: vl.Table, *, lazy: bool) -> None:
    queries = pl.DataFrame(
        {"id": [7, 8, 9], "vec": [[0.0, 0.0], None, [9.2, 9.1]]},
        schema_overrides={"vec": pl.Array(pl.Float32, 2)},
    )
    given_frame = queries.lazy() if lazy else queries
    joined = vectorlake_polars.knn_join(given_frame, items, 3, filter="id <> 9", metric="l2")
    found = joined.collect() if lazy else joined
    assert found.columns == ["id", "vec", "rank", "row_id", "distance", "id_1", "name", "price"]
    direct = items.knn(queries["vec"].to_arrow(), k=3, filter="id <> 9", columns=["id", "name", "price"])
    assert found["id"].to_list() == [7, 7, 7, 9, 9, 9]  # the null query has no matches
    for ours, theirs in (
        ("rank", "rank"),
        ("row_id", "row_id"),
        ("distance", "distance"),
        ("id_1", "id"),
        ("name", "name"),
    ):
        assert found[ours].to_list() == direct[theirs].to_pylist()
    if lazy:
        assert joined.collect_schema() == found.schema


def test_a_lazy_join_is_filtered_after_it_and_stays_at_its_version(items: vl.Table) -> None:
    queries = scan(items).filter(pl.col("id") < 3).select("id", "vec")
    joined = vectorlake_polars.knn_join(queries, items, 2, columns=["name"])
    items.delete("id >= 0")
    assert joined.filter(pl.col("rank") == 0).select("name").collect()["name"].to_list() == ["n0", "n1", "n2"]
    assert joined.head(3).collect()["rank"].to_list() == [0, 1, 0]


def test_knn_takes_series_and_arrays(items: vl.Table) -> None:
    direct = items.knn([[3.0, 4.0]], k=2, columns=["name"])
    for queries in (
        np.array([3.0, 4.0]),
        pl.Series([[3.0, 4.0]]),
        pl.Series([[3.0, 4.0]], dtype=pl.Array(pl.Float64, 2)),
    ):
        assert_frame_equal(vectorlake_polars.knn(items, queries, 2, columns=["name"]), pl.from_arrow(direct))


def test_searches_say_what_is_wrong(items: vl.Table) -> None:
    frame = pl.DataFrame({"vec": [[1.0, 2.0, 3.0]]}, schema_overrides={"vec": pl.Array(pl.Float32, 3)})
    with pytest.raises(InvalidInputError, match="dimension 3"):
        vectorlake_polars.knn_join(frame, items)
    with pytest.raises(NotFoundError, match=r"no column 'vek'.*did you mean 'vec'"):
        vectorlake_polars.knn_join(frame.lazy(), items, vec="vek")
    with pytest.raises(InvalidInputError, match="there is no column 'prise'"):
        vectorlake_polars.knn_join(frame.lazy(), items, filter="prise > 3")
    with pytest.raises(NotFoundError, match="did you mean 'name'"):
        vectorlake_polars.knn_join(frame.lazy(), items, columns=["nam"])
    with pytest.raises(InvalidInputError, match="the queries have dimension 3"):
        vectorlake_polars.knn_join(frame.lazy(), items).collect()


# --- writing ---


@pytest.mark.parametrize("lazy", [False, True])
def test_write_in_every_mode(lake: vl.Lake, items: vl.Table, *, lazy: bool) -> None:
    source = scan(items) if lazy else scan(items).collect()
    made = vectorlake_polars.create_table(source.filter(pl.col("id") < 4), lake, "ns.new", primary_key=["id"])
    assert (len(made), made.snapshot.primary_key) == (4, (1,))
    assert made.schema.field("name").type == pa.string()
    assert made.schema.field("vec").type == items.schema.field("vec").type
    changed = source.filter(pl.col("id").is_between(3, 5)).with_columns(name=pl.lit("changed"))
    assert len(vectorlake_polars.write(changed, lake, "ns.new", mode="upsert")) == 6
    assert len(vectorlake_polars.write(source.filter(pl.col("id") == 9).select("id"), lake, "ns.new")) == 7
    replaced = vectorlake_polars.write(source.head(2), lake, "ns.new", mode="overwrite")
    assert (replaced.version, replaced.to_arrow()["id"].to_pylist()) == (4, [0, 1])


def test_a_lazy_frame_of_many_batches_is_written_in_order(lake: vl.Lake) -> None:
    big = lake.create_table("ns.big", {"id": np.arange(300_000)})
    again = vectorlake_polars.create_table(scan(big).filter(pl.col("id") % 3 == 0), lake, "ns.again")
    assert again.to_arrow()["id"].to_numpy().tolist() == list(range(0, 300_000, 3))


def test_failures_write_nothing(lake: vl.Lake, items: vl.Table) -> None:
    broken = scan(items).with_columns(id=pl.col("name").str.to_integer())
    for mode, name in (("append", "ns.items"), ("create", "ns.new")):
        with pytest.raises((pl.exceptions.PolarsError, OSError, vl.VectorlakeError), match="parsing failed"):
            vectorlake_polars.write(broken, lake, name, mode=mode)
    with pytest.raises(InvalidInputError, match=r"no column 'nam'.*did you mean 'name'"):
        vectorlake_polars.write(pl.DataFrame({"nam": ["a"]}), lake, "ns.items")
    with pytest.raises(InvalidInputError, match="mode must be"):
        vectorlake_polars.write(broken, lake, "ns.items", mode="insert")
    with pytest.raises(AlreadyExistsError):
        vectorlake_polars.create_table(scan(items), lake, "ns.items")
    assert lake.tables() == ["ns.items"]
    assert len(items.refresh()) == 20


def test_all_values_are_covered() -> None:
    assert set(COMPARED) <= set(VALUES)
