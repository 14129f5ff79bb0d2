"""A query as codes are compared with it, and its distances to single vectors and to many."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from vectorlake.kernels.distance import METRIC_DOT, address_of, pointer_to
from vectorlake.kernels.graph.lanes import fill_entries, query_product
from vectorlake.kernels.graph.record import DEGREE, LEVELS
from vectorlake.kernels.graph.rotation import prepare
from vectorlake.kernels.jit import entry, inner, relaxed
from vectorlake.kernels.microkernel import prefetch

# Places in a query's numbers.
STEP_OF: Final = 0
OFFSET: Final = 1
SCALE: Final = 2
SQUARE: Final = 3
HEIGHT: Final = 4
SHIFT: Final = 5
FLOOR: Final = 6
BOUND: Final = 7
NUMBERS: Final = 8

_TWO = np.float32(2)
_GROUP: Final = 8
_AHEAD: Final = 4


@relaxed
def product_with(query: Any, centre: Any) -> Any:
    """Their inner product: by so much distances are less than without the centre."""
    total = np.float32(0)
    for i in range(query.shape[0]):
        total += query[i] * centre[i]
    return total


@relaxed
def _extents(rotated: Any) -> Any:
    """The largest sum of four magnitudes, the largest magnitude, the sum of them, and that of their squares."""
    widest = np.float32(0)
    largest = np.float32(0)
    total = np.float32(0)
    square = np.float32(0)
    for i in range(rotated.shape[0]):
        size = abs(rotated[i])
        total += size
        square += size * size
        largest = max(largest, size)
    for group in range(rotated.shape[0] // 4):
        extent = np.float32(0)
        for i in range(4):
            extent += abs(rotated[4 * group + i])
        widest = max(widest, extent)
    return widest, largest, total, square


@inner
def fill_table(rotated: Any, table: Any, words: Any, numbers: Any) -> None:
    """Prepare a rotated query: the look-up table of its signed sums, and its elements as 16-bit integers."""
    padded = rotated.shape[0]
    widest, largest, total, square = _extents(rotated)
    numbers[SQUARE] = square
    numbers[OFFSET] = -total
    numbers[STEP_OF] = _TWO * widest / np.float32(LEVELS)
    inverse = np.float32(LEVELS) / (_TWO * widest) if widest > 0 else np.float32(0)
    fill_entries(address_of(rotated), padded // 4, np.float32(inverse), address_of(table))
    levels = np.float32(min(8191, (2**31 - 1) // (128 * padded) - 1))
    numbers[SCALE] = largest / levels
    inverse = levels / largest if largest > 0 else np.float32(0)
    for i in range(padded):
        words[i] = np.int16(np.rint(rotated[i] * inverse))


@inner
def measure(metric: int, tail: Any, vector: Any, words: int, padded: int, numbers: Any) -> Any:
    """The distance of a stored vector from the query, but for the rounding of the former to bytes."""
    facts = carray(pointer_to(tail, np.float32(0)), (3,))
    product = np.float32(query_product(vector, words, padded)) * (facts[0] * numbers[SCALE])
    if metric == METRIC_DOT:
        return -product
    height = numbers[HEIGHT] - facts[2]
    return max(numbers[SQUARE] + facts[1] - _TWO * product, np.float32(0)) + height * height


@inner
def allows(allowed: int, slot: Any) -> Any:
    """Whether a filter lets a slot pass; no filter has address 0."""
    if allowed == 0:
        return True
    word = carray(pointer_to(allowed + 4 * (slot >> 5), np.uint32(0)), (1,))[0]
    return (np.int64(word) >> (slot & 31)) & 1 != 0


@entry(
    "void(int64, int64, int64, float32[:, ::1], int64, int64, float32[::1], int8[:, ::1], int64[::1], float32[:, ::1])"
)
def scan_slots(
    records: int,
    stride: int,
    metric: int,
    queries: Any,
    first: int,
    end: int,
    centre: Any,
    signs: Any,
    slots: Any,
    distances: Any,
) -> None:
    """Measure all of some slots from queries [first, end).

    Args:
        slots: int64 [m].
        distances: float32 [n, m], infinity where there is none; written.
    """
    padded = signs.shape[1]
    root = 4 * padded + 12 * DEGREE
    table = np.empty(4 * padded, np.uint8)
    words = np.empty((_GROUP, padded), np.int16)
    numbers = np.zeros((_GROUP, NUMBERS), np.float32)
    alive = np.zeros(_GROUP, np.bool_)
    rotated = np.empty(padded, np.float32)
    for start in range(first, end, _GROUP):
        count = min(_GROUP, end - start)
        for i in range(count):
            alive[i] = prepare(metric, queries[start + i], centre, metric != METRIC_DOT, signs, rotated)
            if alive[i]:
                fill_table(rotated, table, words[i], numbers[i])
        for j in range(slots.shape[0]):
            vector = records + slots[j] * stride + root
            if j + _AHEAD < slots.shape[0]:
                ahead = records + slots[j + _AHEAD] * stride + root
                for offset in range(0, padded + 16, 64):
                    prefetch(ahead + offset)
            for i in range(count):
                distances[start + i, j] = (
                    measure(metric, vector + padded, vector, address_of(words[i]), padded, numbers[i])
                    if alive[i]
                    else np.float32(np.inf)
                )
