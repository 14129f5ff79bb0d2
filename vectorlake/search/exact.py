"""The exact search: stream the vector column, or chosen rows of it, through the kernels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vectorlake.kernels import ExactKnn, Metric
from vectorlake.plan.scan import fields_by_name
from vectorlake.schema import Field
from vectorlake.search.certified import coded, nearest_by_codes
from vectorlake.search.found import Found
from vectorlake.search.selection import Selection, selected_rows
from vectorlake.search.vectors import Block, Rows, as_block, blocks_of
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.scan import MORSEL_ROWS, ordered_map, width_of
from vectorlake.table.view import View

_BLOCK_BYTES: Final = 32 * 1024 * 1024
_GATHER: Final = 8
"""Rows that a filter leaves are gathered before scoring when fewer than one in this many survives; else masked."""


def nearest_among(
    blocks: Iterable[Block],
    queries: npt.NDArray[Any],
    *,
    k: int,
    metric: Metric,
    threads: int | None,
    bounds: npt.NDArray[np.float64] | None = None,
    device: str | None = None,
) -> tuple[Found, int]:
    """The k nearest of some rows within bounds, float64 [n], and how many rows there were."""
    search = ExactKnn(queries, k=k, metric=metric, threads=threads, bounds=bounds, device=device)
    rows = 0
    for block in blocks:
        rows += len(block.vectors)
        search.add(block.vectors, block.row_ids, block.valid)
    return Found(*search.result()), rows


@dataclass
class ExactEngine:
    """Looks at every row that is selected, on a device of torch's if one is named. `rows` counts those looked at last."""

    view: View
    field: Field
    metric: Metric
    queries: npt.NDArray[Any]
    selection: Selection
    threads: int | None = None
    device: str | None = None
    rows: int = 0
    _chosen: Sequence[Rows] | None = None

    @property
    def most(self) -> int:
        """The table's rows."""
        return self.view.snapshot.num_rows

    def nearest(self, k: int, max_distance: float | None) -> Found:
        """The k nearest rows of each query, as a float64 scan finds them: by codes where a flat index keeps some."""
        stored = self.selection.all and self.device is None
        prepared = coded(self.view, self.field, self.metric) if stored else None
        bounds = self._bounds(k, max_distance, by_codes=prepared is not None)
        if prepared is not None:
            found, self.rows = nearest_by_codes(
                prepared, self.queries, k=k, metric=self.metric, threads=self.threads, bounds=bounds
            )
        else:
            found, self.rows = nearest_among(
                self._blocks(),
                self.queries,
                k=k,
                metric=self.metric,
                threads=self.threads,
                bounds=bounds,
                device=self.device,
            )
        return found

    def _bounds(
        self, k: int, max_distance: float | None, *, by_codes: bool
    ) -> npt.NDArray[np.float64] | None:
        """How far a row of interest is at most; None where nothing is known."""
        from vectorlake.search.seeding import bounds_by_index

        bounds = None
        # Without codes products take nearly all of the time, which bounds don't shorten.
        if by_codes and k <= self.most:
            bounds = bounds_by_index(
                self.view, self.field, self.metric, self.queries, k, threads=self.threads
            )
        if max_distance is None:
            return bounds
        limit = np.full(len(self.queries), max_distance, np.float64)
        return limit if bounds is None else np.minimum(bounds, limit)

    def _blocks(self) -> Iterator[Block]:
        if self.selection.include is None:
            return _all_blocks(self.view, self.field, self.selection, self.threads)
        if self._chosen is None:
            self._chosen = selected_rows(self.view, self.selection, self.threads)
        return blocks_of(self._chosen, self.field)


def _all_blocks(view: View, field: Field, selection: Selection, threads: int | None) -> Iterator[Block]:
    """All candidate vectors, block by block: mapped from the file where that works, else read ahead on some threads."""
    predicate = selection.predicate
    fields = fields_by_name(view.snapshot.schema)
    rows = max(512, min(MORSEL_ROWS, _BLOCK_BYTES // max(width_of(field.to_storage().type), 1)))
    unmapped: list[tuple[FragmentReader, int, int]] = []
    for reader in view.readers(predicate):
        pieces = reader.mapped(field)
        ranges = [(0, reader.fragment.row_count)] if predicate is None else reader.prune(predicate, fields)
        if pieces is None:
            unmapped.extend(
                (reader, s, min(s + rows, high)) for low, high in ranges for s in range(low, high, rows)
            )
            if len(unmapped) >= 64:
                yield from _read(view, field, selection, unmapped, threads)
                unmapped = []
        else:
            yield from _mapped(view, reader, selection, pieces, ranges)
    yield from _read(view, field, selection, unmapped, threads)


def _mapped(
    view: View,
    reader: FragmentReader,
    selection: Selection,
    pieces: list[np.ndarray],
    ranges: list[tuple[int, int]],
) -> Iterator[Block]:
    offset = 0
    for piece in pieces:
        for low, high in ranges:
            for start in range(max(low, offset), min(high, offset + len(piece)), MORSEL_ROWS):
                stop = min(start + MORSEL_ROWS, high, offset + len(piece))
                positions = selection.positions(view, reader, start, stop)
                vectors = piece[start - offset : stop - offset]
                if positions is None:
                    yield Block(vectors, reader.row_ids(start, stop), None)
                elif len(positions) * _GATHER < stop - start:
                    if len(positions):
                        yield Block(vectors[positions - start], reader.row_ids_at(positions), None)
                else:
                    valid = np.zeros(stop - start, bool)
                    valid[positions - start] = True
                    yield Block(vectors, reader.row_ids(start, stop), valid)
        offset += len(piece)


def _read(
    view: View,
    field: Field,
    selection: Selection,
    morsels: list[tuple[FragmentReader, int, int]],
    threads: int | None,
) -> Iterator[Block]:
    def read(morsel: tuple[FragmentReader, int, int]) -> Block | None:
        reader, start, stop = morsel
        positions = selection.positions(view, reader, start, stop)
        if positions is None:
            return as_block(reader.read([field], start, stop).column(0), reader.row_ids(start, stop), field)
        if not len(positions):
            return None
        if len(positions) * _GATHER < stop - start:
            array = reader.take([field], positions).column(0)
        else:
            array = reader.read([field], start, stop).column(0).take(pa.array(positions - start))
        return as_block(array, reader.row_ids_at(positions), field)

    for block in ordered_map(read, morsels, threads=threads or 2):
        if block is not None:
            yield block
