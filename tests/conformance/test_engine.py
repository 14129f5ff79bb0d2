"""What every engine promises, for each of them: the same rows, row ids, order and distances as the library's own.

An adapter in `tests/engines` says what its engine lacks, and why; whatever else fails is a fault.
"""

from __future__ import annotations

import datetime as dt
import decimal
import importlib
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from engine import ENGINES, Capability, Engine, started

import vectorlake as vl

for module in sorted((pathlib.Path(__file__).parents[1] / "engines").glob("on_*.py")):
    importlib.import_module(module.stem)

SLOW = {"spark", "ray", "daft"}
"""Engines that start a process or a machine of their own."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in ENGINES],
)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = started(request.param)
    yield made
    made.stop()


@pytest.fixture
def lake(tmp_path: pathlib.Path) -> vl.Lake:
    return vl.connect(tmp_path / "lake")


DIMENSION = 8


def sample(count: int, start: int = 0) -> pa.Table:
    ids = np.arange(start, start + count)
    rng = np.random.default_rng(start)
    vectors = rng.standard_normal((count, DIMENSION)).astype("f4")
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "name": pa.array([None if i % 7 == 3 else f"item {i % 10}" for i in ids], pa.string()),
            "price": pa.array([None if i % 11 == 5 else float(i % 50) / 4 for i in ids], pa.float64()),
            "vec": pa.FixedSizeListArray.from_arrays(vectors.ravel(), DIMENSION),
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Three fragments with deleted rows, updated rows, a null vector and a column that came later."""
    folder = tmp_path_factory.mktemp("made") / "lake"
    table = vl.connect(folder).create_table("ns.items", sample(40), primary_key=["id"])
    table.append(sample(40, 40))
    table.tag("two")
    vector = pa.array([None], pa.list_(pa.float32(), DIMENSION))
    table.append({"id": [80], "name": ["none"], "price": [1.0], "vec": vector})
    table.delete("id % 9 = 4")
    table.add_column("stock", type=pa.int32())
    table.append(sample(20, 81).append_column("stock", pa.array(range(20), pa.int32())))
    table.update({"price": "price + 100"}, where="id < 5")
    return folder


@pytest.fixture
def items(made: pathlib.Path, lake: vl.Lake, tmp_path: pathlib.Path) -> vl.Table:
    """A copy of what was made once."""
    shutil.copytree(made, tmp_path / "lake", dirs_exist_ok=True)
    return lake.table("ns.items")


def need(engine: Engine, *capabilities: Capability) -> None:
    for capability in capabilities:
        if capability in engine.lacks:
            pytest.skip(f"{engine.name} lacks what {capability}: {engine.lacks[capability]}")


def same(engine: Engine, found: pa.Table, expected: pa.Table, *, key: str = "id") -> None:
    """The same columns and rows, bit for bit, once both have the expected types; in the same order where it is kept."""
    assert found.column_names == expected.column_names
    plain = pa.schema([field.with_type(storage(field.type)) for field in expected.schema])
    left, right = as_type(found, plain), as_type(expected, plain)
    if Capability.ORDER in engine.lacks:
        left, right = left.sort_by(key), right.sort_by(key)
    assert left.num_rows == right.num_rows
    for name in plain.names:
        assert left[name].combine_chunks().equals(right[name].combine_chunks()), name


def storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def as_type(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for name, field in zip(table.column_names, schema, strict=True):
        column = table[name].combine_chunks()
        column = column.storage if isinstance(column, pa.ExtensionArray) else column
        columns.append(column.cast(field.type))
    return pa.Table.from_arrays(columns, names=schema.names)


# --- reading ---


@pytest.mark.parametrize("columns", [None, ["name"], ["vec", "id"], ["stock", "price"]], ids=str)
def test_reads_columns(engine: Engine, items: vl.Table, columns: list[str] | None) -> None:
    wanted = items.schema.names if columns is None else columns
    wanted = wanted if "id" in wanted else [*wanted, "id"]
    same(engine, engine.read(items, columns=wanted), items.scan(wanted).to_arrow())


@pytest.mark.parametrize(
    "filter",
    [
        "id = 17",
        "id IN (1, 50, 90, 1000)",
        "id BETWEEN 30 AND 50 AND price > 3",
        "price IS NULL",
        "name IS NOT NULL AND NOT (id < 60)",
        "price < 2 OR id >= 95",
        "name LIKE 'item 1%'",
        "stock > 5",
        "name = 'it''s'",
        "price + 1 > 100",
        "id < 0",
    ],
)
def test_filters_as_the_library_does(engine: Engine, items: vl.Table, filter: str) -> None:
    found = engine.read(items, columns=["id", "name", "vec"], filter=filter)
    same(engine, found, items.scan(["id", "name", "vec"], filter).to_arrow())


def test_counts(engine: Engine, items: vl.Table) -> None:
    assert engine.read(items, columns=["id"]).num_rows == items.count()
    assert engine.read(items, columns=["id"], filter="price IS NULL").num_rows == items.count("price IS NULL")


def test_row_ids_are_the_table_s(engine: Engine, items: vl.Table) -> None:
    need(engine, Capability.ROW_IDS)
    found = engine.read(items, columns=["id"], with_row_id=True)
    same(engine, found, items.scan(["id"], with_row_id=True).to_arrow())


@pytest.mark.parametrize("version", [1, 2, "two"])
def test_reads_versions_with_their_columns(engine: Engine, items: vl.Table, version: int | str) -> None:
    pinned = items.at(version)
    same(
        engine,
        engine.read(items, columns=["id", "price"], version=version),
        pinned.scan(["id", "price"]).to_arrow(),
    )
    assert "stock" not in pinned.schema.names


def test_reads_branches(engine: Engine, items: vl.Table) -> None:
    need(engine, Capability.BRANCHES)
    branch = items.branch("dev")
    branch.delete("id > 3")
    found = engine.read(items, columns=["id"], version="dev")
    same(engine, found, branch.scan(["id"]).to_arrow())


def test_an_empty_table_reads_as_no_rows(engine: Engine, lake: vl.Lake) -> None:
    table = lake.create_table("ns.empty", sample(0).schema)
    found = engine.read(table)
    assert (found.num_rows, found.column_names) == (0, table.schema.names)


def test_schema_evolution_shows(engine: Engine, items: vl.Table) -> None:
    items.rename_column("price", "cost")
    items.drop_column("name")
    items.add_column("double", "id * 2")
    found = engine.read(items, columns=["id", "cost", "double"])
    same(engine, found, items.scan(["id", "cost", "double"]).to_arrow())


def test_compaction_changes_no_answer(engine: Engine, items: vl.Table) -> None:
    need(engine, Capability.ROW_IDS)
    before = engine.read(items, columns=["id", "vec"], with_row_id=True)
    items.compact()
    same(engine, engine.read(items, columns=["id", "vec"], with_row_id=True), before)


UTC = dt.UTC
TYPES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "i8": (pa.int8(), [-128, None, 127]),
    "i16": (pa.int16(), [-(2**15), None, 2**15 - 1]),
    "i32": (pa.int32(), [-(2**31), None, 2**31 - 1]),
    "i64": (pa.int64(), [-(2**63), None, 2**63 - 1]),
    "u8": (pa.uint8(), [0, None, 255]),
    "u32": (pa.uint32(), [0, None, 2**32 - 1]),
    "u64": (pa.uint64(), [0, None, 2**64 - 1]),
    "f16": (pa.float16(), [np.float16(1.5), None, np.float16(-0.0)]),
    "f32": (pa.float32(), [1.5, None, float("inf")]),
    "f64": (pa.float64(), [1e300, None, -0.0]),
    "bool": (pa.bool_(), [True, None, False]),
    "dec": (pa.decimal128(20, 3), [decimal.Decimal("12345.678"), None, decimal.Decimal("-0.001")]),
    "dec256": (pa.decimal256(50, 2), [decimal.Decimal("1" * 45 + ".25"), None, decimal.Decimal(0)]),
    "str": (pa.string(), ["é", None, ""]),
    "lstr": (pa.large_string(), ["x" * 100, None, ""]),
    "bin": (pa.binary(), [b"\0\1", None, b""]),
    "date": (pa.date32(), [dt.date(2024, 2, 29), None, dt.date(1960, 1, 1)]),
    "time": (pa.time64("us"), [dt.time(23, 59, 59, 999999), None, dt.time(0)]),
    "ts": (pa.timestamp("us"), [dt.datetime(2024, 1, 2, 3, 4, 5, 6), None, dt.datetime(1960, 1, 1)]),
    "tsz": (pa.timestamp("us", "UTC"), [dt.datetime(2024, 1, 2, tzinfo=UTC), None, dt.datetime(1960, 1, 1, tzinfo=UTC)]),
    "dur": (pa.duration("us"), [dt.timedelta(microseconds=7), None, dt.timedelta(days=-1)]),
    "list": (pa.list_(pa.int32()), [[1, None], None, []]),
    "struct": (pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))]), [{"x": 1, "y": ["q", None]}, None, {"x": None, "y": []}]),
    "map": (pa.map_(pa.string(), pa.float64()), [[("k", 1.0)], None, []]),
    "v32": (vl.vector(3), [[1.0, 2.0, 3.0], None, [0.1, 0.2, 0.3]]),
    "v16": (vl.vector(3, "f16"), [[1.0, 2.0, 3.0], None, [0.5, 0.25, -1.0]]),
    "v8": (vl.vector(3, "int8"), [[1, -2, 3], None, [-128, 127, 0]]),
    "mv": (vl.multivector(2), [[[1.0, 2.0], [3.0, 4.0]], None, [[0.5, 0.5]]]),
    "text": (vl.text(), ["words", None, ""]),
    "blob": (vl.blob(), [b"\xff" * 50, None, b""]),
    "uuid": (pa.uuid(), [b"u" * 16, None, b"\0" * 16]),
}  # fmt: skip


