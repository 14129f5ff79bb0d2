"""Keep the smallest of a stream of estimates: append what is below a threshold, and tighten it when there is no room."""

from __future__ import annotations

from typing import Any

import numpy as np

from vectorlake.kernels.jit import inner

_ALL = np.float32(np.inf)
_HALVINGS = 24


@inner
def _count_up_to(values: Any, count: int, bound: Any) -> Any:
    """How many of values[:count] are at most a bound."""
    reached = 0
    for i in range(count):
        reached += values[i] <= bound
    return reached


@inner
def smallest_bound(values: Any, count: int, wanted: int) -> tuple[Any, Any]:
    """Two bounds: fewer than `wanted` of values[:count] are at most the first, at least so many at most the second.

    Found by halving, as counting is quick; the second often has exactly so many. Needs 0 < wanted <= count, and finite
    values.
    """
    low, high = values[0], values[0]
    for i in range(count):
        low = min(low, values[i])
        high = max(high, values[i])
    if _count_up_to(values, count, low) >= wanted:
        return -_ALL, low
    for _ in range(_HALVINGS):
        middle = np.float32(0.5) * low + np.float32(0.5) * high
        if not (low < middle and middle < high):
            break
        reached = _count_up_to(values, count, middle)
        if reached >= wanted:
            high = middle
            if reached == wanted:
                break
        else:
            low = middle
    return low, high


@inner
def keep_smallest(values: Any, slots: Any, count: int, wanted: int) -> Any:
    """Keep the `wanted` smallest of values[:count] and their slots, in front; returns a bound that all of them keep.

    Those that halving can't tell apart are kept in their order.
    """
    low, high = smallest_bound(values, count, wanted)
    surely = _count_up_to(values, count, low)
    ties = wanted - surely
    kept = 0
    for i in range(count):
        value = values[i]
        if value <= high:
            if value > low:
                if ties == 0:
                    continue
                ties -= 1
            values[kept] = value
            slots[kept] = slots[i]
            kept += 1
    return high


@inner
def nearest_first(distances: Any, wanted: int, places: Any, values: Any) -> None:
    """Write the places and values of the `wanted` smallest distances, in no particular order."""
    count = distances.shape[0]
    low, high = smallest_bound(distances, count, wanted)
    ties = wanted - _count_up_to(distances, count, low)
    kept = 0
    for i in range(count):
        value = distances[i]
        if value <= high:
            if value > low:
                if ties == 0:
                    continue
                ties -= 1
            places[kept] = i
            values[kept] = value
            kept += 1
