"""What a table promises, operation by operation."""

from __future__ import annotations

import datetime as dt
import threading
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pytest

import vectorlake as vl
from vectorlake.store.open import open_store
from vectorlake.testing.clocks import ManualClock, SequentialIds


def make_lake(uri: object) -> tuple[vl.Lake, ManualClock]:
    clock = ManualClock(1_000_000)
    return vl.Lake(open_store(str(uri)), clock=clock, new_id=SequentialIds()), clock


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    return vl.connect(tmp_path)


def sample(rows: int = 10, start: int = 0) -> pa.Table:
    ids = np.arange(start, start + rows)
    vectors = np.stack([ids, ids % 3, ids % 5], axis=1).astype(np.float32)
    return pa.table(
        {
            "id": pa.array(ids),
            "name": pa.array([f"n{i}" for i in ids], pa.string()),
            "price": pa.array(ids * 0.5),
            "vec": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 3),
        }
    )


# --- what can be written ---

SOURCES: dict[str, Any] = {
    "table": lambda t: t,
    "record batch": lambda t: t.combine_chunks().to_batches()[0],
    "reader": lambda t: t.to_reader(max_chunksize=3),
    "dataset": lambda t: pa.dataset.dataset(t),
    "pandas": lambda t: pd.DataFrame({"id": t["id"].to_pandas(), "name": t["name"].to_pandas(), "vec": t["vec"].to_pandas()}),
    "polars": lambda t: pl.from_arrow(t),
    "duckdb relation": lambda t: duckdb.from_arrow(t),
    "mapping with a matrix": lambda t: {
        "id": t["id"].to_pylist(), "name": t["name"].to_pylist(), "vec": np.array(t["vec"].to_pylist(), "f4")},
    "rows": lambda t: t.to_pylist(),
    "iterator of batches": lambda t: iter(t.to_batches(max_chunksize=4)),
    "list of batches": lambda t: t.to_batches(max_chunksize=4),
    "columns in another order": lambda t: t.select(["vec", "name", "id"]),
    "views and dictionaries": lambda t: pa.table(
        {"id": t["id"].cast(pa.int32()), "name": t["name"].dictionary_encode(), "vec": t["vec"].cast(pa.list_(pa.float64()))}),
    "a scan of another table": lambda t: vl.connect("memory://").create_table("x", t).scan(),
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_append_takes_anything_tabular(lake: vl.Lake, source: str) -> None:
    data = sample()
    table = lake.create_table("t", data.schema)
    snapshot = table.append(SOURCES[source](data))
    assert (snapshot.version, snapshot.operation, snapshot.summary["added_rows"]) == (2, "append", 10)
    assert table.scan(columns=["id", "name", "vec"]).to_arrow().equals(data.select(["id", "name", "vec"]))


def test_stream_larger_than_a_fragment_is_cut(lake: vl.Lake) -> None:
    table = lake.create_table("t", sample().schema, properties={"write.fragment-rows": "4"})
    table.append(sample(10).to_reader(max_chunksize=3))
    assert [fragment.row_count for fragment in table.view.fragments()] == [4, 4, 2]
    table.append(sample(10, 10))
    assert table.to_arrow()["id"].to_pylist() == list(range(20))


def test_empty_appends_commit_without_files(lake: vl.Lake) -> None:
    table = lake.create_table("t", sample().schema)
    table.append(sample(0))
    assert table.version == 2
    assert list(table.view.fragments()) == []
    assert table.to_arrow().equals(sample(0))


ALL_TYPES = pa.schema(
    [
        ("i8", pa.int8()), ("u64", pa.uint64()), ("f16", pa.float16()), ("b", pa.bool_()), ("dec", pa.decimal128(20, 3)),
        ("s", pa.string()), ("ls", pa.large_string()), ("bin", pa.binary()), ("fsb", pa.binary(4)), ("d32", pa.date32()),
        ("d64", pa.date64()), ("t32", pa.time32("ms")), ("t64", pa.time64("ns")), ("ts", pa.timestamp("ns")),
        ("tsz", pa.timestamp("us", "Europe/Berlin")), ("dur", pa.duration("us")), ("l", pa.list_(pa.int32())),
        ("ll", pa.large_list(pa.string())), ("st", pa.struct([("x", pa.int8()), ("y", pa.list_(pa.string()))])),
        ("m", pa.map_(pa.string(), pa.float64())), ("v16", vl.vector(3, "f16")), ("v8", vl.vector(3, "int8")),
        ("vb", vl.vector(16, "binary")), ("mv", vl.multivector(2)), ("txt", vl.text()), ("blob", vl.blob()), ("geo", vl.geo()),
        ("uuid", pa.uuid()), ("json", pa.json_()), ("tensor", pa.fixed_shape_tensor(pa.float32(), [2, 2])),
    ]
)  # fmt: skip
ROW: dict[str, Any] = {
    "i8": -3, "u64": 2**64 - 1, "f16": 1.5, "b": True, "dec": "12345.678", "s": "é", "ls": "x", "bin": b"\0\1", "fsb": b"abcd",
    "d32": dt.date(2024, 2, 29), "d64": dt.date(1960, 1, 1), "t32": dt.time(1, 2, 3, 4000), "t64": dt.time(23, 59, 59),
    "ts": dt.datetime(2024, 1, 2, 3), "tsz": dt.datetime(2024, 1, 2, 3, tzinfo=dt.UTC), "dur": dt.timedelta(microseconds=7),
    "l": [1, None], "ll": ["a"], "st": {"x": 1, "y": ["q", None]}, "m": [("k", 1.0)], "v16": [1, 2, 3], "v8": [1, -2, 3],
    "vb": [255, 1], "mv": [[1, 2], [3, 4]], "txt": "words", "blob": b"\xff" * 100, "geo": b"\1\2", "uuid": b"u" * 16,
    "json": '{"a": 1}', "tensor": [1.0, 2.0, 3.0, 4.0],
}  # fmt: skip


@pytest.mark.parametrize("scalar_format", ["parquet", "lance", "vortex", "arrow"])
def test_all_types_survive_with_nulls(lake: vl.Lake, scalar_format: str) -> None:
    from decimal import Decimal

    table = lake.create_table("t", ALL_TYPES, properties={"write.scalar-format": scalar_format})
    plain = table.snapshot.schema.to_storage()
    rows = [{**ROW, "dec": Decimal(ROW["dec"])}, dict.fromkeys(ROW), {**ROW, "dec": Decimal("-1.000")}]
    data = pa.Table.from_pylist(rows, schema=plain)
    table.append(data)
    found = table.to_arrow()
    assert found.schema.equals(table.schema)
    for name in plain.names:
        column = found[name].combine_chunks()
        stored = column.storage if isinstance(column.type, pa.BaseExtensionType) else column
        assert stored.equals(data[name].combine_chunks()), name
    assert found.schema.field("uuid").type == pa.uuid()
    assert found.schema.field("tensor").type == ALL_TYPES.field("tensor").type
    assert table.take([2, 0]).num_rows == 2
    assert table.verify() == []


# --- reading ---


def test_scan_projects_filters_limits_and_numbers_rows(lake: vl.Lake) -> None:
    table = lake.create_table("t", sample(100))
    got = table.scan(
        columns=["name", "id"], filter="id >= 10 AND price < 10", limit=4, with_row_id=True
    ).to_arrow()
    assert got.to_pydict() == {
        "name": ["n10", "n11", "n12", "n13"],
        "id": [10, 11, 12, 13],
        "_row_id": [10, 11, 12, 13],
    }
    assert table.scan(filter=(pc.field("id") == 7) | pc.field("name").isin(["n9"])).to_arrow()[
        "id"
    ].to_pylist() == [7, 9]
    assert table.count("_row_id IN (3, 5)") == 2
    assert table.scan(columns=[]).to_arrow().num_rows == 100
    assert [batch.num_rows for batch in table.scan(batch_size=40).to_batches()] == [40, 40, 20]
    assert table.head(3).num_rows == 3
    assert table.head(0).num_rows == 0
    assert len(table.to_pandas()) == table.to_polars().height == 100
    assert pa.table(table.scan(columns=["id"])).num_rows == 100


def test_pruned_fragments_are_not_opened(lake: vl.Lake) -> None:
    table = lake.create_table("t", sample(10))
    for start in (10, 20, 30):
        table.append(sample(10, start))
    assert [fragment.id for fragment in table.view.fragments(table.view.bind("id BETWEEN 12 AND 25"))] == [
        1,
        2,
    ]
    assert [
        fragment.id for fragment in table.view.fragments(table.view.bind("name LIKE 'n3%' AND id > 5"))
    ] == [0, 3]
    assert list(table.view.fragments(table.view.bind("price > 1000"))) == []
    folder = table.store.local_path("")
    assert folder is not None
    for fragment in table.view.fragments(table.view.bind("id < 30")):
        for file in fragment.files:
            (folder / file.path).unlink()
    assert lake.table("t").scan(filter="id >= 30").to_arrow()["id"].to_pylist() == list(range(30, 40))
    assert lake.table("t").count() == 40


def test_take_follows_the_order_given(lake: vl.Lake) -> None:
    table = lake.create_table("t", sample(10))
    table.append(sample(10, 10))
    assert table.take([15, 3, 15, 0], columns=["id"])["id"].to_pylist() == [15, 3, 15, 0]
    assert table.take(pa.array([19]), columns=["vec", "id"]).column_names == ["vec", "id"]
    assert table.take([]).num_rows == 0
    assert table.take(np.array([1, 2]), columns=["_row_id", "_last_updated_version"]).to_pydict() == {
        "_row_id": [1, 2],
        "_last_updated_version": [1, 1],
    }


# --- deletes, versions, tags ---


def test_delete_keeps_row_ids_and_counts(lake: vl.Lake) -> None:
    table = lake.create_table("t", sample(10))
    assert table.delete("id % 2 = 0").summary["deleted_rows"] == 5
    assert table.scan(columns=["_row_id"]).to_arrow()["_row_id"].to_pylist() == [1, 3, 5, 7, 9]
    assert table.delete("id = 4").version == 2, "nothing to delete is no commit"
    table.delete("id < 100")
    assert table.count() == 0
    assert list(table.view.fragments()) == []
    table.append(sample(2))
    assert table.scan(columns=["_row_id"]).to_arrow()["_row_id"].to_pylist() == [10, 11]


def test_time_travel_by_version_time_and_tag(tmp_path: Path) -> None:
    lake, clock = make_lake(tmp_path)
    table = lake.create_table("t", sample(1))
    start = clock()
    for rows in (2, 3):
        clock.advance(10_000)
        table.append(sample(rows))
    assert [table.at(version).count() for version in (1, 2, 3, "2")] == [1, 3, 6, 3]

    def at(ms: int) -> int:
        return table.at(dt.datetime.fromtimestamp(ms / 1000, dt.UTC)).version

    assert [at(start), at(start + 9_999), at(start + 10_000), at(start + 99_000)] == [1, 1, 2, 3]
    with pytest.raises(vl.NotFoundError, match="younger"):
        at(start - 1)
    table.tag("gold", 2)
    assert table.at("gold").version == 2
    assert [(tag.name, tag.version) for tag in table.tags()] == [("gold", 2)]
    with pytest.raises(vl.AlreadyExistsError, match="gold"):
        table.tag("gold")
    table.restore("gold")
    assert (table.version, table.count()) == (4, 3)
    table.delete_tag("gold")
    assert table.tags() == []
    assert [(s.version, s.operation, s.parent) for s in table.history()] == [
        (4, "restore", 3), (3, "append", 2), (2, "append", 1), (1, "create", None)]  # fmt: skip


def test_commit_times_ascend_when_the_clock_steps_back(tmp_path: Path) -> None:
    lake, clock = make_lake(tmp_path)
    table = lake.create_table("t", sample(1))
    clock.advance(-500_000)
    table.append(sample(1))
    times = [snapshot.timestamp_ms for snapshot in reversed(table.history())]
    assert times == sorted(set(times))


def test_row_ids_are_not_reused_after_restore(lake: vl.Lake) -> None:
    table = lake.create_table("t", sample(3))
    table.append(sample(3))
    table.restore(1)
    table.append(sample(1))
    assert table.scan(columns=["_row_id"]).to_arrow()["_row_id"].to_pylist() == [0, 1, 2, 6]


def test_a_reader_keeps_its_snapshot_and_a_handle_moves_on_refresh(lake: vl.Lake) -> None:
    writer = lake.create_table("t", sample(3))
    reader = lake.table("t")
    scan = reader.scan()
    writer.overwrite(sample(5))
    assert (reader.count(), scan.count(), scan.to_arrow().num_rows) == (3, 3, 3)
    assert reader.refresh().count() == 5
    assert scan.to_arrow().num_rows == 3
    assert writer.at(1).refresh().version == 1


# --- schema evolution ---


def test_schema_evolution_touches_no_file_and_older_versions_keep_theirs(lake: vl.Lake) -> None:
    data = pa.table(
        {
            "id": pa.array([1, 2], pa.int32()),
            "s": pa.array([{"a": 1, "b": "x"}, None], pa.struct([("a", pa.int8()), ("b", pa.string())])),
        }
    )
    table = lake.create_table("t", data)
    files = {info.path for info in table.store.list("data")}
    table.add_column("n", type=pa.int16(), default=7)
    table.add_column("s.c", type=pa.string())
    table.rename_column("s.a", "alpha")
    table.alter_column("s.alpha", type=pa.int64())
    table.alter_column("id", type=pa.int64())
    table.drop_column("s.b")
    table.reorder_columns(["n", "s"])
    assert {info.path for info in table.store.list("data")} == files
    assert table.to_arrow().to_pylist() == [
        {"n": 7, "s": {"alpha": 1, "c": None}, "id": 1},
        {"n": 7, "s": None, "id": 2},
    ]
    table.append([{"id": 2**40, "s": {"alpha": 2**50, "c": "new"}}])
    assert table.to_arrow().to_pylist()[2] == {"n": 7, "s": {"alpha": 2**50, "c": "new"}, "id": 2**40}
    assert table.scan(filter="s.alpha > 1 AND n = 7").to_arrow()["id"].to_pylist() == [2**40]
    assert table.at(1).to_arrow().equals(data)


def test_a_dropped_name_can_be_used_again_for_another_column(lake: vl.Lake) -> None:
    table = lake.create_table("t", sample(2))
    table.drop_column("price")
    table.add_column("price", type=pa.string())
    assert table.scan(columns=["price"]).to_arrow()["price"].to_pylist() == [None, None]


def test_nullable_and_required_columns(lake: vl.Lake) -> None:
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("x", pa.int64())])
    table = lake.create_table("t", schema)
    table.append({"id": [1], "x": [1]})
    with pytest.raises(vl.InvalidInputError, match="'id'"):
        table.append({"x": [1]})
    table.alter_column("id", nullable=True)
    table.append({"x": [2]})
    assert table.to_arrow()["id"].to_pylist() == [1, None]