def typed(name: str) -> pa.Array:
    kind, values = TYPES[name]
    plain = storage(kind)
    array = pa.array(values, plain)
    return array if plain == kind else pa.ExtensionArray.from_storage(kind, array)


def test_reads_every_type_with_nulls(engine: Engine, lake: vl.Lake) -> None:
    held = {name: typed(name) for name in TYPES if name not in engine.unheld}
    table = lake.create_table("ns.typed", pa.table({"id": pa.array(range(3), pa.int64()), **held}))
    same(engine, engine.read(table, columns=["id", *held]), table.to_arrow())


# --- SQL ---


def test_sql_joins_and_aggregates(engine: Engine, lake: vl.Lake, items: vl.Table) -> None:
    need(engine, Capability.SQL)
    lake.create_table("ns.groups", {"name": [f"item {i}" for i in range(5)], "label": list("abcde")})
    found = engine.sql(
        lake,
        "SELECT g.label AS label, count(*) AS n, sum(i.id) AS total FROM lake.ns.items AS i "
        "JOIN lake.ns.groups AS g ON i.name = g.name WHERE i.id > 10 GROUP BY g.label ORDER BY g.label",
    )
    rows = items.scan(["id", "name"], "id > 10").to_arrow().to_pylist()
    expected = [
        {"label": label, "n": len(ids), "total": sum(ids)}
        for number, label in enumerate("abcde")
        if (ids := [row["id"] for row in rows if row["name"] == f"item {number}"])
    ]
    assert [
        {k: int(v) if k != "label" else v for k, v in row.items()} for row in found.to_pylist()
    ] == expected


# --- writing ---


def test_writes_create_append_and_overwrite(engine: Engine, lake: vl.Lake) -> None:
    need(engine, Capability.WRITE)
    first, second = sample(30), sample(10, 30)
    engine.write(lake, "ns.new", first, mode="create")
    table = lake.table("ns.new")
    same(engine, sorted_by_id(table), first)
    assert pa.types.is_fixed_size_list(storage(table.schema.field("vec").type))
    version = table.version
    engine.write(lake, "ns.new", second, mode="append")
    table.refresh()
    assert table.version == version + 1, "one commit"
    same(engine, sorted_by_id(table), pa.concat_tables([first, second]))
    engine.write(lake, "ns.new", second, mode="overwrite")
    same(engine, sorted_by_id(table.refresh()), second)
    assert table.verify() == []


def test_writes_with_a_primary_key_and_upserts(engine: Engine, lake: vl.Lake) -> None:
    need(engine, Capability.WRITE)
    engine.write(lake, "ns.keyed", sample(20), mode="create", primary_key=["id"])
    table = lake.table("ns.keyed")
    assert [table.snapshot.schema.field("id").id] == list(table.snapshot.primary_key)
    with pytest.raises(Exception, match="primary keys"):
        engine.write(lake, "ns.keyed", sample(5), mode="append")
    assert table.refresh().count() == 20
    need(engine, Capability.UPSERT)
    changed = sample(10, 15).set_column(1, "name", pa.array(["changed"] * 10))
    engine.write(lake, "ns.keyed", changed, mode="upsert")
    same(engine, sorted_by_id(table.refresh()), pa.concat_tables([sample(15), changed]))


