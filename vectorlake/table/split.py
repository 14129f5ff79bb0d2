"""A scan in parts that other processes read: each a few ranges of rows of a pinned snapshot, small enough to send."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vectorlake.errors import InvalidInputError, UnsupportedError
from vectorlake.expr import Expr
from vectorlake.table.ref import TableRef, ref_of
from vectorlake.table.scan import RowRange, Scan, width_of


@dataclass(frozen=True)
class Split:
    """A part of a scan. Picklable; reads the same rows wherever and whenever it is read.

    Attributes:
        table: the pinned table.
        columns: names, in order.
        predicate: the scan's filter, which is applied exactly.
        ranges: the rows, in order.
        batch_size: at most so many rows a batch; None for what suits the columns.
    """

    table: TableRef
    columns: tuple[str, ...]
    predicate: Expr | None
    ranges: tuple[RowRange, ...]
    batch_size: int | None = None

    @property
    def rows(self) -> int:
        """Physical rows: at least as many as it yields."""
        return sum(known.stop - known.start for known in self.ranges)

    def scan(self) -> Scan:
        """The part as a scan: opens the table, or takes it from those that this process has open.

        Raises:
            NotFoundError: the version is no longer there.
        """
        view = self.table.open().view
        fields = tuple(view.select(list(self.columns)))
        return Scan(view, fields, self.predicate, batch_size=self.batch_size, ranges=self.ranges)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the batches."""
        return self.scan().schema

    def nbytes(self) -> int:
        """About how many bytes the rows take in memory: by the columns' types, no file is looked at."""
        scan = self.scan()
        return self.rows * sum(width_of(field.to_storage().type) for field in scan.fields)

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """The rows as record batches."""
        return self.scan().to_batches()


def split_scan(scan: Scan, rows: int) -> list[Split]:
    """The parts of a scan (see `Scan.splits`)."""
    if isinstance(rows, bool) or not isinstance(rows, int | np.integer) or rows < 1:
        raise InvalidInputError(f"rows must be an integer of at least 1, not {rows!r}")
    if scan.limit is not None:
        raise UnsupportedError(
            "a scan with a limit can't be split: leave the limit to who puts the parts together"
        )
    table = ref_of(scan.view)
    columns = tuple(field.name for field in scan.fields)
    return [
        Split(table, columns, scan.predicate, ranges, scan.batch_size)
        for ranges in _parts(_ranges(scan), int(rows))
    ]


def _ranges(scan: Scan) -> Iterator[RowRange]:
    if scan.ranges is not None:
        yield from scan.ranges
        return
    for fragment in scan.view.fragments(scan.predicate):
        yield RowRange(fragment.id, 0, fragment.row_count)


def _parts(ranges: Iterator[RowRange], most: int) -> Iterator[tuple[RowRange, ...]]:
    """Ranges in groups of at most `most` rows: cut where they are longer, evenly, so that no part is a mere rest."""
    group: list[RowRange] = []
    held = 0
    for known in ranges:
        count = known.stop - known.start
        if group and held + count > most:
            yield tuple(group)
            group, held = [], 0
        if count <= most:
            group.append(known)
            held += count
            continue
        pieces = -(-count // most)
        edges = [known.start + count * piece // pieces for piece in range(pieces + 1)]
        for start, stop in itertools.pairwise(edges):
            yield (RowRange(known.fragment_id, start, stop),)
    if group:
        yield tuple(group)