WIDENINGS = [
    (pa.int8(), pa.int64(), [1, None], [1, None]),
    (pa.uint8(), pa.int16(), [255], [255]),
    (pa.int32(), pa.float64(), [5], [5.0]),
    (pa.float32(), pa.float64(), [1.5], [1.5]),
    (pa.decimal128(5, 2), pa.decimal128(9, 2), ["1.25"], ["1.25"]),
    (pa.date32(), pa.timestamp("us"), [dt.date(2024, 1, 1)], [dt.datetime(2024, 1, 1)]),
    (pa.string(), pa.large_string(), ["a"], ["a"]),
    (vl.vector(2, "f16"), vl.vector(2, "f32"), [[1.5, 2.0], None], [[1.5, 2.0], None]),
    (pa.list_(pa.int8()), pa.list_(pa.int32()), [[1, None], []], [[1, None], []]),
]


@pytest.mark.parametrize(("old", "new", "before", "after"), WIDENINGS, ids=lambda v: str(v)[:25])
def test_widening(
    lake: vl.Lake, old: pa.DataType, new: pa.DataType, before: list[Any], after: list[Any]
) -> None:
    table = lake.create_table(
        "t",
        pa.table(
            {
                "x": pa.array(before, pa.string()).cast(old)
                if pa.types.is_decimal(old)
                else pa.array(before, old)
            }
        ),
    )
    table.alter_column("x", type=new)
    got = table.to_arrow()["x"]
    assert got.type == new
    assert (got.cast(pa.string()).to_pylist() if pa.types.is_decimal(new) else got.to_pylist()) == after
    assert table.count("x IS NOT NULL") == len([value for value in after if value is not None])


