"""Compiled ends of a search whose products and bounds are computed elsewhere: thresholds first, measuring last."""

from __future__ import annotations

from typing import Any

import numpy as np

from vectorlake.kernels.distance import widen
from vectorlake.kernels.jit import entry
from vectorlake.kernels.select import begin, measure


@entry(
    "void(int64, float64[:, ::1], int64, float64, float64[:, ::1], float64[:, ::1], float32[:, ::1], float32[::1])"
)
def write_thresholds(
    metric: int,
    facts: Any,
    dimension: int,
    largest: float,
    heap_distances: Any,
    lines: Any,
    factors: Any,
    thresholds: Any,
) -> None:
    """Write what decides which rows of a block survive (see `select`).

    Args:
        metric: one of `distance`'s constants.
        facts: float64 [g, FACTS], see `quantize`.
        dimension: of the vectors as stored.
        largest: the longest row in product space.
        heap_distances: float64 [g, k].
        lines: float64 [g, 3], written: how a distance becomes a threshold.
        factors: float32 [g, 6], written: what a row's terms are multiplied by.
        thresholds: float32 [g], written: a row whose nearness can't reach it is passed over.
    """
    group = facts.shape[0]
    begin(
        metric,
        facts,
        np.empty((0, facts.shape[1])),
        dimension,
        largest,
        heap_distances,
        lines,
        factors,
        np.empty((0, 6), np.float32),
        np.empty((group, 0), np.float32),
        np.empty((group, 0), np.float32),
        np.zeros(group, np.int64),
        thresholds,
        np.empty(group),
    )


@entry(
    "void(int64, int64, int64, int64, int64, float64[:, ::1], float32[::1], int64, int64, int64, int64[::1], "
    "int64[::1], int64[::1], int64[::1], float32[::1], float64[:, ::1], int64[:, ::1])"
)
def measure_survivors(
    metric: int,
    dimension: int,
    query_code: int,
    query_address: int,
    query_stride: int,
    lines: Any,
    thresholds: Any,
    code: int,
    address: int,
    stride: int,
    places: Any,
    row_ids: Any,
    bounds: Any,
    rows: Any,
    highs: Any,
    heap_distances: Any,
    heap_ids: Any,
) -> None:
    """Measure survivors in float64 from the stored values, and offer them to the heaps.

    Args:
        metric: one of `distance`'s constants.
        dimension: of the vectors as stored.
        query_code: element type of the queries as given.
        query_address: where the group's first query stands.
        query_stride: bytes from query to query.
        lines: as `write_thresholds` wrote them.
        thresholds: float32 [g]; raised while nearer rows are found.
        code: element type of the call's rows as stored.
        address: where its first row stands.
        stride: bytes from row to row.
        places: int64 [rows of the call], where each row stands if not one after another; else empty.
        row_ids: int64 [rows of the call].
        bounds: int64 [g + 1], where the survivors of each query begin and end.
        rows: int64 [survivors], which row of the call each is.
        highs: float32 [survivors], the most that their nearness is.
        heap_distances: float64 [g, k].
        heap_ids: int64 [g, k].
    """
    buffer = np.empty(dimension, np.float32)
    query = np.empty(dimension, np.float64)
    for q in range(lines.shape[0]):
        first, end = bounds[q], bounds[q + 1]
        if first == end:
            continue
        widen(query_code, query_address + q * query_stride, dimension, query, buffer)
        thresholds[q] = measure(
            metric,
            query,
            lines[q],
            code,
            address,
            stride,
            places,
            row_ids,
            thresholds[q],
            rows[first:end],
            highs[first:end],
            end - first,
            buffer,
            heap_distances[q],
            heap_ids[q],
        )
