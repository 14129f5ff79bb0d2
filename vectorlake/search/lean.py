"""An index that is one mapped segment with every row of its table, for queries one at a time: two kernels, little around."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from vectorlake.index.protocol import Ask, Searcher, Single, for_singles
from vectorlake.kernels.refine import refine
from vectorlake.kernels.rows import Rows as Matrix
from vectorlake.search.heaps import Heaps
from vectorlake.search.plan import Effort

_FIRST: Final = np.zeros(1, np.int64)
_NOTHING: Final = np.empty((0, 0), np.float32)


class Lean:
    """What such a segment needs for a search, found out once.

    Args:
        searcher: the segment.
        words: its live slots as bits, None where all are; `share` of them are.
        metric: as `refine` knows it, and `code` the type of the stored vectors.
        places: int64 [slots], where their vectors stand.
        row_ids: int64 [slots].
    """

    def __init__(
        self,
        searcher: Searcher,
        words: npt.NDArray[np.uint32] | None,
        share: float,
        metric: int,
        code: int,
        places: npt.NDArray[np.int64],
        row_ids: npt.NDArray[np.int64],
    ) -> None:
        self._searcher = searcher
        self._words = words
        self._share = share
        self._metric = metric
        self._code = code
        self._slots = len(row_ids)
        self._kept = (places, row_ids)
        self._nominators: dict[Effort, Single] = {}
        self._places = int(places.ctypes.data)
        self._row_ids = int(row_ids.ctypes.data)

    def nominator(self, effort: Effort) -> Single:
        """A function that gives the slots to measure for a query [1, d], one after another.

        It raises CorruptDataError if the segment is damaged.
        """
        known = self._nominators.get(effort)
        if known is None:
            pool = min(effort.pool, self._slots)
            ask = Ask(_NOTHING, pool, effort.effort, self._words, self._share)
            known = self._nominators[effort] = for_singles(self._searcher, ask)
        return known

    def measure(self, query: Matrix, slots: npt.NDArray[np.int64], heaps: Heaps) -> None:
        """Measure nominated slots [1, pool] for a query [1, d], and offer them."""
        refine(
            self._metric,
            query.code,
            query.address,
            self._code,
            _FIRST,
            np.empty((1, query.dimension)),
            slots,
            self._places,
            self._row_ids,
            heaps.distances,
            heaps.row_ids,
        )
