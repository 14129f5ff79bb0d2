"""Small dense products and threshold tests as LLVM IR, so that registers are used as intended.

Integer products use the two multiply-add instructions of AVX2: bytes into 16-bit pair sums, whose operands
are narrow enough that `DEPTH` of them add up without saturating, then pairs into 32 bits.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as numba_cgutils

from vectorlake.kernels.capability import has_avx2
from vectorlake.kernels.jit import Builder, Value, intrinsic

cgutils: Any = numba_cgutils  # it has no types

TILE_QUERIES = 3
TILE_VECTORS = 2
DEPTH = 3

PANEL_ROWS = 8 * TILE_VECTORS
STEP = 4 * DEPTH
"""Dimensions are padded to a multiple of this."""

LEVELS = 52
"""Elements are rounded to -LEVELS..LEVELS. One operand is offset to 0..2 * LEVELS, for the unsigned side of
the instruction; 2 * DEPTH products of it with the other stay below 2**15."""

BYTES = 16
"""How many bytes `multiply_bytes` takes at a time."""

assert 2 * DEPTH * (2 * LEVELS) * LEVELS < 2**15

BYTE = ir.IntType(8)
INT32 = ir.IntType(32)
INT64 = ir.IntType(64)
FLOAT = ir.FloatType()
BYTES32 = ir.VectorType(BYTE, 32)
INT16S = ir.VectorType(ir.IntType(16), 16)
INT32S = ir.VectorType(INT32, 8)
FLOATS = ir.VectorType(FLOAT, 8)


@intrinsic
def multiply_tile(typing: Any, panel: Any, queries: Any, steps: Any, out: Any, stride: Any) -> Any:
    """Integer products of TILE_QUERIES queries with PANEL_ROWS rows.

    Args:
        panel: address of unsigned bytes [4-byte word of a row][PANEL_ROWS][4], aligned to 32.
        queries: address of signed bytes [4-byte word of a query][TILE_QUERIES][4].
        steps: padded dimension / STEP.
        out: address of int32, TILE_QUERIES runs of PANEL_ROWS products.
        stride: bytes from one run to the next.
    """
    return types.void(panel, queries, steps, out, stride), _multiply_tile


def _multiply_tile(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
    panel, queries, steps, out, stride = arguments
    add_bytes = declared(builder, "llvm.x86.avx2.pmadd.ub.sw", INT16S, BYTES32)
    add_pairs = declared(builder, "llvm.x86.avx2.pmadd.wd", INT32S, INT16S)
    ones = ir.Constant(INT16S, [1] * 16)
    tile = [(q, v) for q in range(TILE_QUERIES) for v in range(TILE_VECTORS)]
    sums = {place: cgutils.alloca_once(builder, INT32S) for place in tile}
    for place in tile:
        builder.store(ir.Constant(INT32S, None), sums[place])
    with cgutils.for_range(builder, steps, intp=INT64) as loop:
        rows_at = strided(builder, panel, loop.index, 4 * PANEL_ROWS * DEPTH)
        queries_at = strided(builder, queries, loop.index, 4 * TILE_QUERIES * DEPTH)
        pairs: dict[tuple[int, int], Value] = {}
        for depth in range(DEPTH):
            rows = [
                load(builder, rows_at, 32 * (TILE_VECTORS * depth + v), BYTES32, align=32)
                for v in range(TILE_VECTORS)
            ]
            for q in range(TILE_QUERIES):
                word = load(builder, queries_at, 4 * (TILE_QUERIES * depth + q), INT32, align=4)
                query = builder.bitcast(splat(builder, word, INT32S), BYTES32)
                for v in range(TILE_VECTORS):
                    product = builder.call(add_bytes, [rows[v], query])
                    pairs[q, v] = builder.add(pairs[q, v], product) if depth else product
        for place in tile:
            widened = builder.call(add_pairs, [pairs[place], ones])
            builder.store(builder.add(builder.load(sums[place]), widened), sums[place])
    for q, v in tile:
        run = builder.add(out, builder.mul(stride, ir.Constant(INT64, q)))
        store(builder, builder.load(sums[q, v]), run, 32 * v)
    return context.get_dummy_value()


def _test(*, integers: bool) -> Any:
    def codegen(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        scores, terms, stride, *factors, threshold = arguments
        scale, norm, error, weight, tail = (splat(builder, factor, FLOATS) for factor in factors)
        limit = splat(builder, threshold, FLOATS)
        passed = []
        for offset in range(0, 4 * PANEL_ROWS, 32):
            if integers:
                products = load(builder, scores, offset, INT32S, align=4)
                approximate = builder.sitofp(products, FLOATS)
            else:
                approximate = load(builder, scores, offset, FLOATS, align=4)
            term = [
                load(
                    builder,
                    builder.add(terms, builder.mul(stride, ir.Constant(INT64, i))),
                    offset,
                    FLOATS,
                    align=4,
                )
                for i in range(5)
            ]
            total = builder.fmul(builder.fmul(approximate, scale), term[0])
            for factor, value in (
                (norm, term[1]),
                (error, term[2]),
                (weight, term[3]),
                (tail, term[4]),
            ):
                total = multiply_add(builder, factor, value, total)
            passed.append(builder.fcmp_ordered(">=", total, limit))
        mask = ir.Constant(INT64, 0)
        for i, bits in enumerate(passed):
            wide = builder.zext(builder.bitcast(bits, BYTE), INT64)
            mask = builder.or_(mask, builder.shl(wide, ir.Constant(INT64, 8 * i)))
        return mask

    return codegen


def multiply_add(builder: Builder, left: Value, right: Value, addend: Value) -> Value:
    """One instruction where the CPU has it: the slack of a bound holds for one rounding or two."""
    kind = ir.FunctionType(FLOATS, [FLOATS] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.fmuladd.v8f32")
    return builder.call(function, [left, right, addend])


@intrinsic
def test_integers(
    typing: Any,
    scores: Any,
    terms: Any,
    stride: Any,
    scale: Any,
    norm: Any,
    error: Any,
    weight: Any,
    tail: Any,
    threshold: Any,
) -> Any:
    """Which of PANEL_ROWS rows may be near enough, as the low bits of an integer.

    Args:
        scores: address of int32 [PANEL_ROWS] products.
        terms: address of the first row in float32 [5, rows] (see `quantize`).
        stride: bytes from one term of a row to the next.
        scale, norm, error, weight, tail: float32, what each term is multiplied by, the first by the product too.
        threshold: float32 that the sum must reach.
    """
    arguments = (scores, terms, stride, scale, norm, error, weight, tail, threshold)
    return types.int64(*arguments), _test(integers=True)


@intrinsic
def test_floats(
    typing: Any,
    scores: Any,
    terms: Any,
    stride: Any,
    scale: Any,
    norm: Any,
    error: Any,
    weight: Any,
    tail: Any,
    threshold: Any,
) -> Any:
    """`test_integers` for float32 products."""
    arguments = (scores, terms, stride, scale, norm, error, weight, tail, threshold)
    return types.int64(*arguments), _test(integers=False)


@intrinsic
def test_pairs(
    typing: Any,
    scores: Any,
    bias: Any,
    terms: Any,
    stride: Any,
    reaches: Any,
    scale: Any,
    length: Any,
    lost: Any,
    beyond: Any,
    reach: Any,
    half: Any,
) -> Any:
    """Which of PANEL_ROWS rows may be within the reach of a row, or have it in theirs (see `symmetric`), as low bits.

    Args:
        scores: address of int32 [PANEL_ROWS] products.
        bias: int32 taken from each product.
        terms: address of the first row in float32 [5, rows]: scale, lost, length, half, beyond.
        stride: bytes from one term of a row to the next.
        reaches: address of float32 [PANEL_ROWS].
        scale, length, lost, beyond, reach, half: float32, the one row's.
    """

    def codegen(_context: Any, builder: Builder, _signature: Any, given: Any) -> Value:
        scores, bias, terms, stride, reaches, *one = given
        scale, length, lost, beyond, reach, half = (splat(builder, value, FLOATS) for value in one)
        mask = ir.Constant(INT64, 0)
        for i, offset in enumerate(range(0, 4 * PANEL_ROWS, 32)):
            products = builder.sub(
                load(builder, scores, offset, INT32S, align=4), splat(builder, bias, INT32S)
            )
            term = [
                load(
                    builder,
                    builder.add(terms, builder.mul(stride, ir.Constant(INT64, place))),
                    offset,
                    FLOATS,
                    align=4,
                )
                for place in range(5)
            ]
            theirs = load(builder, reaches, offset, FLOATS, align=4)
            farthest = builder.select(builder.fcmp_ordered(">", theirs, reach), theirs, reach)
            total = builder.fsub(farthest, term[3])
            high = builder.fmul(builder.fmul(builder.sitofp(products, FLOATS), scale), term[0])
            for factor, value in ((length, term[1]), (lost, term[2]), (beyond, term[4])):
                high = multiply_add(builder, factor, value, high)
            passed = builder.fcmp_ordered(">=", builder.fadd(high, total), half)
            wide = builder.zext(builder.bitcast(passed, BYTE), INT64)
            mask = builder.or_(mask, builder.shl(wide, ir.Constant(INT64, 8 * i)))
        return mask

    arguments = (scores, bias, terms, stride, reaches, scale, length, lost, beyond, reach, half)
    return types.int64(*arguments), codegen


@intrinsic
def multiply_bytes(typing: Any, left: Any, right: Any, count: Any) -> Any:
    """The inner product of signed bytes at two addresses, `count` of them, a multiple of BYTES."""

    def codegen(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        one, other, size = arguments
        bytes_ = ir.VectorType(BYTE, BYTES)
        pairs = has_avx2()
        lanes = BYTES // 2 if pairs else BYTES
        wide, summed = ir.VectorType(ir.IntType(16), BYTES), ir.VectorType(INT32, lanes)
        sums = cgutils.alloca_once(builder, summed)
        builder.store(ir.Constant(summed, None), sums)
        step = ir.Constant(INT64, BYTES)
        with cgutils.for_range_slice(builder, ir.Constant(INT64, 0), size, step, intp=INT64) as (index, _):
            factors = [
                builder.sext(
                    builder.load(builder.inttoptr(builder.add(base, index), bytes_.as_pointer()), align=1),
                    wide if pairs else summed,
                )
                for base in (one, other)
            ]
            if pairs:
                products = builder.call(declared(builder, "llvm.x86.avx2.pmadd.wd", summed, wide), factors)
            else:
                products = builder.mul(*factors)
            builder.store(builder.add(builder.load(sums), products), sums)
        total = builder.load(sums)
        kind = ir.FunctionType(INT32, [summed])
        add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.add.v{lanes}i32")
        return builder.sext(builder.call(add, [total]), INT64)

    return types.int64(left, right, count), codegen


@intrinsic
def trailing_zeros(typing: Any, bits: Any) -> Any:
    """The position of the lowest bit that is set."""

    def codegen(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(bits), codegen


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Ask for the cache line at an address."""

    def codegen(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        fetch(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(address), codegen


def fetch(builder: Builder, address: Value) -> None:
    """Ask for the cache line at an address, within other code that is generated."""
    kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), INT32, INT32, INT32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    pointer = builder.inttoptr(address, BYTE.as_pointer())
    builder.call(function, [pointer, *(ir.Constant(INT32, value) for value in (0, 3, 1))])


def declared(builder: Builder, name: str, result: Any, operand: Any) -> Value:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [operand, operand]), name)


def strided(builder: Builder, base: Value, index: Value, size: int) -> Value:
    return builder.add(base, builder.mul(index, ir.Constant(INT64, size)))


def load(builder: Builder, base: Value, offset: int, kind: Any, *, align: int = 4) -> Value:
    address = builder.add(base, ir.Constant(INT64, offset))
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def store(builder: Builder, value: Value, base: Value, offset: int) -> None:
    address = builder.add(base, ir.Constant(INT64, offset))
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=4)


def splat(builder: Builder, value: Value, kind: Any) -> Value:
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(INT32, 0))
    lanes = ir.Constant(ir.VectorType(INT32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, undefined, lanes)
