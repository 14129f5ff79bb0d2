"""A scan in plain numpy, in the summation order that `vectorlake.kernels` defines."""

from __future__ import annotations

import numpy as np

from vectorlake.kernels import Metric
from vectorlake.kernels.self_knn import Nearest

LANES = 16
_IN_BETWEEN = 1 << 15
"""Numbers of an array in between, at most, unless one query needs more."""


def lane_sum(terms: np.ndarray) -> np.ndarray:
    """Sum over the last axis: element i to lane i mod 16, then lanes in halves."""
    if terms.size == 0:
        return np.zeros(terms.shape[:-1])
    pad = [(0, 0)] * (terms.ndim - 1) + [(0, -terms.shape[-1] % LANES)]
    rounds = np.moveaxis(np.pad(terms, pad).reshape(*terms.shape[:-1], -1, LANES), -2, 0)
    lanes = np.zeros(rounds.shape[1:])
    for round_ in rounds:
        lanes = lanes + round_
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def scan_distances(queries: np.ndarray, vectors: np.ndarray, metric: Metric) -> np.ndarray:
    """All distances, for a few queries at a time: what lies in between stays in the processor's cache."""
    step = max(1, _IN_BETWEEN // max(1, vectors.size))
    parts = [_scanned(queries[i : i + step], vectors, metric) for i in range(0, len(queries), step)]
    return np.concatenate(parts) if parts else np.empty((0, len(vectors)))


def _scanned(queries: np.ndarray, vectors: np.ndarray, metric: Metric) -> np.ndarray:
    if metric is Metric.HAMMING:
        return np.unpackbits(queries[:, None] ^ vectors[None], axis=2).sum(axis=2).astype("f8")
    left, right = queries.astype("f8")[:, None], vectors.astype("f8")[None]
    with np.errstate(all="ignore"):
        if metric is Metric.L2:
            found = lane_sum((left - right) ** 2)
        elif metric is Metric.DOT:
            found = -lane_sum(left * right)
        else:
            lengths = np.sqrt(lane_sum(left * left)) * np.sqrt(lane_sum(right * right))
            found = np.clip(1.0 - lane_sum(left * right) / lengths, 0.0, 2.0)
            found[~((lengths > 0) & (lengths < np.inf))] = np.inf
    return np.where(np.isfinite(found), found, np.inf)


def assert_equal_to_scan(
    result: tuple[np.ndarray, np.ndarray, np.ndarray],
    queries: np.ndarray,
    vectors: np.ndarray,
    k: int,
    metric: Metric,
    *,
    ids: np.ndarray | None = None,
    valid: np.ndarray | None = None,
) -> None:
    """Compare ids, distances and counts bit for bit with the k nearest of a scan, ties by row id."""
    row_ids, distances, counts = result
    ids = np.arange(len(vectors), dtype=np.int64) if ids is None else ids
    assert row_ids.shape == distances.shape == (len(queries), k)
    for q in range(len(queries)):
        wanted = scan_distances(queries[q : q + 1], vectors, metric)[0]
        if valid is not None:
            wanted = np.where(valid, wanted, np.inf)
        order = np.lexsort((ids, wanted))[:k]
        order = order[wanted[order] < np.inf]
        assert counts[q] == len(order)
        assert np.array_equal(distances[q, : len(order)], wanted[order]), (q, distances[q], wanted[order])
        assert np.array_equal(row_ids[q, : len(order)], ids[order])
        assert (row_ids[q, len(order) :] == -1).all()
        assert np.isinf(distances[q, len(order) :]).all()


def assert_equal_to_self_scan(
    found: Nearest, vectors: np.ndarray, k: int, metric: Metric, *, ids: np.ndarray | None = None
) -> None:
    """Compare a self-join bit for bit with a scan in which no row matches itself; rows without neighbours may be missing."""
    ids = np.arange(len(vectors), dtype=np.int64) if ids is None else ids
    place = {int(row): at for at, row in enumerate(found.own)}
    assert found.own.tolist() == [row for row in ids.tolist() if row in place]
    wanted = scan_distances(vectors, vectors, metric)
    np.fill_diagonal(wanted, np.inf)
    for row in range(len(vectors)):
        order = np.lexsort((ids, wanted[row]))[:k]
        order = order[wanted[row, order] < np.inf]
        at = place.get(int(ids[row]))
        if at is None:
            assert not len(order)
            continue
        assert found.counts[at] == len(order)
        assert np.array_equal(found.distances[at, : len(order)], wanted[row, order])
        assert np.array_equal(found.row_ids[at, : len(order)], ids[order])
        assert (found.row_ids[at, len(order) :] == -1).all()
        assert np.isinf(found.distances[at, len(order) :]).all()
