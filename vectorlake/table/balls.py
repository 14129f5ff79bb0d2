"""Bounding balls as files: made beside a fragment whose rows are sorted, read by searches that skip what is too far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.errors import CorruptDataError, NotFoundError
from vectorlake.ids import NewId
from vectorlake.kernels.balls import Ball, Balls, ball_of, joined
from vectorlake.metadata.deletion import checksum_of
from vectorlake.metadata.fragment import BallSegment, Fragment
from vectorlake.schema import Field, is_vector
from vectorlake.store.protocol import Store
from vectorlake.table.vector_rows import vector_rows

FOLDER: Final = "index"
VERSION: Final = 1
"""Of the file's layout."""
BALL_ROWS: Final = 1024
"""A fragment of fewer rows is scanned as quickly as its balls are looked at."""
LEAST_RUN: Final = 64
MOST_RUN: Final = 1024
"""Rows of a run: as many as are alike, but neither so few that balls take much room, nor so many that all is one."""
_NUMBERS: Final = ("radius", "angle", "least_norm", "greatest_norm")


class BallCollector:
    """Cuts rows on their way into fragments into runs, and keeps the ball of each run's vectors.

    Args:
        fields: the vector columns.
        order: columns that the rows are sorted by; a run ends where one of them changes. Those that batches lack don't
            count.
    """

    def __init__(self, fields: Sequence[Field], order: Sequence[Field]) -> None:
        self._fields = tuple(fields)
        self._order = tuple(order)
        self._begin()

    def _begin(self) -> None:
        self._rows = 0
        """Rows of the fragment so far."""
        self._start = 0
        """The first row that is in no run yet."""
        self._changes = np.empty(0, np.int64)
        self._last: list[pa.Array] = []
        self._waiting: list[pa.RecordBatch] = []
        self._stops: list[int] = []
        self._balls: dict[int, list[Ball]] = {field.id: [] for field in self._fields}

    def add(self, batch: pa.RecordBatch) -> None:
        """The next rows of the fragment that is being written."""
        if not batch.num_rows:
            return
        keys = [batch.column(f.name) for f in self._order if f.name in batch.schema.names]
        changes = np.flatnonzero(_changes(keys, self._last, batch.num_rows)) + self._rows
        self._changes = np.concatenate([self._changes, changes])
        self._last = [key.slice(len(key) - 1) for key in keys]
        self._waiting.append(batch.select([field.name for field in self._fields]))
        self._rows += batch.num_rows
        self._cut(ended=False)

    def finish(self, store: Store, sources: Mapping[int, str], *, new_id: NewId) -> tuple[BallSegment, ...]:
        """End the fragment: its balls, durable under their names once `sync_folders` was called; none for a small one.

        Args:
            sources: the path of the data file of each column.
        """
        self._cut(ended=True)
        stops, rows, balls = np.array(self._stops, np.int64), self._rows, self._balls
        self._begin()
        if rows < BALL_ROWS:
            return ()
        order = tuple(field.id for field in self._order)
        return tuple(
            _write(store, joined(stops, balls[number]), (number, source, order), new_id=new_id)
            for number, source in sources.items()
            if number in balls
        )

    def _cut(self, *, ended: bool) -> None:
        """Make runs of the rows that wait, as far as it's clear where they end."""
        stops: list[int] = []
        start = self._start
        while start < self._rows:
            at = int(np.searchsorted(self._changes, start + LEAST_RUN))
            if at < len(self._changes):
                end = int(self._changes[at])
            elif ended:
                end = self._rows
            elif self._rows - start >= 2 * MOST_RUN:
                end = start + MOST_RUN
            else:
                break
            pieces = -(-(end - start) // MOST_RUN)
            start += -(-(end - start) // pieces)
            stops.append(start)
        if not stops:
            return
        held = pa.Table.from_batches(self._waiting).combine_chunks()
        (batch,) = held.to_batches()
        for field in self._fields:
            vectors, valid = vector_rows(batch.column(field.name))
            first = 0
            for stop in (stop - self._start for stop in stops):
                run = slice(first, stop)
                self._balls[field.id].append(
                    ball_of(vectors[run] if valid is None else vectors[run][valid[run]])
                )
                first = stop
        self._stops += stops
        self._waiting = [batch.slice(start - self._start)] if start < self._rows else []
        self._changes = self._changes[np.searchsorted(self._changes, start, "right") :]
        self._start = start


def vector_fields(fields: Sequence[Field]) -> list[Field]:
    """The columns that can have balls."""
    return [field for field in fields if is_vector(field.type)]


def read_balls(store: Store, segment: BallSegment, *, rows: int, dimension: int) -> Balls:
    """The balls of a column of a fragment.

    Args:
        rows: physical rows of the fragment.
        dimension: of the column's vectors.

    Raises:
        CorruptDataError: the file is missing, or not what the manifest recorded.
    """
    where = f"{store.uri}/{segment.path}"
    try:
        data = store.get(segment.path)
    except NotFoundError as e:
        raise CorruptDataError(f"{where} is missing, though a manifest names it") from e
    if len(data) != segment.size or (found := checksum_of(data)) != segment.checksum:
        raise CorruptDataError(
            f"{where} is damaged: {len(data)} bytes with checksum {found if len(data) == segment.size else '?'}, the "
            f"manifest says {segment.size} bytes with {segment.checksum}"
        )
    table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
    stops = table["stop"].to_numpy()
    centres, _ = vector_rows(table["centre"].combine_chunks())
    if centres.shape != (len(stops), dimension) or not len(stops) or stops[-1] != rows:
        raise CorruptDataError(f"{where} does not hold balls of {rows} vectors of {dimension} numbers")
    radii, angles, least, greatest = (table[name].to_numpy() for name in _NUMBERS)
    return Balls(stops, centres, radii, angles, least, greatest)


def known_balls(fragment: Fragment, field: Field) -> BallSegment | None:
    """The balls of a column's values as they are now, if this release can read them."""
    segment = fragment.balls_of(field.id)
    return segment if segment is not None and segment.version <= VERSION else None


def _write(
    store: Store, balls: Balls, about: tuple[int, str, tuple[int, ...]], *, new_id: NewId
) -> BallSegment:
    dimension = balls.centres.shape[1]
    numbers = zip(_NUMBERS, (balls.radii, balls.angles, balls.least, balls.greatest), strict=True)
    table = pa.table(
        {
            "stop": balls.stops,
            "centre": pa.FixedSizeListArray.from_arrays(balls.centres.reshape(-1), dimension),
            **dict(numbers),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data = bytes(sink.getvalue())
    path = f"{FOLDER}/{new_id()}.balls"
    with store.staged(path) as local:
        local.write_bytes(data)
    number, source, order = about
    return BallSegment(number, VERSION, source, order, path, len(data), checksum_of(data))


def _changes(keys: Sequence[pa.Array], last: Sequence[pa.Array], rows: int) -> npt.NDArray[np.bool_]:
    """Which rows differ from the one before in any key; the first one from the last of the batch before."""
    found = np.zeros(rows, bool)
    for key, before in zip(keys, last or [key.slice(0, 1) for key in keys], strict=True):
        shifted = pa.concat_arrays([before, key.slice(0, len(key) - 1)])
        # Nulls come together where rows are sorted, and a change too many does no harm.
        differs = pc.fill_null(pc.not_equal(key, shifted), True)
        found |= differs.to_numpy(zero_copy_only=False)
    return found
