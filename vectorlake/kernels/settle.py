"""What becomes of pairs of rows that a first test let pass: finer integers judge them, and what is left is measured.

Pairs are collected before they are settled, so that what they need is in the cache by then.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from vectorlake.kernels.distance import address_of, as_floats, distance, norm, widen, width_of
from vectorlake.kernels.heap import offer
from vectorlake.kernels.jit import inner
from vectorlake.kernels.microkernel import multiply_bytes, prefetch

SCALE: Final = 0
LOST: Final = 1
LENGTH: Final = 2
HALF: Final = 3
BEYOND: Final = 4
"""The rows of the terms: what integers are multiplied by, e, n, b and t (see `symmetric`)."""

FARTHEST: Final = np.float32(3e38)
"""The reach of a row whose heap takes anything."""
AHEAD: Final = 6
WAITING: Final = 1024
"""So many pairs are worth settling."""
_LINE: Final = 64


@inner
def reach_of(slope: float, slack: float, tiny: float, root: float) -> Any:
    """How far a row may be, in product space, that is as near as distance `root`."""
    if not root < np.inf:
        return FARTHEST
    reach = slope * (root + tiny * abs(root)) + slack
    # Never infinite, also under dot: half squares of rows without a bound are.
    return np.float32(max(min(reach, np.float64(FARTHEST)), -np.float64(FARTHEST)))


@inner
def fetch(address: int, size: int) -> None:
    """Ask for bytes that will be needed."""
    for offset in range(0, size, _LINE):
        prefetch(address + offset)


@inner
def settle(
    metric: int,
    fine_width: int,
    fine: int,
    fine_terms: Any,
    code: int,
    places: Any,
    row_ids: Any,
    slope: float,
    slack: float,
    tiny: float,
    ones: Any,
    others: Any,
    count: int,
    apart: Any,
    same: bool,
    query: Any,
    buffer: Any,
    reaches: Any,
    distances: Any,
    ids: Any,
) -> Any:
    """Offer pairs to the heaps of both rows, unless they are surely too far apart.

    Args:
        metric, fine_width, fine, fine_terms, code, places, row_ids, slope, slack, tiny, reaches, distances, ids: see
            `symmetric.join_blocks`.
        ones, others: int64, the rows of pairs; those that had to be measured are moved to the front.
        count: how many pairs there are.
        apart: float32, for as many pairs, overwritten.
        same: whether the rows of a pair may hold each other already.
        query: float64 [dimension], overwritten.
        buffer: float32 [dimension], overwritten.

    Returns:
        how many pairs had to be measured.
    """
    kept = 0
    for at in range(count):
        ahead = min(at + AHEAD, count - 1)
        fetch(fine + others[ahead] * fine_width, fine_width)
        i, j = ones[at], others[at]
        product = np.float32(multiply_bytes(fine + i * fine_width, fine + j * fine_width, fine_width))
        high = product * fine_terms[SCALE, i] * fine_terms[SCALE, j]
        high += fine_terms[LENGTH, i] * fine_terms[LOST, j] + fine_terms[LOST, i] * fine_terms[LENGTH, j]
        nearest = fine_terms[HALF, i] + fine_terms[HALF, j] - high
        # What has no bound is infinite, and may come out as no number at all.
        if not nearest > max(reaches[i], reaches[j]):
            ones[kept], others[kept], apart[kept] = i, j, nearest
            kept += 1
    dimension = query.shape[0]
    size = dimension * width_of(code)
    widened = -1
    length = 0.0
    for at in range(kept):
        ahead = min(at + AHEAD, kept - 1)
        fetch(places[others[ahead]], size)
        i, j = ones[at], others[at]
        if apart[at] > max(reaches[i], reaches[j]):
            continue
        if i != widened:
            widen(code, places[i], dimension, query, buffer)
            length = norm(address_of(query), dimension)
            widened = i
        vector, single = as_floats(code, places[j], dimension, buffer)
        value = distance(metric, address_of(query), length, vector, dimension, single)
        if not value < np.inf:
            continue
        if not (same and _holds(ids[i], row_ids[j])) and offer(distances[i], ids[i], value, row_ids[j]):
            reaches[i] = reach_of(slope, slack, tiny, distances[i, 0])
        if not (same and _holds(ids[j], row_ids[i])) and offer(distances[j], ids[j], value, row_ids[i]):
            reaches[j] = reach_of(slope, slack, tiny, distances[j, 0])
    return kept


@inner
def _holds(ids: Any, row_id: int) -> bool:
    found = False
    for at in range(ids.shape[0]):
        found |= ids[at] == row_id
    return found