# --- columns by function ---


def test_add_column_writes_only_its_own_files(lake: vl.Lake) -> None:
    table = lake.create_table("t", sample(100), properties={"write.fragment-rows": "40"})
    table.delete("id IN (3, 50)")
    before = {info.path: info.size for info in table.store.list("data")}
    seen: list[tuple[int, int]] = []
    calls: list[int] = []

    def embed(batch: pa.RecordBatch) -> np.ndarray:
        assert batch.schema.names == ["price"]
        calls.append(batch.num_rows)
        return np.repeat(batch["price"].to_numpy()[:, None], 8, axis=1).astype(np.float32)

    table.add_column(
        "emb", embed, type=vl.vector(8), inputs=["price"], batch_size=25, progress=lambda *at: seen.append(at)
    )
    after = {info.path: info.size for info in table.store.list("data")}
    new = set(after) - set(before)
    assert all(after[path] == size for path, size in before.items())
    assert sum(after[path] for path in new) < 100 * 8 * 4 + 3 * 4096
    assert (seen[0], seen[-1]) == ((0, 100), (100, 100))
    assert sum(calls) == 98
    got = table.scan(columns=["price", "emb"]).to_arrow()
    assert [row["emb"] == [np.float32(row["price"])] * 8 for row in got.to_pylist()] == [True] * 98
    assert {
        file.layout.fields[0].name for f in table.view.fragments() for file in f.files if file.path in new
    } == {"emb"}


