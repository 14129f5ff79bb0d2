"""Choose the partitions that queries probe, from their products with the centroids."""

from __future__ import annotations

from typing import Any

import numpy as np

from vectorlake.kernels.ivf.select import nearest_first, smallest_bound
from vectorlake.kernels.jit import entry, inner

_SHUT = np.float32(3e38)
_HALVINGS = 20


@inner
def _early_first(values: Any, places: Any, count: int, early: int) -> None:
    """Bring the `early` smallest of values[:count] to the front."""
    low, high, surely = smallest_bound(values, count, early, 0)
    ties = early - surely
    place = 0
    for i in range(count):
        value = values[i]
        if value <= high:
            if value > low:
                if ties == 0:
                    continue
                ties -= 1
            values[i] = values[place]
            values[place] = value
            places[i], places[place] = places[place], places[i]
            place += 1


@entry("void(float32[:, ::1], float32[:, ::1], int64, int64, float32[:, ::1])")
def multiply(queries: Any, turned: Any, first: int, end: int, products: Any) -> None:
    """Products of queries [first, end) with all centroids, without a BLAS, whose idle threads would spin on our cores.

    Args:
        queries: float32 [n, d].
        turned: float32 [d, partitions], the centroids by dimension.
        products: float32 [n, partitions], written.
    """
    count = turned.shape[1]
    q = first
    while q + 4 <= end:
        one, two, three, four = products[q], products[q + 1], products[q + 2], products[q + 3]
        one[:] = 0
        two[:] = 0
        three[:] = 0
        four[:] = 0
        for i in range(turned.shape[0]):
            a, b, c, d = queries[q, i], queries[q + 1, i], queries[q + 2, i], queries[q + 3, i]
            for j in range(count):
                value = turned[i, j]
                one[j] += a * value
                two[j] += b * value
                three[j] += c * value
                four[j] += d * value
        q += 4
    while q < end:
        one = products[q]
        one[:] = 0
        for i in range(turned.shape[0]):
            a = queries[q, i]
            for j in range(count):
                one[j] += a * turned[i, j]
        q += 1


@entry(
    "void(float32[:, ::1], float32, float32[::1], float32[::1], uint8[::1], int64[::1], int64, int64, float32[:, ::1], "
    "int64, int32[:, ::1], float32[:, ::1])"
)
def choose_probes(
    products: Any,
    factor: Any,
    partition_terms: Any,
    query_terms: Any,
    dead: Any,
    weights: Any,
    enough: int,
    early: int,
    own_shifts: Any,
    nprobe: int,
    probes: Any,
    shifts: Any,
) -> None:
    """Choose for each query the nearest partitions.

    Args:
        products: float32 [n, partitions], overwritten: a distance is factor * product + its two terms.
        factor: float32.
        partition_terms: float32 [partitions].
        query_terms: float32 [n].
        dead: uint8 [n], 1 where a query matches nothing.
        weights: int64 [partitions], rows that may be nominated; those of 0 are passed over. Empty: all alike.
        enough: with weights: partitions are added beyond nprobe until they hold so many rows.
        early: how many nearest come first.
        own_shifts: float32 [n, 1], what estimates are shifted by; empty: by the distance of the centroid.
        nprobe: how many.
        probes: int32 [n, most], written, -1 beyond those chosen.
        shifts: float32 [n, most], written.
    """
    count = products.shape[1]
    most = probes.shape[1]
    for q in range(products.shape[0]):
        probes[q] = -1
        if dead[q]:
            continue
        distances = products[q]
        open_ = 0
        farthest = -_SHUT
        for p in range(count):
            distances[p] = distances[p] * factor + (partition_terms[p] + query_terms[q])
            shut = weights.shape[0] > 0 and weights[p] == 0
            open_ += not shut
            farthest = max(farthest, distances[p])
        if open_ < count:
            # Just behind the others: the nearest are found by halving, which a huge number would throw off.
            behind = farthest + abs(farthest) + np.float32(1.0)
            for p in range(count):
                if weights[p] == 0:
                    distances[p] = behind
        wanted = min(nprobe, open_)
        if wanted == 0:
            continue
        if weights.shape[0] > 0 and open_ > wanted:
            wanted = _until_enough(distances, weights, enough, wanted, min(open_, most))
        nearest_first(distances, wanted, probes[q], shifts[q])
        if early < wanted:
            _early_first(shifts[q], probes[q], wanted, early)
        if own_shifts.shape[0] > 0:
            for i in range(wanted):
                shifts[q, i] = own_shifts[q, 0]


@inner
def _until_enough(distances: Any, weights: Any, enough: int, least: int, most: int) -> Any:
    """How many of the nearest partitions hold `enough` rows, within limits; found by halving, as sums are quick."""
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for p in range(distances.shape[0]):
        if weights[p] > 0:
            low = min(low, distances[p])
            high = max(high, distances[p])
    for _ in range(_HALVINGS):
        middle = np.float32(0.5) * low + np.float32(0.5) * high
        held = np.int64(0)
        for p in range(distances.shape[0]):
            held += weights[p] if distances[p] <= middle else 0
        if held >= enough:
            high = middle
        else:
            low = middle
    reached = 0
    for p in range(distances.shape[0]):
        reached += distances[p] <= high
    return min(max(reached, least), most)
