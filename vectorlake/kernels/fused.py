"""Products of a tile and the test of their bound as LLVM IR for AVX2: nothing leaves the registers but what may be near.

Bytes are multiplied and added in pairs, and the pairs summed in 16 bits, which wrap. The sums start from what the offset
of the rows adds, taken negatively, so that a sum modulo 2**16 is that of the products without it; and as a query's
magnitudes sum to at most `MOST` in each lane of a stretch, this lies within 16 bits. They are widened once a stretch, not
once every few products as in `microkernel.multiply_tile`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils as numba_cgutils

from vectorlake.kernels.jit import Builder, Value, intrinsic
from vectorlake.kernels.microkernel import (
    BYTE,
    BYTES32,
    FLOAT,
    FLOATS,
    INT16S,
    INT32,
    INT32S,
    INT64,
    LEVELS,
    PANEL_ROWS,
    STEP,
    declared,
    load,
    multiply_add,
    splat,
    store,
    strided,
)

cgutils: Any = numba_cgutils  # it has no types

TILE = 4
"""Queries of a tile."""
STRETCH = 9
"""Steps, of STEP dimensions each, that are summed in 16 bits at most: more ask for smaller integers of queries."""
MOST = (2**15 - 1) // LEVELS
"""What the magnitudes of a query's integers may sum to in a lane: every other two of its elements, over a stretch."""
FACTORS = 4
"""Numbers that `sift_tile` reads for each query."""

_VECTORS = PANEL_ROWS // 8
_WORDS = STEP // 4

assert 2 * (2 * LEVELS) * LEVELS < 2**15


