"""Rows of vectors from an Arrow IPC file in a remote store: only their own bytes are fetched, in one round trip."""

from __future__ import annotations

import threading
from typing import Final

import numpy as np
import pyarrow as pa

from vectorlake.formats.arrow_layout import Batch, Block, blocks, first_of, header
from vectorlake.formats.protocol import FileSource
from vectorlake.formats.vectors import is_vector, vectors_over

_SHARE: Final = 8
"""Where more than one row in so many is wanted, whole batches are read."""


class Ranged:
    """A remote file by ranges. Safe to share between threads."""

    def __init__(self, source: FileSource, schema: pa.Schema) -> None:
        self._source = source
        self._schema = schema
        self._lock = threading.Lock()
        self._blocks: list[Block] | None = None
        self._headers: dict[int, Batch] = {}

    def header(self, index: int) -> Batch:
        """The header of a batch, read once."""
        with self._lock:
            if self._blocks is None:
                size = self._source.size
                if size is None:
                    size = self._source.store.head(self._source.path).size
                self._blocks = blocks(self._read, size)
            if index not in self._headers:
                self._headers[index] = header(self._read, self._blocks[index])
            return self._headers[index]

    def take(self, columns: list[str], positions: np.ndarray, starts: np.ndarray) -> pa.RecordBatch | None:
        """Rows at ascending positions; None where another way is better or the only one.

        Args:
            columns: names.
            positions: in the file.
            starts: of each batch, and the end.
        """
        if len(positions) * _SHARE > starts[-1]:
            return None
        owners = np.searchsorted(starts, positions, side="right") - 1
        arrays = [self._taken(name, positions, owners, starts) for name in columns]
        if any(array is None for array in arrays):
            return None
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([self._schema.field(n) for n in columns]))

    def _taken(
        self, column: str, positions: np.ndarray, owners: np.ndarray, starts: np.ndarray
    ) -> pa.Array | None:
        index = self._schema.get_field_index(column)
        kind = self._schema.field(index).type
        first = first_of(self._schema, index) if is_vector(kind) else None
        if first is None:
            return None
        array, buffer = first
        element = np.dtype(kind.value_type.to_pandas_dtype())
        width = kind.list_size * element.itemsize
        places = np.empty(len(positions), np.int64)
        for owner in np.unique(owners).tolist():
            batch = self.header(owner)
            # The list's validity, then the elements' validity and their values.
            if batch.compressed or batch.nulls[array] or batch.nulls[array + 1]:
                return None
            offset, length = batch.buffers[buffer + 2]
            if length < batch.rows * width:
                return None
            inside = owners == owner
            places[inside] = offset + (positions[inside] - starts[owner]) * width
        return vectors_over(self._fetched(places, width).view(element).reshape(-1, kind.list_size), kind)

    def _fetched(self, places: np.ndarray, width: int) -> np.ndarray:
        """Bytes [rows, width] at some places; the store joins those that are near each other."""
        ranges = [(place, width) for place in places.tolist()]
        rows = self._source.store.get_ranges(self._source.path, ranges)
        if any(len(row) != width for row in rows):
            raise ValueError("it ends before its last row")
        return np.frombuffer(b"".join(rows), np.uint8)

    def _read(self, start: int, length: int) -> bytes:
        return self._source.store.get_range(self._source.path, start, length)
