"""Distances by definition: every pair, or chosen pairs, in float64."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.errors import InvalidInputError
from vectorlake.kernels.metric import Metric
from vectorlake.kernels.rows import Rows

METRIC_CODES: Final = {Metric.L2: 0, Metric.COSINE: 1, Metric.DOT: 2}
"""Metrics whose distances are float64 sums; hamming's are counts."""


def pairwise_distances(
    queries: npt.NDArray[Any], vectors: npt.NDArray[Any], metric: Metric
) -> npt.NDArray[np.float64]:
    """The distance of every query from every vector, bit for bit what `ExactKnn` reports.

    Args:
        queries: [n, d] float32, float64, float16, int8 or uint8.
        vectors: [m, d], of the same or another of these types.
        metric: what to compute.

    Returns:
        float64 [n, m]; infinity for a pair that never matches (see `ExactKnn`).

    Raises:
        InvalidInputError: wrong shapes or types (hamming takes uint8 alone).
    """
    count, width = np.asarray(queries).shape[0], np.asarray(vectors).shape[0]
    query_index = np.repeat(np.arange(count), width)
    row_index = np.tile(np.arange(width), count)
    return distances_at(queries, vectors, query_index, row_index, metric).reshape(count, width)


def distances_at(
    queries: npt.NDArray[Any],
    vectors: npt.NDArray[Any],
    query_index: npt.NDArray[np.int64],
    row_index: npt.NDArray[np.int64],
    metric: Metric,
) -> npt.NDArray[np.float64]:
    """The distances of chosen pairs: query `query_index[i]` from vector `row_index[i]`.

    Returns:
        float64 [len(query_index)]; infinity for a pair that never matches.

    Raises:
        InvalidInputError: wrong shapes or types, or an index out of range.
    """
    from vectorlake.kernels.scan import measure, prepare_queries

    rows = Rows.of(vectors, what="vectors")
    asked = Rows.of(queries, what="queries", dimension=rows.dimension)
    left = np.ascontiguousarray(query_index, np.int64)
    right = np.ascontiguousarray(row_index, np.int64)
    if left.shape != right.shape or left.ndim != 1:
        raise InvalidInputError(f"query_index and row_index differ in shape: {left.shape} and {right.shape}")
    for index, count, what in ((left, asked.count, "query_index"), (right, rows.count, "row_index")):
        if len(index) and (index.min() < 0 or index.max() >= count):
            raise InvalidInputError(
                f"{what} must lie in [0, {count}), but spans {index.min()} to {index.max()}"
            )
    out = np.empty(len(left))
    if metric is Metric.HAMMING:
        from vectorlake.kernels.hamming import measure_bits

        asked.require_bits(what="queries")
        rows.require_bits(what="vectors")
        measure_bits(asked.address, asked.stride, rows.dimension, rows.address, rows.stride, left, right, out)
        return out
    doubles = np.empty((asked.count, asked.dimension))
    norms = np.empty(asked.count)
    prepare_queries(asked.code, asked.address, asked.stride, 0, asked.count, doubles, norms)
    measure(METRIC_CODES[metric], doubles, norms, rows.code, rows.address, rows.stride, left, right, out)
    return out
