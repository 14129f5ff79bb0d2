"""Tables as Daft frames: the same rows as the core's, with what Daft pushes down applied by the table's own planner."""

from __future__ import annotations

import datetime as dt
import math
import pickle
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import vectorlake as vl
from vectorlake.errors import InvalidInputError, NotFoundError

daft = pytest.importorskip("daft")

import vectorlake_daft  # noqa: E402
from daft import col, lit  # noqa: E402
from daft.io.pushdowns import Pushdowns  # noqa: E402
from vectorlake_daft._filter import pushed_filter  # noqa: E402
from vectorlake_daft._read import TableSource  # noqa: E402
from vectorlake_daft._types import shown_schema  # noqa: E402

NAN = float("nan")


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    return vl.connect(tmp_path / "lake")


@pytest.fixture
def items(lake: vl.Lake) -> vl.Table:
    table = lake.create_table("ns.items", _rows(0, 300))
    table.append(_rows(300, 500))
    return table


def _rows(start: int, stop: int) -> dict[str, object]:
    ids = np.arange(start, stop)
    return {
        "vec": np.stack([ids, -ids], axis=1).astype("f4"),
        "id": ids,
        "name": [f"n{i}" for i in ids],
        "price": ids / 8,
    }


def test_the_rows_and_their_order(items: vl.Table) -> None:
    items.delete("id % 7 = 0")
    found = vectorlake_daft.read(items).to_arrow()
    expected = items.to_arrow()
    assert found["id"].to_pylist() == expected["id"].to_pylist()
    assert found["vec"].to_pylist() == expected["vec"].to_pylist()
    assert found.schema.field("vec").type == pa.list_(pa.float32(), 2)


def test_columns_filter_and_row_ids(items: vl.Table) -> None:
    frame = vectorlake_daft.read(items, ["name", "id"], "id BETWEEN 298 AND 301", with_row_id=True)
    assert frame.column_names == ["name", "id", "_row_id"]
    expected = {
        "name": ["n298", "n299", "n300", "n301"],
        "id": [*range(298, 302)],
        "_row_id": [*range(298, 302)],
    }
    assert frame.to_pydict() == expected
    with pytest.raises(NotFoundError, match="did you mean 'name'"):
        vectorlake_daft.read(items, ["nam"])
    with pytest.raises(InvalidInputError, match="vectorlake table or the URI"):
        vectorlake_daft.read(3)  # type: ignore[arg-type]


def test_versions_tags_and_branches_by_uri(items: vl.Table) -> None:
    items.tag("v1")
    branch = items.branch("dev")
    branch.append(_rows(900, 901))
    frame = vectorlake_daft.read(items)
    items.delete("id >= 0")
    assert frame.count_rows() == 500, "the version is pinned when the frame is made"
    counts = {
        version: vectorlake_daft.read(items.uri, version=version).count_rows() for version in (1, "v1", "dev")
    }
    assert counts == {1: 300, "v1": 500, "dev": 501}
    assert vectorlake_daft.read(items.uri).count_rows() == 0
    with pytest.raises(NotFoundError, match="v2"):
        vectorlake_daft.read(items, version="v2")


def test_columns_of_a_filter_alone_are_read_too(items: vl.Table) -> None:
    frame = vectorlake_daft.read(items).where(col("id") == 7).select("name")
    assert frame.to_pydict() == {"name": ["n7"]}


def test_a_struct_field_in_a_filter_which_dafts_own_visitor_refuses(lake: vl.Lake) -> None:
    rows = pa.table({"id": [1, 2], "s": pa.array([{"a": 1}, {"a": 2}]), "t": ["x", "y"]})
    frame = vectorlake_daft.read(lake.create_table("ns.s", rows))
    assert frame.where(col("s").get("a") > 1).select("t").to_pydict() == {"t": ["y"]}


def test_no_columns_are_rows_all_the_same(items: vl.Table) -> None:
    frame = vectorlake_daft.read(items)
    assert frame.select(lit(1).alias("one")).count_rows() == 500
    assert frame.select(lit(1).alias("one")).limit(2).to_pydict() == {"one": [1, 1]}


