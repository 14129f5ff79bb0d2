"""Rounding a row to bytes, sixteen elements at a time, as LLVM IR: every stored element goes through it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as numba_cgutils

from vectorlake.kernels.jit import Builder, Value, intrinsic

cgutils: Any = numba_cgutils  # it has no types

LANES = 16

_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INT32S = ir.VectorType(_INT32, LANES)
_BYTES = ir.VectorType(ir.IntType(8), LANES)


@intrinsic
def largest_magnitude(typing: Any, values: Any, count: Any) -> Any:
    """The bits of the largest magnitude among float32 values; infinities and nans are larger than all numbers.

    Args:
        values: their address.
        count: how many, a multiple of LANES.
    """

    def codegen(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        address, size = arguments
        largest = cgutils.alloca_once(builder, _INT32S)
        builder.store(ir.Constant(_INT32S, None), largest)
        with _each(builder, size) as index:
            bits = _load(builder, address, index, 4, _INT32S)
            magnitude = builder.and_(bits, ir.Constant(_INT32S, [0x7FFFFFFF] * LANES))
            known = builder.load(largest)
            greater = builder.icmp_signed(">", magnitude, known)
            builder.store(builder.select(greater, magnitude, known), largest)
        result = builder.load(largest)
        width = LANES
        while width > 1:
            width //= 2
            low, high = _half(builder, result, 0, width), _half(builder, result, width, width)
            result = builder.select(builder.icmp_signed(">", low, high), low, high)
        return builder.zext(builder.extract_element(result, ir.Constant(_INT32, 0)), _INT64)

    return types.int64(values, count), codegen


@intrinsic
def round_row(
    typing: Any, values: Any, count: Any, inverse: Any, offset: Any, integers: Any, sums: Any
) -> Any:
    """Scale float32 values, round them to integers, and sum the squares of what that loses and of the values.

    Args:
        values: their address.
        count: how many, a multiple of LANES.
        inverse: float32 that they are multiplied by.
        offset: float32 added to each integer.
        integers: address of bytes [count], the result.
        sums: address of float32 [2, LANES], the sums of squares by lane: lost, scaled.
    """

    def codegen(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        address, size, scale, zero, target, totals = arguments
        kind = ir.FunctionType(_FLOATS, [_FLOATS])
        nearest = cgutils.get_or_insert_function(builder.module, kind, f"llvm.rint.v{LANES}f32")
        scales, zeros = _splat(builder, scale), _splat(builder, zero)
        lost, scaled = (cgutils.alloca_once(builder, _FLOATS) for _ in range(2))
        for total in (lost, scaled):
            builder.store(ir.Constant(_FLOATS, None), total)
        with _each(builder, size) as index:
            value = builder.fmul(_load(builder, address, index, 4, _FLOATS), scales)
            rounded = builder.call(nearest, [value])
            error = builder.fsub(value, rounded)
            for total, term in ((lost, error), (scaled, value)):
                builder.store(builder.fadd(builder.load(total), builder.fmul(term, term)), total)
            whole = builder.fptosi(builder.fadd(rounded, zeros), _INT32S)
            place = builder.inttoptr(builder.add(target, index), _BYTES.as_pointer())
            builder.store(builder.trunc(whole, _BYTES), place, align=1)
        for i, total in enumerate((lost, scaled)):
            at = builder.add(totals, ir.Constant(_INT64, 4 * LANES * i))
            builder.store(builder.load(total), builder.inttoptr(at, _FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(values, count, inverse, offset, integers, sums), codegen


@contextlib.contextmanager
def _each(builder: Builder, count: Value) -> Iterator[Value]:
    """Loop over the first element of each LANES."""
    start, step = (ir.Constant(_INT64, value) for value in (0, LANES))
    with cgutils.for_range_slice(builder, start, count, step, intp=_INT64) as (index, _):
        yield index


def _load(builder: Builder, base: Value, index: Value, width: int, kind: Any) -> Value:
    address = builder.add(base, builder.mul(index, ir.Constant(_INT64, width)))
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=4)


def _half(builder: Builder, value: Value, first: int, width: int) -> Value:
    lanes = ir.Constant(ir.VectorType(_INT32, width), list(range(first, first + width)))
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), lanes)


def _splat(builder: Builder, value: Value) -> Value:
    undefined = ir.Constant(_FLOATS, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INT32S, [0] * LANES))
