"""The exact search: stream the vector column, or chosen rows of it, through the kernels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.kernels import ExactKnn, Metric
from vectorlake.schema import Field
from vectorlake.search.blocks import read_blocks, whole_parts
from vectorlake.search.certified import coded, nearest_by_codes
from vectorlake.search.found import Found
from vectorlake.search.pruned import Ask, Pruning, nearest_pruned
from vectorlake.search.selection import Selection, selected_rows
from vectorlake.search.vectors import Block, Rows, blocks_of
from vectorlake.table.view import View

_FEW: Final = 4
"""For so few queries products cost no more than reading the rows, of which balls can only save some."""
_WORTH: Final = 0.25
"""Balls are used for more queries, or where codes are kept, if they leave less than this share of the rows."""


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
    """Looks at every row that is selected, on a device of torch's if one is named, but for rows that balls rule out.

    `rows` counts those looked at last, and `pruning` tells what balls did, if they were used.
    """

    view: View
    field: Field
    metric: Metric
    queries: npt.NDArray[Any]
    selection: Selection
    threads: int | None = None
    device: str | None = None
    rows: int = 0
    pruning: Pruning | None = None
    _chosen: Sequence[Rows] | None = None

    @property
    def most(self) -> int:
        """The table's rows."""
        return self.view.snapshot.num_rows

    def nearest(self, k: int, max_distance: float | None) -> Found:
        """The k nearest rows of each query, as a float64 scan finds them: by codes where a flat index keeps some."""
        stored = self.selection.all and self.device is None
        prepared = coded(self.view, self.field, self.metric) if stored else None
        pruned = self._pruned(k, max_distance, coded=prepared is not None)
        if pruned is not None:
            return pruned
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

    def _pruned(self, k: int, max_distance: float | None, *, coded: bool) -> Found | None:
        """The same rows, found with the help of balls; None where there are none, or they would not help."""
        self.pruning = None
        if self.device is not None or self.selection.include is not None:
            return None
        ask = Ask(self.view, self.field, self.metric, self.queries, self.selection, k, self.threads)
        limits = np.full(len(self.queries), np.inf if max_distance is None else max_distance)
        few = len(self.queries) <= _FEW and not coded
        found = nearest_pruned(ask, limits, worth=1.0 if few else _WORTH)
        if found is None:
            return None
        self.pruning, self.rows = found[1], found[1].rows
        return found[0]

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
            parts = whole_parts(self.view, self.selection)
            return read_blocks(self.view, self.field, self.selection, parts, self.threads)
        if self._chosen is None:
            self._chosen = selected_rows(self.view, self.selection, self.threads)
        return blocks_of(self._chosen, self.field)