def test_backfill_computes_only_what_is_missing(lake: vl.Lake) -> None:
    table = lake.create_table("t", sample(20))
    given: list[int] = []

    def double(batch: pa.RecordBatch) -> pa.Array:
        given.extend(batch["id"].to_pylist())
        return pc.multiply(batch["id"], 2)

    table.add_column("twice", double, type=pa.int64(), inputs=["id"])
    table.append(sample(3, 20))
    given.clear()
    table.backfill_column("twice", double, inputs=["id"])
    assert given == [20, 21, 22]
    assert table.to_arrow()["twice"].to_pylist() == [2 * i for i in range(23)]
    version = table.version
    assert table.backfill_column("twice", double, inputs=["id"]).version == version
    table.append(pa.table({"id": [30, 31], "twice": pa.array([None, 5], pa.int64())}))
    table.backfill_column("twice", double, inputs=["id"])
    assert table.scan(filter="id >= 30").to_arrow()["twice"].to_pylist() == [60, 5]
    table.backfill_column("twice", "id * 3", rows="all")
    assert table.count("twice = id * 3") == 25


def test_a_column_added_while_others_append_and_evolve(lake: vl.Lake) -> None:
    table = lake.create_table("t", sample(5))
    other = lake.table("t")

    def slow(batch: pa.RecordBatch) -> pa.Array:
        other.append(sample(2, 5))
        other.add_column("theirs", type=pa.int64(), default=1)
        other.delete("id = 1")
        return batch["id"]

    table.add_column("mine", slow, type=pa.int64(), inputs=["id"])
    rows = table.scan(columns=["id", "mine", "theirs"]).to_arrow().to_pylist()
    assert rows == [{"id": i, "mine": i if i < 5 else None, "theirs": 1} for i in (0, 2, 3, 4, 5, 6)]


