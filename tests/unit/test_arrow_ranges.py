"""Rows of remote Arrow files come by range, and are those that pyarrow reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vectorlake.errors import CorruptDataError
from vectorlake.formats.arrow_layout import blocks, first_of, header
from vectorlake.formats.protocol import FileSource
from vectorlake.formats.registry import format_named
from vectorlake.store import Store, open_store
from vectorlake.testing.columns import columns

ROWS, DIMENSION = 1_000, 16


def written(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=300)
    whole: bytes = sink.getvalue().to_pybytes()
    return whole


def vectors(kind: pa.DataType, *, null: int | None = None) -> pa.Array:
    values = np.arange(ROWS * DIMENSION) % 100
    mask = None if null is None else pa.array(np.arange(ROWS) == null)
    flat = pa.array(values.astype(kind.to_pandas_dtype()), kind)
    return pa.FixedSizeListArray.from_arrays(flat, DIMENSION, mask=mask)


class Counting:
    """A memory store that counts the bytes asked of it."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def get_range(self, path: str, start: int, length: int) -> bytes:
        self.bytes += length
        return self.inner.get_range(path, start, length)

    def get_ranges(self, path: str, ranges: list[tuple[int, int]]) -> list[bytes]:
        self.bytes += sum(length for _, length in ranges)
        return self.inner.get_ranges(path, ranges)


def opened(data: bytes) -> tuple[Any, Counting]:
    store = Counting(open_store("memory://"))
    store.put("f.arrow", data)
    source = FileSource(store, "f.arrow", len(data))  # type: ignore[arg-type]
    return format_named("arrow").open(source), store


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16(), pa.float64(), pa.int8(), pa.uint8()], ids=str)
@pytest.mark.parametrize("null", [None, 650])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_rows_are_those_that_pyarrow_reads(
    kind: pa.DataType, null: int | None, compression: str | None
) -> None:
    table = pa.table(
        {
            "name": pa.array([str(i) for i in range(ROWS)]),
            "vec": vectors(kind, null=null),
            "x": pa.array(range(ROWS)),
            "other": vectors(pa.int8()),
        }
    )
    reader, _ = opened(written(table, compression=compression))
    assert reader.num_rows == ROWS
    for wanted in ([0], [999], [299, 300], [5, 650, 999, 5, 301], list(range(0, ROWS, 3))):
        for names in (["vec"], ["other", "vec"], ["vec", "x"]):
            found = reader.take(names, np.array(wanted))
            assert found.to_pydict() == table.select(names).take(wanted).to_pydict()


def test_few_rows_cost_few_bytes() -> None:
    data = written(pa.table({"vec": pa.concat_arrays([vectors(pa.float32())] * 40)}))
    reader, store = opened(data)
    store.bytes = 0
    reader.take(["vec"], np.array([3, 20_000, 39_999]))
    assert store.bytes < 0.1 * len(data)


def test_opening_reads_no_rows() -> None:
    _, small = opened(written(pa.table({"vec": vectors(pa.float32())})))
    table = pa.table({"vec": pa.concat_arrays([vectors(pa.float32())] * 40)})
    data = written(table.combine_chunks())
    _, large = opened(data)
    assert large.bytes < small.bytes + (1 << 20) < len(data)


def test_columns_behind_every_type_are_found() -> None:
    for name, array in columns().items():
        rows = len(array)
        vector = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(rows * 4, dtype="f4")), 4)
        table = pa.table([array, vector], ["before", "vec"])
        data = written(table)

        def read(start: int, length: int, data: bytes = data) -> bytes:
            return data[start : start + length]

        (block,) = blocks(read, len(data))
        batch = header(read, block)
        assert batch.rows == rows
        found = first_of(table.schema, 1)
        assert found is not None, name
        offset, length = batch.buffers[found[1] + 2]
        assert data[offset : offset + rows * 16] == vector.values.to_numpy().tobytes(), name
        assert length >= rows * 16


@pytest.mark.parametrize("at", [-1, -8])
def test_damaged_footers_are_named(at: int) -> None:
    data = bytearray(written(pa.table({"vec": vectors(pa.float32())})))
    data[at] ^= 0xFF
    with pytest.raises(CorruptDataError, match=r"f\.arrow"):
        opened(bytes(data))


def test_headers_that_are_cut_are_refused() -> None:
    data = written(pa.table({"vec": vectors(pa.float32())}))
    (block, *_) = blocks(lambda start, length: data[start : start + length], len(data))
    with pytest.raises(ValueError, match="cut or damaged"):
        header(lambda start, length: data[start : start + 20], block)
    with pytest.raises(ValueError, match="does not end"):
        blocks(lambda start, length: data[start : start + length], len(data) - 1)
