"""A first look at pairs of rows as LLVM IR for AVX2: one-bit codes scored by byte shuffles, and one test for both rows.

A row has a code, the signs of its head's elements, and a table for those of others (see `ivf.fastscan`): each row of a pair
takes one of the two parts. Sums stay in 16 bits, where they are scaled for both rows, and compared sixteen at a time: all
rows are measured on one scale, on which none is longer than `LONGEST`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types

from vectorlake.kernels.ivf.fastscan import BLOCK, COARSE, GROUP, PAIRS, add_up
from vectorlake.kernels.jit import Builder, Value, intrinsic
from vectorlake.kernels.microkernel import INT16S, INT32, INT64, declared, load, splat, store

TILE: Final = GROUP
"""Rows that meet a panel together, by their tables."""
PANEL: Final = BLOCK
"""Rows of a panel, by their codes."""
STEP: Final = 8 * PAIRS
"""Dimensions are padded to a multiple of this."""
LONGEST: Final = 56
"""Length of the longest row: products with all but odd ones lie within 16 bits, and so do their factors."""
NEVER: Final = 2**15 - 1
"""Half the square of a row that is never near. Its negative belongs to one that always may be."""
ONE: Final = 2**15
"""Factors are multiples of its inverse, and less than one."""
LINE: Final = 4
"""Numbers that `sift` takes for each row of a tile: what its sums start from, its factor, half square and reach."""

_PERIOD: Final = 8
_INT16: Final = ir.IntType(16)


def shift_for(padded: int) -> int:
    """How many bits sums may be shifted to the left."""
    return (2**15 // (padded // 4 * COARSE)).bit_length() - 1


def to_panels(signs: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Codes of rows [n, p], n a multiple of PANEL and p of STEP, uint8 [n / PANEL, p / 8, PANEL]."""
    codes = np.packbits(signs, axis=1, bitorder="little")
    halves = codes.reshape(-1, 2, PANEL // 2, codes.shape[1]).transpose(0, 3, 2, 1)
    return np.ascontiguousarray(halves).reshape(-1, codes.shape[1], PANEL)


@intrinsic
def sift(
    typing: Any,
    panel: Any,
    tables: Any,
    pairs: Any,
    shift: Any,
    factors: Any,
    halves: Any,
    reaches: Any,
    lines: Any,
    masks: Any,
) -> Any:
    """Which rows of a panel may be within the reach of a row of a tile, or have it in theirs.

    With s the sum of a pair less its start, f the factors, h half squares and r reaches, those for which
    h + h' - f f' s <= max(r, r').

    Args:
        panel: address of a panel (see `to_panels`).
        tables: address of int64 [TILE], where the tables of the tile's rows are.
        pairs: padded dimension / 8.
        shift: see `shift_for`.
        factors: address of int16 [PANEL], of the panel's rows.
        halves: address of int16 [PANEL].
        reaches: address of int16 [PANEL].
        lines: address of int16 [TILE, LINE].
        masks: address of int32 [TILE], written: bit j tells of row j.

    Returns:
        zero if there is none.
    """
    arguments = (panel, tables, pairs, shift, factors, halves, reaches, lines, masks)
    return types.int64(*arguments), _sift


def _sift(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
    name = "vectorlake_glance"
    module = builder.module
    if name not in module.globals:
        kinds = [argument.type for argument in arguments]
        function = ir.Function(module, ir.FunctionType(INT64, kinds), name)
        function.linkage = "internal"
        # On its own it gets along with the registers that there are.
        function.attributes.add("noinline")
        inside = ir.IRBuilder(function.append_basic_block("entry"))
        inside.ret(_emit(inside, function.args))
    return builder.call(module.globals[name], arguments)


def _emit(builder: Builder, arguments: Any) -> Value:
    panel, tables, pairs, shift, factors, halves, reaches, lines, masks = arguments
    sums = add_up(builder, panel, ir.Constant(INT64, 0), tables, pairs, (TILE, 1, _PERIOD))
    add, subtract = (
        declared(builder, f"llvm.{name}.sat.v16i16", INT16S, INT16S) for name in ("sadd", "ssub")
    )
    scale = declared(builder, "llvm.x86.avx2.pmul.hr.sw", INT16S, INT16S)
    places = splat(builder, builder.trunc(shift, _INT16), INT16S)
    factor, half, reach = (
        [load(builder, base, 32 * v, INT16S, align=2) for v in range(2)]
        for base in (factors, halves, reaches)
    )
    lanes = ir.Constant(ir.VectorType(INT32, PANEL), list(range(PANEL)))
    every = ir.Constant(INT32, 0)
    for q in range(TILE):
        start, weight, own_half, own_reach = (
            splat(builder, load(builder, lines, 2 * (LINE * q + i), _INT16, align=2), INT16S)
            for i in range(LINE)
        )
        passed = []
        for v in range(2):
            centred = builder.shl(builder.sub(sums[q, 0][v], start), places)
            product = builder.call(scale, [builder.call(scale, [centred, weight]), factor[v]])
            farthest = builder.select(builder.icmp_signed(">", reach[v], own_reach), reach[v], own_reach)
            total = builder.call(add, [builder.call(subtract, [product, half[v]]), farthest])
            passed.append(builder.icmp_signed(">=", total, own_half))
        bits = builder.bitcast(builder.shuffle_vector(*passed, lanes), INT32)
        store(builder, bits, masks, 4 * q)
        every = builder.or_(every, bits)
    return builder.zext(every, INT64)