def test_counts_come_from_the_metadata(items: vl.Table) -> None:
    items.delete("id < 10")
    for info in list(items.store.list("data")):
        items.store.delete([info.path])
    fresh = vl.open_table(items.uri)
    assert vectorlake_daft.read(fresh).count_rows() == 490
    assert vectorlake_daft.read(fresh).count().to_pydict() == {"count": [490]}


def test_counts_with_filters_and_of_columns(items: vl.Table) -> None:
    frame = vectorlake_daft.read(items, filter="id < 100")
    assert frame.count_rows() == 100
    assert frame.where(col("id") >= 90).count_rows() == 10
    assert frame.agg(col("id").count("null").alias("n")).to_pydict() == {"n": [0]}
    assert frame.limit(7).count_rows() == 7
    assert daft.sql("SELECT count(*) AS c FROM frame WHERE id > 90").to_pydict() == {"c": [9]}


def test_an_empty_table(lake: vl.Lake) -> None:
    frame = vectorlake_daft.read(
        lake.create_table("ns.e", pa.schema({"id": pa.int64(), "vec": vl.vector(2)}))
    )
    assert frame.count_rows() == 0
    assert frame.to_pydict() == {"id": [], "vec": []}


def _tasks(source: TableSource, **pushed: object) -> list:
    return source._tasks(Pushdowns(**pushed))


def test_what_is_pushed_prunes_fragments_and_bounds_the_reading(items: vl.Table) -> None:
    source = TableSource(items)
    (task,) = _tasks(source, filters=col("id") >= 400, columns=["name"])
    assert [r.fragment_id for r in task.split.ranges] == [1]
    assert task.split.columns == ("id", "name")
    assert (task.limit, task.split.predicate is not None) == (None, True)
    assert _tasks(source, filters=col("id") > 1000) == []
    assert _tasks(source, filters=col("id") > 3, limit=5)[0].limit == 5
    assert _tasks(source, limit=5)[0].limit == 5
    # The limit counts rows that Daft keeps: not those of a condition that is true for more.
    assert _tasks(source, filters=col("price") > 0.0, limit=5)[0].limit is None
    assert _tasks(source, filters=col("name").length() > 2, limit=5)[0].limit is None
    part = _tasks(source, filters=(col("name").length() > 2) & (col("id") >= 400))[0]
    assert len(part.split.ranges) == 1


def test_tasks_travel(items: vl.Table) -> None:
    source = pickle.loads(pickle.dumps(TableSource(items, ("id",), "id < 3")))
    (task,) = pickle.loads(pickle.dumps(_tasks(source)))
    assert [row for batch in task._batches() for row in batch["id"].to_pylist()] == [0, 1, 2]


def test_filters_with_limits(items: vl.Table) -> None:
    frame = vectorlake_daft.read(items)
    assert frame.where(col("id") >= 290).limit(20).to_pydict()["id"] == [*range(290, 310)]
    assert frame.limit(5).where(col("id") > 90).count_rows() == 0
    assert frame.offset(5).limit(3).to_pydict()["id"] == [5, 6, 7]


