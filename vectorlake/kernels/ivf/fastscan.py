"""Sums of table look-ups over blocks of 32 codes (FastScan; André et al., "Cache locality is not enough", 2015).

A code is a row of 4-bit numbers; a query has a table of 16 small integers for each of them. A byte shuffle looks up
32 rows at once. Bytes are added while they can't overflow, then widened to 16 bits.

In a block, byte 2 i belongs to row i and byte 2 i + 1 to row 16 + i, so that widening yields rows in order; the low half
of a byte is number 2 p of the code and the high half number 2 p + 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import carray, types  # type: ignore[attr-defined]
from numba.core import cgutils as numba_cgutils

from vectorlake.kernels.capability import has_avx2
from vectorlake.kernels.distance import pointer_to
from vectorlake.kernels.jit import Builder, Value, inner, intrinsic

cgutils: Any = numba_cgutils  # it has no types

BLOCK: Final = 32
"""Rows in a block."""
TABLE: Final = 16
"""Entries for each number of a code."""
COARSE: Final = 31
"""The largest entry of a coarse table: eight of them fit a byte."""
FINE: Final = 127
"""The largest entry of a fine table: two of them fit a byte."""
GROUP: Final = 4
"""Queries that share the loads of a block. Their sums of one block at a time, and what they take, fit 16 registers."""
TOGETHER: Final = 2
"""Blocks that share the loads of a table, where a query is alone."""
PAIRS: Final = 4
"""A code's bytes are padded to a multiple of this."""

_BYTE = ir.IntType(8)
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_FLOAT = ir.FloatType()
_BYTES = ir.VectorType(_BYTE, 32)
_HALF_BYTES = ir.VectorType(_BYTE, 16)
_WORDS = ir.VectorType(ir.IntType(16), 16)
_INT32S = ir.VectorType(_INT32, 8)
_FLOATS = ir.VectorType(_FLOAT, 8)


