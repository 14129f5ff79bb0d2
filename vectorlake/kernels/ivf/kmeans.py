"""Balanced k-means: Lloyd's iterations on a sample; partitions that grow too large are split, empty ones moved."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from vectorlake.kernels.ivf.nearest import add_up, nearest_centroids

FLAT_MOST: Final = 4096
"""More centroids than this are found in two levels."""
_LARGE: Final = 2.5
"""A partition this many times the mean is split while iterations last."""
_SMALL: Final = 0.125
_APART: Final = 1e-2


def k_means(
    rows: npt.NDArray[np.float32], count: int, *, iterations: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Find centroids of rows.

    Deterministic given the state of `rng`. Large partitions are split in halves and small ones given up for them, so that
    none ends many times larger than the mean, unless rows are equal.

    Args:
        rows: float32 [m, d], finite, m > 0.
        count: how many centroids; beyond m they are repeated with small changes.
        iterations: of Lloyd's algorithm.
        rng: the source of randomness.

    Returns:
        float32 [count, d].
    """
    if count > FLAT_MOST:
        return _in_two_levels(rows, count, iterations=iterations, rng=rng)
    centroids = _start(rows, count, rng)
    for turn in range(iterations):
        places, distances = nearest_centroids(rows, centroids)
        sums = np.zeros((count, rows.shape[1]), np.float32)
        sizes = np.zeros(count, np.int64)
        add_up(rows, places, sums, sizes)
        filled = sizes > 0
        centroids[filled] = sums[filled] / sizes[filled, None]
        if turn < iterations - 1:
            _balance(centroids, sizes, rows, places, distances, rng)
    return centroids


def _start(rows: npt.NDArray[np.float32], count: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    if len(rows) >= count:
        return rows[np.sort(rng.choice(len(rows), count, replace=False))].copy()
    repeated = rows[np.arange(count) % len(rows)]
    spread = max(float(rows.std()), 1e-6) * _APART
    return (repeated + spread * rng.standard_normal(repeated.shape)).astype(np.float32)


def _balance(
    centroids: npt.NDArray[np.float32],
    sizes: npt.NDArray[np.int64],
    rows: npt.NDArray[np.float32],
    places: npt.NDArray[np.int32],
    distances: npt.NDArray[np.float32],
    rng: np.random.Generator,
) -> None:
    """Give the centroids of the smallest partitions to the largest ones, in place: near their farther rows."""
    mean = len(rows) / len(sizes)
    order = np.argsort(sizes, kind="stable")
    large = [int(p) for p in order[::-1] if sizes[p] > max(_LARGE * mean, 2)]
    empty = int((sizes == 0).sum())
    small = [int(p) for p in order if sizes[p] <= _SMALL * mean]
    wanted = max(len(large), empty)
    donors = small + [int(p) for p in order[len(small) :] if sizes[p] < mean / 2]
    takers = [int(p) for p in order[::-1] if sizes[p] > 1][:wanted]
    for giver, taker in zip(donors, takers, strict=False):
        if sizes[giver] * 4 > sizes[taker]:
            break
        members = np.flatnonzero(places == taker)
        far = members[distances[members] >= np.median(distances[members])]
        direction = rows[far[rng.integers(len(far))]] - centroids[taker]
        centroids[giver] = centroids[taker] + np.float32(0.5) * direction
        centroids[taker] -= np.float32(0.1) * direction


def _in_two_levels(
    rows: npt.NDArray[np.float32], count: int, *, iterations: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Centroids of partitions of partitions, each given as many as it has rows for."""
    upper = int(np.sqrt(count))
    first = k_means(rows, upper, iterations=iterations, rng=rng)
    places, _ = nearest_centroids(rows, first)
    sizes = np.bincount(places, minlength=upper)
    shares = _shares(sizes, count)
    found = [
        k_means(rows[places == p], int(share), iterations=iterations, rng=rng)
        for p, share in enumerate(shares)
        if share
    ]
    return np.concatenate(found)


def _shares(sizes: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Share `count` out in proportion to sizes; what has rows gets at least one."""
    exact = sizes * (count / sizes.sum())
    shares: npt.NDArray[np.int64] = np.maximum(np.floor(exact), sizes > 0).astype(np.int64)
    while (rest := count - int(shares.sum())) != 0:
        order = np.argsort(exact - shares)
        if rest > 0:
            shares[order[::-1][: min(rest, len(order))]] += 1
        else:
            reducible = [p for p in order if shares[p] > 1][:-rest]
            shares[reducible] -= 1
    return shares
