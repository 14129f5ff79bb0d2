"""What every data-file format must do, for every type: one suite, four formats."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from vectorlake.errors import (
    AlreadyExistsError,
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    UnsupportedError,
)
from vectorlake.expr import parse_filter
from vectorlake.formats.checksum import verify
from vectorlake.formats.protocol import FileFormat, FileReader, FileSource, WriteOptions, WrittenFile
from vectorlake.formats.registry import format_named
from vectorlake.store.local import LocalStore
from vectorlake.store.open import open_store
from vectorlake.testing.columns import columns, required
from vectorlake.testing.s3 import S3Server

FORMATS = ["parquet", "lance", "vortex", "arrow"]
TYPES = columns()
ROWS_PER_GROUP = WriteOptions(row_group_rows=100)


@pytest.fixture(params=FORMATS)
def fmt(request: pytest.FixtureRequest) -> FileFormat:
    return format_named(request.param)


def write(
    fmt: FileFormat,
    folder: Path,
    batches: Sequence[pa.RecordBatch],
    schema: pa.Schema,
    name: str = "f",
    **options: object,
) -> tuple[FileSource, WrittenFile]:
    path = folder / name
    writer = fmt.create(path, schema, WriteOptions(**{"row_group_rows": 100, **options}))  # type: ignore[arg-type]
    for batch in batches:
        writer.write(batch)
    written = writer.close()
    return FileSource(LocalStore(folder), name, written.size), written


def table(
    reader: FileReader, names: Sequence[str] | None, start: int, stop: int, batch_rows: int = 64
) -> pa.Table:
    batches = list(reader.read(names, start, stop, batch_rows=batch_rows))
    assert all(0 < batch.num_rows <= batch_rows for batch in batches)
    if not batches:
        return pa.schema([reader.schema.field(name) for name in names or reader.schema.names]).empty_table()
    return pa.Table.from_batches(batches)


def combined(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def assert_same(found: pa.Array, expected: pa.Array) -> None:
    """The same type, nulls and bits at every level; all NaNs count as one value."""
    found.validate(full=True)
    assert found.type == expected.type
    assert len(found) == len(expected)
    found_mask, expected_mask = (
        np.asarray(array.is_valid().to_numpy(zero_copy_only=False)) for array in (found, expected)
    )
    np.testing.assert_array_equal(found_mask, expected_mask)
    found, expected = found.drop_null(), expected.drop_null()
    t, kind = pa.types, expected.type
    if t.is_struct(kind):
        for i in range(kind.num_fields):
            assert_same(found.flatten()[i], expected.flatten()[i])
    elif t.is_map(kind):
        assert_same(pa.array(np.diff(_offsets(found))), pa.array(np.diff(_offsets(expected))))
        for part in ("keys", "items"):
            assert_same(_inside(found, getattr(found, part)), _inside(expected, getattr(expected, part)))
    elif t.is_fixed_size_list(kind):
        assert_same(found.flatten(), expected.flatten())
    elif t.is_nested(kind):
        assert_same(found.value_lengths(), expected.value_lengths())
        assert_same(found.flatten(), expected.flatten())
    elif t.is_floating(kind):
        a, b = found.to_numpy(), expected.to_numpy()
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        bits = {2: np.uint16, 4: np.uint32, 8: np.uint64}[a.dtype.itemsize]
        np.testing.assert_array_equal(a[~np.isnan(a)].view(bits), b[~np.isnan(b)].view(bits))
    else:
        assert found.equals(expected)


def _offsets(maps: pa.MapArray) -> np.ndarray:
    return np.asarray(maps.offsets.to_numpy())


def _inside(maps: pa.MapArray, part: pa.Array) -> pa.Array:
    offsets = _offsets(maps)
    return part.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


def numbered(rows: int) -> tuple[pa.Schema, pa.RecordBatch]:
    """A mixed batch whose `id` is the position."""
    rng = np.random.default_rng(rows)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rng.standard_normal(rows * 8).astype("f4")), 8)
    batch = pa.record_batch(
        {
            "id": pa.array(range(rows), pa.int64()),
            "name": pa.array([None if i % 7 == 3 else f"name-{i % 13}" for i in range(rows)]),
            "vec": vectors,
            "price": pa.array(rng.random(rows)),
        }
    )
    return batch.schema, batch


# --- types
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nullable", [True, False], ids=["nullable", "required"])
@pytest.mark.parametrize("name", list(TYPES))
def test_a_column_of_every_type_reads_back_bit_for_bit(
    fmt: FileFormat, name: str, nullable: bool, tmp_path: Path
) -> None:
    field, values = pa.field("c", TYPES[name].type), TYPES[name]
    if not nullable:
        field, values = required(values)
        if not len(values):
            pytest.skip("the column has nothing but nulls")
    values = pa.concat_arrays([values] * 60)
    field = field.with_metadata({"owner": "ü"})
    schema = pa.schema([field, pa.field("id", pa.int32())], metadata={"made by": "test"})
    whole = pa.record_batch([values, pa.array(range(len(values)), pa.int32())], schema=schema)
    # Many small batches, each a slice that begins in the middle of its buffers, and some of no rows.
    pieces = [piece for i in range(0, len(values), 37) for piece in (whole.slice(i, 37), whole.slice(i, 0))]
    source, written = write(fmt, tmp_path, pieces, schema)
    reader = fmt.open(source)

    assert written.rows == reader.num_rows == len(values)
    assert reader.schema.equals(schema, check_metadata=True)
    everything, stop = table(reader, None, 0, len(values)), len(values) - 9
    assert everything.schema.equals(schema, check_metadata=True)
    assert_same(combined(everything["c"]), values)
    assert_same(combined(table(reader, ["id", "c"], 11, stop, 50)["c"]), values.slice(11, stop - 11))
    positions = np.random.default_rng(1).integers(0, len(values), 250)
    taken = reader.take(["c"], positions)
    assert taken.schema.names == ["c"]
    assert_same(taken.column(0), values.take(pa.array(positions)))
    assert written.stats["c"].null_count == values.null_count


@pytest.mark.parametrize("name", list(TYPES))
def test_a_file_of_no_rows_keeps_its_schema(fmt: FileFormat, name: str, tmp_path: Path) -> None:
    schema = pa.schema([pa.field("c", TYPES[name].type)])
    source, written = write(fmt, tmp_path, [], schema)
    reader = fmt.open(source)
    assert (written.rows, reader.num_rows) == (0, 0)
    assert reader.schema.equals(schema)
    assert list(reader.read(None, 0, 0)) == []
    assert reader.take(["c"], np.array([], np.int64)).schema.equals(schema)


UNHELD = {
    "null": pa.null(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "string_view": pa.string_view(),
    "union": pa.dense_union([pa.field("a", pa.int32())]),
    "interval": pa.month_day_nano_interval(),
    "extension": pa.uuid(),
    "decimal32": pa.decimal32(5, 2),
    "empty struct": pa.struct([]),
    "null in a list": pa.list_(pa.null()),
    "view in a struct": pa.struct([("x", pa.binary_view())]),
}


@pytest.mark.parametrize("kind", UNHELD.values(), ids=UNHELD)
def test_a_type_that_cannot_be_held_is_refused_by_name_before_a_file_exists(
    fmt: FileFormat, kind: pa.DataType, tmp_path: Path
) -> None:
    schema = pa.schema([pa.field("fine", pa.int64()), pa.field("odd", kind)])
    assert fmt.unsupported(schema) == ["odd"]
    with pytest.raises(UnsupportedError, match="'odd'") as caught:
        fmt.create(tmp_path / "f", schema, WriteOptions())
    assert str(kind) in str(caught.value)
    assert "'fine'" not in str(caught.value)
    assert not (tmp_path / "f").exists()


def test_blobs_read_back_as_their_bytes(fmt: FileFormat, tmp_path: Path) -> None:
    values = [None, b"", b"x", b"\x00\xff" * 50_000, *(bytes([i]) * i for i in range(200))]
    for kind in (pa.large_binary(), pa.binary()):
        schema = pa.schema([("blob", kind), ("id", pa.int32())])
        blobs = pa.array(values, kind)
        batch = pa.record_batch([blobs, pa.array(range(len(values)), pa.int32())], schema=schema)
        source, written = write(fmt, tmp_path, [batch], schema, str(kind), blob_columns=frozenset({"blob"}))
        reader = fmt.open(source)
        assert reader.schema.equals(schema, check_metadata=True)
        assert_same(combined(table(reader, ["blob"], 0, len(values))["blob"]), blobs)
        assert (
            reader.take(["blob"], np.array([3, 0, 3, 100]))
            .column(0)
            .equals(blobs.take(pa.array([3, 0, 3, 100])))
        )
        assert (written.stats["blob"].min, written.stats["blob"].null_count) == (None, 1)


def test_names_of_columns_may_hold_dots_and_any_letters(fmt: FileFormat, tmp_path: Path) -> None:
    schema = pa.schema(
        [("a", pa.struct([("b", pa.int64())])), ("Grüße 世界", pa.string()), ("x y", pa.int8())]
    )
    batch = pa.record_batch([pa.array([{"b": 1}]), pa.array(["v"]), pa.array([3], pa.int8())], schema=schema)
    source, _ = write(fmt, tmp_path, [batch], schema)
    reader = fmt.open(source)
    assert reader.take(["x y", "Grüße 世界"], np.array([0])).to_pylist() == [{"x y": 3, "Grüße 世界": "v"}]
    assert table(reader, ["a"], 0, 1).to_pylist() == [{"a": {"b": 1}}]


# --- rows and columns
# ----------------------------------------------------------------------------------------------


def test_reads_project_and_window(fmt: FileFormat, tmp_path: Path) -> None:
    schema, batch = numbered(1000)
    source, _ = write(fmt, tmp_path, [batch], schema)
    reader = fmt.open(source)
    for start, stop in [(0, 1000), (0, 1), (999, 1000), (99, 101), (250, 250), (37, 613)]:
        for names in (["vec"], ["price", "id"], None):
            found = table(reader, names, start, stop, 70)
            expected = batch.select(names or schema.names).slice(start, stop - start)
            assert found.column_names == expected.schema.names
            assert found.equals(pa.Table.from_batches([expected]))


def test_reads_of_no_columns_count_rows(fmt: FileFormat, tmp_path: Path) -> None:
    schema, batch = numbered(500)
    source, _ = write(fmt, tmp_path, [batch], schema)
    reader = fmt.open(source)
    batches = list(reader.read([], 10, 490, batch_rows=100))
    assert [b.num_rows for b in batches] == [100, 100, 100, 100, 80]
    assert all(b.num_columns == 0 for b in batches)
    assert reader.take([], np.array([4, 4, 1])).num_rows == 3


def test_takes_keep_the_order_asked_for(fmt: FileFormat, tmp_path: Path) -> None:
    schema, batch = numbered(777)
    source, _ = write(fmt, tmp_path, [batch], schema)
    reader = fmt.open(source)
    rng = np.random.default_rng(0)
    for positions in (
        [0],
        [776],
        [5, 5, 5],
        list(range(777)),
        rng.integers(0, 777, 2000),
        rng.permutation(777),
    ):
        wanted = np.asarray(positions, np.int64)
        assert reader.take(None, wanted).equals(batch.take(pa.array(wanted)))


def test_what_is_not_in_the_file_is_refused(fmt: FileFormat, tmp_path: Path) -> None:
    schema, batch = numbered(20)
    source, _ = write(fmt, tmp_path, [batch], schema)
    reader = fmt.open(source)
    with pytest.raises(NotFoundError, match=r"no column 'nmae' \(did you mean 'name'\?\)"):
        reader.read(["nmae"], 0, 1)
    with pytest.raises(NotFoundError, match="__vl_position"):
        reader.take(["__vl_position"], np.array([0]))
    for start, stop in [(-1, 5), (0, 21), (5, 4)]:
        with pytest.raises(InvalidInputError, match="20 rows"):
            reader.read(None, start, stop)
    for position in (-1, 20):
        with pytest.raises(InvalidInputError, match="20 rows"):
            reader.take(None, np.array([3, position]))
    reader.close()
    with pytest.raises(InvalidInputError, match="closed"):
        reader.take(None, np.array([3]))


def test_two_reads_of_one_reader_may_be_under_way(fmt: FileFormat, tmp_path: Path) -> None:
    schema, batch = numbered(600)
    source, _ = write(fmt, tmp_path, [batch], schema)
    reader = fmt.open(source)
    first, second = reader.read(["id"], 0, 600, batch_rows=50), reader.read(["id"], 0, 600, batch_rows=50)
    for left, right in zip(first, second, strict=True):
        assert left.equals(right)
        assert reader.take(["id"], np.array([7])).column(0).to_pylist() == [7]


def test_a_reader_serves_several_threads(fmt: FileFormat, tmp_path: Path) -> None:
    schema, batch = numbered(3000)
    source, _ = write(fmt, tmp_path, [batch], schema)
    reader = fmt.open(source)
    predicate = parse_filter("name = 'name-3'", schema)
    expected = np.flatnonzero(predicate.mask(batch).to_numpy(zero_copy_only=False))
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(8):
                positions = rng.integers(0, 3000, 50)
                assert reader.take(None, positions).equals(batch.take(pa.array(positions)))
                start = int(rng.integers(0, 2000))
                names = [["id", "vec"], ["name"], None][seed % 3]
                part = table(reader, names, start, start + 900, 128)
                assert part.equals(
                    pa.Table.from_batches([batch.select(names or schema.names).slice(start, 900)])
                )
                assert reader.prune(predicate, 0, 3000)
                matches = reader.matching(predicate, 0, 3000)
                assert matches is None or np.array_equal(matches, expected)
        except BaseException as e:  # noqa: BLE001 - told by the assertion below
            failures.append(e)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# --- vectors in place
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("element", ["float16", "float32", "float64", "int8", "uint8"])
@pytest.mark.parametrize("dim", [1, 3, 64, 384])
def test_mapped_vectors_are_views_of_the_file(
    fmt: FileFormat, element: str, dim: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(dim)
    values = rng.integers(0, 100, (20_000 // dim + 5, dim)).astype(element)
    flat = pa.array(values.reshape(-1))
    schema = pa.schema(
        [("s", pa.struct([("x", pa.int8()), ("y", pa.string())])), ("v", pa.list_(flat.type, dim))]
    )
    others = pa.array([{"x": 1, "y": "a"}] * len(values), schema.field("s").type)
    batch = pa.record_batch([others, pa.FixedSizeListArray.from_arrays(flat, dim)], schema=schema)
    source, _ = write(fmt, tmp_path, [batch], schema, row_group_rows=1000)
    pages = fmt.open(source).mapped("v")
    if fmt.name in ("parquet", "vortex"):
        assert pages is None  # these encode vectors
        return
    assert pages is not None
    assert all(page.ndim == 2 and page.shape[1] == dim and page.dtype == values.dtype for page in pages)
    assert not any(page.flags.writeable or page.flags.owndata for page in pages)
    np.testing.assert_array_equal(np.concatenate(pages), values)


def test_columns_that_are_no_plain_vectors_are_not_mapped(fmt: FileFormat, tmp_path: Path) -> None:
    names = ["vector-float-128", "int64", "multivector-float32", "fixed_size_list-string", "vector-all-null"]
    for name in names:
        schema = pa.schema([("c", TYPES[name].type)])
        source, _ = write(fmt, tmp_path, [pa.record_batch([TYPES[name]], schema=schema)], schema, name)
        assert fmt.open(source).mapped("c") is None
    inner = pa.array([1.0, None, 2.0, 3.0], pa.float32())
    schema = pa.schema([("c", pa.list_(pa.float32(), 2))])
    batch = pa.record_batch([pa.FixedSizeListArray.from_arrays(inner, 2)], schema=schema)
    source, _ = write(fmt, tmp_path, [batch], schema, "inner")
    reader = fmt.open(source)
    assert reader.mapped("c") is None
    assert combined(table(reader, None, 0, 2)["c"]).to_pylist() == [[1.0, None], [2.0, 3.0]]


# --- bad files
# -----------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(fmt: FileFormat, tmp_path: Path) -> None:
    with pytest.raises(CorruptDataError, match=r"data/gone\.x is missing: a file was removed"):
        fmt.open(FileSource(LocalStore(tmp_path), "data/gone.x", 100))


def test_a_file_of_another_length_is_named(fmt: FileFormat, tmp_path: Path) -> None:
    schema, batch = numbered(300)
    source, written = write(fmt, tmp_path, [batch], schema)
    path = tmp_path / "f"
    data = path.read_bytes()
    for cut in (0, 1, written.size // 2, written.size - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(CorruptDataError, match=rf"/f has {cut} bytes, the manifest says {written.size}"):
            fmt.open(source)
        with pytest.raises(CorruptDataError, match="/f is damaged"):
            fmt.open(FileSource(source.store, "f"))
    path.write_bytes(data + b"more")
    with pytest.raises(CorruptDataError, match=f"the manifest says {written.size}"):
        fmt.open(source)


def test_garbage_is_named(fmt: FileFormat, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for data in (rng.bytes(5000), b"\0" * 5000, b"PAR1" * 50, b"ARROW1" * 50, b"VTXF" * 50, b"LANC" * 50):
        (tmp_path / "f").write_bytes(data)
        with pytest.raises(CorruptDataError, match="/f is damaged"):
            fmt.open(FileSource(LocalStore(tmp_path), "f", len(data)))


def test_a_flipped_byte_is_found_by_the_checksum(fmt: FileFormat, tmp_path: Path) -> None:
    schema, batch = numbered(300)
    source, written = write(fmt, tmp_path, [batch], schema)
    verify(source, written.checksum)
    path = tmp_path / "f"
    data = bytearray(path.read_bytes())
    for offset in (0, len(data) // 2, len(data) - 1):
        data[offset] ^= 0x10
        path.write_bytes(data)
        with pytest.raises(CorruptDataError, match="/f is damaged: its checksum is"):
            verify(source, written.checksum)
        with pytest.raises(CorruptDataError, match="/f is damaged: its checksum is"):
            fmt.open(replace(source, checksum=written.checksum))
        data[offset] ^= 0x10


_READ_DAMAGED = """
import sys
from pathlib import Path
import numpy as np
from vectorlake.errors import CorruptDataError
from vectorlake.formats.protocol import FileSource
from vectorlake.formats.registry import format_named
from vectorlake.store.local import LocalStore
fmt, folder, checksum = format_named(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] or None
data = (folder / "f").read_bytes()
rng = np.random.default_rng(5)
refused = 0
for i in range(60):
    damaged = bytearray(data)
    # The ends hold the metadata, where a flip is worst.
    near_end = len(data) - 1 - int(rng.integers(0, min(600, len(data))))
    for offset in [near_end, int(rng.integers(0, len(data)))][: 1 + i % 2]:
        damaged[offset] ^= 1 << int(rng.integers(0, 8))
    (folder / f"d{i}").write_bytes(damaged)
    try:
        reader = fmt.open(FileSource(LocalStore(folder), f"d{i}", len(data), checksum))
        for batch in reader.read(None, 0, reader.num_rows):
            pass
        reader.take(None, np.arange(0, reader.num_rows, 3))
    except CorruptDataError as e:
        assert f"d{i}" in str(e)
        refused += 1
