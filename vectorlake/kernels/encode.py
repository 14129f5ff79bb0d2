"""Compiled loops that move rows into product space and round them (see `quantize`)."""

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
from vectorlake.kernels.jit import entry, inner, relaxed
from vectorlake.kernels.lanes import sum_square
from vectorlake.kernels.microkernel import PANEL_ROWS
from vectorlake.kernels.quantize import TERMS, UNIT, WILD
from vectorlake.kernels.rounding import LANES, largest_magnitude, round_row

LAYOUT_PANELS = 0
LAYOUT_ROWS = 1
LAYOUT_FLOATS = 2

SMALL = 1e-30
ALWAYS = np.float64(np.inf)
NEVER = np.float64(-np.inf)


@relaxed
def sum_lanes(values: Any) -> Any:
    total = np.float32(0)
    for i in range(values.shape[0]):
        total += values[i]
    return total


@relaxed
def sum_squares(values: Any) -> Any:
    total = np.float32(0)
    for i in range(values.shape[0]):
        total += values[i] * values[i]
    return total


@inner
def move(source: int, single: int, factor: float, centre: Any, moved: Any) -> None:
    dimension = centre.shape[0]
    if single:
        singles = carray(pointer_to(source, np.float32(0)), (dimension,))
        rounded = np.float32(factor)
        for i in range(dimension):
            moved[i] = singles[i] * rounded - centre[i]
    else:
        doubles = carray(pointer_to(source, np.float64(0)), (dimension,))
        for i in range(dimension):
            moved[i] = np.float32(doubles[i] * factor - np.float64(centre[i]))


@inner
def without_bound(metric: int, source: int, dimension: int, single: int) -> Any:
    """The last term of a row whose elements are too large, or whose norm is too large or small, to be rounded."""
    squares = sum_square(source, source, dimension, single)
    if squares != squares or (single and squares == np.inf) or (metric == METRIC_COSINE and squares == 0):
        return NEVER
    return ALWAYS


@inner
def place_words(words: Any, first: int, step: int, target: Any) -> None:
    for i in range(words.shape[0]):
        target[first + i * step] = words[i]


@entry(
    "void(int64, int64, int64, int64, bool_[::1], int64, int64, float32[::1], int64, int64, int64, "
    "uint8[::1], float32[:, ::1], float64[:, ::1])"
)
def encode_rows(
    metric: int,
    code: int,
    address: int,
    stride: int,
    valid: Any,
    start: int,
    end: int,
    centre: Any,
    layout: int,
    levels: int,
    padded: int,
    integers: Any,
    floats: Any,
    terms: Any,
) -> None:
    """Encode rows [start, end) of a block, to the same places of the targets.

    Args:
        metric: one of `distance`'s constants.
        code: the element type.
        address: where row 0 stands.
        stride: bytes from row to row.
        valid: the block's mask, or empty.
        start: the first row.
        end: one past the last.
        centre: float32 [d].
        layout: unsigned bytes in panels (see `microkernel.multiply_tile`), signed bytes in rows, or float32
            in rows.
        levels: integers lie in -levels..levels; panels hold them plus levels.
        padded: the padded dimension.
        integers: uint8 [rows * padded], for the first two layouts.
        floats: float32 [rows, padded], for the third.
        terms: float64 [5, rows], the terms that `quantize` defines; the fourth is infinite for a row that must
            be measured and minus
            infinity for one that must not.
    """
    dimension = centre.shape[0]
    relative = (dimension + 16) * UNIT
    # Normalising rounds each element of a vector of length one, and its length.
    floor = 8 * UNIT if metric == METRIC_COSINE else 0.0
    # A float32 product of unit-free values may lose this much of |w||z|, in any order of summation.
    blur = 8 * UNIT + (relative if layout == LAYOUT_FLOATS else 0.0)
    buffer = np.empty(dimension, np.float32)
    # Whole lanes: what lies beyond the dimension stays zero, and meets zeros of the queries.
    whole = (dimension + LANES - 1) // LANES * LANES
    moved = np.zeros(whole, np.float32)
    sums = np.zeros((2, LANES), np.float32)
    packed = np.zeros(max(whole, padded), np.uint8)
    words = carray(pointer_to(address_of(packed), np.uint32(0)), (padded // 4,))
    panels = carray(pointer_to(address_of(integers), np.uint32(0)), (integers.shape[0] // 4,))
    zero = np.float32(levels if layout == LAYOUT_PANELS else 0)
    for row in range(start, end):
        for term in range(TERMS):
            terms[term, row] = 0.0
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
        move(source, single, factor, centre, moved)
        bits = largest_magnitude(address_of(moved), whole)
        largest = np.float64(single_of_bits(np.uint32(bits)))
        if not largest < WILD:
            terms[3, row] = without_bound(metric, source, dimension, single)
            continue
        if largest < SMALL:
            length = largest * np.sqrt(np.float64(dimension))
            terms[1, row] = length + floor
            terms[2, row] = length + floor
            continue
        scale = np.float32(largest / max(levels, 1))
        inverse = np.float32(1.0) / scale
        if layout == LAYOUT_FLOATS:
            for i in range(dimension):
                moved[i] = moved[i] * inverse
                floats[row, i] = moved[i]
            lost = 0.0
            length = scale * np.sqrt(np.float64(sum_squares(moved)))
        else:
            round_row(address_of(moved), whole, inverse, zero, address_of(packed), address_of(sums))
            lost = scale * np.sqrt(np.float64(sum_lanes(sums[0])))
            length = scale * np.sqrt(np.float64(sum_lanes(sums[1])))
        terms[0, row] = scale
        terms[1, row] = (lost + blur * length) * (1 + relative) + floor
        terms[2, row] = length * (1 + relative) + floor
        if metric != METRIC_DOT:
            terms[3, row] = -0.5 * length * length
        if layout == LAYOUT_PANELS:
            place_words(
                words, row // PANEL_ROWS * PANEL_ROWS * words.shape[0] + row % PANEL_ROWS, PANEL_ROWS, panels
            )
        elif layout == LAYOUT_ROWS:
            place_words(words, row * words.shape[0], 1, panels)
