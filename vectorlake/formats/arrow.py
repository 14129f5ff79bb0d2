"""Arrow IPC files: uncompressed and memory-mapped unless asked otherwise; for local caches and small
files."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from vectorlake.expr import Expr
from vectorlake.formats.arrow_ranges import Ranged
from vectorlake.formats.batches import joined, windowed
from vectorlake.formats.checksum import admit
from vectorlake.formats.failures import reading
from vectorlake.formats.lowering import unheld_columns
from vectorlake.formats.protocol import FileReader, FileSource, FileWriter, WriteOptions
from vectorlake.formats.reading import DataFileReader
from vectorlake.formats.vectors import flat_values, is_vector
from vectorlake.formats.writing import DataFileWriter, refuse
from vectorlake.store.file import open_input

_ROWS_KEY: Final = b"vectorlake:batch_rows"
"""Schema metadata: rows of every batch but the last. Without it the batches are counted one by one."""


class ArrowFormat:
    """The `arrow` format. Options: rows a batch, compression (`default` for none, `zstd`, `lz4`)."""

    name = "arrow"
    suffix = ".arrow"

    def unsupported(self, schema: pa.Schema) -> list[str]:
        return unheld_columns(schema)

    def create(self, path: Path, schema: pa.Schema, options: WriteOptions) -> FileWriter:
        refuse(self.name, schema, self.unsupported(schema))
        rows = max(1, options.row_group_rows)
        physical = schema.with_metadata({**(schema.metadata or {}), _ROWS_KEY: str(rows).encode()})
        return DataFileWriter(
            path,
            schema,
            physical=physical,
            options=options,
            group_rows=rows,
            start=lambda: _Sink(path, physical, options),
        )

    def open(self, source: FileSource) -> FileReader:
        admit(source)
        with reading(source):
            return DataFileReader(source, _Backend(source))


class _Sink:
    def __init__(self, path: Path, schema: pa.Schema, options: WriteOptions) -> None:
        compression = None if options.compression in ("default", "none") else options.compression
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(
            self._file, schema, options=pa.ipc.IpcWriteOptions(compression=compression)
        )

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()
        self._file.close()

    def abort(self) -> None:
        self._file.close()


class _Backend:
    def __init__(self, source: FileSource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._readers: dict[tuple[int, ...], pa.ipc.RecordBatchFileReader] = {}
        self._map: pa.Buffer | None = None
        if source.local is not None:
            with source.local.open("rb") as file:
                # An empty file can't be mapped, and is no Arrow file either.
                self._map = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        reader = self._reader(())
        metadata = dict(reader.schema.metadata or {})
        rows = metadata.pop(_ROWS_KEY, None)
        self._schema = reader.schema.with_metadata(metadata or None)
        self._in_place = bool(self._map is not None and reader.num_record_batches) and self._maps(
            self._batch((), 0)
        )
        self._ranged = None if self._map is not None else Ranged(source, self._schema)
        self._starts = self._counted(reader.num_record_batches, None if rows is None else int(rows))

    def _counted(self, batches: int, rows: int | None) -> np.ndarray:
        if rows is None or not batches:
            counts = [self._rows_of(i) for i in range(batches)]
        else:
            counts = [rows] * (batches - 1) + [self._rows_of(batches - 1)]
        return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    def _rows_of(self, index: int) -> int:
        return self._batch((), index).num_rows if self._ranged is None else self._ranged.header(index).rows

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    @property
    def num_rows(self) -> int:
        return int(self._starts[-1])

    def _reader(self, fields: tuple[int, ...]) -> pa.ipc.RecordBatchFileReader:
        reader = self._readers.get(fields)
        if reader is None:
            file = self._map if self._map is not None else self._input()
            options = pa.ipc.IpcReadOptions(included_fields=list(fields))
            reader = self._readers[fields] = pa.ipc.open_file(file, options=options)
        return reader

    def _input(self) -> pa.NativeFile:
        return open_input(self._source.store, self._source.path, self._source.size)

    def _batch(self, fields: tuple[int, ...], index: int) -> pa.RecordBatch:
        with self._lock:
            batch = self._reader(fields).get_batch(index)
        # Offsets that point outside of a damaged file would end the process when they are followed.
        batch.validate()
        return batch

    def _maps(self, batch: pa.RecordBatch) -> bool:
        """Whether a batch lies in the mapped file; a compressed one lies in memory."""
        assert self._map is not None
        begin, end = self._map.address, self._map.address + self._map.size
        buffers = [
            buffer
            for column in batch.columns
            for buffer in column.buffers()
            if buffer is not None and buffer.size
        ]
        return bool(buffers) and all(begin <= buffer.address < end for buffer in buffers)

    def _fields(self, columns: list[str]) -> tuple[int, ...]:
        if self._in_place:
            # pyarrow copies the fields it is asked to include; all of them together it leaves where they lie.
            return ()
        return tuple(sorted(self._schema.get_field_index(name) for name in columns))

    def read(self, columns: list[str], start: int, stop: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
        fields = self._fields(columns)
        first, last = (np.searchsorted(self._starts, [start, stop - 1], side="right") - 1).tolist()
        batches = (self._batch(fields, i).select(columns) for i in range(first, last + 1))
        return windowed(batches, int(self._starts[first]), start, stop, batch_rows)

    def take(self, columns: list[str], positions: np.ndarray) -> pa.RecordBatch:
        if self._ranged is not None:
            fetched = self._ranged.take(columns, positions, self._starts)
            if fetched is not None:
                return fetched
        fields = self._fields(columns)
        owners = np.searchsorted(self._starts, positions, side="right") - 1
        # Batch by batch: taking from a table of many chunks is slow.
        parts = []
        for i in np.unique(owners).tolist():
            inside = positions[owners == i] - self._starts[i]
            parts.append(self._batch(fields, i).select(columns).take(pa.array(inside)))
        return joined(parts)

    def prune(self, predicate: Expr, start: int, stop: int) -> list[tuple[int, int]]:
        return [(start, stop)]

    def matching(self, predicate: Expr, start: int, stop: int) -> np.ndarray | None:
        return None

    def mapped(self, column: str) -> list[np.ndarray] | None:
        kind = self._schema.field(column).type
        if not self._in_place or not is_vector(kind):
            return None
        arrays = []
        for i in range(len(self._starts) - 1):
            values = flat_values(self._batch((), i).column(column))
            if values is None:
                return None
            arrays.append(values)
        return arrays
