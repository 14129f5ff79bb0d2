"""Tables of a query: what each value of each 4-bit number of a code adds to an inner product, rounded to small integers.

With `slope` and `base` of a query, the inner product with a decoded code is about slope * sum + base.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vectorlake.kernels.ivf.fastscan import TABLE
from vectorlake.kernels.jit import entry, inner

_HALF = np.float32(0.5)


@inner
def sign_table(vector: Any, planes: int, limit: int, table: Any) -> tuple[Any, Any]:
    """Write the table of codes of one or more bits for each element; returns slope and base.

    A code of `planes` bits u stands for u - (2**planes - 1) / 2; one table serves every plane.
    """
    groups = vector.shape[0] // 4
    widest = np.float32(0)
    total = np.float32(0)
    least_total = np.float32(0)
    for g in range(groups):
        width = np.float32(0)
        for j in range(4):
            value = vector[4 * g + j]
            width += abs(value)
            total += value
            least_total += min(value, np.float32(0))
        widest = max(widest, width)
    slope = widest / np.float32(limit)
    inverse = np.float32(1) / slope if widest > 0 else np.float32(0)
    entries = np.empty(TABLE, np.float32)
    for g in range(groups):
        least = np.float32(0)
        for j in range(4):
            least += min(vector[4 * g + j], np.float32(0))
        entries[0] = _HALF - least * inverse
        size = 1
        for j in range(4):
            value = vector[4 * g + j] * inverse
            for k in range(size):
                entries[size + k] = entries[k] + value
            size *= 2
        for k in range(TABLE):
            rounded = min(max(entries[k], np.float32(0)), np.float32(limit))
            table[TABLE * g + k] = np.uint8(rounded)
    top = np.float32(2**planes - 1)
    return slope, top * least_total - top * _HALF * total


@inner
def product_table(vector: Any, codebook: Any, limit: int, table: Any) -> tuple[Any, Any]:
    """Write the table of product-quantised codes, codebook float32 [m, 16, d / m]; returns slope and base."""
    parts, width = codebook.shape[0], codebook.shape[2]
    products = np.zeros((parts, TABLE), np.float32)
    widest = np.float32(0)
    base = np.float32(0)
    for m in range(parts):
        for k in range(TABLE):
            total = np.float32(0)
            for j in range(min(width, vector.shape[0] - m * width)):
                total += codebook[m, k, j] * vector[m * width + j]
            products[m, k] = total
        least = products[m].min()
        widest = max(widest, products[m].max() - least)
        base += least
    slope = widest / np.float32(limit)
    inverse = np.float32(1) / slope if widest > 0 else np.float32(0)
    table[:] = 0
    for m in range(parts):
        least = products[m].min()
        for k in range(TABLE):
            value = (products[m, k] - least) * inverse + _HALF
            table[TABLE * m + k] = np.uint8(min(value, np.float32(limit)))
    return slope, base


@entry(
    "void(float32[:, ::1], int64, int64, float32[:, :, ::1], int64, int64, uint8[:, ::1], float32[::1], float32[::1])"
)
def fill_tables(
    vectors: Any,
    planes: int,
    limit: int,
    codebook: Any,
    first: int,
    end: int,
    tables: Any,
    slopes: Any,
    bases: Any,
) -> None:
    """Make the tables of queries [first, end).

    Args:
        vectors: float32 [n, padded d], transformed queries.
        planes: bits of a code for each element.
        limit: the largest entry.
        codebook: float32 [m, 16, d / m] for product-quantised codes, else empty.
        first, end: the queries.
        tables: uint8 [n, bytes], written.
        slopes, bases: float32 [n], written.
    """
    for q in range(first, end):
        if codebook.shape[0]:
            slopes[q], bases[q] = product_table(vectors[q], codebook, limit, tables[q])
        else:
            slopes[q], bases[q] = sign_table(vectors[q], planes, limit, tables[q])


@entry("void(uint8[:, ::1], uint8[:, ::1])")
def fill_bit_tables(queries: Any, tables: Any) -> None:
    """Make tables that count the bits in which packed codes [n, bytes] differ from queries."""
    tables[:] = 0
    for q in range(queries.shape[0]):
        for p in range(queries.shape[1]):
            for half in range(2):
                nibble = (queries[q, p] >> (4 * half)) & 15
                for k in range(TABLE):
                    bits = np.uint8(k) ^ nibble
                    count = (bits & 1) + ((bits >> 1) & 1) + ((bits >> 2) & 1) + (bits >> 3)
                    tables[q, TABLE * (2 * p + half) + k] = count
