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
from vectorlake.kernels.heap import NO_ROW, offer
from vectorlake.kernels.jit import entry, inner
from vectorlake.kernels.microkernel import (
    PANEL_ROWS,
    STEP,
    TILE_QUERIES,
    multiply_bytes,
    multiply_tile,
    prefetch,
    test_pairs,
    trailing_zeros,
)

SCALE = 0
LOST = 1
LENGTH = 2
HALF = 3
BEYOND = 4
"""The rows of the terms: what integers are multiplied by, e, n, b and t."""

_AHEAD = 6
_LINE = 64
FARTHEST = np.float32(3e38)
"""The reach of a row whose heap takes anything."""
_NOT_NEAR = np.float32(-3e38)


@inner
def _reach(slope: float, slack: float, tiny: float, root: float) -> Any:
    """How far a row may be, in product space, that is as near as distance `root`."""
    if not root < np.inf:
        return FARTHEST
    reach = slope * (root + tiny * abs(root)) + slack
    # Never infinite, also under dot: half squares of rows without a bound are.
    return np.float32(max(min(reach, np.float64(FARTHEST)), -np.float64(FARTHEST)))


@inner
def _fetch(address: int, size: int) -> None:
    for offset in range(0, size, _LINE):
        prefetch(address + offset)


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
    "void(int64, int64, int64, int64, int64, int64, float32[:, ::1], int32[::1], int64, int64[::1], float64, float64, "
    "float64, int64, int64, float32[::1], float64[:, ::1])"
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
    slope: float,
    slack: float,
    tiny: float,
    first: int,
    end: int,
    reaches: Any,
    distances: Any,
) -> None:
    """Bound the k-th distance of rows [first, end) from rows among them that are likely to be near.

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
        slope, slack, tiny: how a distance becomes a reach.
        first: the first row, of a whole tile and panel.
        end: one past the last.
        reaches: float32 [rows], written.
        distances: float64 [rows, k]: written, k times the bound, or infinity where fewer rows than k were measured.
    """
    k = distances.shape[1]
    width = (end - first + PANEL_ROWS - 1) // PANEL_ROWS * PANEL_ROWS
    products = np.empty((TILE_QUERIES, width), np.int32)
    nearness = np.empty(width, np.float32)
    likely = np.empty(min(width, 2 * k + PANEL_ROWS), np.int64)
    buffer = np.empty(dimension, np.float32)
    query = np.empty(dimension, np.float64)
    heap = np.empty(k, np.float64)
    ids = np.empty(k, np.int64)
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
            heap[:] = np.inf
            ids[:] = NO_ROW
            if last > k:
                found = _largest_first(nearness, last, k, likely)
                widen(code, places[i], dimension, query, buffer)
                length = norm(address_of(query), dimension)
                for at in range(min(_AHEAD, found)):
                    _fetch(places[first + likely[at]], size)
                for at in range(found):
                    if at + _AHEAD < found:
                        _fetch(places[first + likely[at + _AHEAD]], size)
                    j = first + likely[at]
                    if j == i:
                        continue
                    vector, single = as_floats(code, places[j], dimension, buffer)
                    value = distance(metric, address_of(query), length, vector, dimension, single)
                    if value < np.inf:
                        offer(heap, ids, value, j)
            distances[i, :] = heap[0]
            reaches[i] = _reach(slope, slack, tiny, heap[0])


