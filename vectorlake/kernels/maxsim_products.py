"""Float32 products of sixteen query tokens with rows as LLVM IR: all of them, or the best of each token, in registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as numba_cgutils

from vectorlake.kernels.jit import Builder, Value, intrinsic

cgutils: Any = numba_cgutils  # it has no types

PANEL = 16
"""Query tokens that are multiplied together: one element of each lies side by side."""
TILE = 6
"""Document tokens beside them: twelve sums of eight, as many as AVX2's registers hold with their operands."""

_INT64 = ir.IntType(64)
_FLOAT = ir.FloatType()
_FLOATS = ir.VectorType(_FLOAT, PANEL)


@intrinsic
def best_products(_typing: Any, panel: Any, tokens: Any, stride: Any, count: Any, dimension: Any) -> Any:
    """For each of PANEL query tokens the largest product with any of a document's tokens, written at an address.

    Args:
        panel: address of float32 [dimension][PANEL]; the results stand behind it, float32 [PANEL].
        tokens: address of the document's first token, float32.
        stride: bytes from token to token.
        count: how many there are, at least one.
        dimension: their elements.
    """
    return types.void(panel, tokens, stride, count, dimension), _best_products


@intrinsic
def all_products(
    _typing: Any, panel: Any, tokens: Any, stride: Any, count: Any, dimension: Any, out: Any, step: Any
) -> Any:
    """The products of PANEL query tokens with each of some rows, written at `out`, every `step` bytes.

    Args:
        panel: address of float32 [dimension][PANEL].
        tokens: address of the first row, float32.
        stride: bytes from row to row.
        count: how many there are, at least one.
        dimension: their elements.
        out: address of float32 [PANEL] for the first row.
        step: bytes from one row's results to the next's.
    """
    return types.void(panel, tokens, stride, count, dimension, out, step), _all_products


def _all_products(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
    panel, tokens, stride, count, dimension, out, step = arguments

    def keep(first: Value, last: Value, sums: list[Value]) -> None:
        for i, total in enumerate(sums):
            row = _within(builder, first, i, last)
            place = builder.add(out, builder.mul(row, step))
            builder.store(builder.load(total), builder.inttoptr(place, _FLOATS.as_pointer()), align=4)

    _products(builder, (panel, tokens, stride, count, dimension), keep)
    return context.get_dummy_value()


def _best_products(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
    panel, dimension = arguments[0], arguments[4]
    best = cgutils.alloca_once(builder, _FLOATS)
    builder.store(ir.Constant(_FLOATS, [float("-inf")] * PANEL), best)

    def keep(_first: Value, _last: Value, sums: list[Value]) -> None:
        largest = builder.load(best)
        for total in sums:
            value = builder.load(total)
            larger = builder.fcmp_ordered(">", value, largest)
            largest = builder.select(larger, value, largest)
        builder.store(largest, best)

    _products(builder, arguments, keep)
    end = builder.add(panel, builder.mul(dimension, ir.Constant(_INT64, 4 * PANEL)))
    builder.store(builder.load(best), builder.inttoptr(end, _FLOATS.as_pointer()), align=4)
    return context.get_dummy_value()


def _within(builder: Builder, first: Value, offset: int, last: Value) -> Value:
    """The number of a tile's row. What is missing from the last tile is its last row again: that changes no result."""
    wanted = builder.add(first, ir.Constant(_INT64, offset))
    return builder.select(builder.icmp_signed("<", wanted, last), wanted, last)


def _products(builder: Builder, arguments: Any, keep: Any) -> None:
    """Multiply tile by tile; `keep` is given the tile's first row, the last of all, and the places of its sums."""
    panel, tokens, stride, count, dimension = arguments
    last = builder.sub(count, ir.Constant(_INT64, 1))
    sums = [cgutils.alloca_once(builder, _FLOATS) for _ in range(TILE)]
    zero, step = ir.Constant(_INT64, 0), ir.Constant(_INT64, TILE)
    with cgutils.for_range_slice(builder, zero, count, step, intp=_INT64) as (first, _):
        rows = []
        for i in range(TILE):
            rows.append(builder.add(tokens, builder.mul(_within(builder, first, i, last), stride)))
            builder.store(ir.Constant(_FLOATS, None), sums[i])
        with cgutils.for_range(builder, dimension, intp=_INT64) as loop:
            at = builder.add(panel, builder.mul(loop.index, ir.Constant(_INT64, 4 * PANEL)))
            queries = builder.load(builder.inttoptr(at, _FLOATS.as_pointer()), align=4)
            offset = builder.mul(loop.index, ir.Constant(_INT64, 4))
            for row, total in zip(rows, sums, strict=True):
                place = builder.inttoptr(builder.add(row, offset), _FLOAT.as_pointer())
                value = _splat(builder, builder.load(place, align=4))
                builder.store(_multiply_add(builder, queries, value, builder.load(total)), total)
        keep(first, last, sums)


def _splat(builder: Builder, value: Value) -> Value:
    undefined = ir.Constant(_FLOATS, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), PANEL), [0] * PANEL)
    return builder.shuffle_vector(first, undefined, lanes)


def _multiply_add(builder: Builder, left: Value, right: Value, addend: Value) -> Value:
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{PANEL}f32")
    return builder.call(function, [left, right, addend])
