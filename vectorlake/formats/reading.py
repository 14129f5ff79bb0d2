"""The reader that all formats share: resolve columns and rows, reorder takes, lift types, and name the file
in errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from vectorlake.errors import CorruptDataError, InvalidInputError, NotFoundError
from vectorlake.expr import Expr
from vectorlake.formats.batches import ascending, counted, counted_batches, empty
from vectorlake.formats.failures import reading
from vectorlake.formats.lowering import converted
from vectorlake.formats.protocol import FileSource
from vectorlake.schema import did_you_mean, listing


class Backend(Protocol):
    """A file opened by its format's library. Columns are one or more existing names, rows lie inside the
    file.

    Batches come in the logical types or in the physical ones that `converted` casts back.
    """

    @property
    def schema(self) -> pa.Schema:
        """The logical schema."""
        ...

    @property
    def num_rows(self) -> int: ...

    def read(
        self, columns: list[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]: ...

    def take(self, columns: list[str], positions: np.ndarray) -> pa.RecordBatch:
        """Rows at positions that are ascending and distinct, at least one."""
        ...

    def prune(self, predicate: Expr, start: int, stop: int) -> list[tuple[int, int]]: ...

    def matching(self, predicate: Expr, start: int, stop: int) -> np.ndarray | None: ...

    def mapped(self, column: str) -> list[np.ndarray] | None: ...


class DataFileReader:
    """A `FileReader` over a format's `Backend`."""

    def __init__(self, source: FileSource, backend: Backend) -> None:
        self._source = source
        self._backend: Backend | None = backend
        self._schema = backend.schema
        self._num_rows = backend.num_rows

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    @property
    def num_rows(self) -> int:
        return self._num_rows

    def read(
        self, columns: Sequence[str] | None, start: int, stop: int, *, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        backend, schema = self._opened(), self._projected(columns)
        self._check_window(start, stop)
        if batch_rows < 1:
            raise InvalidInputError(f"batch_rows must be at least 1, not {batch_rows}")
        if not len(schema):
            return counted_batches(start, stop, batch_rows)
        return self._read(backend, schema, start, stop, batch_rows)

    def _read(
        self, backend: Backend, schema: pa.Schema, start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        if start == stop:
            return
        # Entered around each step and not around the yield: what a consumer raises is none of ours.
        guard = reading(self._source)
        with guard:
            batches = backend.read(schema.names, start, stop, batch_rows)
        rows = 0
        while True:
            with guard:
                batch = next(batches, None)
                if batch is None:
                    break
                batch = _lifted(batch, schema)
            rows += batch.num_rows
            yield batch
        if rows != stop - start:
            raise CorruptDataError(
                f"{self._source.uri} is damaged: {rows} of {stop - start} rows could be read"
            )

    def take(self, columns: Sequence[str] | None, positions: np.ndarray) -> pa.RecordBatch:
        backend, schema = self._opened(), self._projected(columns)
        wanted = np.asarray(positions, np.int64)
        if not len(wanted):
            return empty(schema)
        distinct, inverse = ascending(wanted)
        self._check_window(int(distinct[0]), int(distinct[-1]) + 1)
        if not len(schema):
            return counted(len(wanted))
        with reading(self._source):
            batch = _lifted(backend.take(schema.names, distinct), schema)
        if batch.num_rows != len(distinct):
            raise CorruptDataError(
                f"{self._source.uri} is damaged: {batch.num_rows} of {len(distinct)} rows could be read"
            )
        return batch if inverse is None else batch.take(pa.array(inverse))

    def prune(self, predicate: Expr, start: int, stop: int) -> list[tuple[int, int]]:
        backend = self._opened()
        self._check_window(start, stop)
        if start == stop:
            return []
        with reading(self._source):
            return backend.prune(predicate, start, stop)

    def matching(self, predicate: Expr, start: int, stop: int) -> np.ndarray | None:
        backend = self._opened()
        self._check_window(start, stop)
        with reading(self._source):
            return backend.matching(predicate, start, stop)

    def mapped(self, column: str) -> list[np.ndarray] | None:
        backend = self._opened()
        self._projected([column])
        with reading(self._source):
            return backend.mapped(column)

    def close(self) -> None:
        self._backend = None

    def _opened(self) -> Backend:
        if self._backend is None:
            raise InvalidInputError(f"the reader of {self._source.uri} is closed: open the file again")
        return self._backend

    def _projected(self, columns: Sequence[str] | None) -> pa.Schema:
        if columns is None:
            return self._schema
        names = self._schema.names
        for name in columns:
            if name not in names:
                raise NotFoundError(
                    f"{self._source.uri} has no column {name!r}{did_you_mean(name, names)}; it has "
                    f"{listing(names)}"
                )
        if len(set(columns)) != len(columns):
            raise InvalidInputError(f"a column is asked for twice: {listing(list(columns))}")
        return pa.schema([self._schema.field(name) for name in columns], self._schema.metadata)

    def _check_window(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self._num_rows:
            raise InvalidInputError(
                f"rows {start} to {stop} are not inside {self._source.uri}, which has {self._num_rows} rows"
            )


def _lifted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    try:
        return converted(batch, schema)
    except InvalidInputError as e:
        # What was stored came from the logical type, so it always goes back, unless it was damaged.
        raise ValueError(str(e)) from e
