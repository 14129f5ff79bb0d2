"""Distances in float32 with a bound of their error, to tell which rows are worth measuring exactly.

Sums go over two times eight lanes with fused multiply-adds, so that n elements pass through at most n / 16 + 5 roundings
on their way into a total: the error is at most so many units of rounding, times the sum of the terms' magnitudes (Higham,
"Accuracy and Stability of Numerical Algorithms", 2002, ch. 3), which Cauchy and Schwarz bound by the product of the norms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils as numba_cgutils

from vectorlake.kernels.capability import has_quick_halves
from vectorlake.kernels.distance import METRIC_COSINE, METRIC_DOT, METRIC_L2
from vectorlake.kernels.jit import Builder, Value, inner, intrinsic
from vectorlake.kernels.rows import FLOAT16, FLOAT32

cgutils: Any = numba_cgutils  # it has no types

QUICK = has_quick_halves()
"""Whether there is anything quick to do here; known when the code is compiled."""

_LANES = 8
_CHAINS = 2
_UNIT = np.float32(2.0**-24)
_SAFETY = np.float32(1.25)
"""For the rounding of the bound itself and of what is made of the sums."""
_TINY = np.float32(1e-30)
"""More than all that underflows can add up to."""
_SMALLEST = np.float32(1e-20)
"""Squares that add up to less may have lost digits to underflow."""
_LARGEST = np.float32(1e30)
"""Sums beyond are left to exact arithmetic, lest the bound overflow."""

_INT64 = ir.IntType(64)
_FLOAT = ir.FloatType()
_FLOATS = ir.VectorType(_FLOAT, _LANES)


def _sums(element: Any, width: int, *, differences: bool) -> Callable[..., Any]:
    """An intrinsic (address of a float32 query, address of a row, dimension) -> two float32 sums.

    They are of squared differences and zero, or of products and of the row's squares.
    """

    @intrinsic
    def sums(_typing: Any, query: Any, row: Any, count: Any) -> Any:
        pair = types.UniTuple(types.float32, 2)  # type: ignore[no-untyped-call]
        return pair(query, row, count), codegen

    def codegen(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        if QUICK:
            totals = _emit(builder, arguments, element, width, differences=differences)
        else:
            totals = [ir.Constant(_FLOAT, 0.0)] * 2
        return context.make_tuple(builder, signature.return_type, totals)

    return sums


def _emit(builder: Builder, arguments: Any, element: Any, width: int, *, differences: bool) -> list[Value]:
    query, row, count = arguments
    kinds = (1,) if differences else (1, 2)
    lanes = {
        (kind, chain): cgutils.alloca_once(builder, _FLOATS) for kind in kinds for chain in range(_CHAINS)
    }
    for slot in lanes.values():
        builder.store(ir.Constant(_FLOATS, None), slot)
    step = _LANES * _CHAINS
    whole = builder.and_(count, ir.Constant(_INT64, -step))
    with cgutils.for_range_slice(
        builder, ir.Constant(_INT64, 0), whole, ir.Constant(_INT64, step), intp=_INT64
    ) as (index, _):
        for chain in range(_CHAINS):
            left = _load(builder, query, index, _FLOAT, 4, _LANES, chain)
            right = _load(builder, row, index, element, width, _LANES, chain)
            _add(builder, left, right, [lanes[kind, chain] for kind in kinds], differences=differences)
    totals = []
    for kind in kinds:
        both = builder.fadd(builder.load(lanes[kind, 0]), builder.load(lanes[kind, 1]))
        slot = cgutils.alloca_once(builder, _FLOAT)
        builder.store(_add_lanes(builder, both), slot)
        totals.append(slot)
    with cgutils.for_range_slice(builder, whole, count, ir.Constant(_INT64, 1), intp=_INT64) as (index, _):
        left = _load(builder, query, index, _FLOAT, 4, 1, 0)
        right = _load(builder, row, index, element, width, 1, 0)
        _add(builder, left, right, totals, differences=differences)
    found = [builder.load(slot) for slot in totals]
    return found if len(found) == 2 else [*found, ir.Constant(_FLOAT, 0.0)]


def _add(builder: Builder, left: Value, right: Value, slots: Any, *, differences: bool) -> None:
    terms = [(left, right), (right, right)]
    if differences:
        difference = builder.fsub(left, right)
        terms = [(difference, difference)]
    name = "llvm.fma.v8f32" if isinstance(left.type, ir.VectorType) else "llvm.fma.f32"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(left.type, [left.type] * 3), name
    )
    for (one, other), slot in zip(terms, slots, strict=True):
        builder.store(builder.call(function, [one, other, builder.load(slot)]), slot)


def _load(
    builder: Builder, base: Value, index: Value, element: Any, width: int, lanes: int, chain: int
) -> Value:
    at = builder.add(base, builder.mul(index, ir.Constant(_INT64, width)))
    at = builder.add(at, ir.Constant(_INT64, chain * _LANES * width))
    kind = element if lanes == 1 else ir.VectorType(element, lanes)
    value = builder.load(builder.inttoptr(at, kind.as_pointer()), align=1)
    if isinstance(element, ir.HalfType):
        value = builder.fpext(value, _FLOAT if lanes == 1 else _FLOATS)
    return value


def _add_lanes(builder: Builder, value: Value) -> Value:
    width = _LANES
    while width > 1:
        width //= 2
        undefined = ir.Constant(value.type, ir.Undefined)
        halves = [
            builder.shuffle_vector(
                value,
                undefined,
                ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(first, first + width))),
            )
            for first in (0, width)
        ]
        value = builder.fadd(*halves)
    return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))


_products_single = _sums(_FLOAT, 4, differences=False)
_products_half = _sums(ir.HalfType(), 2, differences=False)
_differences_single = _sums(_FLOAT, 4, differences=True)
_differences_half = _sums(ir.HalfType(), 2, differences=True)


@inner
def is_rough(metric: int, query_code: int, code: int) -> bool:
    """Whether `rough_distance` can tell anything of such queries and rows."""
    known = metric in (METRIC_L2, METRIC_COSINE, METRIC_DOT)
    return QUICK and known and query_code == FLOAT32 and code in (FLOAT32, FLOAT16)


@inner
def rough_distance(
    metric: int, query: int, length: Any, code: int, row: int, dimension: int
) -> tuple[Any, Any]:
    """The least and the most that a row's distance is, float32; minus and plus infinity where nothing is known.

    Args:
        metric: one of `distance`'s constants.
        query: where the query stands, float32.
        length: its norm.
        code: element type of the row, FLOAT16 or FLOAT32.
        row: where it stands.
        dimension: of both.
    """
    share = np.float32(dimension / 16 + 8) * _UNIT * _SAFETY
    if metric == METRIC_L2:
        if code == FLOAT16:
            value, _ = _differences_half(query, row, dimension)
        else:
            value, _ = _differences_single(query, row, dimension)
        error = share * value + _TINY
        known = value < _LARGEST
    else:
        if code == FLOAT16:
            product, square = _products_half(query, row, dimension)
        else:
            product, square = _products_single(query, row, dimension)
        both = np.float32(length) * np.sqrt(square)
        known = abs(product) < _LARGEST and both < _LARGEST and square > _SMALLEST
        if metric == METRIC_DOT:
            value = -product
            error = np.float32(1.01) * share * both + _TINY
        else:
            value = np.float32(1) - product / both
            error = np.float32(3) * share
            known = known and both > np.float32(1e-15)
    if not known:
        return -np.float32(np.inf), np.float32(np.inf)
    return value - error, value + error
