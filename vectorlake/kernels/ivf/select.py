"""Keep the smallest of a stream of estimates: append what is below a threshold, and tighten it when there is no room."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from vectorlake.kernels.distance import single_of_bits
from vectorlake.kernels.jit import Builder, Value, finite, inner, intrinsic

_ALL = np.float32(np.inf)
_HALVINGS = 70
"""At most; about ten are needed. Every second one halves the numbers that there are between the bounds."""


@intrinsic
def _bits_of(typing: Any, value: Any) -> Any:
    """The 32 bits of a float32, as an integer."""

    def codegen(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), codegen


@inner
def _rank(value: Any) -> Any:
    """An integer that grows with a float32, by one from each to the next."""
    bits = np.int64(_bits_of(value))
    return bits if bits >= 0 else np.int64(-0x80000000) - bits


@inner
def _midway(low: Any, high: Any, turn: int) -> Any:
    """A value between two: by value or, as values may differ by orders of magnitude, by rank."""
    if turn % 2 == 0:
        return np.float32(0.5) * low + np.float32(0.5) * high
    rank = (_rank(low) + _rank(high)) >> 1
    bits = rank if rank >= 0 else np.int64(-0x80000000) - rank
    return single_of_bits(np.uint32(bits & 0xFFFFFFFF))


@finite
def limits_of(values: Any, count: int) -> tuple[Any, Any]:
    """The least and the largest of values[:count], count > 0."""
    low, high = values[0], values[0]
    for i in range(count):
        value = values[i]
        low = value if value < low else low
        high = value if value > high else high
    return low, high


@inner
def count_up_to(values: Any, count: int, bound: Any) -> Any:
    """How many of values[:count] are at most a bound."""
    reached = np.int32(0)
    for i in range(count):
        reached += np.int32(1) if values[i] <= bound else np.int32(0)
    return np.int64(reached)


@inner
def smallest_bound(values: Any, count: int, wanted: int, slack: int) -> tuple[Any, Any, Any]:
    """Two bounds: fewer than `wanted` of values[:count] are at most the first, at least so many at most the second.

    Found by halving, as counting is quick; it ends when the second bound has at most `slack` too many. Needs
    0 < wanted <= count, and finite values.

    Returns:
        the bounds, and how many values are at most the first.
    """
    low, high = limits_of(values, count)
    surely = count_up_to(values, count, low)
    if surely >= wanted:
        return -_ALL, low, np.int64(0)
    for turn in range(_HALVINGS):
        middle = _midway(low, high, turn)
        if not (low < middle and middle < high):
            break
        reached = count_up_to(values, count, middle)
        if reached >= wanted:
            high = middle
            if reached <= wanted + slack:
                break
        else:
            low = middle
            surely = reached
    return low, high, surely


@inner
def keep_smallest(values: Any, slots: Any, count: int, wanted: int, slack: int) -> tuple[Any, Any]:
    """Keep the smallest of values[:count] and their slots, in front: `wanted`, or up to `slack` more.

    Those that halving can't tell apart are kept in their order.

    Returns:
        how many were kept, and a bound that all of them keep.
    """
    low, high, surely = smallest_bound(values, count, wanted, slack)
    ties = wanted + slack - surely
    kept = 0
    if count_up_to(values, count, high) <= wanted + slack:
        # The usual case, without a branch that nobody can predict.
        for i in range(count):
            value = values[i]
            values[kept] = value
            slots[kept] = slots[i]
            kept += value <= high
        return kept, high
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
    return kept, high


@inner
def nearest_first(distances: Any, wanted: int, places: Any, values: Any) -> None:
    """Write the places and values of the `wanted` smallest distances, in no particular order."""
    count = distances.shape[0]
    low, high, surely = smallest_bound(distances, count, wanted, 0)
    ties = wanted - surely
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
