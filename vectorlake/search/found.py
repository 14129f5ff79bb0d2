"""What a search finds, and the two ways to look: each gives the nearest rows of every query, to any depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Found:
    """The nearest rows of each query, nearest first, ties by row id.

    Attributes:
        row_ids: int64 [n, k], -1 where fewer than k were found.
        distances: float64 [n, k], infinity there.
        counts: int64 [n], how many were found.
    """

    row_ids: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]

    def limited(self, most: float) -> Found:
        """Without rows that are farther than `most`."""
        far = ~(self.distances <= most)
        return Found(
            np.where(far, -1, self.row_ids),
            np.where(far, np.inf, self.distances),
            (~far).sum(axis=1),
        )

    def window(self, first: int, end: int) -> Found:
        """The ranks [first, end)."""
        if first == 0 and end >= self.row_ids.shape[1]:
            return self
        return Found(
            self.row_ids[:, first:end],
            self.distances[:, first:end],
            np.clip(self.counts - first, 0, end - first),
        )


class Engine(Protocol):
    """A search whose queries, metric and selection are settled."""

    @property
    def queries(self) -> npt.NDArray[Any]:
        """[n, d]."""
        ...

    @property
    def most(self) -> int:
        """An upper bound of how many rows a query can find."""
        ...

    def nearest(self, k: int, max_distance: float | None) -> Found:
        """The k nearest rows of each query, none farther than `max_distance`."""
        ...
