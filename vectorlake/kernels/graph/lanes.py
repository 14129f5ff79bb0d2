"""Sums over codes and integer products as LLVM IR: with AVX2's shuffle and multiply-add, and without, to the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types  # type: ignore[attr-defined]
from numba.core import cgutils as numba_cgutils

from vectorlake.kernels.capability import has_avx2
from vectorlake.kernels.distance import pointer_to
from vectorlake.kernels.graph.record import DEGREE
from vectorlake.kernels.jit import Builder, Value, inner, intrinsic
from vectorlake.kernels.microkernel import fetch, prefetch

cgutils: Any = numba_cgutils  # it has no types

_BYTE = ir.IntType(8)
_INT16 = ir.IntType(16)
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_FLOAT = ir.FloatType()
_BYTES = ir.VectorType(_BYTE, 32)
_HALF = ir.VectorType(_BYTE, 16)
_INT16S = ir.VectorType(_INT16, 16)
_INT32S = ir.VectorType(_INT32, 8)
_FLOATS = ir.VectorType(_FLOAT, 8)
_PARTS = 8
"""Look-ups whose bytes are added before they are widened; each covers two groups of four dimensions."""
LINES = 5
"""Cache lines asked for with a block of dimensions: a record has four of codes for each, and one of its vector."""
_LINE = 64


@intrinsic
def code_sums_avx2(_typing: Any, codes: Any, table: Any, blocks: Any, out: Any, ahead: Any) -> Any:
    """Add a look-up table's entries under the codes of 32 neighbours, and ask for memory that is wanted next.

    A core has only so many cache lines on their way at a time, and waits to ask for more: so they are asked for little by
    little, between look-ups.

    Args:
        codes: address of a record's codes.
        table: address of uint8 [padded / 4, 16], the entry of each pattern of four bits.
        blocks: padded / STEP.
        out: address of uint16 [32], the sums.
        ahead: address of `blocks` runs of LINES cache lines, which are fetched meanwhile.
    """
    return types.void(codes, table, blocks, out, ahead), _code_sums


def _code_sums(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
    codes, table, blocks, out, ahead = arguments
    kind = ir.FunctionType(_BYTES, [_BYTES, _BYTES])
    look_up = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.pshuf.b")
    low_bits = ir.Constant(_BYTES, [15] * 32)
    four = ir.Constant(_INT16S, [4] * 16)
    eight = ir.Constant(_INT16S, [8] * 16)
    low_byte = ir.Constant(_INT16S, [255] * 16)
    totals = [cgutils.alloca_once(builder, _INT16S) for _ in range(4)]
    for total in totals:
        builder.store(ir.Constant(_INT16S, None), total)
    with cgutils.for_range(builder, blocks, intp=_INT64) as loop:
        start = builder.mul(loop.index, ir.Constant(_INT64, 32 * _PARTS))
        wanted = builder.add(ahead, builder.mul(loop.index, ir.Constant(_INT64, _LINE * LINES)))
        sums: list[Value] = []
        for part in range(_PARTS):
            if part < LINES:
                fetch(builder, builder.add(wanted, ir.Constant(_INT64, _LINE * part)))
            code = _load(builder, builder.add(codes, start), 32 * part, _BYTES)
            entries = _load(builder, builder.add(table, start), 32 * part, _BYTES)
            shifted = builder.bitcast(builder.lshr(builder.bitcast(code, _INT16S), four), _BYTES)
            found = [
                builder.call(look_up, [entries, builder.and_(half, low_bits)]) for half in (code, shifted)
            ]
            sums = [builder.add(a, b) for a, b in zip(sums, found, strict=True)] if sums else found
        for half, byte_sums in enumerate(sums):
            wide = builder.bitcast(byte_sums, _INT16S)
            for odd, piece in enumerate((builder.and_(wide, low_byte), builder.lshr(wide, eight))):
                total = totals[2 * half + odd]
                builder.store(builder.add(builder.load(total), piece), total)
    for half in range(2):
        even, odd = (_folded(builder, builder.load(totals[2 * half + i])) for i in range(2))
        order = [place for i in range(8) for place in (i, 8 + i)]
        mixed = builder.shuffle_vector(even, odd, ir.Constant(ir.VectorType(_INT32, 16), order))
        _store(builder, mixed, out, 32 * half)
    return context.get_dummy_value()


def _folded(builder: Builder, value: Value) -> Value:
    """The upper half added to the lower: they are of the two groups of one look-up."""
    undefined = ir.Constant(value.type, ir.Undefined)
    low, high = (
        builder.shuffle_vector(
            value, undefined, ir.Constant(ir.VectorType(_INT32, 8), list(range(first, first + 8)))
        )
        for first in (0, 8)
    )
    return builder.add(low, high)


@inner
def code_sums_portable(codes: int, table: int, blocks: int, out: int, ahead: int) -> None:
    """`code_sums_avx2` on any machine."""
    for line in range(LINES * blocks):
        prefetch(ahead + _LINE * line)
    groups = blocks * 16
    patterns = carray(pointer_to(codes, np.uint8(0)), (groups, 16))
    entries = carray(pointer_to(table, np.uint8(0)), (groups, 16))
    sums = carray(pointer_to(out, np.uint16(0)), (32,))
    for j in range(16):
        low, high = 0, 0
        for g in range(groups):
            pattern = patterns[g, j]
            low += entries[g, pattern & 15]
            high += entries[g, pattern >> 4]
        sums[j] = low
        sums[j + 16] = high


@intrinsic
def estimates(
    _typing: Any,
    sums: Any,
    terms: Any,
    step: Any,
    offset: Any,
    base: Any,
    limit: Any,
    out: Any,
) -> Any:
    """Estimated distances of 32 neighbours: base + constant + slope * (step * sum + offset).

    Args:
        sums: address of uint16 [32].
        terms: address of float32 constants [32] and slopes [32].
        step, offset, base: float32.
        limit: float32.
        out: address of float32 [32], the estimates.

    Returns:
        which estimates are below the limit, as the low bits of an int64.
    """
    return types.int64(sums, terms, step, offset, base, limit, out), _estimates


def _estimates(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
    sums, terms, step, offset, base, limit, out = arguments
    steps, offsets, bases, limits = (_splat(builder, value, _FLOATS) for value in (step, offset, base, limit))
    mask = ir.Constant(_INT64, 0)
    for i in range(DEGREE // 8):
        integers = builder.zext(_load(builder, sums, 16 * i, ir.VectorType(_INT16, 8)), _INT32S)
        total = builder.fadd(builder.fmul(builder.sitofp(integers, _FLOATS), steps), offsets)
        constant = builder.fadd(_load(builder, terms, 32 * i, _FLOATS), bases)
        slope = _load(builder, terms, 4 * DEGREE + 32 * i, _FLOATS)
        value = builder.fadd(builder.fmul(slope, total), constant)
        _store(builder, value, out, 32 * i)
        bits = builder.bitcast(builder.fcmp_ordered("<", value, limits), _BYTE)
        mask = builder.or_(mask, builder.shl(builder.zext(bits, _INT64), ir.Constant(_INT64, 8 * i)))
    return mask


def _product(left_kind: Any, right_kind: Any, *, pairs: bool) -> Any:
    def codegen(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        left, right, dimension = arguments
        total = cgutils.alloca_once(builder, _INT32S)
        other = cgutils.alloca_once(builder, _INT32S)
        for place in (total, other):
            builder.store(ir.Constant(_INT32S, None), place)
        with cgutils.for_range_slice(
            builder, ir.Constant(_INT64, 0), dimension, ir.Constant(_INT64, 32), intp=_INT64
        ) as (index, _):
            for half, place in enumerate((total, other)):
                words = []
                for address, kind in ((left, left_kind), (right, right_kind)):
                    width = kind.width // 8
                    at = builder.add(address, builder.mul(index, ir.Constant(_INT64, width)))
                    values = _load(builder, at, 16 * half * width, ir.VectorType(kind, 16))
                    words.append(values if kind is _INT16 else builder.sext(values, _INT16S))
                products = _pairs(builder, *words) if pairs else _pairs_portable(builder, *words)
                builder.store(builder.add(builder.load(place), products), place)
        return _added(builder, builder.add(builder.load(total), builder.load(other)))

    return codegen


def _pairs(builder: Builder, left: Value, right: Value) -> Value:
    kind = ir.FunctionType(_INT32S, [_INT16S, _INT16S])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.pmadd.wd")
    return builder.call(function, [left, right])


def _pairs_portable(builder: Builder, left: Value, right: Value) -> Value:
    wide = ir.VectorType(_INT32, 16)
    products = builder.mul(builder.sext(left, wide), builder.sext(right, wide))
    return _folded(builder, products)


def _added(builder: Builder, value: Value) -> Value:
    total = builder.extract_element(value, ir.Constant(_INT32, 0))
    for i in range(1, 8):
        total = builder.add(total, builder.extract_element(value, ir.Constant(_INT32, i)))
    return total


@intrinsic
def product_avx2(_typing: Any, left: Any, right: Any, dimension: Any) -> Any:
    """Inner product of int8 vectors at two addresses; the dimension is a multiple of 32."""
    return types.int32(left, right, dimension), _product(_BYTE, _BYTE, pairs=True)


@intrinsic
def product_portable(_typing: Any, left: Any, right: Any, dimension: Any) -> Any:
    """`product_avx2` on any machine."""
    return types.int32(left, right, dimension), _product(_BYTE, _BYTE, pairs=False)


@intrinsic
def query_product_avx2(_typing: Any, left: Any, right: Any, dimension: Any) -> Any:
    """Inner product of an int8 vector and an int16 query."""
    return types.int32(left, right, dimension), _product(_BYTE, _INT16, pairs=True)


@intrinsic
def query_product_portable(_typing: Any, left: Any, right: Any, dimension: Any) -> Any:
    """`query_product_avx2` on any machine."""
    return types.int32(left, right, dimension), _product(_BYTE, _INT16, pairs=False)


def _products_of_four(*, pairs: bool) -> Any:
    def codegen(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        left, stride, right, dimension, out = arguments
        totals = [cgutils.alloca_once(builder, _INT32S) for _ in range(4)]
        for total in totals:
            builder.store(ir.Constant(_INT32S, None), total)
        rows = [builder.add(left, builder.mul(stride, ir.Constant(_INT64, i))) for i in range(4)]
        with cgutils.for_range_slice(
            builder, ir.Constant(_INT64, 0), dimension, ir.Constant(_INT64, 16), intp=_INT64
        ) as (index, _):
            offset = builder.mul(index, ir.Constant(_INT64, 2))
            shared = _load(builder, builder.add(right, offset), 0, _INT16S)
            for row, total in zip(rows, totals, strict=True):
                own = _load(builder, builder.add(row, offset), 0, _INT16S)
                products = _pairs(builder, own, shared) if pairs else _pairs_portable(builder, own, shared)
                builder.store(builder.add(builder.load(total), products), total)
        for i, total in enumerate(totals):
            _store(builder, _added(builder, builder.load(total)), out, 4 * i)
        return context.get_dummy_value()

    return codegen


@intrinsic
def products_of_four_avx2(_typing: Any, left: Any, stride: Any, right: Any, dimension: Any, out: Any) -> Any:
    """Inner products of four vectors, `stride` bytes apart, and one, all int16, written as int32 [4].

    The dimension is a multiple of 16.
    """
    return types.void(left, stride, right, dimension, out), _products_of_four(pairs=True)


@intrinsic
def products_of_four_portable(
    _typing: Any, left: Any, stride: Any, right: Any, dimension: Any, out: Any
) -> Any:
    """`products_of_four_avx2` on any machine."""
    return types.void(left, stride, right, dimension, out), _products_of_four(pairs=False)


_SIGNS = [[1.0 if pattern >> bit & 1 else -1.0 for pattern in range(16)] for bit in range(4)]
_ENTRIES = ir.VectorType(_FLOAT, 16)


@intrinsic
def fill_entries(_typing: Any, values: Any, groups: Any, inverse: Any, out: Any) -> Any:
    """Write a look-up table: for each group of four elements the sum under each pattern of signs, less the least.

    Args:
        values: address of float32 [4 groups].
        groups: how many.
        inverse: float32, by what sums are multiplied before they are rounded.
        out: address of uint8 [groups, 16].
    """
    return types.void(values, groups, inverse, out), _fill_entries


def _fill_entries(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
    values, groups, inverse, out = arguments
    factor = _splat(builder, inverse, _ENTRIES)
    half = ir.Constant(_ENTRIES, [0.5] * 16)
    magnitude = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_FLOAT, [_FLOAT]), "llvm.fabs.f32"
    )
    with cgutils.for_range(builder, groups, intp=_INT64) as loop:
        at = builder.add(values, builder.mul(loop.index, ir.Constant(_INT64, 16)))
        total = None
        for bit in range(4):
            value = _load(builder, at, 4 * bit, _FLOAT)
            signed = builder.fmul(_splat(builder, value, _ENTRIES), ir.Constant(_ENTRIES, _SIGNS[bit]))
            lifted = builder.fadd(signed, _splat(builder, builder.call(magnitude, [value]), _ENTRIES))
            total = lifted if total is None else builder.fadd(total, lifted)
        rounded = builder.fadd(builder.fmul(total, factor), half)
        entries = builder.trunc(builder.fptosi(rounded, ir.VectorType(_INT32, 16)), _HALF)
        _store(builder, entries, builder.add(out, builder.mul(loop.index, ir.Constant(_INT64, 16))), 0)
    return context.get_dummy_value()


@intrinsic
def butterfly(_typing: Any, left: Any, right: Any, count: Any, factor: Any) -> Any:
    """Replace float32 a and b at two addresses by (a + b) f and (a - b) f; their number is a multiple of 8."""
    return types.void(left, right, count, factor), _butterfly


def _butterfly(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
    left, right, count, factor = arguments
    scale = _splat(builder, factor, _FLOATS)
    with cgutils.for_range_slice(
        builder, ir.Constant(_INT64, 0), count, ir.Constant(_INT64, 8), intp=_INT64
    ) as (index, _):
        offset = builder.mul(index, ir.Constant(_INT64, 4))
        places = [builder.add(address, offset) for address in (left, right)]
        a, b = (_load(builder, place, 0, _FLOATS) for place in places)
        _store(builder, builder.fmul(builder.fadd(a, b), scale), places[0], 0)
        _store(builder, builder.fmul(builder.fsub(a, b), scale), places[1], 0)
    return context.get_dummy_value()


@intrinsic
def transform_eights(_typing: Any, values: Any, count: Any) -> Any:
    """Hadamard transforms of float32 in runs of eight, in place; the number is a multiple of 8."""
    return types.void(values, count), _transform_eights


def _transform_eights(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
    values, count = arguments
    undefined = ir.Constant(_FLOATS, ir.Undefined)
    with cgutils.for_range_slice(
        builder, ir.Constant(_INT64, 0), count, ir.Constant(_INT64, 8), intp=_INT64
    ) as (index, _):
        place = builder.add(values, builder.mul(index, ir.Constant(_INT64, 4)))
        run = _load(builder, place, 0, _FLOATS)
        for half in (1, 2, 4):
            order = ir.Constant(ir.VectorType(_INT32, 8), [i ^ half for i in range(8)])
            signs = ir.Constant(_FLOATS, [-1.0 if i & half else 1.0 for i in range(8)])
            run = builder.fadd(builder.shuffle_vector(run, undefined, order), builder.fmul(run, signs))
        _store(builder, run, place, 0)
    return context.get_dummy_value()


@intrinsic
def positive_bits(_typing: Any, address: Any) -> Any:
    """Which of 32 float32 are above zero, as the low bits of an int64."""

    def codegen(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        kind = ir.VectorType(_FLOAT, 32)
        above = builder.fcmp_ordered(">", _load(builder, arguments[0], 0, kind), ir.Constant(kind, None))
        return builder.zext(builder.bitcast(above, _INT32), _INT64)

    return types.int64(address), codegen


@intrinsic
def bits_of_single(_typing: Any, value: Any) -> Any:
    """The 32 bits of a float32."""

    def codegen(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        return builder.bitcast(arguments[0], _INT32)

    return types.int32(value), codegen


@intrinsic
def move_up(_typing: Any, address: Any, count: Any) -> Any:
    """Move 64-bit values one place up."""

    def codegen(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        source = builder.inttoptr(arguments[0], _BYTE.as_pointer())
        target = builder.inttoptr(builder.add(arguments[0], ir.Constant(_INT64, 8)), _BYTE.as_pointer())
        cgutils.raw_memmove(builder, target, source, arguments[1], ir.Constant(_INT64, 8))
        return context.get_dummy_value()

    return types.void(address, count), codegen


def _load(builder: Builder, base: Value, offset: int, kind: Any) -> Value:
    address = builder.add(base, ir.Constant(_INT64, offset))
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def _store(builder: Builder, value: Value, base: Value, offset: int) -> None:
    address = builder.add(base, ir.Constant(_INT64, offset))
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=1)


def _splat(builder: Builder, value: Value, kind: Any) -> Value:
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_INT32, 0))
    lanes = ir.Constant(ir.VectorType(_INT32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, undefined, lanes)


# Chosen when the machine is known; numba's cache tells machines apart.
code_sums = code_sums_avx2 if has_avx2() else code_sums_portable
product = product_avx2 if has_avx2() else product_portable
products_of_four = products_of_four_avx2 if has_avx2() else products_of_four_portable
query_product = query_product_avx2 if has_avx2() else query_product_portable
