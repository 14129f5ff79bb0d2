"""Record batches cut to size, joined, gathered and counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa


class Regrouped:
    """Batches pushed in any size, handed out in exactly `rows` rows, and what is left at the end."""

    def __init__(self, rows: int) -> None:
        self._rows = max(1, rows)
        self._waiting: list[pa.RecordBatch] = []
        self._count = 0

    def push(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Take a batch in; yield the full ones that it completes. Large batches are cut without a copy."""
        offset = 0
        if self._count:
            offset = min(self._rows - self._count, batch.num_rows)
            self._hold(batch.slice(0, offset))
            if self._count < self._rows:
                return
            yield self._joined()
        while batch.num_rows - offset >= self._rows:
            yield batch.slice(offset, self._rows)
            offset += self._rows
        if offset < batch.num_rows:
            self._hold(batch.slice(offset))

    def rest(self) -> Iterator[pa.RecordBatch]:
        """The rows that are left, if any."""
        if self._count:
            yield self._joined()

    def _hold(self, batch: pa.RecordBatch) -> None:
        if batch.num_rows:
            self._waiting.append(batch)
            self._count += batch.num_rows

    def _joined(self) -> pa.RecordBatch:
        waiting, self._waiting, self._count = self._waiting, [], 0
        return joined(waiting)


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of one schema as a single batch; the one itself if there is one."""
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def counted(rows: int) -> pa.RecordBatch:
    """A batch without columns that has `rows` rows."""
    return pa.RecordBatch.from_arrays([pa.nulls(rows)], ["c"]).select([])


def counted_batches(start: int, stop: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Batches without columns whose rows add up to `stop - start`."""
    for position in range(start, stop, batch_rows):
        yield counted(min(batch_rows, stop - position))


def windowed(
    batches: Iterable[pa.RecordBatch], first: int, start: int, stop: int, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Of batches whose first row has position `first`, the rows `[start, stop)`, in batches of at most
    `batch_rows`."""
    position = first
    for batch in batches:
        begin, end = max(start - position, 0), min(stop - position, batch.num_rows)
        for offset in range(begin, end, batch_rows):
            yield batch.slice(offset, min(batch_rows, end - offset))
        position += batch.num_rows
        if position >= stop:
            return


def empty(schema: pa.Schema) -> pa.RecordBatch:
    """A batch of no rows."""
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def ascending(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions sorted and distinct, and where each asked-for one is among them (None: they were so
    already)."""
    if len(positions) < 2 or bool((positions[1:] > positions[:-1]).all()):
        return positions, None
    distinct, inverse = np.unique(positions, return_inverse=True)
    return distinct, inverse
