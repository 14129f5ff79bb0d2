"""A random rotation in O(d log d): signs, Hadamard transforms of overlapping halves, and a step between halves.

As in Ailon and Chazelle, "The fast Johnson-Lindenstrauss transform" (2009), and the Kac walk that RaBitQ's library takes
for dimensions that are no power of two. It spreads every vector evenly over all dimensions, as codes of one bit need.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from vectorlake.kernels.distance import METRIC_COSINE
from vectorlake.kernels.jit import entry, inner

ROUNDS: Final = 4


@inner
def _transform(values: Any, start: int, size: int) -> None:
    """Hadamard, in place, without its factor."""
    half = 1
    while half < size:
        for block in range(start, start + size, 2 * half):
            for i in range(block, block + half):
                left = values[i]
                right = values[i + half]
                values[i] = left + right
                values[i + half] = left - right
        half *= 2


@inner
def rotate(values: Any, signs: Any) -> None:
    """Rotate float32 [padded] in place, by int8 signs [rounds, padded]."""
    padded = values.shape[0]
    size = 1
    while 2 * size <= padded:
        size *= 2
    norm = np.float32(1.0 / np.sqrt(size))
    turn = np.float32(np.sqrt(0.5))
    middle = padded // 2
    for r in range(signs.shape[0]):
        for i in range(padded):
            values[i] *= np.float32(signs[r, i])
        start = 0 if r % 2 == 0 else padded - size
        _transform(values, start, size)
        for i in range(start, start + size):
            values[i] *= norm
        if size < padded:
            for i in range(middle):
                left = values[i]
                right = values[i + middle]
                values[i] = (left + right) * turn
                values[i + middle] = (left - right) * turn


@inner
def prepare(metric: int, vector: Any, centre: Any, shift: bool, signs: Any, out: Any) -> bool:
    """Move a vector into the graph's space: normalised under cosine, less the centre if `shift`, rotated.

    Args:
        metric: one of `distance`'s constants.
        vector: float32 [d].
        centre: float32 [d].
        shift: whether to take the centre off.
        signs: int8 [rounds, padded].
        out: float32 [padded].

    Returns:
        whether the vector can be compared: it is finite in float32, and has a direction under cosine.
    """
    dimension = vector.shape[0]
    factor = 1.0
    if metric == METRIC_COSINE:
        largest = np.float32(0)
        for i in range(dimension):
            largest = max(largest, abs(vector[i]))
        if not (largest > 0 and largest < np.inf):
            return False
        total = 0.0
        for i in range(dimension):
            part = np.float64(vector[i]) / largest
            total += part * part
        factor = 1.0 / (np.float64(largest) * np.sqrt(total))
    total = 0.0
    for i in range(dimension):
        value = np.float32(np.float64(vector[i]) * factor)
        if shift:
            value -= centre[i]
        out[i] = value
        total += np.float64(value) * np.float64(value)
    out[dimension:] = 0
    if not total < 1e37:
        return False
    rotate(out, signs)
    return True


@entry(
    "void(int64, float32[:, ::1], int64, int64, float32[::1], boolean, int8[:, ::1], float32[:, ::1], bool_[::1])"
)
def prepare_rows(
    metric: int,
    vectors: Any,
    first: int,
    end: int,
    centre: Any,
    shift: bool,
    signs: Any,
    out: Any,
    usable: Any,
) -> None:
    """`prepare` rows [first, end) of float32 [m, d] into float32 [m, padded], and tell which are usable (bool [m])."""
    for row in range(first, end):
        usable[row] = prepare(metric, vectors[row], centre, shift, signs, out[row])
