"""Compiled steps of a self-join: each pair of rows is multiplied once, and offered to both rows' heaps.

A row's integers serve on both sides of a product. Let n bound the row's length and that of its rounding, e what rounding
loses, t what lies beyond the head, and b half its square (0 under dot); then, for rows w and z in product space (see
`quantize`) with a common centre, the inequalities there read

    w.z <= w'.z' + n_w e_z + e_w n_z + t_w t_z =: high,   |w - z|**2 / 2 >= b_w + b_z - high

The *reach* of a row is how far, in the measure on the right, a row may be that its heap would still take. A pair is passed
over if b_w + b_z - high exceeds both reaches: one comparison serves both rows. All is in units of the square of the longest
row, so that terms lie in 0..1 and one slack covers the rounding of float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vectorlake.kernels.distance import address_of, as_floats, distance, norm, widen, width_of
from vectorlake.kernels.heap import offer
from vectorlake.kernels.jit import entry, inner
from vectorlake.kernels.microkernel import (
    PANEL_ROWS,
    STEP,
    TILE_QUERIES,
    multiply_tile,
    test_pairs,
    trailing_zeros,
)
from vectorlake.kernels.settle import (
    AHEAD,
    BEYOND,
    HALF,
    LENGTH,
    LOST,
    SCALE,
    WAITING,
    fetch,
    reach_of,
    settle,
)

_NOT_NEAR = np.float32(-3e38)


@inner
def _largest_first(values: Any, count: int, k: int, places: Any) -> Any:
    """Write the places of at least k of the largest values, and hardly more; returns how many. Found by halving."""
    low, high = np.float32(-4), np.float32(4)
    for _ in range(16):
        middle = np.float32(0.5) * (low + high)
        reaching = 0
        for i in range(count):
            reaching += values[i] >= middle
        if reaching >= k:
            low = middle
            if reaching == k:
                break
        else:
            high = middle
    found = 0
    for i in range(count):
        if values[i] >= low and found < places.shape[0]:
            places[found] = i
            found += 1
    return found


@entry(
    "void(int64, int64, int64, int64, int64, int64, float32[:, ::1], int32[::1], int64, int64[::1], int64[::1], float64, "
    "float64, float64, int64, int64, float32[::1], float64[:, ::1], int64[:, ::1])"
)
def seed_block(
    metric: int,
    dimension: int,
    padded: int,
    tiles: int,
    panels: int,
    count: int,
    terms: Any,
    biases: Any,
    code: int,
    places: Any,
    row_ids: Any,
    slope: float,
    slack: float,
    tiny: float,
    first: int,
    end: int,
    reaches: Any,
    distances: Any,
    ids: Any,
) -> None:
    """Offer to rows [first, end) those among them that are likely to be near.

    Args:
        metric: one of `distance`'s constants.
        dimension: of the vectors as stored.
        padded: of the integers.
        tiles: address of all rows' signed integers, TILE_QUERIES rows at a time (see `microkernel.multiply_tile`).
        panels: address of all rows' unsigned ones, PANEL_ROWS at a time.
        count: how many rows there are; the arrays go up to whole blocks.
        terms: float32 [5, rows].
        biases: int32 [rows], what is taken from a product because panels are offset.
        code: element type of the vectors as stored.
        places: int64 [rows], their addresses.
        row_ids: int64 [rows].
        slope, slack, tiny: how a distance becomes a reach.
        first: the first row, of a whole tile and panel.
        end: one past the last.
        reaches: float32 [rows], written.
        distances: float64 [rows, k], heaps, empty.
        ids: int64 [rows, k].
    """
    k = distances.shape[1]
    width = (end - first + PANEL_ROWS - 1) // PANEL_ROWS * PANEL_ROWS
    products = np.empty((TILE_QUERIES, width), np.int32)
    nearness = np.empty(width, np.float32)
    likely = np.empty(min(width, 2 * k + PANEL_ROWS), np.int64)
    buffer = np.empty(dimension, np.float32)
    query = np.empty(dimension, np.float64)
    last = min(end, count) - first
    size = dimension * width_of(code)
    for tile in range(first, min(end, count), TILE_QUERIES):
        for panel in range(0, width, PANEL_ROWS):
            multiply_tile(
                panels + (first + panel) * padded,
                tiles + tile * padded,
                padded // STEP,
                address_of(products) + panel * 4,
                np.int64(width * 4),
            )
        for q in range(TILE_QUERIES):
            i = tile + q
            if i >= count:
                break
            scale = terms[SCALE, i]
            for j in range(last):
                product = np.float32(products[q, j] - biases[i])
                value = product * scale * terms[SCALE, first + j] - terms[HALF, first + j]
                nearness[j] = max(value, _NOT_NEAR)
            nearness[i - first] = _NOT_NEAR
            if last > k:
                found = _largest_first(nearness, last, k, likely)
                widen(code, places[i], dimension, query, buffer)
                length = norm(address_of(query), dimension)
                for at in range(min(AHEAD, found)):
                    fetch(places[first + likely[at]], size)
                for at in range(found):
                    if at + AHEAD < found:
                        fetch(places[first + likely[at + AHEAD]], size)
                    j = first + likely[at]
                    if j == i:
                        continue
                    vector, single = as_floats(code, places[j], dimension, buffer)
                    value = distance(metric, address_of(query), length, vector, dimension, single)
                    if value < np.inf:
                        offer(distances[i], ids[i], value, row_ids[j])
            reaches[i] = reach_of(slope, slack, tiny, distances[i, 0])


@inner
def _sift(
    padded: int,
    tiles: int,
    panels: int,
    count: int,
    terms: Any,
    biases: Any,
    reaches: Any,
    tile: int,
    start: int,
    end: int,
    same: bool,
    products: Any,
    ones: Any,
    others: Any,
    waiting: int,
) -> Any:
    """Add the pairs of rows of a tile and of panels from `start` to `end` that heads let pass; returns how many wait now."""
    stride = np.int64(terms.shape[1] * 4)
    base = address_of(terms)
    reach_base = address_of(reaches)
    last = min(tile + TILE_QUERIES, count)
    for panel in range(start, end, PANEL_ROWS):
        multiply_tile(
            panels + panel * padded,
            tiles + tile * padded,
            padded // STEP,
            address_of(products),
            np.int64(PANEL_ROWS * 4),
        )
        for i in range(tile, last):
            bits = test_pairs(
                address_of(products[i - tile]),
                biases[i],
                base + panel * 4,
                stride,
                reach_base + panel * 4,
                terms[SCALE, i],
                terms[LENGTH, i],
                terms[LOST, i],
                terms[BEYOND, i],
                reaches[i],
                terms[HALF, i],
            )
            while bits != 0:
                j = panel + trailing_zeros(bits)
                ones[waiting], others[waiting] = i, j
                # Of a block with itself each pair counts once; beyond the last row there is none.
                waiting += j < count and (not same or j > i)
                bits &= bits - 1
    return waiting


@entry(
    "void(int64, int64, int64, int64, int64, int64, float32[:, ::1], int32[::1], int64, int64, float32[:, ::1], int64, "
    "int64[::1], int64[::1], float64, float64, float64, int64, int64, int64, int64, float32[::1], float64[:, ::1], "
    "int64[:, ::1])"
)
def join_blocks(
    metric: int,
    dimension: int,
    padded: int,
    tiles: int,
    panels: int,
    count: int,
    terms: Any,
    biases: Any,
    fine_width: int,
    fine: int,
    fine_terms: Any,
    code: int,
    places: Any,
    row_ids: Any,
    slope: float,
    slack: float,
    tiny: float,
    first: int,
    end: int,
    other: int,
    other_end: int,
    reaches: Any,
    distances: Any,
    ids: Any,
) -> None:
    """Offer each pair of a row of [first, end) and one of [other, other_end) to the heaps of both.

    The ranges are apart, or the same: then each pair is looked at once, and no row is paired with itself.

    Args:
        metric, dimension, padded, tiles, panels, count, terms, biases, code, places, slope, slack, tiny, first, end: as for
            `seed_block`.
        fine_width: of the finer integers.
        fine: address of int8 [rows, fine_width], those of all dimensions.
        fine_terms: float32 [5, rows], their terms.
        row_ids: int64 [rows].
        other, other_end: the second range.
        reaches: float32 [rows], lowered while nearer rows are found.
        distances: float64 [rows, k], heaps.
        ids: int64 [rows, k].
    """
    most = TILE_QUERIES * ((other_end - other + PANEL_ROWS - 1) // PANEL_ROWS * PANEL_ROWS)
    ones = np.empty(WAITING + most, np.int64)
    others = np.empty(WAITING + most, np.int64)
    apart = np.empty(WAITING + most, np.float32)
    buffer = np.empty(dimension, np.float32)
    query = np.empty(dimension, np.float64)
    products = np.empty((TILE_QUERIES, PANEL_ROWS), np.int32)
    same = first == other
    waiting = 0
    last = min(end, count)
    for tile in range(first, last, TILE_QUERIES):
        start = tile // PANEL_ROWS * PANEL_ROWS if same else other
        waiting = _sift(
            padded,
            tiles,
            panels,
            count,
            terms,
            biases,
            reaches,
            tile,
            start,
            other_end,
            same,
            products,
            ones,
            others,
            waiting,
        )
        if waiting >= WAITING or tile + TILE_QUERIES >= last:
            settle(
                metric,
                fine_width,
                fine,
                fine_terms,
                code,
                places,
                row_ids,
                slope,
                slack,
                tiny,
                ones,
                others,
                waiting,
                apart,
                same,
                query,
                buffer,
                reaches,
                distances,
                ids,
            )
            waiting = 0
