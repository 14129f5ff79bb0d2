"""Measure nominated rows exactly where they stand, and keep the nearest: the last step of a search by index.

An index nominates slots by estimated distance. Here those that may be among the nearest are measured from their stored
values in float64, by the same sums as an exact scan, and offered to a heap that several segments share. Which may be is
told by distances in float32 with a bound of their error, where the CPU has a quick way to them. The values of a segment lie
scattered in mapped files, so that waiting for memory is what costs: the rows ahead are fetched while one is looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from vectorlake.kernels.distance import address_of, as_floats, distance, norm, pointer_to, widen, width_of
from vectorlake.kernels.hamming import differing_bits
from vectorlake.kernels.heap import offer
from vectorlake.kernels.ivf.select import smallest_bound
from vectorlake.kernels.jit import entry, inner
from vectorlake.kernels.microkernel import prefetch
from vectorlake.kernels.rough import is_rough, rough_distance

_AHEAD = 6
"""Rows whose values are on their way while one is measured."""
_LINE = 64

METRIC_HAMMING = 3
"""Beside the metrics of `distance`: bits that differ, of uint8."""


@inner
def _fetch(address: int, size: int) -> None:
    for offset in range(0, size, _LINE):
        prefetch(address + offset)


@inner
def _gather(slots: Any, addresses: int, row_ids: int, places: Any, names: Any) -> int:
    """Write where the nominated rows of a query stand, and their ids; returns how many there are."""
    count = 0
    for i in range(slots.shape[0]):
        slot = slots[i]
        if slot >= 0:
            place = carray(pointer_to(addresses + 8 * slot, np.int64(0)), (1,))[0]
            if place:
                places[count] = place
                names[count] = carray(pointer_to(row_ids + 8 * slot, np.int64(0)), (1,))[0]
                count += 1
    return count


@inner
def _fetch_following(i: int, places: Any, count: int, next_places: Any, next_count: int, size: int) -> None:
    """Fetch the row that comes `_AHEAD` rows after row i: one of the next query, if this one has no more."""
    at = i + _AHEAD
    if at < count:
        _fetch(places[at], size)
    elif at - count < next_count:
        _fetch(next_places[at - count], size)


@inner
def _worthwhile(
    metric: int,
    query: int,
    length: float,
    code: int,
    dimension: int,
    places: Any,
    names: Any,
    count: int,
    next_places: Any,
    next_count: int,
    lows: Any,
    highs: Any,
    farthest: float,
    k: int,
) -> int:
    """Bring those of places[:count] to the front that may be among the k nearest and nearer than `farthest`; how many."""
    size = dimension * width_of(code)
    known = 0
    for i in range(count):
        _fetch_following(i, places, count, next_places, next_count, size)
        low, high = rough_distance(metric, query, length, code, places[i], dimension)
        lows[i] = low
        if high < np.inf:
            highs[known] = high
            known += 1
    limit = np.float32(np.inf)
    if known > k:
        _, limit, _ = smallest_bound(highs, known, k, k // 4)
    kept = 0
    for i in range(count):
        places[kept] = places[i]
        names[kept] = names[i]
        kept += lows[i] <= limit and lows[i] <= farthest
    return kept


@entry(
    "void(int64, int64, int64, int64, int64[::1], float64[:, ::1], int64[:, ::1], int64, int64, float64[:, ::1], "
    "int64[:, ::1])"
)
def refine(
    metric: int,
    query_code: int,
    query_address: int,
    code: int,
    which: Any,
    scratch: Any,
    slots: Any,
    addresses: int,
    row_ids: int,
    heap_distances: Any,
    heap_ids: Any,
) -> None:
    """Offer the nominated slots of some queries to their heaps.

    Args:
        metric: one of `distance`'s constants, or `METRIC_HAMMING`.
        query_code: element type of the queries.
        query_address: where the first query stands; they follow each other without gaps.
        code: element type of the stored vectors.
        which: int64 [m], the queries.
        scratch: float64 [1, d], overwritten.
        slots: int64 [n, pool], negative where there is none.
        addresses: where int64 [slots] stands: the address of each slot's vector, 0 for none.
        row_ids: where int64 [slots] stands: the row id in each slot.
        heap_distances: float64 [n, k], see `heap.offer`.
        heap_ids: int64 [n, k].
    """
    dimension = scratch.shape[1]
    pool = slots.shape[1]
    buffer = np.empty(dimension, np.float32)
    places, names = np.empty((2, pool), np.int64), np.empty((2, pool), np.int64)
    query = scratch[0]
    size = dimension * width_of(code)
    stride = dimension * width_of(query_code)
    rough = is_rough(metric, query_code, code)
    lows = np.empty(pool if rough else 0, np.float32)
    highs = np.empty(pool if rough else 0, np.float32)
    k = heap_distances.shape[1]
    asked = which.shape[0]
    following = _gather(slots[which[0]], addresses, row_ids, places[0], names[0]) if asked else 0
    for i in range(min(_AHEAD, following)):
        _fetch(places[0, i], size)
    for j in range(asked):
        q = which[j]
        there, named, count = places[j & 1], names[j & 1], following
        after = places[1 - (j & 1)]
        following = 0
        if j + 1 < asked:
            following = _gather(slots[which[j + 1]], addresses, row_ids, after, names[1 - (j & 1)])
        widen(query_code, query_address + q * stride, dimension, query, buffer)
        length = norm(address_of(query), dimension)
        if rough:
            count = _worthwhile(
                metric,
                query_address + q * stride,
                length,
                code,
                dimension,
                there,
                named,
                count,
                after,
                following,
                lows,
                highs,
                heap_distances[q, 0],
                k,
            )
        for i in range(count):
            if not rough:
                _fetch_following(i, there, count, after, following, size)
            if metric == METRIC_HAMMING:
                value = float(differing_bits(query_address + q * stride, there[i], dimension))
            else:
                vector, single = as_floats(code, there[i], dimension, buffer)
                value = distance(metric, address_of(query), length, vector, dimension, single)
            if value < np.inf:
                offer(heap_distances[q], heap_ids[q], value, named[i])


@entry("void(float64[:, ::1], int64[:, ::1], float64[:, ::1], int64[:, ::1])")
def offer_found(distances: Any, row_ids: Any, heap_distances: Any, heap_ids: Any) -> None:
    """Offer rows that were measured elsewhere, [n, m], to the heaps [n, k]; those with id -1 are none."""
    for q in range(distances.shape[0]):
        for i in range(distances.shape[1]):
            if row_ids[q, i] >= 0:
                offer(heap_distances[q], heap_ids[q], distances[q, i], row_ids[q, i])


@entry("void(float64[:, ::1], int64[:, ::1])")
def settle(distances: Any, row_ids: Any) -> None:
    """Sort each heap in place, nearest first, empty places last."""
    for q in range(distances.shape[0]):
        keys, names = distances[q], row_ids[q]
        for last in range(keys.shape[0] - 1, 0, -1):
            far, name = keys[0], names[0]
            moved, moved_name = keys[last], names[last]
            hole = 0
            while True:
                child = 2 * hole + 1
                if child >= last:
                    break
                other = child + 1
                if other < last and (
                    keys[other] > keys[child] or (keys[other] == keys[child] and names[other] > names[child])
                ):
                    child = other
                if keys[child] < moved or (keys[child] == moved and names[child] < moved_name):
                    break
                keys[hole] = keys[child]
                names[hole] = names[child]
                hole = child
            keys[hole] = moved
            names[hole] = moved_name
            keys[last] = far
            names[last] = name
