"""Compiled selection from products that a library computed."""

from __future__ import annotations

from typing import Any

import numpy as np

from vectorlake.kernels.jit import entry
from vectorlake.kernels.select import RUN, begin, visit


@entry(
    "void(int64, int64, int64, int64, int64, int64, float64[:, ::1], int64, int64, float32[:, ::1], "
    "int8[:, ::1], int64, float64[:, ::1], float32[:, ::1], "
    "float64, int64, int64, int64, int64, int64[::1], int64[::1], float64[:, ::1], int64[:, ::1], "
    "int64[:, ::1], float32[:, ::1], float32[:, ::1], int64[::1], float32[::1], float64[::1], bool_)"
)
def search_products(
    metric: int,
    dimension: int,
    integers: int,
    query_code: int,
    query_address: int,
    query_stride: int,
    facts: Any,
    products: int,
    product_stride: int,
    terms: Any,
    fine_queries: Any,
    fine_codes: int,
    fine_facts: Any,
    fine_terms: Any,
    largest: float,
    base: int,
    code: int,
    address: int,
    stride: int,
    places: Any,
    row_ids: Any,
    heap_distances: Any,
    heap_ids: Any,
    rows: Any,
    highs: Any,
    lows: Any,
    counts: Any,
    thresholds: Any,
    units: Any,
    last: bool,
) -> None:
    """Offer a block's rows to the heaps of a group of queries, given their products.

    Args:
        metric: one of `distance`'s constants.
        dimension: of the vectors as stored.
        integers: 1 when products are int32, 0 when they are float32.
        query_code: element type of the queries as given.
        query_address: where the group's first query stands.
        query_stride: bytes from query to query.
        facts: float64 [g, FACTS], see `quantize`.
        products: address of [g, rows] products, int32 or float32.
        product_stride: bytes from one query's products to the next's.
        terms: float32 [5, rows], in units of `largest`; rows is a multiple of PANEL_ROWS.
        fine_queries: int8 [g, width], finer integers of all dimensions; width 0 where the others are of all dimensions.
        fine_codes: address of int8 [rows, width], those of the rows.
        fine_facts: float64 [g, FACTS], the queries' facts for them; [0, FACTS] if there are none.
        fine_terms: float32 [5, rows], the rows' terms for them.
        largest: the longest row in product space.
        base: which row of the call the block begins with.
        code: element type of the call's rows as stored.
        address: where its first row stands.
        stride: bytes from row to row.
        places: int64 [rows of the call], where each row stands if not one after another; else empty.
        row_ids: int64 [rows of the call].
        heap_distances: float64 [g, k].
        heap_ids: int64 [g, k].
        rows: int64 [g, room], waiting candidates; at least twice RUN.
        highs: float32 [g, room], the most that their nearness is.
        lows: float32 [g, room], the least.
        counts: int64 [g], how many wait.
        thresholds: float32 [g], what nearness is of interest.
        units: float64 [g], what nearness is in units of.
        last: whether to measure all that wait, as the call's rows end here.
    """
    group = facts.shape[0]
    total = terms.shape[1]
    lines = np.empty((group, 3))
    factors = np.empty((group, 6), np.float32)
    fine_factors = np.empty((group, 6), np.float32)
    buffer = np.empty(dimension, np.float32)
    query = np.empty(dimension, np.float64)
    begin(
        metric,
        facts,
        fine_facts,
        dimension,
        largest,
        heap_distances,
        lines,
        factors,
        fine_factors,
        highs,
        lows,
        counts,
        thresholds,
        units,
    )
    for q in range(group):
        threshold = thresholds[q]
        count = counts[q]
        for first in range(0, total, RUN):
            end = min(first + RUN, total)
            measure = last and end == total
            threshold, count = visit(
                integers,
                products + q * product_stride + first * 4,
                first,
                end,
                base,
                metric,
                query,
                query_address + q * query_stride,
                query_code,
                code,
                address,
                stride,
                places,
                row_ids,
                terms,
                fine_queries[q],
                fine_codes,
                fine_terms,
                fine_factors[q],
                lines[q],
                factors[q],
                threshold,
                rows[q],
                highs[q],
                lows[q],
                count,
                buffer,
                heap_distances[q],
                heap_ids[q],
                measure,
            )
        thresholds[q] = threshold
        counts[q] = count
