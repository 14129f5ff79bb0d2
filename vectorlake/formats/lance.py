"""Lance 2.2 files: vectors in contiguous pages that are memory-mapped where they lie on local disk, blobs,
any type."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from lance.file import LanceFileReader, LanceFileSession, LanceFileWriter

from vectorlake.expr import Expr
from vectorlake.formats.batches import joined
from vectorlake.formats.checksum import admit
from vectorlake.formats.failures import reading, wrong_length
from vectorlake.formats.lance_pages import MappedPages, map_pages
from vectorlake.formats.lowering import (
    SCHEMA_KEY,
    all_types,
    lowered_schema,
    schema_from_text,
    schema_to_text,
    unheld_columns,
)
from vectorlake.formats.protocol import FileReader, FileSource, FileWriter, WriteOptions
from vectorlake.formats.reading import DataFileReader
from vectorlake.formats.vectors import is_vector, vectors_over
from vectorlake.formats.writing import DataFileWriter, refuse
from vectorlake.store.spool import local_copy

VERSION: Final = "2.2"
_ENCODING: Final = b"lance-encoding:"
_BATCH_ROWS: Final = 8_192
"""Rows a write: pages of this many vectors are written without a second copy in the writer's cache."""

_NATIVE: Final = ("s3://", "gs://", "az://")
_IDLE_READERS: Final = 2


class LanceFormat:
    """The `lance` format. Options: `blob_columns`, stored so that reading one does not read its
    neighbours."""

    name = "lance"
    suffix = ".lance"

    def unsupported(self, schema: pa.Schema) -> list[str]:
        return unheld_columns(schema)

    def create(self, path: Path, schema: pa.Schema, options: WriteOptions) -> FileWriter:
        refuse(self.name, schema, self.unsupported(schema))
        plain = lowered_schema(schema, _rule)
        physical = pa.schema([_encoded(field, options) for field in plain], schema.metadata)
        if physical.types != schema.types:
            text = schema_to_text(schema)
            physical = physical.with_metadata({**(schema.metadata or {}), SCHEMA_KEY: text.encode()})
        return DataFileWriter(
            path,
            schema,
            physical=physical,
            options=options,
            group_rows=_BATCH_ROWS,
            start=lambda: _Sink(path, physical),
        )

    def open(self, source: FileSource) -> FileReader:
        admit(source)
        with reading(source):
            return DataFileReader(source, _Backend(source))


def _rule(kind: pa.DataType) -> pa.DataType | None:
    """Lance has fixed-size lists of fixed-width elements only."""
    t = pa.types
    if t.is_fixed_size_list(kind) and not all(_fixed_width(part) for part in all_types(kind.value_type)):
        return pa.list_(kind.value_field)
    return None