# --- concurrency in one process ---


def test_deletes_of_different_rows_merge(lake: vl.Lake) -> None:
    lake.create_table("t", sample(10))
    first, second = lake.table("t"), lake.table("t")
    first.delete("id < 3")
    assert second.delete("id < 5").summary["deleted_rows"] == 2
    assert second.to_arrow()["id"].to_pylist() == [5, 6, 7, 8, 9]


def test_a_delete_that_meets_an_overwrite_deletes_no_row_that_it_never_saw(lake: vl.Lake) -> None:
    lake.create_table("t", sample(10))
    first, second = lake.table("t"), lake.table("t")
    first.overwrite(sample(3))
    assert second.delete("id < 3").summary["deleted_rows"] == 0
    assert second.count() == 3


def test_threads_append_side_by_side(lake: vl.Lake) -> None:
    lake.create_table("t", sample(0).schema)

    def work(worker: int) -> None:
        table = lake.table("t")
        for step in range(5):
            table.append(sample(3, 100 * worker + 10 * step))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    table = lake.table("t")
    assert table.version == 31
    assert sorted(table.to_arrow()["id"].to_pylist()) == sorted(
        100 * w + 10 * s + i for w in range(6) for s in range(5) for i in range(3)
    )
    row_ids = table.scan(columns=["_row_id"]).to_arrow()["_row_id"].to_pylist()
    assert sorted(row_ids) == list(range(90))