def test_a_write_that_does_not_fit_says_why_and_writes_nothing(
    engine: Engine, items: vl.Table, lake: vl.Lake
) -> None:
    need(engine, Capability.WRITE)
    version, rows = items.version, items.count()
    with pytest.raises(Exception, match="no column 'nmae'"):
        engine.write(
            lake, "ns.items", sample(2, 500).rename_columns(["id", "nmae", "price", "vec"]), mode="append"
        )
    short = pa.FixedSizeListArray.from_arrays(pa.array([0.0] * 6, pa.float32()), 3)
    with pytest.raises(Exception, match="vec"):
        engine.write(lake, "ns.items", sample(2, 500).set_column(3, "vec", short), mode="append")
    items.refresh()
    assert (items.version, items.count()) == (version, rows)


def sorted_by_id(table: vl.Table) -> pa.Table:
    return table.to_arrow().sort_by("id")


# --- nearest neighbours ---


def queries(count: int = 4, *, missing: bool = False) -> pa.Array:
    vectors = np.random.default_rng(99).standard_normal((count, DIMENSION)).astype("f4")
    rows: list[list[float] | None] = vectors.tolist()
    if missing:
        rows[1] = None
    return pa.array(rows, pa.list_(pa.float32(), DIMENSION))


MATCHES = ["query", "rank", "row_id", "distance"]


def matches(found: pa.Table) -> list[tuple[int, int, int, bytes]]:
    """The matches in order, distances as their bits."""
    ordered = found.select(MATCHES).sort_by([("query", "ascending"), ("rank", "ascending")])
    distances = np.asarray(ordered["distance"].cast(pa.float64()))
    return [
        (int(row["query"]), int(row["rank"]), int(row["row_id"]), distance.tobytes())
        for row, distance in zip(ordered.to_pylist(), distances, strict=True)
    ]


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("filter", [None, "price > 3 AND name IS NOT NULL"])
def test_finds_the_same_neighbours(engine: Engine, items: vl.Table, metric: str, filter: str | None) -> None:
    options = {"column": "vec", "metric": metric} | ({} if filter is None else {"filter": filter})
    expected = items.knn(queries(), k=5, **options)
    assert expected.num_rows == 20
    assert matches(engine.knn(items, queries(), 5, **options)) == matches(expected)


def test_a_null_query_has_no_matches(engine: Engine, items: vl.Table) -> None:
    need(engine, Capability.NULL_QUERIES)
    found = engine.knn(items, queries(missing=True), 3, column="vec", metric="l2")
    whole = items.knn(queries(), k=3, column="vec", metric="l2")
    expected = whole.filter(pc.not_equal(whole["query"], 1))
    assert matches(found) == matches(expected)


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_finds_the_same_by_an_index(engine: Engine, items: vl.Table, kind: str) -> None:
    items.create_index("vec", kind, name="by_vec", metric="l2")
    items.append(sample(5, 200).append_column("stock", pa.nulls(5, pa.int32())))
    options = {"column": "vec", "mode": "index", "index": "by_vec"}
    expected = items.knn(queries(), k=4, **options)
    assert matches(engine.knn(items, queries(), 4, **options)) == matches(expected)


def test_a_query_of_another_dimension_says_so(engine: Engine, items: vl.Table) -> None:
    short = pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))
    with pytest.raises(Exception, match=r"dimension|\b8\b"):
        engine.knn(items, short, 3, column="vec")


# --- metadata ---


@pytest.mark.parametrize("name", ["snapshots", "files", "fragments", "refs"])
def test_metadata_tables_are_the_library_s(engine: Engine, items: vl.Table, name: str) -> None:
    need(engine, Capability.METADATA)
    expected: pa.Table = getattr(items, name)()
    found = engine.metadata(items, name)
    assert set(expected.column_names) <= set(found.column_names)
    assert found.num_rows == expected.num_rows
    first = expected.column_names[0]
    assert sorted(map(str, found[first].to_pylist())) == sorted(map(str, expected[first].to_pylist()))
