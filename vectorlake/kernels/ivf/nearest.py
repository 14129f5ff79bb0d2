"""Which centroid is nearest: products by a library, comparison compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.kernels.jit import entry

_LANES: Final = 8
_CHUNK_BYTES: Final = 8 << 20


@entry("void(float32[:, ::1], float32[::1], int32[::1], float32[::1])")
def best_centroids(products: Any, halves: Any, places: Any, scores: Any) -> None:
    """For each row of products [m, k] the place of the largest product - half, the first of equals, and that value."""
    count = products.shape[1]
    whole = count // _LANES * _LANES
    values = np.empty(_LANES, np.float32)
    at = np.empty(_LANES, np.int32)
    for row in range(products.shape[0]):
        values[:] = np.float32(-np.inf)
        at[:] = 0
        for start in range(0, whole, _LANES):
            for lane in range(_LANES):
                value = products[row, start + lane] - halves[start + lane]
                better = value > values[lane]
                values[lane] = value if better else values[lane]
                at[lane] = start if better else at[lane]
        best = np.float32(-np.inf)
        place = 0
        for lane in range(_LANES):
            here = at[lane] + lane
            if values[lane] > best or (values[lane] == best and here < place):
                best = values[lane]
                place = here
        for i in range(whole, count):
            value = products[row, i] - halves[i]
            if value > best:
                best = value
                place = i
        places[row] = place
        scores[row] = best


@entry("void(float32[:, ::1], int32[::1], float32[:, ::1], int64[::1])")
def add_up(rows: Any, places: Any, sums: Any, counts: Any) -> None:
    """Add rows [m, d] to the sums [k, d] of their places, and count them."""
    for row in range(rows.shape[0]):
        place = places[row]
        counts[place] += 1
        for i in range(rows.shape[1]):
            sums[place, i] += rows[row, i]


def chunks(rows: int, centroids: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows whose products with all centroids fit a few MiB."""
    step = max(64, _CHUNK_BYTES // (4 * centroids))
    return ((first, min(first + step, rows)) for first in range(0, rows, step))


def nearest_centroids(
    rows: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The nearest centroid of each row, in float32 arithmetic, and the squared distance to it.

    Args:
        rows: float32 [m, d].
        centroids: float32 [k, d].
    """
    places = np.empty(len(rows), np.int32)
    scores = np.empty(len(rows), np.float32)
    halves = np.einsum("ij,ij->i", centroids, centroids) / np.float32(2)
    turned = np.ascontiguousarray(centroids.T)
    for first, end in chunks(len(rows), len(centroids)):
        best_centroids(rows[first:end] @ turned, halves, places[first:end], scores[first:end])
    distances = np.einsum("ij,ij->i", rows, rows) - 2 * scores
    return places, np.maximum(distances, 0)