print("refused", refused)
"""


def test_damaged_files_raise_one_kind_of_error_and_never_end_the_process(
    fmt: FileFormat, tmp_path: Path
) -> None:
    schema, batch = numbered(300)
    _, written = write(fmt, tmp_path, [batch], schema)
    # Lance itself aborts on some damaged footers (a panic inside its Arrow stream): only the checksum keeps
    # it away.
    checksum = written.checksum if fmt.name == "lance" else ""
    # In a process of its own: a library that aborts must fail this test, not the suite.
    run = subprocess.run(
        [sys.executable, "-c", _READ_DAMAGED, fmt.name, str(tmp_path), checksum],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert int(run.stdout.split()[-1]) > 5


def test_a_file_removed_while_open_is_an_error_that_names_it(fmt: FileFormat, tmp_path: Path) -> None:
    schema, batch = numbered(300)
    source, _ = write(fmt, tmp_path, [batch], schema)
    reader = fmt.open(source)
    (tmp_path / "f").unlink()
    # A handle that is open keeps the bytes; one that has to open again must say what happened.
    try:
        assert reader.take(["id"], np.array([5])).column(0).to_pylist() == [5]
    except CorruptDataError as e:
        assert "/f is missing" in str(e)  # noqa: PT017


# --- writing
# -------------------------------------------------------------------------------------------------------


def test_abort_leaves_nothing(fmt: FileFormat, tmp_path: Path) -> None:
    schema, batch = numbered(3000)
    for batches in (0, 1, 40):
        writer = fmt.create(tmp_path / "f", schema, ROWS_PER_GROUP)
        for _ in range(batches):
            writer.write(batch)
        writer.abort()
        writer.abort()
        assert list(tmp_path.iterdir()) == []
    writer = fmt.create(tmp_path / "f", schema, ROWS_PER_GROUP)
    writer.write(batch)
    writer.close()
    with pytest.raises(InvalidInputError, match="closed"):
        writer.write(batch)
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_never_overwritten(fmt: FileFormat, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("mine")
    with pytest.raises(AlreadyExistsError, match="exists already"):
        fmt.create(tmp_path / "f", pa.schema([("a", pa.int8())]), WriteOptions())
    assert (tmp_path / "f").read_text() == "mine"


def test_a_missing_folder_is_named(fmt: FileFormat, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no folder"):
        fmt.create(tmp_path / "no" / "f", pa.schema([("a", pa.int8())]), WriteOptions())


def test_a_batch_of_another_schema_is_refused(fmt: FileFormat, tmp_path: Path) -> None:
    writer = fmt.create(tmp_path / "f", pa.schema([("a", pa.int8())]), WriteOptions())
    with pytest.raises(InvalidInputError, match="schema b: int8"):
        writer.write(pa.record_batch({"b": pa.array([1], pa.int8())}))
    writer.abort()


_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from vectorlake.errors import StorageError
from vectorlake.formats.protocol import WriteOptions
from vectorlake.formats.registry import format_named
fmt, path = format_named(sys.argv[1]), Path(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
schema = pa.schema([("x", pa.int64())])
writer = fmt.create(path, schema, WriteOptions())
rng = np.random.default_rng(0)
try:
    for _ in range(40):
        writer.write(pa.record_batch([pa.array(rng.integers(0, 2**62, 65536))], schema=schema))
    writer.close()
except StorageError as e:
    assert str(path) in str(e), e
    writer.abort()
    print("refused", path.exists())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_is_a_storage_error_and_leaves_nothing(fmt: FileFormat, tmp_path: Path) -> None:
    path = tmp_path / "f"
    run = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, fmt.name, str(path)], capture_output=True, text=True, timeout=120
    )
    assert run.stdout.split() == ["refused", "False"], run.stdout + run.stderr[-3000:]


def test_a_read_only_folder_is_a_storage_error(fmt: FileFormat, mount: Callable[..., Path]) -> None:
    path = mount("ro") / "f"
    with pytest.raises(StorageError, match=f"{path} could not be written"):
        fmt.create(path, pa.schema([("a", pa.int8())]), WriteOptions())


# --- other stores
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", pytest.param("s3", marks=pytest.mark.s3)])
def test_files_in_a_store_that_is_not_local_read_the_same(
    fmt: FileFormat, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    schema, batch = numbered(2000)
    _, written = write(fmt, tmp_path, [batch], schema)
    if kind == "s3":
        server: S3Server = request.getfixturevalue("s3")
        store = open_store(server.fresh_uri(), server.storage_options)
    else:
        store = open_store("memory://")
    store.put("a/f", (tmp_path / "f").read_bytes())
    source = FileSource(store, "a/f", written.size)
    reader = fmt.open(source)
    assert reader.num_rows == 2000
    assert reader.schema.equals(schema)
    assert table(reader, ["vec", "name"], 150, 1900).equals(
        pa.Table.from_batches([batch.select(["vec", "name"]).slice(150, 1750)])
    )
    positions = np.array([1999, 0, 5, 5])
    assert reader.take(None, positions).equals(batch.take(pa.array(positions)))
    verify(source, written.checksum)
    with pytest.raises(CorruptDataError, match=r"a/gone is missing"):
        fmt.open(FileSource(store, "a/gone", written.size))
    store.put("a/f", (tmp_path / "f").read_bytes()[:-10])
    with pytest.raises(CorruptDataError, match=r"a/f"):
        fmt.open(source)
