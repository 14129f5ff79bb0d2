"""The distance of one stored vector from one query, in float64: what every path's answer equals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]

from vectorlake.kernels.jit import Builder, Value, inner, intrinsic
from vectorlake.kernels.lanes import sum_product, sum_square, sum_squared_difference
from vectorlake.kernels.rows import FLOAT16, FLOAT32, FLOAT64, INT8

METRIC_L2 = 0
METRIC_COSINE = 1
METRIC_DOT = 2

_HALF_TO_SINGLE = np.float32(2.0**112)
_INFINITY = np.float32(np.inf)


@intrinsic
def pointer_to(typing: Any, address: Any, like: Any) -> Any:
    """(address, a value of the element type) -> typed pointer."""

    def codegen(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(address, like), codegen  # type: ignore[no-untyped-call]


@intrinsic
def single_of_bits(typing: Any, bits: Any) -> Any:
    """The float32 that has these 32 bits."""

    def codegen(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), codegen


@intrinsic
def address_of(typing: Any, array: Any) -> Any:
    """Where the array's first element stands.

    Compiled code frees an array that it made after the last line that names it, whoever still has its address: see `hold`.
    """

    def codegen(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(view.data, context.get_value_type(types.int64))

    return types.int64(array), codegen


@intrinsic
def hold(typing: Any, array: Any) -> Any:
    """Keep an array until here, for those who have its address; does nothing else."""

    def codegen(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        return context.get_dummy_value()

    return types.void(array), codegen


@inner
def half_to_single(half: Any) -> Any:
    """Widen a float16 by integer arithmetic: exact, and vectorised on any machine."""
    wide = np.uint32(half)
    magnitude = single_of_bits((wide & np.uint32(0x7FFF)) << np.uint32(13)) * _HALF_TO_SINGLE
    if (wide & np.uint32(0x7C00)) == np.uint32(0x7C00):
        magnitude = _INFINITY
    if wide & np.uint32(0x8000):
        magnitude = -magnitude
    return magnitude


@inner
def as_floats(code: int, address: int, dimension: int, buffer: Any) -> tuple[int, int]:
    """Where the row's elements stand as float32 or float64, and whether they are float32.

    A row of another type is widened, exactly, into `buffer` (float32 [d]).
    """
    if code == FLOAT32:
        return address, 1
    if code == FLOAT64:
        return address, 0
    if code == FLOAT16:
        halves = carray(pointer_to(address, np.uint16(0)), (dimension,))
        for i in range(dimension):
            buffer[i] = half_to_single(halves[i])
    elif code == INT8:
        signed = carray(pointer_to(address, np.int8(0)), (dimension,))
        for i in range(dimension):
            buffer[i] = np.float32(signed[i])
    else:
        unsigned = carray(pointer_to(address, np.uint8(0)), (dimension,))
        for i in range(dimension):
            buffer[i] = np.float32(unsigned[i])
    return address_of(buffer), 1


@inner
def width_of(code: int) -> int:
    """Bytes in an element."""
    if code == FLOAT64:
        return 8
    if code == FLOAT32:
        return 4
    return 2 if code == FLOAT16 else 1


@inner
def widen(code: int, address: int, dimension: int, target: Any, buffer: Any) -> None:
    """Write a row's elements, exactly, into `target` (float64 [d]); `buffer` as for `as_floats`."""
    source, single = as_floats(code, address, dimension, buffer)
    if single:
        singles = carray(pointer_to(source, np.float32(0)), (dimension,))
        for i in range(dimension):
            target[i] = np.float64(singles[i])
    else:
        doubles = carray(pointer_to(source, np.float64(0)), (dimension,))
        for i in range(dimension):
            target[i] = doubles[i]


@inner
def norm(query: int, dimension: int) -> Any:
    """The Euclidean norm of float64 elements at an address."""
    return np.sqrt(sum_square(query, query, dimension, 0))


@inner
def distance(metric: int, query: int, query_norm: float, vector: int, dimension: int, single: int) -> float:
    """The distance between a float64 query and a row, both given by address; infinity where none is.

    They never match when an element is infinite or not a number, when the distance overflows float64, and
    under cosine when a norm is zero.
    """
    if metric == METRIC_L2:
        value = sum_squared_difference(query, vector, dimension, single)
    elif metric == METRIC_DOT:
        value = -sum_product(query, vector, dimension, single)
    else:
        both = query_norm * np.sqrt(sum_square(query, vector, dimension, single))
        value = 1.0 - sum_product(query, vector, dimension, single) / both
        value = min(max(value, 0.0), 2.0) if value == value else np.inf
        if not (both > 0 and both < np.inf):
            value = np.inf
    return value if abs(value) < np.inf else np.inf