def test_manifests_stay_few(lake: vl.Lake) -> None:
    table = lake.create_table("t", sample(0).schema)
    for step in range(70):
        table.append(sample(1, step))
    assert len(table.snapshot.manifests) <= 21
    assert table.to_arrow()["id"].to_pylist() == list(range(70))


# --- the lake ---


def test_lake_lists_drops_and_names(lake: vl.Lake) -> None:
    lake.create_table("a.b.items", sample(1))
    lake.create_table("plain", sample(1))
    assert lake.tables() == ["a.b.items", "main.plain"]
    assert lake.tables("a.b") == ["a.b.items"]
    assert lake.namespaces() == ["a.b", "main"]
    assert lake.exists("main.plain")
    assert lake.table("main.plain").count() == lake.table("plain").count() == 1
    assert vl.open_table(lake.table("plain").uri).count() == 1
    lake.drop_table("plain")
    assert lake.tables() == ["a.b.items"]
    assert list(lake.store.list("main")) == []
    with pytest.raises(vl.NotFoundError):
        lake.drop_table("plain")


def test_a_table_can_be_moved(tmp_path: Path) -> None:
    vl.connect(tmp_path / "one").create_table("t", sample(5))
    (tmp_path / "one").rename(tmp_path / "two")
    assert vl.connect(tmp_path / "two").table("t").to_arrow().equals(sample(5))


def test_a_computed_non_null_column_and_rows_added_meanwhile(lake: vl.Lake) -> None:
    table = lake.create_table("t", sample(3))
    table.add_column("a", "id + 1", nullable=False)
    assert not table.schema.field("a").nullable
    other = lake.table("t")

    def slow(batch: pa.RecordBatch) -> pa.Array:
        other.append(sample(1).append_column("a", pa.array([1])))
        return batch["id"]

    with pytest.raises(vl.ConflictError, match="'b'"):
        table.add_column("b", slow, type=pa.int64(), nullable=False)
    assert table.refresh().schema.names[-1] == "a"
    table.add_column("b", slow, type=pa.int64(), nullable=False, default=-1)
    assert sorted(table.to_arrow()["b"].to_pylist()) == [-1, -1, 0, 0, 1, 2]


def test_bounds_follow_a_date_that_becomes_a_timestamp(lake: vl.Lake) -> None:
    table = lake.create_table("t", {"d": [dt.date(2024, 1, 1), dt.date(2019, 5, 5)]})
    for day in range(8):
        table.append({"d": [dt.date(2021, 1, 1 + day)]})
    table.alter_column("d", type=pa.timestamp("us"))
    for hour in range(8):
        table.append({"d": [dt.datetime(2022, 1, 1, hour)]})
    assert table.count("d > TIMESTAMP '2020-01-01 00:00:00'") == 17
    assert table.count("d >= TIMESTAMP '2022-01-01 03:00:00'") == 6
    assert table.count("d < TIMESTAMP '2020-01-01 00:00:00'") == 1


