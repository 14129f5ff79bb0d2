"""Vortex files: scalars, compressed so that filters and takes work on them as they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import vortex as vx

from vectorlake.expr import Expr
from vectorlake.formats.batches import joined, windowed
from vectorlake.formats.checksum import admit
from vectorlake.formats.failures import reading, wrong_length
from vectorlake.formats.lowering import (
    lowered_schema,
    lowered_type,
    schema_from_text,
    schema_to_text,
    unheld_columns,
)
from vectorlake.formats.protocol import FileReader, FileSource, FileWriter, WriteOptions
from vectorlake.formats.reading import DataFileReader
from vectorlake.formats.vortex_filter import translated
from vectorlake.formats.vortex_writer import VortexSink
from vectorlake.formats.writing import DataFileWriter, refuse
from vectorlake.store.protocol import Store

POSITION: Final = "__vl_position"
"""A hidden column that counts the rows: a filter evaluated by the format answers with it. It costs nothing
stored."""

_SCHEMA_PREFIX: Final = "__vl_schema="
"""A hidden column's name carries the logical schema: the format has no metadata, and names are in its
footer."""

_GROUP_ROWS: Final = 65_536
_CACHE_BYTES: Final = 256 << 20


class VortexFormat:
    """The `vortex` format. No options: it samples the data and chooses its encodings."""

    name = "vortex"
    suffix = ".vortex"

    def unsupported(self, schema: pa.Schema) -> list[str]:
        return unheld_columns(schema)

    def create(self, path: Path, schema: pa.Schema, options: WriteOptions) -> FileWriter:
        refuse(self.name, schema, self.unsupported(schema))
        physical = lowered_schema(schema, _rule)
        hidden = [pa.field(POSITION, pa.int64(), nullable=False)]
        if not _derived(vx.DType.from_arrow(physical).to_arrow_schema()).equals(schema, check_metadata=True):
            hidden.append(pa.field(_SCHEMA_PREFIX + schema_to_text(schema), pa.bool_(), nullable=False))
        return DataFileWriter(
            path,
            schema,
            physical=physical,
            options=options,
            group_rows=_GROUP_ROWS,
            start=lambda: VortexSink(path, pa.schema([*physical, *hidden]), hidden=len(hidden)),
        )

    def open(self, source: FileSource) -> FileReader:
        admit(source)
        with reading(source):
            return DataFileReader(source, _Backend(source))


def _rule(kind: pa.DataType) -> pa.DataType | None:
    """Vortex has neither fixed-size binaries nor durations."""
    if pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    return pa.int64() if pa.types.is_duration(kind) else None


def _plain(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(kind) else None


def _derived(stored: pa.Schema) -> pa.Schema:
    """The schema of the visible columns, as far as Vortex knows it."""
    visible = [
        field for field in stored if field.name != POSITION and not field.name.startswith(_SCHEMA_PREFIX)
    ]
    return pa.schema([field.with_type(lowered_type(field.type, _plain)) for field in visible])


class _Backend:
    def __init__(self, source: FileSource) -> None:
        self._source = source
        self._input: _StoreInput | None = None
        self._file = self._opened()
        stored: pa.Schema = self._file.dtype.to_arrow_schema()
        texts = [name for name in stored.names if name.startswith(_SCHEMA_PREFIX)]
        self._schema = schema_from_text(texts[0].removeprefix(_SCHEMA_PREFIX)) if texts else _derived(stored)
        self._has_position = POSITION in stored.names

    def _opened(self) -> vx.VortexFile:
        source = self._source
        if source.local is not None:
            status = source.local.stat()
            # A path can be written again, in tests at least: the key says which bytes were meant.
            key = f"{source.local}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
            return vx.open(str(source.local), segment_cache=_segments(), cache_key=key)
        info = source.store.head(source.path)
        if source.size is not None and info.size != source.size:
            raise wrong_length(source, info.size)
        self._input = _StoreInput(source.store, source.path, info.size)
        with self._input:
            key = f"{source.uri}:{info.size}:{info.e_tag}:{info.last_modified}"
            return vx.open_readable(self._input, segment_cache=_segments(), cache_key=key)

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    @property
    def num_rows(self) -> int:
        return len(self._file)

    def _physical(self, columns: list[str]) -> pa.StructType:
        return pa.struct(
            list(lowered_schema(pa.schema([self._schema.field(name) for name in columns]), _rule))
        )

    def read(self, columns: list[str], start: int, stop: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
        scan = self._file.to_repeated_scan(columns)
        batches = self._batches(scan.execute(row_range=(start, stop)), self._physical(columns))
        return windowed(batches, start, start, stop, batch_rows)

    def take(self, columns: list[str], positions: np.ndarray) -> pa.RecordBatch:
        indices = vx.array(pa.array(positions.astype(np.uint64)))
        return joined(list(self._batches(self._file.scan(columns, indices=indices), self._physical(columns))))

    def _batches(self, arrays: vx.ArrayIterator, kind: pa.StructType) -> Iterator[pa.RecordBatch]:
        # Array by array and not through an Arrow stream: there a panic of the library would end the process.
        steps = iter(arrays)
        while True:
            with self._input or _NOTHING:
                array = next(steps, None)
                if array is None:
                    return
                struct = array.to_arrow_array(arrow_type=kind)
            for chunk in struct.chunks if isinstance(struct, pa.ChunkedArray) else [struct]:
                yield pa.RecordBatch.from_struct_array(chunk)

    def prune(self, predicate: Expr, start: int, stop: int) -> list[tuple[int, int]]:
        return [(start, stop)]

    def matching(self, predicate: Expr, start: int, stop: int) -> np.ndarray | None:
        if not self._has_position or start == stop:
            return None
        condition = translated(predicate, self._schema)
        if condition is None:
            return None
        scan = self._file.to_repeated_scan([POSITION], expr=condition)
        kind = pa.struct([pa.field(POSITION, pa.int64(), nullable=False)])
        found = [
            batch.column(0).to_numpy() for batch in self._batches(scan.execute(row_range=(start, stop)), kind)
        ]
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def mapped(self, column: str) -> list[np.ndarray] | None:
        return None


class _Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


_NOTHING: Final = _Nothing()


class _StoreInput:
    """A store's object as Vortex reads it; entered around a call, it raises what the store itself raised."""

    def __init__(self, store: Store, path: str, size: int) -> None:
        self._store, self._path, self._size = store, path, size
        self._failure: BaseException | None = None

    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        try:
            return self._store.get_range(self._path, offset, length)
        except BaseException as e:  # Ctrl-C too: Vortex turns whatever it is into a text
            self._failure = e
            raise

    def __enter__(self) -> None:
        self._failure = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        if error is not None and self._failure is not None:
            raise self._failure from error


_lock = threading.Lock()
_shared: list[vx.SegmentCache] = []


def _segments() -> vx.SegmentCache:
    """The process's cache of compressed segments, for all files together."""
    with _lock:
        if not _shared:
            _shared.append(vx.SegmentCache(_CACHE_BYTES))
        return _shared[0]
