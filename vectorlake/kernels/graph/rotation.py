"""A random rotation in O(d log d): signs, Hadamard transforms of overlapping halves, and a step between halves.

As in Ailon and Chazelle, "The fast Johnson-Lindenstrauss transform" (2009), and the Kac walk that RaBitQ's library takes
for dimensions that are no power of two. It spreads every vector evenly over all dimensions, as codes of one bit need.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from vectorlake.kernels.distance import METRIC_COSINE, address_of, pointer_to
from vectorlake.kernels.graph.lanes import butterfly, transform_eights
from vectorlake.kernels.jit import entry, inner, relaxed

ROUNDS: Final = 4

_TURN = np.float32(np.sqrt(0.5))
_LARGEST: Final = 1e37


@inner
def rotate(values: Any, signs: Any) -> None:
    """Rotate float32 [padded] in place, by int8 signs [rounds, padded]."""
    padded = values.shape[0]
    at = address_of(values)
    size = 1
    while 2 * size <= padded:
        size *= 2
    norm = np.float32(1.0 / np.sqrt(size))
    middle = padded // 2
    for r in range(signs.shape[0]):
        sign = carray(pointer_to(address_of(signs) + r * padded, np.int8(0)), (padded,))
        for i in range(padded):
            values[i] *= np.float32(sign[i])
        start = at if r % 2 == 0 else at + 4 * (padded - size)
        transform_eights(start, size)
        half = 8
        while half < size:
            factor = norm if 2 * half == size else np.float32(1)
            for block in range(0, size, 2 * half):
                butterfly(start + 4 * block, start + 4 * (block + half), half, factor)
            half *= 2
        if size < padded:
            butterfly(at, at + 4 * middle, middle, _TURN)


@relaxed
def _square(vector: Any) -> Any:
    total = 0.0
    for i in range(vector.shape[0]):
        total += np.float64(vector[i]) * np.float64(vector[i])
    return total


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
        total = _square(vector)
        if not (total > 0 and total < np.inf):
            return False
        factor = 1.0 / np.sqrt(total)
    if shift:
        for i in range(dimension):
            out[i] = np.float32(np.float64(vector[i]) * factor) - centre[i]
    else:
        for i in range(dimension):
            out[i] = np.float32(np.float64(vector[i]) * factor)
    for i in range(dimension, out.shape[0]):
        out[i] = 0
    if not _square(out) < _LARGEST:
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
