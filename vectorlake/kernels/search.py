"""Compiled search of one encoded block for a group of queries: products fused with their test, then selection."""

from __future__ import annotations

from typing import Any

import numpy as np

from vectorlake.kernels.distance import address_of
from vectorlake.kernels.fused import FACTORS, TILE, sift_tile
from vectorlake.kernels.jit import entry
from vectorlake.kernels.microkernel import PANEL_ROWS, STEP, trailing_zeros
from vectorlake.kernels.select import RUN, begin, ends, judge

_TOGETHER = 6 * TILE
"""Queries that meet a panel before the next one does: their codes and the panel's stay in the cache next to the core."""

_FRESH = 16
"""Candidates of a query that are judged together, but for the last of a block: each time costs as much as some of them."""


@entry(
    "void(int64, int64, int64, int64, int64, int64, int64, float64[:, ::1], int64, int64, int64, float32[:, ::1], "
    "int8[:, ::1], int64, float64[:, ::1], float32[:, ::1], "
    "float64, int64, int64, int64, int64, int64[::1], int64[::1], float64[:, ::1], int64[:, ::1], "
    "int64[:, ::1], float32[:, ::1], float32[:, ::1], int64[::1], float32[::1], float64[::1], bool_)"
)
def search_panels(
    metric: int,
    dimension: int,
    padded: int,
    stretch: int,
    query_code: int,
    query_address: int,
    query_stride: int,
    facts: Any,
    tiles: int,
    tile_bytes: int,
    panels: int,
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
    """Offer a block's rows to the heaps of a group of queries, by integer products of panels and tiles.

    Args:
        metric: one of `distance`'s constants.
        dimension: of the vectors as stored.
        padded: of their integers.
        stretch: see `fused.stretch_of`.
        query_code: element type of the queries as given.
        query_address: where the group's first query stands.
        query_stride: bytes from query to query.
        facts: float64 [g, FACTS], see `quantize`.
        tiles: address of the group's integers, by whole tiles (see `fused.to_tiles`).
        tile_bytes: from tile to tile.
        panels: address of the block's integers.
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
    whole = (group + TILE - 1) // TILE * TILE
    total = terms.shape[1]
    lines = np.empty((group, 3))
    factors = np.empty((group, 6), np.float32)
    fine_factors = np.empty((group, 6), np.float32)
    tested = np.full((whole, FACTORS), np.nan, np.float32)
    buffer = np.empty(dimension, np.float32)
    query = np.empty(dimension, np.float64)
    products = np.empty((TILE, PANEL_ROWS), np.int32)
    judged = counts[:group].copy()
    term_stride = np.int64(total * 4)
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
    for first in range(0, total, RUN):
        end = min(first + RUN, total)
        lost, length = np.float32(0), np.float32(0)
        for row in range(first, end):
            lost, length = max(lost, terms[1, row]), max(length, terms[2, row])
        for q in range(group):
            tested[q, 0], tested[q, 1], tested[q, 2] = factors[q, 0], factors[q, 3], factors[q, 4]
            tested[q, 3] = thresholds[q] - factors[q, 1] * lost - factors[q, 2] * length
        for together in range(0, whole, _TOGETHER):
            for panel in range(first, end, PANEL_ROWS):
                for tile in range(together, min(together + _TOGETHER, whole), TILE):
                    passed = sift_tile(
                        panels + panel * padded,
                        tiles + tile // TILE * tile_bytes,
                        padded // STEP,
                        stretch // STEP,
                        address_of(terms) + panel * 4,
                        term_stride,
                        address_of(tested) + tile * FACTORS * 4,
                        address_of(products),
                    )
                    while passed != 0:
                        bit = trailing_zeros(passed)
                        passed &= passed - 1
                        q, row = tile + bit // PANEL_ROWS, panel + bit % PANEL_ROWS
                        high, low = ends(
                            np.float32(products[q - tile, row - panel]),
                            row,
                            terms,
                            factors[q, 0],
                            factors[q, 1],
                            factors[q, 2],
                            factors[q, 3],
                            factors[q, 4],
                            factors[q, 5],
                        )
                        if high >= thresholds[q]:
                            place = counts[q]
                            rows[q, place] = base + row
                            highs[q, place] = high
                            lows[q, place] = low
                            counts[q] = place + 1
        for q in range(group):
            fresh = counts[q] - judged[q]
            if fresh < _FRESH and not (end == total and (fresh > 0 or last)):
                continue
            thresholds[q], counts[q] = judge(
                judged[q],
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
                fine_queries[q],
                fine_codes,
                fine_terms,
                fine_factors[q],
                lines[q],
                thresholds[q],
                rows[q],
                highs[q],
                lows[q],
                counts[q],
                buffer,
                heap_distances[q],
                heap_ids[q],
                last and end == total,
            )
            judged[q] = counts[q]
