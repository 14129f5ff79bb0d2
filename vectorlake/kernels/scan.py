"""Compiled loops that compute every distance in float64: for reference, and for a handful of queries."""

from __future__ import annotations

from typing import Any

import numpy as np

from vectorlake.kernels.distance import address_of, as_floats, distance, norm, widen
from vectorlake.kernels.heap import offer
from vectorlake.kernels.jit import entry


@entry("void(int64, int64, int64, int64, int64, float64[:, ::1], float64[::1])")
def prepare_queries(
    code: int, address: int, stride: int, first: int, count: int, doubles: Any, norms: Any
) -> None:
    """Widen rows [first, first + count) into `doubles` [count, d] and write their `norms` [count]."""
    dimension = doubles.shape[1]
    buffer = np.empty(dimension, np.float32)
    for q in range(count):
        widen(code, address + (first + q) * stride, dimension, doubles[q], buffer)
        norms[q] = norm(address_of(doubles[q]), dimension)


@entry(
    "void(int64, float64[:, ::1], float64[::1], int64, int64, int64, int64[::1], bool_[::1], int64, int64, "
    "float64[:, ::1], int64[:, ::1])"
)
def scan(
    metric: int,
    queries: Any,
    norms: Any,
    code: int,
    address: int,
    stride: int,
    row_ids: Any,
    valid: Any,
    first: int,
    end: int,
    heap_distances: Any,
    heap_ids: Any,
) -> None:
    """Offer rows [first, end) to every query's heap; `valid` is empty where all rows count."""
    dimension = queries.shape[1]
    buffer = np.empty(dimension, np.float32)
    masked = valid.shape[0] > 0
    for row in range(first, end):
        if masked and not valid[row]:
            continue
        vector, single = as_floats(code, address + row * stride, dimension, buffer)
        for q in range(queries.shape[0]):
            value = distance(metric, address_of(queries[q]), norms[q], vector, dimension, single)
            if value < np.inf:
                offer(heap_distances[q], heap_ids[q], value, row_ids[row])


@entry(
    "void(int64, float64[:, ::1], float64[::1], int64, int64, int64, int64[::1], int64[::1], float64[::1])"
)
def measure(
    metric: int,
    queries: Any,
    norms: Any,
    code: int,
    address: int,
    stride: int,
    query_index: Any,
    row_index: Any,
    out: Any,
) -> None:
    """Write the distance of each (query, row) pair; infinity where they never match."""
    dimension = queries.shape[1]
    buffer = np.empty(dimension, np.float32)
    for i in range(query_index.shape[0]):
        vector, single = as_floats(code, address + row_index[i] * stride, dimension, buffer)
        q = query_index[i]
        out[i] = distance(metric, address_of(queries[q]), norms[q], vector, dimension, single)