VALUES = pa.table(
    {
        "f": pa.array([1.0, NAN, None, math.inf, -0.0, 0.0, -3.5, 2.0**53]),
        "g": pa.array([1.1, NAN, None, -math.inf, -0.0, 0.0, 2.5, 1e9], pa.float32()),
        "i": pa.array([2**53 + 1, 2**53, None, 0, -5, 7, 2**62, 1]),
        "u": pa.array([2**63 + 1, 5, None, 0, 2**53, 2**53 + 1, 7, 1], pa.uint64()),
        "s": pa.array(["a", "B", None, "", "ab", "ä", "a%", "b"]),
        "b": pa.array([True, False, None, True, False, None, True, False]),
        "d": pa.array([dt.date(2020, 1, day) for day in range(1, 8)] + [None]),
        "t": pa.array([dt.datetime(2020, 1, 1, 0, 0, s) for s in range(7)] + [None], pa.timestamp("us")),
        "n": pa.array([0, 1, 1000, 1001, 1002, 2000, None, 5], pa.timestamp("ns")),
        "z": pa.array([0, 1, 1000, 1001, 1002, 2000, None, 5], pa.timestamp("us", "UTC")),
        "m": pa.array([Decimal(v) / 4 for v in range(7)] + [None], pa.decimal128(10, 2)),
        "x": pa.array([b"a", b"b", None, b"", b"ab", b"c", b"d", b"e"]),
    }
)
NUMBERS = [0, 1, -5, 7, 2**53, 2**53 + 1, 2**62, 0.0, -0.0, 1.1, 2.5, NAN, math.inf, float(2**53)]
CONSTANTS: dict[str, list] = {
    **dict.fromkeys("fgiu", NUMBERS),
    "s": ["a", "b", "", "ä"],
    "b": [True, False],
    "d": [dt.date(2020, 1, 3)],
    "t": [dt.datetime(2020, 1, 1, 0, 0, 3)],
    "n": [dt.datetime(1970, 1, 1, 0, 0, 0, 1)],
    "z": [dt.datetime(1970, 1, 1, 0, 0, 0, 1001, tzinfo=dt.UTC)],
    "m": [1, 0, 1.25, 0.1],
    "x": [b"a", b"b"],
}
OPERATORS = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


@st.composite
def _conditions(draw: st.DrawFn, depth: int = 2) -> daft.Expression:
    if depth and draw(st.booleans()):
        left, right = draw(_conditions(depth=depth - 1)), draw(_conditions(depth=depth - 1))
        return draw(st.sampled_from([left & right, left | right, ~left]))
    name = draw(st.sampled_from(sorted(CONSTANTS)))
    column, constants = col(name), st.sampled_from(CONSTANTS[name])
    kind = draw(st.sampled_from(["compare", "flip", "in", "between", "null", "text", "plain"]))
    if kind == "null":
        return draw(st.sampled_from([column.is_null(), column.not_null()]))
    if kind == "text":
        function = draw(st.sampled_from(["startswith", "endswith", "contains"]))
        return getattr(col("s"), function)(draw(st.sampled_from(["a", "", "ä", "%"])))
    if kind == "plain":
        return col("b")
    if kind == "in" and name != "z":
        return column.is_in(draw(st.lists(constants, min_size=1, max_size=3)))
    if kind == "between" and name != "b":
        return column.between(draw(constants), draw(constants))
    operator = OPERATORS[draw(st.sampled_from(sorted(OPERATORS)))]
    value = lit(draw(constants))
    return operator(value, column) if kind == "flip" else operator(column, value)


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> vl.Table:
    return vl.connect(tmp_path_factory.mktemp("values")).create_table("v", VALUES)


@settings(max_examples=60, deadline=None)
@given(condition=_conditions())
@example(condition=col("i") <= lit(-0.0))
@example(condition=col("i") != lit(-0.0))
@example(condition=~(col("u") > lit(-0.0)))
def test_any_filter_keeps_the_rows_that_daft_keeps(values: vl.Table, condition: daft.Expression) -> None:
    memory = daft.from_arrow(VALUES.append_column("row", pa.array(range(len(VALUES)))))
    try:
        expected = memory.where(condition).to_pydict()["row"]
    except daft.exceptions.DaftCoreException:
        return  # Daft does not compare these types
    found = vectorlake_daft.read(values, with_row_id=True).where(condition).to_pydict()["_row_id"]
    assert found == expected
    source = TableSource(values)
    pushed = pushed_filter(condition, source._filterable(source._shown()), source._accepts)
    if pushed.expression is not None:
        kept = values.scan(["_row_id"], pushed.expression).to_arrow()["_row_id"].to_pylist()
        assert set(expected) <= set(kept)
        assert not pushed.exact or kept == expected


