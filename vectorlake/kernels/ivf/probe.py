"""Choose the partitions that queries probe, from their products with the centroids."""

from __future__ import annotations

from typing import Any

import numpy as np

from vectorlake.kernels.ivf.select import limits_of, nearest_first, smallest_bound
from vectorlake.kernels.jit import entry, inner

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


@entry(
    "void(float32[:, ::1], float32, float32[::1], float32[::1], uint8[::1], int64[::1], int64, int64[::1], float32[:, ::1], "
    "float32[::1], int64, int32[:, ::1], float32[:, ::1])"
)
def choose_probes(
    products: Any,
    factor: Any,
    partition_terms: Any,
    query_terms: Any,
    dead: Any,
    weights: Any,
    enough: int,
    waves: Any,
    own_shifts: Any,
    handicaps: Any,
    nprobe: int,
    probes: Any,
    shifts: Any,
) -> None:
    """Choose for each query the nearest partitions.

    Args:
        products: float32 [n, at least partitions], overwritten: a distance is factor * product + its two terms.
        factor: float32.
        partition_terms: float32 [partitions].
        query_terms: float32 [n].
        dead: uint8 [n], 1 where a query matches nothing.
        weights: int64 [partitions], rows that may be nominated; those of 0 are passed over. Empty: all alike.
        enough: with weights: partitions are added beyond nprobe until they hold so many rows.
        waves: int64 [w], ascending: each so many nearest come before the others.
        own_shifts: float32 [n, 1], what estimates are shifted by; empty: by the distance of the centroid.
        handicaps: float32 [partitions], what is added to distances to tell which partitions are the nearest, and to
            nothing else.
        nprobe: how many.
        probes: int32 [n, most], written, -1 beyond those chosen.
        shifts: float32 [n, most], written.
    """
    count = partition_terms.shape[0]
    most = probes.shape[1]
    for q in range(products.shape[0]):
        probes[q] = -1
        if dead[q]:
            continue
        distances = products[q, :count]
        shut = 0
        for p in range(count):
            distances[p] = distances[p] * factor + (partition_terms[p] + query_terms[q]) + handicaps[p]
        for p in range(weights.shape[0]):
            shut += weights[p] == 0
        open_ = count - shut
        if open_ < count:
            # Just behind the others: the nearest are found by halving, which a huge number would throw off.
            _, farthest = limits_of(distances, count)
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
        among = wanted
        for wave in range(waves.shape[0] - 1, -1, -1):
            if waves[wave] < among:
                _early_first(shifts[q], probes[q], among, waves[wave])
                among = waves[wave]
        for i in range(wanted):
            shifts[q, i] = (
                own_shifts[q, 0] if own_shifts.shape[0] > 0 else shifts[q, i] - handicaps[probes[q, i]]
            )


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
