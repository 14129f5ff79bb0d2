"""Products of queries with all centroids, in tiles that stay in registers, without a BLAS whose idle threads would spin.

Centroids are kept in panels of 16, each by dimension: what a tile reads next to each other stands next to each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils as numba_cgutils

from vectorlake.kernels.capability import has_avx2
from vectorlake.kernels.distance import address_of
from vectorlake.kernels.jit import Builder, Value, entry, inner, intrinsic

cgutils: Any = numba_cgutils  # it has no types

PANEL: Final = 16
"""Centroids in a panel."""
_QUERIES: Final = 6
"""Queries of a tile: with one panel their sums take 12 registers."""
_PANELS: Final = 4
"""Panels at a time where a query is alone, so that no sum waits for itself."""
_WIDE = has_avx2()

_INT64 = ir.IntType(64)
_FLOAT = ir.FloatType()
_FLOATS = ir.VectorType(_FLOAT, 8)


def panels_of(centroids: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Centroids [k, d] as panels [p, d, PANEL], p a multiple of 4; zeros behind the last centroid."""
    count, dimension = centroids.shape
    panels = -(-count // (PANEL * _PANELS)) * _PANELS
    padded = np.zeros((panels * PANEL, dimension), np.float32)
    padded[:count] = centroids
    return np.ascontiguousarray(padded.reshape(panels, PANEL, dimension).transpose(0, 2, 1))


def _tile(queries: int, panels: int) -> Callable[..., Any]:
    """An intrinsic that multiplies some queries with some panels.

    Its arguments are: address of the first query; dimension; address of the first panel; where the products of the first
    query go, and the bytes from one query's to the next's.
    """

    @intrinsic
    def tile(typing: Any, queries_at: Any, dimension: Any, panels_at: Any, out: Any, stride: Any) -> Any:
        return types.void(queries_at, dimension, panels_at, out, stride), codegen

    def codegen(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        if has_avx2():
            _emit(builder, arguments, queries, panels)
        return context.get_dummy_value()

    return tile


def _emit(builder: Builder, arguments: Any, queries: int, panels: int) -> None:
    queries_at, dimension, panels_at, out, stride = arguments
    multiply_add = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), "llvm.fmuladd.v8f32"
    )
    row_bytes = builder.mul(dimension, _int64(4))
    query_at = [builder.add(queries_at, builder.mul(row_bytes, _int64(q))) for q in range(queries)]
    panel_bytes = builder.mul(row_bytes, _int64(PANEL))
    panel_at = [builder.add(panels_at, builder.mul(panel_bytes, _int64(p))) for p in range(panels)]
    places = [(q, p, half) for q in range(queries) for p in range(panels) for half in range(2)]
    sums = {place: cgutils.alloca_once(builder, _FLOATS) for place in places}
    for place in places:
        builder.store(ir.Constant(_FLOATS, None), sums[place])
    with cgutils.for_range(builder, dimension, intp=_INT64) as loop:
        column = builder.mul(loop.index, _int64(4 * PANEL))
        element = builder.mul(loop.index, _int64(4))
        for p in range(panels):
            parts = [
                builder.load(_pointer(builder, builder.add(panel_at[p], column), _FLOATS, 32 * half), align=4)
                for half in range(2)
            ]
            for q in range(queries):
                at = _pointer(builder, builder.add(query_at[q], element), _FLOAT, 0)
                value = _splat(builder, builder.load(at, align=4))
                for half in range(2):
                    place = sums[q, p, half]
                    total = builder.call(multiply_add, [value, parts[half], builder.load(place)])
                    builder.store(total, place)
    for q, p, half in places:
        row = builder.add(out, builder.mul(stride, _int64(q)))
        target = _pointer(builder, row, _FLOATS, 4 * PANEL * p + 32 * half)
        builder.store(builder.load(sums[q, p, half]), target, align=4)


_multiply_many = _tile(_QUERIES, 1)
_multiply_one = _tile(1, _PANELS)


@inner
def _multiply_portable(query: Any, panels: Any, row: Any) -> None:
    """What the intrinsics compute for one query, on any machine; rounding may differ."""
    row[:] = 0
    for p in range(panels.shape[0]):
        for i in range(panels.shape[1]):
            value = query[i]
            for j in range(PANEL):
                row[p * PANEL + j] += value * panels[p, i, j]


@entry("void(float32[:, ::1], float32[:, :, ::1], float32[:, ::1])")
def multiply(queries: Any, panels: Any, products: Any) -> None:
    """Products of queries with centroids.

    Args:
        queries: float32 [n, d].
        panels: float32 [p, d, PANEL], see `panels_of`.
        products: float32 [n, p * PANEL], written.
    """
    count, dimension = queries.shape
    stride = 4 * products.shape[1]
    panel_bytes = 4 * PANEL * dimension
    if not _WIDE:
        for q in range(count):
            _multiply_portable(queries[q], panels, products[q])
        return
    whole = count // _QUERIES * _QUERIES
    for p in range(panels.shape[0]):
        panel = address_of(panels) + p * panel_bytes
        for q in range(0, whole, _QUERIES):
            _multiply_many(
                address_of(queries) + q * dimension * 4,
                dimension,
                panel,
                address_of(products) + q * stride + 4 * PANEL * p,
                stride,
            )
    for q in range(whole, count):
        for p in range(0, panels.shape[0], _PANELS):
            _multiply_one(
                address_of(queries) + q * dimension * 4,
                dimension,
                address_of(panels) + p * panel_bytes,
                address_of(products) + q * stride + 4 * PANEL * p,
                stride,
            )


def _int64(value: int) -> Value:
    return ir.Constant(_INT64, value)


def _pointer(builder: Builder, base: Value, kind: Any, offset: int) -> Value:
    return builder.inttoptr(builder.add(base, _int64(offset)), kind.as_pointer())


def _splat(builder: Builder, value: Value) -> Value:
    undefined = ir.Constant(_FLOATS, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), 8), [0] * 8)
    return builder.shuffle_vector(first, undefined, lanes)
