"""The parts that formats are made of, each by itself."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from vectorlake.errors import (
    AlreadyExistsError,
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    UnsupportedError,
)
from vectorlake.formats import registry
from vectorlake.formats.arrow import ArrowFormat
from vectorlake.formats.checksum import checksum_of, verify
from vectorlake.formats.failures import reading, writing
from vectorlake.formats.lowering import converted, lowered_schema, schema_from_text, schema_to_text
from vectorlake.formats.protocol import ColumnStats, FileSource, WriteOptions
from vectorlake.formats.registry import format_named, format_names, register
from vectorlake.formats.stats import Statistics, cut_above, cut_below
from vectorlake.store.local import LocalStore
from vectorlake.store.open import open_store

# --- registry


def test_formats_are_found_by_name() -> None:
    assert [format_named(name).name for name in format_names()] == ["arrow", "lance", "parquet", "vortex"]
    assert format_named("lance") is format_named("lance")
    assert {format_named(name).suffix for name in format_names()} == {
        ".arrow",
        ".lance",
        ".parquet",
        ".vortex",
    }


def test_an_unknown_format_is_named_with_a_suggestion() -> None:
    with pytest.raises(UnsupportedError, match=r"no data-file format 'parqet' \(did you mean 'parquet'\?\)"):
        format_named("parqet")


def test_a_format_whose_library_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_LOADERS", dict(registry._LOADERS))
    monkeypatch.setattr(registry, "_LOADED", {})

    def load() -> ArrowFormat:
        raise ModuleNotFoundError("No module named 'nimble'")

    register("nimble", load, package="nimble-data")
    with pytest.raises(UnsupportedError, match="pip install nimble-data"):
        format_named("nimble")
    with pytest.raises(AlreadyExistsError, match="'nimble' is registered already"):
        register("nimble", load, package="nimble-data")


def test_the_registry_loads_no_format_before_it_is_asked_for() -> None:
    code = (
        "import sys, vectorlake.formats.registry as r; assert not {'lance', 'vortex'} & set(sys.modules); "
        "r.format_named('arrow'); assert not {'lance', 'vortex'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- statistics


def stats_of(*batches: pa.Array) -> ColumnStats:
    statistics = Statistics(pa.schema([("c", batches[0].type)]))
    for batch in batches:
        statistics.add(pa.record_batch([batch], ["c"]))
    return statistics.result()["c"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([3, None, -1], pa.int8()), (-1, 3, 1, None)),
        (pa.array([None, None], pa.int8()), (None, None, 2, None)),
        (pa.array([float("nan"), None]), (None, None, 1, 1)),
        (pa.array([float("nan"), 2.0, float("-inf")], pa.float32()), (float("-inf"), 2.0, 0, 1)),
        (pa.array(np.array([1.5, np.nan, -2], "f2")), (-2.0, 1.5, 0, 1)),
        (pa.array([True, True, None]), (True, True, 1, None)),
        (pa.array(["b", "a", None]), ("a", "b", 1, None)),
        (pa.array(["a" * 100]), ("a" * 64, "a" * 63 + "b", 0, None)),
        (pa.array([b"\xff" * 65, b"x"]), (b"x", None, 0, None)),
        (pa.array([dt.timedelta(1), dt.timedelta(-1)]), (dt.timedelta(-1), dt.timedelta(1), 0, None)),
        (pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)), (None, None, 1, None)),
        (pa.array([{"a": 1}, None]), (None, None, 1, None)),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_statistics_of_one_batch(values: pa.Array, expected: tuple[object, ...]) -> None:
    found = stats_of(values)
    low, high = (None if end is None else end.as_py() for end in (found.min, found.max))
    assert (low, high, found.null_count, found.nan_count) == expected
    assert found.min is None or found.min.type == values.type


def test_statistics_merge_over_many_batches() -> None:
    found = stats_of(*(pa.array([i % 700, None]) for i in range(1500)))
    assert (found.min, found.max, found.null_count) == (pa.scalar(0), pa.scalar(699), 1500)
    text = stats_of(pa.array(["b"]), pa.array(["\U0010ffff" * 20]), pa.array(["c"]))
    assert (text.min, text.max) == (pa.scalar("b"), None)


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("short", "short", "short"),
        ("a" * 63 + "éé", "a" * 63, "a" * 62 + "b"),
        ("a" * 62 + "\U0010ffff" * 2, "a" * 62, "a" * 61 + "b"),
        ("a" * 61 + "\ud7ff\ud7ff", "a" * 61 + "\ud7ff", "a" * 61 + "\ue000"),
        # The character after DEL takes two bytes, for which there is no room.
        ("a" * 63 + "\x7fz", "a" * 63 + "\x7f", "a" * 62 + "b"),
        (b"\x01" * 63 + b"\xff\x00", b"\x01" * 63 + b"\xff", b"\x01" * 62 + b"\x02"),
    ],
)
def test_long_bounds_are_cut(value: str | bytes, low: str | bytes, high: str | bytes) -> None:
    assert (cut_below(value), cut_above(value)) == (low, high)


# --- checksums


def test_a_checksum_is_xxh3_of_the_bytes(tmp_path: Path) -> None:
    for size in (0, 1, (1 << 20) + 17):
        data = np.random.default_rng(size).bytes(size)
        (tmp_path / "f").write_bytes(data)
        checksum = checksum_of(tmp_path / "f")
        assert checksum == f"xxh3-64:{xxhash.xxh3_64(data).hexdigest()}"
        verify(FileSource(LocalStore(tmp_path), "f", size), checksum)


def test_verification_reads_any_store_and_names_what_is_wrong(tmp_path: Path) -> None:
    store = open_store("memory://formats-checksum")
    data = np.random.default_rng(0).bytes(100_000)
    store.put("f", data)
    checksum = f"xxh3-64:{xxhash.xxh3_64(data).hexdigest()}"
    verify(FileSource(store, "f"), checksum)
    with pytest.raises(CorruptDataError, match=r"gone is missing"):
        verify(FileSource(store, "gone"), checksum)
    with pytest.raises(CorruptDataError, match="the manifest says xxh3-64:0"):
        verify(FileSource(store, "f", len(data)), "xxh3-64:0")
    with pytest.raises(UnsupportedError, match="unknown kind"):
        verify(FileSource(store, "f", len(data)), "md5:0")
    with pytest.raises(CorruptDataError, match=r"f is missing"):
        verify(FileSource(LocalStore(tmp_path), "f", 3), checksum)


# --- errors


def test_what_libraries_raise_becomes_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"123")
    source = FileSource(LocalStore(tmp_path), "f", 3)
    panic = type("PanicException", (BaseException,), {})
    for error in (
        pa.ArrowInvalid("odd\ntrace"),
        OSError("odd"),
        ValueError("odd"),
        KeyError("odd"),
        panic("odd"),
    ):
        with pytest.raises(CorruptDataError, match=r"/f is damaged: '?odd'?; restore"), reading(source):
            raise error
        with (
            pytest.raises(StorageError, match=r"/f could not be written: '?odd'?; check"),
            writing(tmp_path / "f"),
        ):
            raise error
    for ours in (InvalidInputError("mine"), KeyboardInterrupt(), MemoryError()):
        with pytest.raises(type(ours)), reading(source):
            raise ours
        with pytest.raises(type(ours)), writing(tmp_path / "f"):
            raise ours


def test_failures_of_a_remote_store_are_told_from_damage() -> None:
    source = FileSource(open_store("memory://formats-failures"), "f", 3)
    with pytest.raises(StorageError, match="can't be read"), reading(source):
        raise OSError("Generic S3 error: timed out")
    with pytest.raises(CorruptDataError, match="is missing"), reading(source):
        raise ValueError("Not found: f")
    with pytest.raises(CorruptDataError, match="is missing"), reading(source):
        source.store.get("f")
    with pytest.raises(NotFoundError), reading(source):
        raise NotFoundError("no column 'x'")


# --- lowering


def test_lowering_reaches_every_depth_and_comes_back() -> None:
    def rule(kind: pa.DataType) -> pa.DataType | None:
        return pa.int64() if pa.types.is_duration(kind) else None

    deep = pa.list_(pa.struct([pa.field("m", pa.map_(pa.string(), pa.list_(pa.duration("us"), 2)))]))
    schema = pa.schema([pa.field("c", deep, metadata={"k": "v"}), pa.field("d", pa.duration("s"))])
    lowered = lowered_schema(schema, rule)
    assert lowered.types == [
        pa.list_(pa.struct([pa.field("m", pa.map_(pa.string(), pa.list_(pa.int64(), 2)))])),
        pa.int64(),
    ]
    values = pa.array([[{"m": [("x", [dt.timedelta(1), None])]}], None], deep)
    batch = pa.record_batch([values, pa.array([5, None], pa.duration("s"))], schema=schema)
    there = converted(batch, lowered)
    assert there.schema == lowered
    assert converted(there, schema).equals(batch)


@pytest.mark.parametrize(
    ("values", "target", "message"),
    [
        (pa.array([1], pa.int64()).cast(pa.date64()), pa.date32(), "would lose data"),
        (pa.array([2**62], pa.timestamp("s")), pa.timestamp("ms"), "can't be stored as timestamp"),
    ],
)
def test_a_value_that_would_not_come_back_is_refused(
    values: pa.Array, target: pa.DataType, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=rf"column 'c' .*{message}"):
        converted(pa.record_batch([values], ["c"]), pa.schema([("c", target)]))


def test_schemas_travel_as_text() -> None:
    schema = pa.schema(
        [pa.field("ü", pa.map_(pa.string(), pa.duration("ns")), False, {"a": "b"})], {"c": "d"}
    )
    text = schema_to_text(schema)
    assert text.isascii()
    assert schema_from_text(text).equals(schema, check_metadata=True)
    with pytest.raises(ValueError, match="damaged"):
        schema_from_text(text[:8])


# --- single formats


def test_parquet_files_open_in_other_tools_as_they_are(tmp_path: Path) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(600, dtype="f4")), 3)
    seconds = pa.array(range(200), pa.timestamp("s", "UTC"))
    field = pa.field("id", pa.int64(), metadata={"PARQUET:field_id": "7"})
    schema = pa.schema([field, ("vec", vectors.type), ("at", seconds.type)])
    writer = format_named("parquet").create(tmp_path / "f.parquet", schema, WriteOptions(row_group_rows=64))
    writer.write(pa.record_batch([pa.array(range(200)), vectors, seconds], schema=schema))
    writer.close()
    metadata = pq.read_metadata(tmp_path / "f.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [64, 64, 64, 8]
    columns = [metadata.row_group(0).column(i) for i in range(3)]
    assert [column.compression for column in columns] == ["ZSTD"] * 3
    assert [column.is_stats_set for column in columns] == [True, False, True]
    assert [any("DICTIONARY" in encoding for encoding in column.encodings) for column in columns] == [
        True,
        False,
        True,
    ]
    table = pq.read_table(tmp_path / "f.parquet")
    assert table.schema.field("id").metadata[b"PARQUET:field_id"] == b"7"
    assert table["vec"].cast(vectors.type).combine_chunks().equals(vectors)
    assert table.schema.field("at").type == pa.timestamp("ms", "UTC")


def test_parquet_of_any_arrow_release_reads_nulls_among_lists_of_fixed_size(tmp_path: Path) -> None:
    kind = pa.list_(pa.float32(), 2)
    table = pa.table(
        {
            "vec": pa.array([[1, 2], None, [3, 4]], kind),
            "in": pa.array([{"v": [1, 2]}, None, {"v": None}], pa.struct([("v", kind)])),
            "name": pa.array(["a", None, "c"], pa.large_string()),
        }
    )
    pq.write_table(table, tmp_path / "f")  # as earlier releases and other programs do
    reader = format_named("parquet").open(FileSource(LocalStore(tmp_path), "f"))
    assert reader.schema.types == table.schema.types
    assert pa.Table.from_batches(reader.read(None, 0, 3)).to_pylist() == table.to_pylist()
    assert reader.take(["in"], np.array([2, 0])).to_pylist() == [
        {"in": {"v": None}},
        {"in": {"v": [1.0, 2.0]}},
    ]


def test_foreign_parquet_reads_as_it_is(tmp_path: Path) -> None:
    table = pa.table(
        {"a.b": pa.array(["x", "y"]).dictionary_encode(), "a": [{"b": 1}, None], "c": [1.5, None]}
    )
    pq.write_table(table, tmp_path / "f")
    reader = format_named("parquet").open(FileSource(LocalStore(tmp_path), "f"))
    assert reader.schema.equals(table.schema)
    assert next(iter(reader.read(["c", "a.b"], 0, 2))).to_pylist() == table.select(["c", "a.b"]).to_pylist()
    assert reader.take(["a"], np.array([1, 0])).to_pylist() == [{"a": None}, {"a": {"b": 1}}]


def test_foreign_arrow_files_of_uneven_batches_are_counted(tmp_path: Path) -> None:
    sizes = [3, 0, 5, 1]
    with pa.ipc.new_file(tmp_path / "f", pa.schema([("x", pa.int64())])) as writer:
        for size in sizes:
            writer.write_batch(pa.record_batch({"x": pa.array(range(size), pa.int64())}))
    reader = format_named("arrow").open(FileSource(LocalStore(tmp_path), "f"))
    assert reader.num_rows == 9
    assert reader.take(["x"], np.array([8, 2, 3])).column(0).to_pylist() == [0, 2, 0]


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_compressed_arrow_files_read_but_are_not_mapped(compression: str, tmp_path: Path) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(3000, "f4")), 3)
    schema = pa.schema([("v", vectors.type), ("i", pa.int64())])
    batch = pa.record_batch([vectors, pa.array(range(1000))], schema=schema)
    writer = format_named("arrow").create(tmp_path / "f", schema, WriteOptions(300, compression))
    writer.write(batch)
    written = writer.close()
    assert written.size < batch.nbytes
    reader = format_named("arrow").open(FileSource(LocalStore(tmp_path), "f", written.size))
    assert reader.mapped("v") is None
    assert reader.take(["i", "v"], np.array([999, 0])).equals(
        batch.select(["i", "v"]).take(pa.array([999, 0]))
    )


def test_a_lance_reader_serves_more_threads_than_it_keeps_handles(tmp_path: Path) -> None:
    schema = pa.schema([("x", pa.int64()), ("s", pa.string())])
    batch = pa.record_batch([pa.array(range(5000)), pa.array([str(i) for i in range(5000)])], schema=schema)
    writer = format_named("lance").create(tmp_path / "f", schema, WriteOptions())
    writer.write(batch)
    reader = format_named("lance").open(FileSource(LocalStore(tmp_path), "f", writer.close().size))
    under_way = [reader.read(["s"], 0, 5000, batch_rows=500) for _ in range(8)]
    for parts in zip(*under_way, strict=True):
        assert all(part.equals(parts[0]) for part in parts)


def test_a_vortex_file_larger_than_what_may_wait_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vectorlake.formats import vortex_writer
    from vectorlake.store.local import LocalStore

    monkeypatch.setattr(vortex_writer, "_MEMORY_BYTES", 1000)
    schema = pa.schema([("x", pa.int64())])
    vortex = format_named("vortex")
    writer = vortex.create(tmp_path / "a.vortex", schema, WriteOptions())
    for start in range(0, 1000, 100):
        # Opened in the thread that writes, between two writes: this once waited for itself.
        writer.write(pa.record_batch({"x": np.arange(start, start + 100)}, schema=schema))
        other = vortex.create(tmp_path / f"b{start}.vortex", schema, WriteOptions())
        other.write(pa.record_batch({"x": np.arange(3)}, schema=schema))
        other.close()
        reader = vortex.open(FileSource(LocalStore(tmp_path), f"b{start}.vortex"))
        assert reader.num_rows == 3
    written = writer.close()
    assert written.rows == 1000
    reader = vortex.open(FileSource(LocalStore(tmp_path), "a.vortex", written.size))
    assert [x for batch in reader.read(["x"], 0, 1000) for x in batch["x"].to_pylist()] == list(range(1000))
    aborted = vortex.create(tmp_path / "c.vortex", schema, WriteOptions())
    aborted.write(pa.record_batch({"x": np.arange(1000)}, schema=schema))
    aborted.abort()
    assert {path.suffix for path in tmp_path.iterdir()} == {".vortex"}
    assert not (tmp_path / "c.vortex").exists()
