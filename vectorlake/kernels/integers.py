"""Compiled search of integer vectors: products, and under l2 and dot distances, are integers, so nothing is bounded.

Elements are widened to 16 bits and multiplied by the instruction that adds pairs of products into 32 bits. A row is
offered to a query's heap if its integer score exceeds what the query's k-th distance asks for. Sums of integers are
exact in float64 too, in any order: what is computed from them equals `distance` bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types  # type: ignore[attr-defined]
from numba.core import cgutils as numba_cgutils

from vectorlake.kernels.distance import METRIC_COSINE, METRIC_DOT, METRIC_L2, address_of, pointer_to
from vectorlake.kernels.heap import offer
from vectorlake.kernels.jit import Builder, Value, entry, inner, intrinsic
from vectorlake.kernels.microkernel import trailing_zeros
from vectorlake.kernels.rows import UINT8

cgutils: Any = numba_cgutils  # it has no types

TILE = 6
"""Queries that are multiplied at once, with PANEL rows."""

_VECTORS = 2
PANEL = 8 * _VECTORS

_DEPTH = 2
STEP = 2 * _DEPTH
"""Dimensions are padded to a multiple of this."""

MOST = 2**29
"""No product of a query and a row may be larger, nor the square of a row."""

NEVER = -(2**30)
"""The term of a row that must not match: with any product added, below what any k-th distance asks for."""

_EVERY = -(2**31)
_NO = 2**31 - 1

_BLUR = 2.0**-20
"""At least four times what float32 arithmetic may lose of q.x / |x|, relative to |q|."""

_BYTE = ir.IntType(8)
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_INT16S = ir.VectorType(ir.IntType(16), 16)
_INT32S = ir.VectorType(_INT32, 8)
_FLOATS = ir.VectorType(ir.FloatType(), 8)


@intrinsic
def _multiply(
    typing: Any, panel: Any, queries: Any, steps: Any, terms: Any, limits: Any, out: Any, scaled: Any
) -> Any:
    """Score PANEL rows for TILE queries; returns in its low bits which rows exceed the limit of any.

    Args:
        panel: address of int16 [pair of a row's elements][PANEL][2], aligned to 32.
        queries: address of int16 [pair of a query's elements][TILE][2].
        steps: padded dimension / STEP.
        terms: address of int32 [PANEL], added to the products; or float32, multiplied by them to be compared.
        limits: address of int32 or float32 [TILE].
        out: address of int32 [TILE, PANEL] for products, with what was added.
        scaled: 1 if terms and limits are float32.
    """
    return types.int64(panel, queries, steps, terms, limits, out, scaled), _score_tile


def _score_tile(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
    panel, queries, steps, terms, limits, out, scaled = arguments
    kind = ir.FunctionType(_INT32S, [_INT16S, _INT16S])
    add_pairs = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.pmadd.wd")
    tile = [(q, v) for q in range(TILE) for v in range(_VECTORS)]
    is_scaled = builder.icmp_signed("!=", scaled, ir.Constant(scaled.type, 0))
    zero = ir.Constant(_INT32S, None)
    begun = [builder.select(is_scaled, zero, _load(builder, terms, 32 * v, _INT32S)) for v in range(_VECTORS)]
    sums = {place: cgutils.alloca_once(builder, _INT32S) for place in tile}
    for q, v in tile:
        builder.store(begun[v], sums[q, v])
    with cgutils.for_range(builder, steps, intp=_INT64) as loop:
        rows_at = builder.add(panel, builder.mul(loop.index, ir.Constant(_INT64, 4 * PANEL * _DEPTH)))
        queries_at = builder.add(queries, builder.mul(loop.index, ir.Constant(_INT64, 4 * TILE * _DEPTH)))
        for depth in range(_DEPTH):
            rows = [
                _load(builder, rows_at, 32 * (_VECTORS * depth + v), _INT16S, align=32)
                for v in range(_VECTORS)
            ]
            for q in range(TILE):
                word = _load(builder, queries_at, 4 * (TILE * depth + q), _INT32)
                query = builder.bitcast(_splat(builder, word, _INT32S), _INT16S)
                for v in range(_VECTORS):
                    product = builder.call(add_pairs, [rows[v], query])
                    builder.store(builder.add(builder.load(sums[q, v]), product), sums[q, v])
    totals = {place: builder.load(sums[place]) for place in tile}
    for q, v in tile:
        _store(builder, totals[q, v], out, 4 * PANEL * q + 32 * v)
    result = cgutils.alloca_once(builder, _INT64)
    with builder.if_else(is_scaled) as (then, otherwise):
        with then:
            scales = [_load(builder, terms, 32 * v, _FLOATS) for v in range(_VECTORS)]
            asked = [
                _splat(builder, _load(builder, limits, 4 * q, ir.FloatType()), _FLOATS) for q in range(TILE)
            ]
            passed = {
                (q, v): builder.fcmp_ordered(
                    ">=", builder.fmul(builder.sitofp(totals[q, v], _FLOATS), scales[v]), asked[q]
                )
                for q, v in tile
            }
            builder.store(_any(builder, passed), result)
        with otherwise:
            asked = [_splat(builder, _load(builder, limits, 4 * q, _INT32), _INT32S) for q in range(TILE)]
            passed = {(q, v): builder.icmp_signed(">", totals[q, v], asked[q]) for q, v in tile}
            builder.store(_any(builder, passed), result)
    return builder.load(result)


def _any(builder: Builder, passed: dict[tuple[int, int], Value]) -> Value:
    mask = ir.Constant(_INT64, 0)
    for v in range(_VECTORS):
        some = passed[0, v]
        for q in range(1, TILE):
            some = builder.or_(some, passed[q, v])
        bits = builder.zext(builder.bitcast(some, _BYTE), _INT64)
        mask = builder.or_(mask, builder.shl(bits, ir.Constant(_INT64, 8 * v)))
    return mask


def _load(builder: Builder, base: Value, offset: int, kind: Any, *, align: int = 4) -> Value:
    address = builder.add(base, ir.Constant(_INT64, offset))
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def _store(builder: Builder, value: Value, base: Value, offset: int) -> None:
    address = builder.add(base, ir.Constant(_INT64, offset))
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=4)


def _splat(builder: Builder, value: Value, kind: Any) -> Value:
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_INT32, 0))
    lanes = ir.Constant(ir.VectorType(_INT32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, undefined, lanes)


@inner
def _set_limit(metric: int, root: float, square: Any, limit: Any) -> None:
    """Write what lets a row pass that is no farther than `root` from a query of that square.

    It is the integer that its score must exceed; under cosine the float32 that q.x / |x| must reach.
    """
    if metric == METRIC_COSINE:
        length = np.sqrt(np.float64(square))
        limit.view(np.float32)[0] = (1.0 - root - _BLUR) * length if length > 0 else np.inf
        return
    whole = np.floor(root)  # distances are whole numbers; the root, of other rows, may be none
    asked = -whole if metric == METRIC_DOT else np.ceil(0.5 * (np.float64(square) - whole))
    limit[0] = np.int32(min(max(asked - 1, np.float64(_EVERY)), np.float64(_NO)))


@inner
def _value(metric: int, product: Any, square: Any, row_square: Any) -> Any:
    """The distance: as `distance.distance` has it, whose sums are these integers."""
    if metric == METRIC_L2:
        return np.float64(square + row_square - 2 * product)
    if metric == METRIC_DOT:
        return -np.float64(product)
    both = np.sqrt(np.float64(square)) * np.sqrt(np.float64(row_square))
    return min(max(1.0 - np.float64(product) / both, 0.0), 2.0)


@entry(
    "void(int64, int64, int64, int64, bool_[::1], int64, int64, int64, int64, int64, int32[::1], int64[::1])"
)
def widen_rows(
    metric: int,
    code: int,
    address: int,
    stride: int,
    valid: Any,
    start: int,
    end: int,
    dimension: int,
    padded: int,
    panels: int,
    terms: Any,
    squares: Any,
) -> None:
    """Place rows [start, end) of a block in panels.

    Args:
        metric: one of `distance`'s constants.
        code: the element type, INT8 or UINT8.
        address: where row 0 stands.
        stride: bytes from row to row.
        valid: the block's mask, or empty.
        start: the first row.
        end: one past the last.
        dimension: of the rows.
        padded: the padded dimension; what is beyond the dimension stays zero.
        panels: address of int32 [panel, pair, PANEL], zero at first.
        terms: int32 [rows], what is added to a product to give a score; under cosine the bits of the float32 that it is
            multiplied by.
        squares: int64 [rows].
    """
    pairs = padded // 2
    scales = terms.view(np.float32)
    row_words = np.zeros(pairs, np.int32)
    elements = carray(pointer_to(address_of(row_words), np.int16(0)), (padded,))
    for row in range(start, end):
        if valid.shape[0] > 0 and not valid[row]:
            squares[row] = 0
            if metric == METRIC_COSINE:
                scales[row] = np.nan
            else:
                terms[row] = NEVER
            continue
        place = address + row * stride
        square = np.int32(0)
        if code == UINT8:
            unsigned = carray(pointer_to(place, np.uint8(0)), (dimension,))
            for i in range(dimension):
                elements[i] = np.int16(unsigned[i])
                square += np.int32(unsigned[i]) * np.int32(unsigned[i])
        else:
            signed = carray(pointer_to(place, np.int8(0)), (dimension,))
            for i in range(dimension):
                elements[i] = np.int16(signed[i])
                square += np.int32(signed[i]) * np.int32(signed[i])
        squares[row] = square
        if metric == METRIC_COSINE:
            scales[row] = 1.0 / np.sqrt(np.float64(square)) if square > 0 else np.nan
        else:
            terms[row] = -(square >> 1) if metric == METRIC_L2 else 0
        first = row // PANEL * PANEL * pairs + row % PANEL
        target = carray(pointer_to(panels + first * 4, np.int32(0)), (pairs * PANEL,))
        for pair in range(pairs):
            target[pair * PANEL] = row_words[pair]


@entry(
    "void(int64, int64, int64, int64, int64, int32[::1], int64[::1], int64[::1], int64[::1], int64, "
    "float64[:, ::1], int64[:, ::1])"
)
def search_integers(
    metric: int,
    padded: int,
    tiles: int,
    panels: int,
    order: int,
    terms: Any,
    squares: Any,
    query_squares: Any,
    row_ids: Any,
    count: int,
    heap_distances: Any,
    heap_ids: Any,
) -> None:
    """Offer a block's rows to the heaps of a group of queries.

    Args:
        metric: one of `distance`'s constants.
        padded: the padded dimension.
        tiles: address of the group's elements, int16 [tile, pair, TILE, 2]; zeros fill the last tile.
        panels: address of the block's (see `widen_rows`).
        order: how many panels to go on by from one to the next, prime to their number: in rows that are sorted, all
            might be nearer than those before.
        terms: int32 [rows, by whole panels], see `widen_rows`.
        squares: int64, beside them.
        query_squares: int64 [g].
        row_ids: int64 [rows].
        count: how many rows.
        heap_distances: float64 [g, k].
        heap_ids: int64 [g, k].
    """
    group = query_squares.shape[0]
    whole = (group + TILE - 1) // TILE * TILE
    scaled = np.int64(metric == METRIC_COSINE)
    limits = np.full(whole, _NO, np.int32)
    if scaled:
        limits.view(np.float32)[:] = np.inf
    for q in range(group):
        _set_limit(metric, heap_distances[q, 0], query_squares[q], limits[q : q + 1])
    scores = np.empty((TILE, PANEL), np.int32)
    number = (count + PANEL - 1) // PANEL
    panel = 0
    for _ in range(number):
        first = panel * PANEL
        for tile in range(0, whole, TILE):
            passed = _multiply(
                panels + first * padded * 2,
                tiles + tile * padded * 2,
                padded // STEP,
                address_of(terms) + first * 4,
                address_of(limits) + tile * 4,
                address_of(scores),
                scaled,
            )
            while passed != 0:
                j = trailing_zeros(passed)
                passed &= passed - 1
                row = first + j
                if scaled == 0 and terms[row] == NEVER:
                    continue
                added = 0 if scaled else terms[row]
                for q in range(tile, min(tile + TILE, group)):
                    score = np.int64(scores[q - tile, j])
                    # Under cosine zero queries are passed over; the heap tells for all others.
                    if query_squares[q] == 0 if scaled else score <= limits[q]:
                        continue
                    value = _value(metric, score - added, query_squares[q], squares[row])
                    if offer(heap_distances[q], heap_ids[q], value, row_ids[row]):
                        _set_limit(metric, heap_distances[q, 0], query_squares[q], limits[q : q + 1])
        panel += order
        if panel >= number:
            panel -= number
