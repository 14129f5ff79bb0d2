"""Bring vectors as stored into the space that an inverted file works in: scaled, centred, rotated, float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from vectorlake.kernels.distance import address_of, norm, pointer_to, widen
from vectorlake.kernels.ivf.rotation import rotate
from vectorlake.kernels.jit import entry, inner

KEEP_LENGTH = 0
ONE_LENGTH = 1
BITS = 2

FINE = 0
WILD = 1
DEAD = 2
_SMALL = 1e-140
_LARGEST = 1e15


@inner
def transform_row(
    mode: int,
    code: int,
    address: int,
    dimension: int,
    unit: float,
    mean: Any,
    inverse: float,
    order: Any,
    factors: Any,
    across: Any,
    doubles: Any,
    singles: Any,
    buffer: Any,
    target: Any,
) -> tuple[int, Any]:
    """Write one row, as (row - mean) * inverse, rotated; returns what it is, and its length as stored."""
    target[:] = 0
    if mode == BITS:
        bits = carray(pointer_to(address, np.uint8(0)), (dimension,))
        for i in range(dimension):
            for j in range(8):
                target[8 * i + j] = np.float32(1.0 if (bits[i] >> (7 - j)) & 1 else -1.0)
        return FINE, 1.0
    widen(code, address, dimension, doubles, singles)
    finite = True
    for i in range(dimension):
        finite &= abs(doubles[i]) < np.inf
    length = norm(address_of(doubles), dimension)
    if not finite or (mode == ONE_LENGTH and not length > _SMALL):
        return DEAD, length
    factor = unit / length if mode == ONE_LENGTH else 1.0
    largest = 0.0
    for i in range(dimension):
        value = (doubles[i] * factor - mean[i]) * inverse
        largest = max(largest, abs(value))
        target[i] = np.float32(value)
    if not largest < _LARGEST:
        target[:] = 0
        return WILD, length
    rotate(order, factors, across, target, buffer)
    return FINE, length


@entry(
    "void(int64, int64, int64, int64, int64, int64, float64, float64[::1], float64, int32[:, ::1], float32[:, ::1], "
    "float32[:, :, ::1], float32[:, ::1], uint8[::1], float64[::1])"
)
def transform_rows(
    mode: int,
    code: int,
    address: int,
    stride: int,
    first: int,
    end: int,
    unit: float,
    mean: Any,
    inverse: float,
    order: Any,
    factors: Any,
    across: Any,
    targets: Any,
    states: Any,
    lengths: Any,
) -> None:
    """Transform rows [first, end).

    Args:
        mode: whether rows keep their length, are given one length, or are packed bits that become -1 and 1.
        code: element type, see `rows`.
        address: where row 0 stands.
        stride: bytes from row to row.
        first, end: the rows.
        unit: the length that rows are given.
        mean: float64 [d], subtracted; for bits only its length counts.
        inverse: what is then multiplied by.
        order, factors, across: the rotation.
        targets: float32 [rows, padded d], written.
        states: uint8 [rows], written: FINE, WILD (too long for float32: zeros are written), or DEAD (it never matches).
        lengths: float64 [rows], written: norms as stored.
    """
    dimension = mean.shape[0]
    doubles = np.empty(dimension)
    singles = np.empty(dimension, np.float32)
    buffer = np.empty(targets.shape[1], np.float32)
    for row in range(first, end):
        states[row], lengths[row] = transform_row(
            mode,
            code,
            address + row * stride,
            dimension,
            unit,
            mean,
            inverse,
            order,
            factors,
            across,
            doubles,
            singles,
            buffer,
            targets[row],
        )