@inner
def _sift(
    padded: int,
    tiles: int,
    panels: int,
    terms: Any,
    biases: Any,
    reaches: Any,
    tile: int,
    start: int,
    end: int,
    products: Any,
    passed: Any,
    counts: Any,
) -> None:
    """Write which rows of the panels from `start` to `end` the integers of heads let pass, for each row of a tile."""
    stride = np.int64(terms.shape[1] * 4)
    base = address_of(terms)
    reach_base = address_of(reaches)
    counts[:] = 0
    for panel in range(start, end, PANEL_ROWS):
        multiply_tile(
            panels + panel * padded,
            tiles + tile * padded,
            padded // STEP,
            address_of(products),
            np.int64(PANEL_ROWS * 4),
        )
        for q in range(TILE_QUERIES):
            i = tile + q
            bits = test_pairs(
                address_of(products[q]),
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
                passed[q, counts[q]] = panel + trailing_zeros(bits)
                counts[q] += 1
                bits &= bits - 1


@inner
def _judge(
    width: int,
    codes: int,
    terms: Any,
    reaches: Any,
    i: int,
    least: int,
    end: int,
    passed: Any,
    count: int,
    apart: Any,
) -> Any:
    """Keep of the rows that passed those in [least, end) that finer integers let pass too; returns how many."""
    kept = 0
    for at in range(count):
        if at + _AHEAD < count:
            _fetch(codes + passed[at + _AHEAD] * width, width)
        j = passed[at]
        if j < least or j >= end:
            continue
        product = np.float32(multiply_bytes(codes + i * width, codes + j * width, width))
        high = product * terms[SCALE, i] * terms[SCALE, j]
        high += terms[LENGTH, i] * terms[LOST, j] + terms[LOST, i] * terms[LENGTH, j]
        nearest = terms[HALF, i] + terms[HALF, j] - high
        # What has no bound is infinite, and may come out as no number at all.
        if not nearest > max(reaches[i], reaches[j]):
            passed[kept] = j
            apart[kept] = nearest
            kept += 1
    return kept


@inner
def _measure(
    metric: int,
    code: int,
    places: Any,
    row_ids: Any,
    slope: float,
    slack: float,
    tiny: float,
    i: int,
    rows: Any,
    apart: Any,
    count: int,
    query: Any,
    buffer: Any,
    reaches: Any,
    distances: Any,
    ids: Any,
) -> None:
    """Measure the distances of one row from some, and offer them to the heaps on both sides."""
    dimension = query.shape[0]
    size = dimension * width_of(code)
    widen(code, places[i], dimension, query, buffer)
    length = norm(address_of(query), dimension)
    for at in range(min(_AHEAD, count)):
        _fetch(places[rows[at]], size)
    for at in range(count):
        if at + _AHEAD < count:
            _fetch(places[rows[at + _AHEAD]], size)
        j = rows[at]
        if apart[at] > max(reaches[i], reaches[j]):
            continue
        vector, single = as_floats(code, places[j], dimension, buffer)
        value = distance(metric, address_of(query), length, vector, dimension, single)
        if not value < np.inf:
            continue
        if offer(distances[i], ids[i], value, row_ids[j]):
            reaches[i] = _reach(slope, slack, tiny, distances[i, 0])
        if offer(distances[j], ids[j], value, row_ids[i]):
            reaches[j] = _reach(slope, slack, tiny, distances[j, 0])


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
    width = (other_end - other + PANEL_ROWS - 1) // PANEL_ROWS * PANEL_ROWS
    passed = np.empty((TILE_QUERIES, width), np.int64)
    counts = np.empty(TILE_QUERIES, np.int64)
    apart = np.empty(width, np.float32)
    buffer = np.empty(dimension, np.float32)
    query = np.empty(dimension, np.float64)
    products = np.empty((TILE_QUERIES, PANEL_ROWS), np.int32)
    same = first == other
    for tile in range(first, min(end, count), TILE_QUERIES):
        start = tile // PANEL_ROWS * PANEL_ROWS if same else other
        _sift(padded, tiles, panels, terms, biases, reaches, tile, start, other_end, products, passed, counts)
        for q in range(TILE_QUERIES):
            i = tile + q
            if i >= count:
                break
            least = i + 1 if same else other
            kept = _judge(fine_width, fine, fine_terms, reaches, i, least, count, passed[q], counts[q], apart)
            if kept > 0:
                _measure(
                    metric,
                    code,
                    places,
                    row_ids,
                    slope,
                    slack,
                    tiny,
                    i,
                    passed[q],
                    apart,
                    kept,
                    query,
                    buffer,
                    reaches,
                    distances,
                    ids,
                )