def _scan(queries: int, blocks: int, period: int) -> Callable[..., Any]:
    """An intrinsic that adds up look-ups for some queries over some blocks.

    It calls a function that is not inlined: on its own, it gets along with the registers that there are.

    Its arguments are: address of the first block's code bytes; bytes from a block to the next; address of int64
    [queries], the addresses of their tables; bytes of a row's code, a multiple of PAIRS; what earlier sums are multiplied
    by before these are added; and the address of float32 [queries, blocks, 32], the sums.
    """

    @intrinsic
    def scan(typing: Any, codes: Any, stride: Any, tables: Any, pairs: Any, factor: Any, sums: Any) -> Any:
        return types.void(codes, stride, tables, pairs, factor, sums), codegen

    def codegen(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        if has_avx2():
            builder.call(_function(builder.module, arguments, queries, blocks, period), arguments)
        return context.get_dummy_value()

    return scan


def _function(module: Any, arguments: Any, queries: int, blocks: int, period: int) -> Any:
    """The function in a module that does the work, made where it is not there yet."""
    name = f"vectorlake_fastscan_{queries}_{blocks}_{period}"
    if name in module.globals:
        return module.globals[name]
    kinds = [argument.type for argument in arguments]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    _emit(builder, function.args, queries, blocks, period)
    builder.ret_void()
    return function


def _emit(builder: Builder, arguments: Any, queries: int, blocks: int, period: int) -> None:
    codes, stride, tables, pairs, factor, sums = arguments
    added = add_up(builder, codes, stride, tables, pairs, (queries, blocks, period))
    weight = _splat(builder, factor, _FLOATS)
    for (q, b), (first, second) in added.items():
        for part, (words, half) in enumerate([(first, 0), (first, 1), (second, 0), (second, 1)]):
            lanes = ir.Constant(_INT32S, list(range(8 * half, 8 * half + 8)))
            picked = builder.shuffle_vector(words, ir.Constant(_WORDS, ir.Undefined), lanes)
            numbers = builder.uitofp(builder.zext(picked, _INT32S), _FLOATS)
            at = 128 * (blocks * q + b) + 32 * part
            before = _load(builder, sums, at, _FLOATS, 4)
            _store(builder, builder.fadd(builder.fmul(before, weight), numbers), sums, at)


def add_up(
    builder: Builder, codes: Value, stride: Value, tables: Value, pairs: Value, shape: tuple[int, int, int]
) -> dict[tuple[int, int], tuple[Value, Value]]:
    """Emit the look-ups of some queries over some blocks: for each two the sums of rows 0 to 15 and 16 to 31, in 16 bits.

    Args:
        builder: where to.
        codes, stride, tables, pairs: as for `_scan`.
        shape: how many queries and blocks, and how many look-ups fit a byte.
    """
    queries, blocks, period = shape
    look_up = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_BYTES, [_BYTES, _BYTES]), "llvm.x86.avx2.pshuf.b"
    )
    places = [(q, b) for q in range(queries) for b in range(blocks)]
    table_at = [_load(builder, tables, 8 * q, _INT64, 8) for q in range(queries)]
    block_at = [builder.add(codes, builder.mul(stride, _int64(b))) for b in range(blocks)]
    whole = {place: cgutils.alloca_once(builder, _WORDS) for place in places}
    upper = {place: cgutils.alloca_once(builder, _WORDS) for place in places}
    for place in places:
        builder.store(ir.Constant(_WORDS, None), whole[place])
        builder.store(ir.Constant(_WORDS, None), upper[place])
    low_half = ir.Constant(_BYTES, [15] * 32)
    nibble = ir.Constant(_WORDS, [4] * 16)
    byte = ir.Constant(_WORDS, [8] * 16)
    steps = builder.udiv(pairs, _int64(period // 2))
    with cgutils.for_range(builder, steps, intp=_INT64) as loop:
        offset = builder.mul(loop.index, _int64(32 * (period // 2)))
        added: dict[tuple[int, int], Value] = {}
        for step in range(period // 2):
            halves: list[tuple[Value, Value]] = []
            for b in range(blocks):
                code = _load(builder, builder.add(block_at[b], offset), 32 * step, _BYTES, 1)
                shifted = builder.bitcast(builder.lshr(builder.bitcast(code, _WORDS), nibble), _BYTES)
                halves.append((builder.and_(code, low_half), builder.and_(shifted, low_half)))
            for q in range(queries):
                for half in range(2):
                    entries = _load(
                        builder, builder.add(table_at[q], offset), 32 * step + 16 * half, _HALF_BYTES, 1
                    )
                    both = builder.shuffle_vector(
                        entries,
                        ir.Constant(_HALF_BYTES, ir.Undefined),
                        ir.Constant(ir.VectorType(_INT32, 32), [*range(16), *range(16)]),
                    )
                    for b in range(blocks):
                        found = builder.call(look_up, [both, halves[b][half]])
                        added[q, b] = builder.add(added[q, b], found) if (q, b) in added else found
        for place in places:
            words = builder.bitcast(added[place], _WORDS)
            builder.store(builder.add(builder.load(whole[place]), words), whole[place])
            high = builder.lshr(words, byte)
            builder.store(builder.add(builder.load(upper[place]), high), upper[place])
    sums = {}
    for place in places:
        odd = builder.load(upper[place])
        sums[place] = builder.sub(builder.load(whole[place]), builder.shl(odd, byte)), odd
    return sums


scan_group_coarse = _scan(GROUP, 1, 8)
scan_group_fine = _scan(GROUP, 1, 2)
scan_one_coarse = _scan(1, TOGETHER, 8)
scan_one_fine = _scan(1, TOGETHER, 2)


@inner
def scan_portable(
    queries: int, blocks: int, codes: int, stride: int, tables: int, pairs: int, factor: Any, sums: int
) -> None:
    """What the intrinsics compute, on any machine."""
    table_at = carray(pointer_to(tables, np.int64(0)), (queries,))
    out = carray(pointer_to(sums, np.float32(0)), (queries, blocks, BLOCK))
    totals = np.empty(BLOCK, np.int32)
    for b in range(blocks):
        code = carray(pointer_to(codes + b * stride, np.uint8(0)), (pairs, BLOCK))
        for q in range(queries):
            table = carray(pointer_to(table_at[q], np.uint8(0)), (pairs, 2, TABLE))
            totals[:] = 0
            for p in range(pairs):
                for i in range(BLOCK // 2):
                    even = code[p, 2 * i]
                    odd = code[p, 2 * i + 1]
                    totals[i] += np.int32(table[p, 0, even & 15]) + np.int32(table[p, 1, even >> 4])
                    totals[BLOCK // 2 + i] += np.int32(table[p, 0, odd & 15]) + np.int32(
                        table[p, 1, odd >> 4]
                    )
            for i in range(BLOCK):
                out[q, b, i] = out[q, b, i] * factor + np.float32(totals[i])


LINE: Final = 4
"""Numbers that `judge` takes for a query: slope, base, shift and threshold."""


@intrinsic
def judge(typing: Any, sums: Any, terms: Any, line: Any, estimates: Any) -> Any:
    """Turn a block's sums into estimates and tell which are below a threshold, as the low bits of an integer.

    Args:
        sums: address of float32 [32].
        terms: address of float32 [2, 32], a constant and a factor for each row.
        line: address of float32 [LINE]; an estimate is constant + shift + factor * (slope * sum + base).
        estimates: address of float32 [32], written.
    """
    return types.int64(sums, terms, line, estimates), _judge


def _judge(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
    sums, terms, line, estimates = arguments
    slope, base, shift, limit = (
        _splat(builder, _load(builder, line, 4 * i, _FLOAT, 4), _FLOATS) for i in range(LINE)
    )
    mask = _int64(0)
    for part in range(4):
        at = 32 * part
        product = _multiply_add(builder, _load(builder, sums, at, _FLOATS, 4), slope, base)
        constant = builder.fadd(_load(builder, terms, at, _FLOATS, 4), shift)
        estimate = _multiply_add(builder, _load(builder, terms, 128 + at, _FLOATS, 4), product, constant)
        _store(builder, estimate, estimates, at)
        bits = builder.fcmp_ordered("<", estimate, limit)
        wide = builder.zext(builder.bitcast(bits, _BYTE), _INT64)
        mask = builder.or_(mask, builder.shl(wide, _int64(8 * part)))
    return mask


def _multiply_add(builder: Builder, left: Value, right: Value, addend: Value) -> Value:
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.fmuladd.v8f32")
    return builder.call(function, [left, right, addend])


def _int64(value: int) -> Value:
    return ir.Constant(_INT64, value)


def _load(builder: Builder, base: Value, offset: int, kind: Any, align: int) -> Value:
    address = builder.add(base, _int64(offset))
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def _store(builder: Builder, value: Value, base: Value, offset: int) -> None:
    address = builder.add(base, _int64(offset))
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=4)


def _splat(builder: Builder, value: Value, kind: Any) -> Value:
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_INT32, 0))
    lanes = ir.Constant(ir.VectorType(_INT32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, undefined, lanes)
