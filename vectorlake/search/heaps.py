"""The nearest rows of each query so far, into which segments and scans offer theirs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vectorlake.kernels.heap import NO_ROW
from vectorlake.kernels.refine import offer_found, settle
from vectorlake.search.found import Found


@dataclass(frozen=True)
class Heaps:
    """A heap for each query.

    Attributes:
        distances: float64 [n, k].
        row_ids: int64 [n, k].
    """

    distances: npt.NDArray[np.float64]
    row_ids: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, count: int, k: int, max_distance: float | None) -> Heaps:
        """Heaps without rows, into which none comes that is farther than `max_distance`."""
        most = np.inf if max_distance is None else max_distance
        return cls(np.full((count, k), most, np.float64), np.full((count, k), NO_ROW, np.int64))

    def of(self, first: int, end: int) -> Heaps:
        """Those of queries [first, end), to be written to."""
        return Heaps(self.distances[first:end], self.row_ids[first:end])

    def offer(self, found: Found) -> None:
        """Offer rows that were found elsewhere."""
        offer_found(
            np.ascontiguousarray(found.distances),
            np.ascontiguousarray(found.row_ids),
            self.distances,
            self.row_ids,
        )

    def lacking(self) -> npt.NDArray[np.int64]:
        """The heaps with an empty place: it would be the root, which is the farthest."""
        return np.flatnonzero(self.row_ids[:, 0] == NO_ROW)

    def found(self) -> Found:
        """What they hold, sorted. They are used up."""
        settle(self.distances, self.row_ids)
        none = self.row_ids == NO_ROW
        if none.any():
            self.distances[none] = np.inf
            self.row_ids[none] = -1
            counts = self.row_ids.shape[1] - none.sum(axis=1)
        else:
            counts = np.full(len(none), none.shape[1], np.int64)
        return Found(self.row_ids, self.distances, counts)
