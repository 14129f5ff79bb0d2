"""Parquet files: plain ones that any tool opens, zstd, 64k-row groups, pruned by row-group statistics."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vectorlake.expr import Bounds, Expr, prune_mask
from vectorlake.formats.batches import joined, windowed
from vectorlake.formats.checksum import admit
from vectorlake.formats.failures import reading
from vectorlake.formats.lowering import (
    SCHEMA_KEY,
    all_types,
    lowered_schema,
    schema_from_text,
    schema_to_text,
    unheld_columns,
)
from vectorlake.formats.parquet_bounds import row_group_bounds
from vectorlake.formats.parquet_footer import metadata_of_plain_types, reads_exactly
from vectorlake.formats.protocol import FileReader, FileSource, FileWriter, WriteOptions
from vectorlake.formats.reading import DataFileReader
from vectorlake.formats.writing import DataFileWriter, refuse
from vectorlake.store.file import open_input


class ParquetFormat:
    """The `parquet` format. Options: rows a row group, compression (a Parquet codec's name)."""

    name = "parquet"
    suffix = ".parquet"

    def unsupported(self, schema: pa.Schema) -> list[str]:
        return unheld_columns(schema)

    def create(self, path: Path, schema: pa.Schema, options: WriteOptions) -> FileWriter:
        refuse(self.name, schema, self.unsupported(schema))
        physical = lowered_schema(schema, _rule)
        # Parquet renames the elements of lists, so the schema is kept of nested columns too.
        if physical != schema or any(pa.types.is_nested(kind) for kind in schema.types):
            metadata = {**(schema.metadata or {}), SCHEMA_KEY: schema_to_text(schema).encode()}
            physical = physical.with_metadata(metadata)
        return DataFileWriter(
            path,
            schema,
            physical=physical,
            options=options,
            group_rows=options.row_group_rows,
            start=lambda: _Sink(path, schema, physical, options),
        )

    def open(self, source: FileSource) -> FileReader:
        admit(source)
        with reading(source):
            return DataFileReader(source, _Backend(source))


def _rule(kind: pa.DataType) -> pa.DataType | None:
    """Parquet has no seconds, one kind of date, and lists of any length only."""
    t = pa.types
    # Arrow before 26 can't read a null among lists of fixed size, and every release reads them at half the speed.
    if t.is_fixed_size_list(kind):
        return pa.list_(kind.value_field)
    if t.is_date64(kind):
        return pa.date32()
    if t.is_time32(kind) and kind.unit == "s":
        return pa.time32("ms")
    if t.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    return None


class _Sink:
    def __init__(self, path: Path, schema: pa.Schema, physical: pa.Schema, options: WriteOptions) -> None:
        # Dictionaries and statistics of vector elements cost time and say nothing.
        plain = [path for field in schema for path in _leaf_paths(field) if not _holds_vectors(field.type)]
        everything = not any(_holds_vectors(field.type) for field in schema)
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pq.ParquetWriter(
            self._file,
            physical,
            compression="zstd" if options.compression == "default" else options.compression,
            use_dictionary=everything or plain or False,
            write_statistics=everything or plain or False,
            write_page_index=True,
            store_schema=True,
        )

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()
        self._file.close()

    def abort(self) -> None:
        try:
            self._writer.close()
        finally:
            self._file.close()


def _holds_vectors(kind: pa.DataType) -> bool:
    return any(
        pa.types.is_fixed_size_list(part)
        and (pa.types.is_floating(part.value_type) or pa.types.is_integer(part.value_type))
        for part in all_types(kind)
    )


def _leaf_paths(field: pa.Field, prefix: str = "") -> Iterator[str]:
    """Paths of the Parquet columns that an Arrow field becomes."""
    t, kind, path = pa.types, field.type, prefix + field.name
    if t.is_struct(kind):
        for child in kind.fields:
            yield from _leaf_paths(child, f"{path}.")
    elif t.is_map(kind):
        yield from _leaf_paths(kind.key_field.with_name("key"), f"{path}.key_value.")
        yield from _leaf_paths(kind.item_field.with_name("value"), f"{path}.key_value.")
    elif t.is_nested(kind):
        yield from _leaf_paths(kind.value_field.with_name("element"), f"{path}.list.")
    else:
        yield path


class _Backend:
    def __init__(self, source: FileSource) -> None:
        self._source = source
        self._threads = threading.local()
        # One local file serves all threads: it is read by position. A remote one seeks, so each thread has
        # its own.
        self._shared: pq.ParquetFile | None = None
        first = pq.ParquetFile(
            open_input(source.store, source.path, source.size), pre_buffer=source.local is None
        )
        self._metadata: pq.FileMetaData = first.metadata
        metadata = dict(first.schema_arrow.metadata or {})
        text = metadata.pop(SCHEMA_KEY, None)
        self._schema: pa.Schema = first.schema_arrow if text is None else schema_from_text(text.decode())
        if not reads_exactly(first.schema_arrow):
            handle = open_input(source.store, source.path, source.size)
            self._metadata = metadata_of_plain_types(handle)
            first = pq.ParquetFile(handle, metadata=self._metadata, pre_buffer=source.local is None)
        if source.local is not None:
            self._shared = first
        else:
            self._threads.file = first
        self._stored: pa.Schema = first.schema_arrow
        self._known: dict[str, Bounds | None] = {}
        rows = [self._metadata.row_group(i).num_rows for i in range(self._metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        # Counted from the file's own types: an empty name or a dot in one can't mislead it.
        leaves = np.concatenate([[0], np.cumsum([_leaves(field.type) for field in first.schema_arrow])])
        self._leaves = {
            name: list(range(int(leaves[i]), int(leaves[i + 1])))
            for i, name in enumerate(first.schema_arrow.names)
        }

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    @property
    def num_rows(self) -> int:
        return int(self._starts[-1])

    def _file(self) -> pq.ParquetFile:
        if self._shared is not None:
            return self._shared
        file: pq.ParquetFile | None = getattr(self._threads, "file", None)
        if file is None:
            source = self._source
            handle = open_input(source.store, source.path, source.size)
            file = self._threads.file = pq.ParquetFile(handle, metadata=self._metadata, pre_buffer=True)
        return file

    def _indices(self, columns: list[str]) -> list[int]:
        return sorted(index for name in columns for index in self._leaves[name])

    def _groups(self, start: int, stop: int) -> range:
        first, last = np.searchsorted(self._starts, [start, stop - 1], side="right") - 1
        return range(int(first), int(last) + 1)

    def read(self, columns: list[str], start: int, stop: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
        file, indices = self._file(), self._indices(columns)
        for group in self._groups(start, stop):
            first, end = int(self._starts[group]), int(self._starts[group + 1])
            if first == end:
                continue
            batches = file.reader.iter_batches(
                min(batch_rows, end - first), row_groups=[group], column_indices=indices
            )
            for batch in windowed(batches, first, start, stop, batch_rows):
                yield batch.select(columns)

    def take(self, columns: list[str], positions: np.ndarray) -> pa.RecordBatch:
        file, indices = self._file(), self._indices(columns)
        groups = np.searchsorted(self._starts, positions, side="right") - 1
        parts = []
        for group in np.unique(groups).tolist():
            inside = positions[groups == group] - self._starts[group]
            table = file.reader.read_row_group(group, column_indices=indices, use_threads=True)
            taken = table.select(columns).take(pa.array(inside))
            parts.extend(taken.combine_chunks().to_batches())
        return joined(parts)

    def prune(self, predicate: Expr, start: int, stop: int) -> list[tuple[int, int]]:
        count = len(self._starts) - 1
        bounds = {name: found for name in predicate.columns() if (found := self._bounds(name)) is not None}
        if not bounds:
            return [(start, stop)]
        kept = prune_mask(predicate, bounds, count)
        ranges: list[tuple[int, int]] = []
        for group in self._groups(start, stop):
            if kept[group]:
                first, end = max(start, int(self._starts[group])), min(stop, int(self._starts[group + 1]))
                if ranges and ranges[-1][1] == first:
                    ranges[-1] = (ranges[-1][0], end)
                elif first < end:
                    ranges.append((first, end))
        return ranges

    def _bounds(self, name: str) -> Bounds | None:
        if name not in self._known:
            leaves = self._leaves.get(name, [])
            kind = self._stored.field(name).type if leaves else None
            known = None
            # What was lowered has bounds of another type than the filter's column.
            if len(leaves) == 1 and kind == self._schema.field(name).type and not pa.types.is_nested(kind):
                known = row_group_bounds(self._metadata, leaves[0], kind)
            self._known[name] = known
        return self._known[name]

    def matching(self, predicate: Expr, start: int, stop: int) -> np.ndarray | None:
        return None

    def mapped(self, column: str) -> list[np.ndarray] | None:
        return None


def _leaves(kind: pa.DataType) -> int:
    """How many Parquet columns an Arrow type has."""
    if isinstance(kind, pa.BaseExtensionType):
        return _leaves(kind.storage_type)
    if not pa.types.is_nested(kind):
        return 1
    return sum(_leaves(kind.field(i).type) for i in range(kind.num_fields))