def _fixed_width(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(
        t.is_primitive(kind)
        or t.is_decimal(kind)
        or t.is_fixed_size_list(kind)
        or t.is_fixed_size_binary(kind)
    )


def _encoded(field: pa.Field, options: WriteOptions) -> pa.Field:
    """The field with the encoding that it is written in."""
    metadata = {key: value for key, value in (field.metadata or {}).items() if not key.startswith(_ENCODING)}
    if is_vector(field.type):
        # Of any dimension one after the other, not in packed blocks: they can be mapped.
        metadata[_ENCODING + b"structural-encoding"] = b"fullzip"
        metadata[_ENCODING + b"compression"] = b"none"
    t = pa.types
    if field.name in options.blob_columns and (t.is_binary(field.type) or t.is_large_binary(field.type)):
        metadata[_ENCODING + b"blob"] = b"true"
        field = field.with_type(pa.large_binary())
    return field.with_metadata(metadata or None)


class _Sink:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = LanceFileWriter(str(path), schema, version=VERSION)

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        # There is no way to drop a writer's file but to finish it.
        self._writer.close()


class _Backend:
    def __init__(self, source: FileSource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, ...] | None, list[LanceFileReader]] = defaultdict(list)
        self._pages: dict[str, MappedPages | None] = {}
        self._every: list[str] | None = None
        self._copy = contextlib.ExitStack()
        self._path, self._session = self._located()
        with self._reader(None) as reader:
            self._rows = int(reader.num_rows())
            # Describing all pages takes milliseconds: only where a vector column is to be mapped.
            stored: pa.Schema = reader.read_range(0, 0).to_batches().schema
        self._stored = stored
        self._every = stored.names
        metadata = dict(stored.metadata or {})
        text = metadata.pop(SCHEMA_KEY, None)
        if text is not None:
            self._schema = schema_from_text(text.decode())
        else:
            self._schema = pa.schema([_decoded(field) for field in stored], metadata or None)

    def __del__(self) -> None:
        self._copy.close()

    def _located(self) -> tuple[str, LanceFileSession | None]:
        """Where Lance finds the file: a path, or a name inside a session on a store that it reads itself."""
        source = self._source
        if source.local is not None:
            return str(source.local), None
        found = source.store.head(source.path).size
        if source.size is not None and found != source.size:
            raise wrong_length(source, found)
        if source.uri.startswith(_NATIVE):
            folder, _, name = source.uri.rpartition("/")
            return name, LanceFileSession(folder, storage_options=source.store.storage_options)
        return str(self._copy.enter_context(local_copy(source.store, source.path, found))), None

    @contextlib.contextmanager
    def _reader(self, columns: list[str] | None) -> Iterator[LanceFileReader]:
        """A reader of just these columns for the time of the block: one serves a single thread, and one
        projection. Opening one reads the footer, so all columns in order are left to that of the whole file."""
        columns = None if columns == self._every else columns
        key = None if columns is None else tuple(columns)
        with self._lock:
            idle = self._idle[key]
            reader = idle.pop() if idle else None
        if reader is None and self._session is not None:
            reader = self._session.open_reader(self._path, columns)
        elif reader is None:
            reader = LanceFileReader(self._path, columns=columns)
        yield reader
        # Not after an error: its state is unknown.
        with self._lock:
            if len(idle) < _IDLE_READERS:
                idle.append(reader)

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    @property
    def num_rows(self) -> int:
        return self._rows

    def read(self, columns: list[str], start: int, stop: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
        mapped = {name: pages for name in columns if (pages := self._trusted(name)) is not None}
        others = [name for name in columns if name not in mapped]
        if not mapped:
            yield from self._read(columns, start, stop, batch_rows)
            return
        # Cut where a page ends: a batch lies in one page of every mapped column and needs no copy.
        cuts = np.unique(np.concatenate([pages.starts for pages in mapped.values()]))
        inner = cuts[(cuts > start) & (cuts < stop)].tolist()
        edges = [start, *inner, stop]
        steps = [
            (position, min(position + batch_rows, right))
            for left, right in itertools.pairwise(edges)
            for position in range(left, right, batch_rows)
        ]
        with contextlib.ExitStack() as stack:
            reader = stack.enter_context(self._reader(others)) if others else None
            for begin, end in steps:
                arrays = {
                    name: vectors_over(pages.window(begin, end), self._schema.field(name).type)
                    for name, pages in mapped.items()
                }
                if reader is not None:
                    result = reader.read_range(begin, end - begin, batch_size=end - begin, batch_readahead=2)
                    batch = joined(list(result.to_batches()))
                    arrays |= {name: batch.column(name) for name in others}
                yield _assembled(columns, arrays)

    def _read(self, columns: list[str], start: int, stop: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
        with self._reader(columns) as reader:
            result = reader.read_range(
                start, stop - start, batch_size=min(batch_rows, stop - start), batch_readahead=2
            )
            for batch in result.to_batches():
                yield batch.select(columns)

    def take(self, columns: list[str], positions: np.ndarray) -> pa.RecordBatch:
        arrays: dict[str, pa.Array] = {}
        for name in columns:
            pages = self._trusted(name)
            if pages is not None:
                arrays[name] = vectors_over(pages.take(positions), self._schema.field(name).type)
        others = [name for name in columns if name not in arrays]
        if others:
            batch = self._take(others, positions)
            arrays |= {name: batch.column(name) for name in others}
        return _assembled(columns, arrays)

    def _take(self, columns: list[str], positions: np.ndarray) -> pa.RecordBatch:
        with self._reader(columns) as reader:
            result = reader.take_rows(positions.tolist(), batch_size=len(positions), batch_readahead=2)
            return joined(list(result.to_batches()))

    def prune(self, predicate: Expr, start: int, stop: int) -> list[tuple[int, int]]:
        return [(start, stop)]

    def matching(self, predicate: Expr, start: int, stop: int) -> np.ndarray | None:
        return None

    def mapped(self, column: str) -> list[np.ndarray] | None:
        pages = self._trusted(column)
        return None if pages is None else list(pages.pages)

    def _trusted(self, column: str) -> MappedPages | None:
        """The column's pages in memory, once rows of them were found to equal what Lance itself reads."""
        with self._lock:
            if column in self._pages:
                return self._pages[column]
        pages = self._mapped(column)
        with self._lock:
            return self._pages.setdefault(column, pages)

    def _mapped(self, column: str) -> MappedPages | None:
        kind = self._schema.field(column).type
        path = self._source.local or (Path(self._path) if self._session is None else None)
        if path is None or not is_vector(kind) or not self.num_rows:
            return None
        index = sum(
            _lance_columns(field.type) for field in list(self._stored)[: self._stored.names.index(column)]
        )
        with self._reader(None) as reader:
            described = reader.metadata().columns
        descriptor: Any = described[index] if index < len(described) else None
        pages = map_pages(path, descriptor, kind=kind, rows=self.num_rows)
        if pages is None:
            return None
        probes = pages.probes()
        expected = self._take([column], probes).column(0)
        return pages if vectors_over(pages.take(probes), kind).equals(expected) else None


def _assembled(columns: list[str], arrays: dict[str, pa.Array]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([arrays[name] for name in columns], columns)


def _decoded(field: pa.Field) -> pa.Field:
    """The field without the encodings that writing added."""
    metadata = {key: value for key, value in (field.metadata or {}).items() if not key.startswith(_ENCODING)}
    return field.with_metadata(metadata or None)


def _lance_columns(kind: pa.DataType) -> int:
    """How many columns Lance writes for an Arrow type: one a leaf; a fixed-size list of numbers is a leaf."""
    t = pa.types
    if t.is_fixed_size_list(kind) and not t.is_struct(kind.value_type):
        return 1
    if not t.is_nested(kind):
        return 1
    return sum(_lance_columns(kind.field(i).type) for i in range(kind.num_fields))
