"""Float64 sums over one pair of vectors, in the one order of summation that defines every distance.

Element i is added to lane i mod 16, in ascending order; then lanes are added in halves: 16, 8, 4, 2, 1. Each
product is rounded before it is added (no fused multiply-add), so that any IEEE machine, and plain numpy,
gives the same bits.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as numba_cgutils

from vectorlake.kernels.jit import Builder, Value, intrinsic

LANES = 16

cgutils: Any = numba_cgutils  # it has no types

_BYTE = ir.IntType(8)
_INT64 = ir.IntType(64)
_DOUBLE = ir.DoubleType()
_DOUBLES = ir.VectorType(_DOUBLE, LANES)


@intrinsic
def sum_squared_difference(_typing: Any, query: Any, vector: Any, count: Any, single: Any) -> Any:
    """(address of a float64 query, address of a vector, dimension, whether the vector is float32)."""
    return types.float64(query, vector, count, single), _both_widths(_squared_difference)


@intrinsic
def sum_product(_typing: Any, query: Any, vector: Any, count: Any, single: Any) -> Any:
    """(address of a float64 query, address of a vector, dimension, whether the vector is float32)."""
    return types.float64(query, vector, count, single), _both_widths(_product)


@intrinsic
def sum_square(_typing: Any, query: Any, vector: Any, count: Any, single: Any) -> Any:
    """Sum of the vector's squares; takes the same arguments as its siblings and does not read the query."""
    return types.float64(query, vector, count, single), _both_widths(_square)


def _squared_difference(builder: Builder, query: Value, vector: Value) -> Value:
    difference = builder.fsub(query, vector)
    return builder.fmul(difference, difference)


def _product(builder: Builder, query: Value, vector: Value) -> Value:
    return builder.fmul(query, vector)


def _square(builder: Builder, _query: Value, vector: Value) -> Value:
    return builder.fmul(vector, vector)


def _both_widths(term: Any) -> Any:
    def codegen(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        query, vector, count, single = arguments
        result = cgutils.alloca_once(builder, _DOUBLE)
        is_single = builder.icmp_unsigned("!=", single, ir.Constant(single.type, 0))
        with builder.if_else(is_single) as (then, otherwise):
            with then:
                builder.store(_sum(builder, term, query, vector, count, ir.FloatType()), result)
            with otherwise:
                builder.store(_sum(builder, term, query, vector, count, _DOUBLE), result)
        return builder.load(result)

    return codegen


def _sum(builder: Builder, term: Any, query: Value, vector: Value, count: Value, element: Any) -> Value:
    width = 4 if isinstance(element, ir.FloatType) else 8
    elements = ir.VectorType(element, LANES)
    lanes = cgutils.alloca_once(builder, _DOUBLES)
    builder.store(ir.Constant(_DOUBLES, None), lanes)

    def step(query_at: Value, vector_at: Value) -> None:
        left = builder.load(builder.inttoptr(query_at, _DOUBLES.as_pointer()), align=8)
        right = builder.load(builder.inttoptr(vector_at, elements.as_pointer()), align=1)
        if width == 4:
            right = builder.fpext(right, _DOUBLES)
        builder.store(builder.fadd(builder.load(lanes), term(builder, left, right)), lanes)

    whole = builder.and_(count, ir.Constant(_INT64, -LANES))
    with cgutils.for_range_slice(
        builder, ir.Constant(_INT64, 0), whole, ir.Constant(_INT64, LANES), intp=_INT64
    ) as (index, _):
        step(
            builder.add(query, builder.mul(index, ir.Constant(_INT64, 8))),
            builder.add(vector, builder.mul(index, ir.Constant(_INT64, width))),
        )
    with builder.if_then(builder.icmp_signed("<", whole, count), likely=False):
        # Missing lanes add a positive zero, which changes no bit of a sum that began at positive zero.
        query_tail = _zeroed(builder, _DOUBLES)
        vector_tail = _zeroed(builder, elements)
        rest = builder.sub(count, whole)
        for source, size, target in ((query, 8, query_tail), (vector, width, vector_tail)):
            scale = ir.Constant(_INT64, size)
            address = builder.add(source, builder.mul(whole, scale))
            cgutils.raw_memcpy(builder, target, builder.inttoptr(address, _BYTE.as_pointer()), rest, scale)
        step(builder.ptrtoint(query_tail, _INT64), builder.ptrtoint(vector_tail, _INT64))
    return _add_halves(builder, builder.load(lanes))


def _zeroed(builder: Builder, kind: Any) -> Value:
    slot = cgutils.alloca_once(builder, kind)
    builder.store(ir.Constant(kind, None), slot)
    return slot


def _add_halves(builder: Builder, value: Value) -> Value:
    width = LANES
    while width > 1:
        width //= 2
        undefined = ir.Constant(value.type, ir.Undefined)
        low = _shuffle(builder, value, undefined, range(width))
        high = _shuffle(builder, value, undefined, range(width, 2 * width))
        value = builder.fadd(low, high)
    return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))


def _shuffle(builder: Builder, value: Value, undefined: Value, lanes: range) -> Value:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
    return builder.shuffle_vector(value, undefined, mask)