EXTREMES = [
    (pa.timestamp("s"), [2**40, -(2**40), None]),
    (pa.timestamp("ns"), [1, 2**62, None]),
    (pa.time64("ns"), [1, 86_399_999_999_999, None]),
    (pa.duration("s"), [2**50, -1, None]),
    (pa.duration("ns"), [1, 2**62, None]),
    (pa.date32(), [2**30, -(2**30), None]),
    (pa.uint64(), [2**64 - 1, 0, None]),
]


@pytest.mark.parametrize(("kind", "values"), EXTREMES, ids=lambda v: str(v)[:20])
def test_values_that_python_can_not_hold_are_stored_and_pruned_by(
    lake: vl.Lake, kind: pa.DataType, values: list[Any]
) -> None:
    storage = pa.int32() if kind == pa.date32() else pa.uint64() if kind == pa.uint64() else pa.int64()
    data = pa.table({"x": pa.array(values, storage).cast(kind)})
    table = lake.create_table("t", data)
    table.append(data.slice(0, 1))
    assert table.to_arrow().equals(pa.concat_tables([data, data.slice(0, 1)]))
    assert table.count("x IS NOT NULL") == 3
    found = table.scan(filter=pc.field("x") == pa.scalar(values[0], storage).cast(kind)).to_arrow()
    assert found.num_rows == 2


def test_an_append_that_meets_a_new_non_null_column_conflicts(lake: vl.Lake) -> None:
    lake.create_table("t", sample(3))
    late, other = lake.table("t"), lake.table("t")
    other.add_column("required", "id + 1", nullable=False)
    with pytest.raises(vl.ConflictError, match="'required'"):
        late.append(sample(2))
    late.refresh().append(sample(2).append_column("required", pa.array([1, 2])))
    assert late.count("required IS NULL") == 0


def test_children_are_named_as_declared_whatever_the_file_calls_them(lake: vl.Lake) -> None:
    for kind in ("parquet", "lance", "vortex", "arrow"):
        properties = {"write.scalar-format": kind, "write.vector-format": kind}
        schema = pa.schema([("vec", vl.vector(2)), ("l", pa.list_(pa.field("thing", pa.int8())))])
        table = lake.create_table(f"t_{kind}", schema, properties=properties)
        table.append([{"vec": [1, 2], "l": [1]}])
        found = table.to_arrow()
        assert found["vec"].chunk(0).type.value_field.name == "item"
        assert found["l"].chunk(0).type.value_field.name == "thing"


@pytest.mark.parametrize("kind", ["parquet", "lance", "vortex", "arrow"])
def test_windows_of_nested_structs_can_be_written(lake: vl.Lake, kind: str) -> None:
    rows = [{"s": {"t": {"x": i, "y": [str(i)] * (i % 3)}, "z": None if i % 5 else i}} for i in range(40)]
    data = pa.Table.from_pylist(rows)
    table = lake.create_table(
        "t", data.slice(30, 5), properties={"write.scalar-format": kind, "write.fragment-rows": "2"}
    )
    assert table.to_arrow().to_pylist() == rows[30:35]


@pytest.mark.parametrize("element", ["f16", "f32", "f64"])
def test_lists_of_decimals_fit_vectors(lake: vl.Lake, element: str) -> None:
    table = lake.create_table("t", pa.schema([("vec", vl.vector(2, element))]))
    table.append(duckdb.sql("SELECT [0.5, 1.5] AS vec"))
    assert table.to_arrow()["vec"].to_pylist() == [[0.5, 1.5]]


def test_bounds_rewritten_after_a_widening_are_in_the_new_type(lake: vl.Lake) -> None:
    days = pa.array([dt.date(2024, 1, 1), dt.date(2024, 1, 2)])
    table = lake.create_table("t", pa.table({"id": [1, 2], "d": days}))
    table.alter_column("d", type=pa.timestamp("us"))
    table.delete("id = 1")  # writes the manifest anew, whose bounds are still days
    assert table.count("d = TIMESTAMP '2024-01-02'") == 1
    assert table.count("d > TIMESTAMP '2024-01-03'") == 0
