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
def _worthwhile(
    metric: int,
    query: int,
    length: float,
    code: int,
    dimension: int,
    places: Any,
    names: Any,
    count: int,
    lows: Any,
    highs: Any,
    farthest: float,
    k: int,
) -> int:
    """Bring those of places[:count] to the front that may be among the k nearest and nearer than `farthest`; how many."""
    size = dimension * width_of(code)
    for i in range(min(_AHEAD, count)):
        _fetch(places[i], size)
    known = 0
    for i in range(count):
        if i + _AHEAD < count:
            _fetch(places[i + _AHEAD], size)
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
    places = np.empty(pool, np.int64)
    names = np.empty(pool, np.int64)
    query = scratch[0]
    size = dimension * width_of(code)
    stride = dimension * width_of(query_code)
    rough = is_rough(metric, query_code, code)
    lows = np.empty(pool if rough else 0, np.float32)
    highs = np.empty(pool if rough else 0, np.float32)
    k = heap_distances.shape[1]
    for q in which:
        widen(query_code, query_address + q * stride, dimension, query, buffer)
        length = norm(address_of(query), dimension)
        count = 0
        for i in range(pool):
            slot = slots[q, i]
            if slot >= 0:
                place = carray(pointer_to(addresses + 8 * slot, np.int64(0)), (1,))[0]
                if place:
                    places[count] = place
                    names[count] = carray(pointer_to(row_ids + 8 * slot, np.int64(0)), (1,))[0]
                    count += 1
        if rough:
            count = _worthwhile(
                metric,
                query_address + q * stride,
                length,
                code,
                dimension,
                places,
                names,
                count,
                lows,
                highs,
                heap_distances[q, 0],
                k,
            )
        else:
            for i in range(min(_AHEAD, count)):
                _fetch(places[i], size)
        for i in range(count):
            if not rough and i + _AHEAD < count:
                _fetch(places[i + _AHEAD], size)
            if metric == METRIC_HAMMING:
                value = float(differing_bits(query_address + q * stride, places[i], dimension))
            else:
                vector, single = as_floats(code, places[i], dimension, buffer)
                value = distance(metric, address_of(query), length, vector, dimension, single)
            if value < np.inf:
                offer(heap_distances[q], heap_ids[q], value, names[i])


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