def stretch_of(padded: int) -> int:
    """How many elements each stretch has but the last, which may have fewer: as few stretches as may be, alike in length."""
    steps = padded // STEP
    return -(-steps // -(-steps // STRETCH)) * STEP


def lane_sums(integers: npt.NDArray[np.int8], stretch: int) -> npt.NDArray[np.int32]:
    """What integers [n, p], p a multiple of STEP, sum to, int32 [n, stretches, 2], lane by lane of each stretch."""
    pairs = np.add(integers[:, ::2], integers[:, 1::2], dtype=np.int32)
    ends = [(first, first + stretch // 2) for first in range(0, pairs.shape[1], stretch // 2)]
    sums = [pairs[:, first + lane : end : 2].sum(axis=1) for first, end in ends for lane in (0, 1)]
    return np.stack(sums, axis=1).astype(np.int32).reshape(len(integers), -1, 2)


def to_tiles(integers: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
    """Queries as `sift_tile` reads them, int32 [tiles, words]: for each stretch the starts of the sums, then its words.

    Args:
        integers: int8 [n, p], p a multiple of STEP; see `MOST`.
    """
    count, padded = integers.shape
    stretch = stretch_of(padded)
    tiles = -(-count // TILE)
    every = np.zeros((tiles * TILE, padded), np.int8)
    every[:count] = integers
    starts = (-LEVELS * lane_sums(every, stretch)).astype(np.int16)
    words = every.view(np.int32).reshape(tiles, TILE, padded // 4).transpose(0, 2, 1)
    first = starts.view(np.int32).reshape(tiles, TILE, -1).transpose(0, 2, 1)
    parts = []
    for place in range(first.shape[1]):
        length = stretch // 4
        parts += [first[:, place : place + 1], words[:, place * length : (place + 1) * length]]
    return np.ascontiguousarray(np.concatenate(parts, axis=1).reshape(tiles, -1))


@intrinsic
def sift_tile(
    typing: Any,
    panel: Any,
    queries: Any,
    steps: Any,
    stretch: Any,
    terms: Any,
    stride: Any,
    factors: Any,
    products: Any,
) -> Any:
    """Which of PANEL_ROWS rows may be near enough to which of TILE queries: PANEL_ROWS low bits for each query in turn.

    The test is a little lenient: of a row's terms (see `quantize`), the second and third are taken for the largest of many
    rows', as part of what is to be reached.

    Args:
        panel: address of unsigned bytes [4-byte word of a row][PANEL_ROWS][4], aligned to 32.
        queries: address of a tile (see `to_tiles`).
        steps: padded dimension / STEP.
        stretch: how many of them make a stretch, see `stretch_of`.
        terms: address of the first row in float32 [5, rows].
        stride: bytes from one term of a row to the next.
        factors: address of float32 [TILE, FACTORS]: what the first (times the product), the fourth and the fifth term are
            multiplied by, and what the sum must reach; nan for a query that is none.
        products: address of int32 [TILE, PANEL_ROWS], written: the integer products.
    """
    arguments = (panel, queries, steps, stretch, terms, stride, factors, products)
    return types.int64(*arguments), _sift_tile


def _sift_tile(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
    panel, queries, steps, stretch, terms, stride, factors, products = arguments
    sums = _multiplied(builder, panel, queries, steps, stretch)
    mask = _whole(0)
    for v in range(_VECTORS):
        scales, halves, tails = (
            load(builder, builder.add(terms, builder.mul(stride, _whole(term))), 32 * v, FLOATS)
            for term in (0, 3, 4)
        )
        for q in range(TILE):
            scale, weight, tail, limit = (
                splat(builder, load(builder, factors, 4 * (FACTORS * q + i), FLOAT), FLOATS)
                for i in range(FACTORS)
            )
            nearness = builder.fmul(builder.sitofp(builder.load(sums[q, v]), FLOATS), scale)
            total = multiply_add(builder, nearness, scales, builder.fmul(weight, halves))
            total = multiply_add(builder, tail, tails, total)
            passed = builder.bitcast(builder.fcmp_ordered(">=", total, limit), BYTE)
            shift = _whole(PANEL_ROWS * q + 8 * v)
            mask = builder.or_(mask, builder.shl(builder.zext(passed, INT64), shift))
    for q in range(TILE):
        for v in range(_VECTORS):
            store(builder, builder.load(sums[q, v]), products, 4 * PANEL_ROWS * q + 32 * v)
    return mask


def _multiplied(
    builder: Builder, panel: Value, queries: Value, steps: Value, stretch: Value
) -> dict[tuple[int, int], Value]:
    """Where the products of each query with eight rows are, int32."""
    add_bytes = declared(builder, "llvm.x86.avx2.pmadd.ub.sw", INT16S, BYTES32)
    add_pairs = declared(builder, "llvm.x86.avx2.pmadd.wd", INT32S, INT16S)
    ones = ir.Constant(INT16S, [1] * 16)
    tile = [(q, v) for q in range(TILE) for v in range(_VECTORS)]
    sums = {place: cgutils.alloca_once(builder, INT32S) for place in tile}
    short = {place: cgutils.alloca_once(builder, INT16S) for place in tile}
    for place in tile:
        builder.store(ir.Constant(INT32S, None), sums[place])
    place_of_starts = cgutils.alloca_once(builder, INT64)
    builder.store(queries, place_of_starts)
    with cgutils.for_range_slice(builder, _whole(0), steps, stretch, intp=INT64) as (first, _):
        rows_at = strided(builder, panel, first, 4 * PANEL_ROWS * _WORDS)
        starts_at = builder.load(place_of_starts)
        for q in range(TILE):
            start = splat(builder, load(builder, starts_at, 4 * q, INT32), INT32S)
            for v in range(_VECTORS):
                builder.store(builder.bitcast(start, INT16S), short[q, v])
        left = builder.sub(steps, first)
        here = builder.select(builder.icmp_signed("<", left, stretch), left, stretch)
        next_starts = builder.add(starts_at, strided(builder, _whole(4 * TILE), here, 4 * TILE * _WORDS))
        builder.store(next_starts, place_of_starts)
        with cgutils.for_range(builder, here, intp=INT64) as loop:
            row_words = strided(builder, rows_at, loop.index, 4 * PANEL_ROWS * _WORDS)
            query_words = strided(builder, starts_at, loop.index, 4 * TILE * _WORDS)
            totals = {place: builder.load(short[place]) for place in tile}
            for word in range(_WORDS):
                rows = [
                    load(builder, row_words, 32 * (_VECTORS * word + v), BYTES32, align=32)
                    for v in range(_VECTORS)
                ]
                for q in range(TILE):
                    one = load(builder, query_words, 4 * (TILE * (1 + word) + q), INT32)
                    query = builder.bitcast(splat(builder, one, INT32S), BYTES32)
                    for v in range(_VECTORS):
                        product = builder.call(add_bytes, [rows[v], query])
                        totals[q, v] = builder.add(totals[q, v], product)
            for place in tile:
                builder.store(totals[place], short[place])
        for place in tile:
            widened = builder.call(add_pairs, [builder.load(short[place]), ones])
            builder.store(builder.add(builder.load(sums[place]), widened), sums[place])
    return sums


def _whole(value: int) -> Value:
    return ir.Constant(INT64, value)
