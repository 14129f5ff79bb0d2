"""The way to the nearest of integer vectors: exact products, no bound, nothing measured again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from vectorlake.kernels.codes import aligned_zeros
from vectorlake.kernels.integers import MOST, NEVER, PANEL, STEP, TILE, search_integers, widen_rows
from vectorlake.kernels.metric import Metric
from vectorlake.kernels.reference import METRIC_CODES
from vectorlake.kernels.rows import FLOAT16, Rows

_BLOCK_BYTES: Final = 8 << 20
"""How large a block may be: each group of queries reads it, from the last level of cache."""

_GROUP_BYTES: Final = 128 << 10
"""How large a group's queries may be: each panel of rows reads them, from a core's second cache."""

_MOST_ROWS: Final = 16384
_PART: Final = 512
_LARGEST_ELEMENT: Final = 255
_GOLDEN: Final = 0.618


def whole_queries(queries: Rows) -> npt.NDArray[np.int16] | None:
    """The queries as 16-bit integers, if they are whole numbers of which every product with such rows is exact.

    Args:
        queries: of any element type, finite.
    """
    array, dimension = queries.array, queries.dimension
    if dimension * _LARGEST_ELEMENT**2 > MOST:
        return None
    if queries.code <= FLOAT16:
        # A power of two is the same in every type.
        most = min(2 ** ((MOST // (dimension * _LARGEST_ELEMENT)).bit_length() - 1), 2**14)
        if not ((np.abs(array) <= most) & (np.rint(array) == array)).all():
            return None
    return array.astype(np.int16)


class IntegerPath:
    """Searches blocks of int8 or uint8 rows (see `integers`) on machines with AVX2; others have `paths.FloatPath`.

    Args:
        queries: int16 [n, d], see `whole_queries`.
        metric: one whose distances are sums.
        distances: float64 [n, k], heaps.
        row_ids: int64 [n, k], heaps.
    """

    tile: Final = TILE
    least_group: Final = 4 * TILE

    def __init__(
        self,
        queries: npt.NDArray[np.int16],
        metric: Metric,
        *,
        distances: npt.NDArray[np.float64],
        row_ids: npt.NDArray[np.int64],
    ) -> None:
        count, dimension = queries.shape
        self._metric = METRIC_CODES[metric]
        self._heaps = distances, row_ids
        self._padded = -(-dimension // STEP) * STEP
        self.block_rows = max(_PART, min(_MOST_ROWS, _BLOCK_BYTES // (2 * self._padded) // _PART * _PART))
        self.group = max(1, _GROUP_BYTES // (2 * self._padded * TILE)) * TILE
        padded = np.zeros((-(-count // TILE) * TILE, self._padded), np.int16)
        padded[:count, :dimension] = queries
        words = padded.view(np.int32).reshape(-1, TILE, self._padded // 2)
        self._tiles = np.ascontiguousarray(words.transpose(0, 2, 1))
        self._squares = np.einsum("ij,ij->i", queries, queries, dtype=np.int64)
        self._panels = np.empty(0, np.int32)
        self._terms = np.empty(0, np.int32)
        self._row_squares = np.empty(0, np.int64)

    def encode(
        self,
        rows: Rows,
        valid: npt.NDArray[np.bool_],
        run: Callable[[Callable[[int, int], None], Sequence[tuple[int, int]]], None],
    ) -> None:
        """Take a block of rows, at most `block_rows`, sharing parts of the work out by `run`.

        Args:
            rows: int8 or uint8.
            valid: bool [rows], or empty where all may match.
            run: calls a function for every part.
        """
        places = -(-rows.count // PANEL) * PANEL
        if len(self._terms) < places:
            self._panels = aligned_zeros(places * self._padded * 2).view(np.int32)
            self._terms = np.empty(places, np.int32)
            self._row_squares = np.empty(places, np.int64)
        self._count = rows.count
        if self._metric == METRIC_CODES[Metric.COSINE]:
            self._terms[rows.count :].view(np.float32)[:] = np.nan
        else:
            self._terms[rows.count :] = NEVER

        def widen(start: int, end: int) -> None:
            source = self._metric, rows.code, rows.address, rows.stride, valid
            widen_rows(
                *source,
                start,
                end,
                rows.dimension,
                self._padded,
                self._panels.ctypes.data,
                self._terms,
                self._row_squares,
            )

        run(widen, [(first, min(first + _PART, rows.count)) for first in range(0, rows.count, _PART)])

    def search(self, first: int, end: int, ids: npt.NDArray[np.int64]) -> None:
        """Offer the block to the heaps of some queries; `first` is a multiple of `tile`.

        Args:
            first: the first query.
            end: one past the last.
            ids: int64, the ids of the block's rows.
        """
        distances, row_ids = self._heaps
        search_integers(
            self._metric,
            self._padded,
            self._tiles.ctypes.data + first * self._padded * 2,
            self._panels.ctypes.data,
            _stride(-(-self._count // PANEL)),
            self._terms,
            self._row_squares,
            self._squares[first:end],
            ids,
            self._count,
            distances[first:end],
            row_ids[first:end],
        )


def _stride(count: int) -> int:
    """A step that meets all of `count` places, neighbours far apart."""
    step = max(1, round(_GOLDEN * count))
    while math.gcd(step, count) != 1:
        step += 1
    return step % count if count > 1 else 1
