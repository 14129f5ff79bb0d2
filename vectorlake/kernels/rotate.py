"""Compiled loops around the rotation of rows: move them into product space before it, round their heads after it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from vectorlake.kernels.distance import (
    METRIC_COSINE,
    METRIC_DOT,
    address_of,
    as_floats,
    pointer_to,
    single_of_bits,
)
from vectorlake.kernels.encode import (
    LAYOUT_FLOATS,
    LAYOUT_PANELS,
    NEVER,
    SMALL,
    move,
    place_words,
    sum_lanes,
    sum_squares,
    without_bound,
)
from vectorlake.kernels.jit import entry
from vectorlake.kernels.lanes import sum_square
from vectorlake.kernels.microkernel import PANEL_ROWS
from vectorlake.kernels.quantize import TERMS, UNIT, WILD
from vectorlake.kernels.rounding import LANES, largest_magnitude, round_row

_SETTLED = -1.0
"""In place of a row's length: its terms are final, and its head is zero."""


@entry(
    "void(int64, int64, int64, int64, bool_[::1], int64, int64, float32[::1], float32[:, ::1], float64[:, ::1], "
    "float64[:, ::1])"
)
def move_rows(
    metric: int,
    code: int,
    address: int,
    stride: int,
    valid: Any,
    start: int,
    end: int,
    centre: Any,
    moved: Any,
    sizes: Any,
    terms: Any,
) -> None:
    """Move rows [start, end) of a block into product space, each divided by its largest element.

    Args:
        metric: one of `distance`'s constants.
        code: the element type.
        address: where row 0 stands.
        stride: bytes from row to row.
        valid: the block's mask, or empty.
        start: the first row.
        end: one past the last.
        centre: float32 [d].
        moved: float32 [rows, whole], d rounded up to LANES; zero beyond d.
        sizes: float64 [rows, 2]: the largest element, and the length; or minus one where the terms are final.
        terms: float64 [5, rows].
    """
    dimension = centre.shape[0]
    whole = moved.shape[1]
    floor = 8 * UNIT if metric == METRIC_COSINE else 0.0
    buffer = np.empty(dimension, np.float32)
    for row in range(start, end):
        for term in range(TERMS):
            terms[term, row] = 0.0
        sizes[row, 0] = 1.0
        sizes[row, 1] = _SETTLED
        moved[row, :] = np.float32(0)
        if valid.shape[0] > 0 and not valid[row]:
            terms[3, row] = NEVER
            continue
        source, single = as_floats(code, address + row * stride, dimension, buffer)
        factor = 1.0
        if metric == METRIC_COSINE:
            factor = 1.0 / np.sqrt(sum_square(source, source, dimension, single))
            if not (factor > SMALL and factor < WILD):
                terms[3, row] = without_bound(metric, source, dimension, single)
                continue
        here = carray(pointer_to(address_of(moved[row]), np.float32(0)), (dimension,))
        move(source, single, factor, centre, here)
        largest = np.float64(single_of_bits(np.uint32(largest_magnitude(address_of(here), whole))))
        if not largest < WILD:
            moved[row, :] = np.float32(0)
            terms[3, row] = without_bound(metric, source, dimension, single)
            continue
        if largest < SMALL:
            moved[row, :] = np.float32(0)
            length = largest * np.sqrt(np.float64(dimension)) + floor
            terms[1, row] = length
            terms[2, row] = length
            terms[4, row] = length
            continue
        inverse = np.float32(1.0) / np.float32(largest)
        for i in range(dimension):
            here[i] = here[i] * inverse
        sizes[row, 0] = largest
        sizes[row, 1] = largest * np.sqrt(np.float64(sum_squares(here)))


@entry(
    "void(int64, int64, int64, int64, float64, float32[:, ::1], float64[:, ::1], int64, int64, int64, "
    "uint8[::1], float32[:, ::1], float64[:, ::1])"
)
def round_heads(
    metric: int,
    dimension: int,
    start: int,
    end: int,
    drift: float,
    heads: Any,
    sizes: Any,
    layout: int,
    levels: int,
    padded: int,
    integers: Any,
    floats: Any,
    terms: Any,
) -> None:
    """Round the heads of rows [start, end), and write their terms.

    Args:
        metric: one of `distance`'s constants.
        dimension: of the rows.
        start: the first row.
        end: one past the last.
        drift: at most how far a rotated row is from its head, relative to its length (`Frame.blur`).
        heads: float32 [rows, whole], rotated rows, zero beyond the head, and whole a multiple of LANES.
        sizes: as `move_rows` wrote them.
        layout, levels, padded, integers, floats, terms: as for `encode.encode_rows`.
    """
    relative = (dimension + 16) * UNIT
    floor = 8 * UNIT if metric == METRIC_COSINE else 0.0
    blur = 8 * UNIT + drift
    whole = heads.shape[1]
    sums = np.zeros((2, LANES), np.float32)
    packed = np.zeros(max(whole, padded), np.uint8)
    words = carray(pointer_to(address_of(packed), np.uint32(0)), (padded // 4,))
    panels = carray(pointer_to(address_of(integers), np.uint32(0)), (integers.shape[0] // 4,))
    zero = np.float32(levels if layout == LAYOUT_PANELS else 0)
    for row in range(start, end):
        length = sizes[row, 1]
        if length < 0:
            continue
        size = sizes[row, 0]
        head = heads[row]
        largest = np.float64(single_of_bits(np.uint32(largest_magnitude(address_of(head), whole))))
        scale = np.float32(largest / max(levels, 1))
        if largest < SMALL:
            # All of the row is beyond the head.
            scale = np.float32(0)
            lost = largest * np.sqrt(np.float64(whole))
            known = 0.0
        elif layout == LAYOUT_FLOATS:
            inverse = np.float32(1.0) / scale
            for i in range(min(whole, padded)):
                floats[row, i] = head[i] * inverse
            # In any order of summation, the product of the floats loses this much.
            lost = (8 * UNIT + relative) * length / size
            known = scale * np.sqrt(np.float64(sum_squares(floats[row])))
        else:
            inverse = np.float32(1.0) / scale
            round_row(address_of(head), whole, inverse, zero, address_of(packed), address_of(sums))
            lost = scale * np.sqrt(np.float64(sum_lanes(sums[0])))
            known = scale * np.sqrt(np.float64(sum_lanes(sums[1])))
        surely = length * (1 + relative) + floor
        terms[0, row] = scale * size
        terms[1, row] = (lost * size + (blur + 8 * UNIT) * length) * (1 + relative) + floor
        terms[2, row] = surely
        if metric != METRIC_DOT:
            terms[3, row] = -0.5 * length * length
        known = max(0.0, known * size * (1 - relative) - (blur + 8 * UNIT) * surely - floor)
        terms[4, row] = np.sqrt(max(0.0, surely * surely - known * known)) * (1 + 8 * UNIT)
        if scale == 0:
            if layout == LAYOUT_FLOATS:
                floats[row, :] = np.float32(0)
            continue
        if layout == LAYOUT_PANELS:
            place_words(
                words, row // PANEL_ROWS * PANEL_ROWS * words.shape[0] + row % PANEL_ROWS, PANEL_ROWS, panels
            )
        elif layout != LAYOUT_FLOATS:
            place_words(words, row * words.shape[0], 1, panels)
