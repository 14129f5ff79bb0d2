"""Codes of residuals, and for each row a constant and a factor that turn a product with its code into an estimate.

With r a row's residual from its partition's centroid c, v what its code stands for, and q a query (all transformed),

    <r, q - c>  is about  g (<v, q> - <v, c>)

where g = |h|**2 / <h, v> for codes of bits, h the elements of r that the code covers, which makes the estimate unbiased over
random rotations (RaBitQ, Gao & Long 2024; with more bits, Gao et al. 2025), and the least-squares factor <r, v> / |v|**2 for
others. What a code does not cover counts by its length, as if it were orthogonal to the query's. So the estimated distance
is constant + factor * <v, q> + shift, where the shift depends on the query and the partition only:

    l2, cosine:  |q - x|**2 = |q - c|**2 + |r|**2 - 2 <r, q - c>
    dot:         -<q + m, x + m> = -<q + m, c + m> - <r, c + m> - <r, q - c>,  m the mean that was subtracted
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vectorlake.kernels.ivf.transform import DEAD, WILD
from vectorlake.kernels.jit import entry, inner, relaxed

BY_BITS = 0
BY_PRODUCT = 1
BY_BYTES = 2

_NEVER = np.float32(np.inf)
_FAR = np.float32(1e37)
_TRIES = 10


@relaxed
def dot(left: Any, right: Any) -> Any:
    """The inner product of two float32 vectors."""
    total = np.float32(0)
    for i in range(left.shape[0]):
        total += left[i] * right[i]
    return total


@inner
def _code_bits(residual: Any, planes: int, decoded: Any) -> None:
    """Round a residual to `planes` bits for each element, on the scale that keeps its direction best."""
    dimension = residual.shape[0]
    top = np.float32(2**planes - 1)
    half = np.float32(0.5) * top
    if planes == 1:
        for i in range(dimension):
            decoded[i] = np.float32(0.5) if residual[i] >= 0 else np.float32(-0.5)
        return
    largest = np.float32(0)
    for i in range(dimension):
        largest = max(largest, abs(residual[i]))
    if largest == 0:
        decoded[:] = np.float32(0.5)
        return
    best = np.float32(-1)
    best_scale = np.float32(0)
    for attempt in range(_TRIES):
        # From the scale at which nothing is clipped, in steps of an eighth.
        scale = (half + np.float32(0.5)) / largest * np.float32(1.0 + 0.125 * attempt)
        product = np.float32(0)
        square = np.float32(0)
        for i in range(dimension):
            level = np.floor(residual[i] * scale + half + np.float32(0.5))
            level = min(max(level, np.float32(0)), top) - half
            product += level * residual[i]
            square += level * level
        cosine = product / np.sqrt(square)
        if cosine > best:
            best = cosine
            best_scale = scale
    for i in range(dimension):
        level = np.floor(residual[i] * best_scale + half + np.float32(0.5))
        decoded[i] = min(max(level, np.float32(0)), top) - half


@inner
def _pack_bits(decoded: Any, planes: int, code: Any) -> None:
    """Write bit planes, the most significant first; bit i of byte p is element 8 p + i."""
    half = np.float32(2**planes - 1) * np.float32(0.5)
    pairs = decoded.shape[0] // 8
    for p in range(pairs):
        for plane in range(planes):
            byte = np.int32(0)
            for i in range(8):
                level = np.int32(decoded[8 * p + i] + half)
                byte |= ((level >> (planes - 1 - plane)) & 1) << i
            code[plane * pairs + p] = byte


@inner
def _code_product(residual: Any, codebook: Any, decoded: Any, code: Any) -> None:
    """Write the nearest entry of each part's codebook."""
    parts, width = codebook.shape[0], codebook.shape[2]
    code[:] = 0
    for m in range(parts):
        size = min(width, residual.shape[0] - m * width)
        best = np.float32(np.inf)
        place = 0
        for k in range(codebook.shape[1]):
            distance = np.float32(0)
            for j in range(size):
                difference = residual[m * width + j] - codebook[m, k, j]
                distance += difference * difference
            if distance < best:
                best = distance
                place = k
        for j in range(size):
            decoded[m * width + j] = codebook[m, place, j]
        code[m // 2] |= place << (4 * (m % 2))


@inner
def _code_bytes(residual: Any, decoded: Any, code: Any) -> None:
    """Round a residual to signed bytes."""
    largest = np.float32(0)
    for i in range(residual.shape[0]):
        largest = max(largest, abs(residual[i]))
    scale = np.float32(127) / largest if largest > 0 else np.float32(0)
    for i in range(residual.shape[0]):
        decoded[i] = np.rint(residual[i] * scale)
        code[i] = np.uint8(np.int8(decoded[i]))


@entry(
    "void(int64, int64, float32[:, :, ::1], int64, float32, float32[:, ::1], float32[::1], float32[:, ::1], uint8[::1], "
    "int32[::1], int64, int64, uint8[:, ::1], float32[:, ::1])"
)
def encode_rows(
    way: int,
    planes: int,
    codebook: Any,
    by_dot: int,
    weight: Any,
    centroids: Any,
    offset: Any,
    rows: Any,
    states: Any,
    partitions: Any,
    first: int,
    end: int,
    codes: Any,
    terms: Any,
) -> None:
    """Encode rows [first, end).

    Args:
        way: BY_BITS, BY_PRODUCT or BY_BYTES.
        planes: bits for each element.
        codebook: float32 [m, 16, d / m], for BY_PRODUCT.
        by_dot: 1 for dot, 0 for l2 and cosine.
        weight: what estimates are multiplied by.
        centroids: float32 [partitions, padded d].
        offset: float32 [padded d], the mean under dot.
        rows: float32 [m, padded d], transformed.
        states: uint8 [m], see `transform`.
        partitions: int32 [m], each row's.
        first, end: the rows.
        codes: uint8 [m, bytes], written; those of bits cover as many elements, from the first on, as they have bits for.
        terms: float32 [m, 2], written: constant and factor.
    """
    dimension = rows.shape[1]
    covered = codes.shape[1] // planes * 8 if way == BY_BITS else dimension
    residual = np.empty(dimension, np.float32)
    decoded = np.zeros(covered, np.float32)
    for row in range(first, end):
        if states[row] == DEAD or states[row] == WILD:
            codes[row] = 0
            terms[row, 0] = _NEVER if states[row] == DEAD else _FAR
            terms[row, 1] = 0
            continue
        centroid = centroids[partitions[row]]
        for i in range(dimension):
            residual[i] = rows[row, i] - centroid[i]
        if way == BY_BITS:
            _code_bits(residual[:covered], planes, decoded)
            _pack_bits(decoded, planes, codes[row])
        elif way == BY_PRODUCT:
            _code_product(residual, codebook, decoded, codes[row])
        else:
            _code_bytes(residual, decoded, codes[row])
        square = dot(residual, residual)
        product = dot(decoded, residual)
        divisor = product if way == BY_BITS else dot(decoded, decoded)
        dividend = dot(residual[:covered], residual) if way == BY_BITS else product
        factor = dividend / divisor if divisor > 0 else np.float32(0)
        known = factor * dot(decoded, centroid)
        if by_dot:
            constant = known - dot(residual, centroid) - dot(residual, offset)
            slope = -factor
        else:
            constant = square + np.float32(2) * known
            slope = np.float32(-2) * factor
        if abs(constant) < _FAR and abs(slope) < _FAR:
            terms[row, 0] = weight * constant
            terms[row, 1] = weight * slope
        else:
            terms[row, 0] = _FAR
            terms[row, 1] = 0