@pytest.mark.parametrize(
    ("condition", "exact"),
    [
        (col("i") > 3, True),
        (col("f") > 3.0, True),
        (col("f") > 0.0, False),
        (~(col("f") == 0.0), None),
        (col("f") == NAN, None),
        (col("i") > 0.5, True),
        (col("i") > -0.0, None),
        (col("i") > float(2**53), None),
        (col("i") > 2**53, True),
        (col("u") > 2**53, None),
        (col("s").startswith("a") | col("b"), True),
        (col("n") > dt.datetime(1970, 1, 1), None),
        (col("m") > 0.1, None),
        (col("i") > col("u"), None),
    ],
)
def test_what_is_pushed(values: vl.Table, condition: daft.Expression, exact: bool | None) -> None:
    source = TableSource(values)
    pushed = pushed_filter(condition, source._filterable(source._shown()), source._accepts)
    if exact is None:
        assert (pushed.expression, pushed.exact) == (None, False)
    else:
        assert pushed.expression is not None
        assert pushed.exact is exact


TYPES = {
    "f16": pa.array(np.array([1, 2], "f2")),
    "dec256": pa.array([Decimal("1.50"), None], pa.decimal256(30, 2)),
    "dec256 wide": pa.array([Decimal("1.50"), None], pa.decimal256(50, 2)),
    "time32": pa.array([5, None], pa.time32("s")),
    "date64": pa.array([86_400_000, None], pa.date64()),
    "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef", None], pa.binary(16))),
    "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", None])),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int32())),
    "f16 vectors": pa.array([np.array([1, 2], "f2"), None], pa.list_(pa.float16(), 2)),
    "int8 vectors": pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
    "multivectors": pa.array([[[1, 2], [3, 4]], None], pa.list_(pa.list_(pa.float32(), 2))),
    "nested": pa.array(
        [{"t": 5, "v": [1, 2]}, None],
        pa.struct([("t", pa.time32("s")), ("v", pa.list_(pa.float32(), 2))]),
    ),
    "times": pa.array([[5], None], pa.list_(pa.time32("s"))),
}
SHOWN = {
    "dec256": [Decimal("1.50"), None],
    "dec256 wide": ["1.50", None],
    "time32": [dt.time(0, 0, 5), None],
    "date64": [dt.datetime(1970, 1, 2), None],
    "uuid": [b"0123456789abcdef", None],
}


@pytest.mark.parametrize("name", TYPES)
def test_types_there_and_back(lake: vl.Lake, name: str) -> None:
    table = lake.create_table("ns.t", pa.table({"x": TYPES[name], "id": [0, 1]}))
    frame = vectorlake_daft.read(table)
    found = frame.to_arrow()["x"].to_pylist()
    assert found == SHOWN.get(name, TYPES[name].to_pylist())
    if name in ("dec256 wide", "time32", "date64", "nested", "times"):
        return  # shown as another type, which the column does not take
    vectorlake_daft.write(frame, table)
    assert table.to_arrow()["x"].to_pylist() == 2 * TYPES[name].to_pylist()


def test_a_filter_on_a_column_that_is_shown_as_another_type(lake: vl.Lake) -> None:
    table = lake.create_table("ns.t", pa.table({"x": TYPES["time32"], "id": [0, 1]}))
    frame = vectorlake_daft.read(table).where(col("x") == lit(dt.time(0, 0, 5)))
    assert frame.to_pydict()["id"] == [0]
    assert shown_schema(table.schema).field("x").type == pa.time64("us")


def test_metadata_tables(items: vl.Table) -> None:
    snapshots = vectorlake_daft.read_metadata(items, "snapshots").to_pydict()
    assert snapshots["version"] == [2, 1]
    assert vectorlake_daft.read_metadata(items, "fragments", version=1).to_pydict()["rows"] == [300]
    assert vectorlake_daft.read_metadata(items, "refs").count_rows() == 1
    assert vectorlake_daft.read_metadata(items, "files").count_rows() == len(items.files())
    with pytest.raises(NotFoundError, match="did you mean 'files'"):
        vectorlake_daft.read_metadata(items, "file")


def test_a_damaged_file_is_named(items: vl.Table) -> None:
    path = next(info.path for info in items.store.list("data"))
    items.store.delete([path])
    with pytest.raises(Exception, match=path):
        vectorlake_daft.read(vl.open_table(items.uri)).to_arrow()
