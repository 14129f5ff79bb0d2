"""Compiled loops that count the bits in which packed vectors differ: an exact integer, so nothing has to be bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils as numba_cgutils

from vectorlake.kernels.heap import offer
from vectorlake.kernels.jit import Builder, Value, entry, inner, intrinsic

cgutils: Any = numba_cgutils  # it has no types

_BYTE = ir.IntType(8)
_INT64 = ir.IntType(64)
_WORD = 8
_RUN_BYTES = 16384
"""Rows that are compared with every query while they are in a core's first cache."""


@intrinsic
def _count_differing(typing: Any, left: Any, right: Any, count: Any, width: Any) -> Any:
    """How many bits differ in `count` words at two addresses, each of 8 bytes or, where width is 1, of one."""
    return types.int64(left, right, count, width), _differing


def _differing(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
    left, right, count, width = arguments
    total = cgutils.alloca_once_value(builder, ir.Constant(_INT64, 0))
    is_word = builder.icmp_signed("==", width, ir.Constant(_INT64, _WORD))
    with builder.if_else(is_word) as (then, otherwise):
        for branch, kind, size in ((then, _INT64, _WORD), (otherwise, _BYTE, 1)):
            with branch, cgutils.for_range(builder, count, intp=_INT64) as loop:
                offset = builder.mul(loop.index, ir.Constant(_INT64, size))
                words = [
                    builder.load(builder.inttoptr(builder.add(base, offset), kind.as_pointer()), align=1)
                    for base in (left, right)
                ]
                differing = builder.xor(*words)
                bits = builder.ctpop(builder.zext(differing, _INT64) if size == 1 else differing)
                builder.store(builder.add(builder.load(total), bits), total)
    return builder.load(total)


@inner
def differing_bits(left: int, right: int, size: int) -> Any:
    """How many bits differ in `size` bytes at two addresses."""
    words = size // _WORD
    rest = size - words * _WORD
    bits = _count_differing(left, right, words, _WORD)
    if rest > 0:
        bits += _count_differing(left + words * _WORD, right + words * _WORD, rest, 1)
    return bits


@entry(
    "void(int64, int64, int64, int64, int64, int64, int64[::1], bool_[::1], int64, int64, "
    "float64[:, ::1], int64[:, ::1])"
)
def scan_bits(
    query_address: int,
    query_stride: int,
    count: int,
    size: int,
    address: int,
    stride: int,
    row_ids: Any,
    valid: Any,
    first: int,
    end: int,
    heap_distances: Any,
    heap_ids: Any,
) -> None:
    """Offer rows [first, end) to every query's heap; `valid` is empty where all rows count.

    Args:
        query_address: where query 0 stands.
        query_stride: bytes from query to query.
        count: how many queries.
        size: bytes of a vector.
        address: where row 0 stands.
        stride: bytes from row to row.
        row_ids: int64 [rows].
        valid: bool [rows] or empty.
        first: the first row.
        end: one past the last.
        heap_distances: float64 [count, k].
        heap_ids: int64 [count, k].
    """
    masked = valid.shape[0] > 0
    run = max(1, _RUN_BYTES // size)
    for start in range(first, end, run):
        stop = min(start + run, end)
        for q in range(count):
            query = query_address + q * query_stride
            root = heap_distances[q, 0]
            for row in range(start, stop):
                if masked and not valid[row]:
                    continue
                value = np.float64(differing_bits(query, address + row * stride, size))
                if value <= root and offer(heap_distances[q], heap_ids[q], value, row_ids[row]):
                    root = heap_distances[q, 0]


@entry("void(int64, int64, int64, int64, int64, int64[::1], int64[::1], float64[::1])")
def measure_bits(
    query_address: int,
    query_stride: int,
    size: int,
    address: int,
    stride: int,
    query_index: Any,
    row_index: Any,
    out: Any,
) -> None:
    """Write in how many bits each (query, row) pair differs; the arguments are those of `scan_bits`."""
    for i in range(query_index.shape[0]):
        out[i] = np.float64(
            differing_bits(
                query_address + query_index[i] * query_stride, address + row_index[i] * stride, size
            )
        )
