"""Blocks of 32 codes: place the codes of rows in them, and lift them out again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from vectorlake.kernels.distance import address_of, pointer_to
from vectorlake.kernels.ivf.fastscan import BLOCK
from vectorlake.kernels.jit import entry, inner

TERM_BYTES = 8
"""Of a row: its constant and its factor."""


@inner
def _position(lane: int) -> int:
    """Which byte of 32 belongs to a row (see `fastscan`)."""
    return 2 * lane if lane < BLOCK // 2 else 2 * (lane - BLOCK // 2) + 1


@entry("void(int64, int64[::1], uint8[:, ::1], float32[:, ::1], int64, int64, uint8[:, ::1])")
def place_rows(
    interleaved: int, rows: Any, codes: Any, terms: Any, first: int, end: int, blocks: Any
) -> None:
    """Write blocks [first, end).

    Args:
        interleaved: 1 to store byte after byte of 32 codes, as `fastscan` reads them; 0 for code after code.
        rows: int64 [blocks * 32], which row goes where, -1 for none.
        codes: uint8 [m, bytes].
        terms: float32 [m, 2].
        first, end: the blocks.
        blocks: uint8 [blocks, 32 * bytes + 256], written.
    """
    size = codes.shape[1]
    for b in range(first, end):
        target = carray(
            pointer_to(address_of(blocks) + b * blocks.shape[1] + BLOCK * size, np.float32(0)), (2, BLOCK)
        )
        for lane in range(BLOCK):
            row = rows[b * BLOCK + lane]
            target[0, lane] = terms[row, 0] if row >= 0 else np.float32(np.inf)
            target[1, lane] = terms[row, 1] if row >= 0 else np.float32(0)
            if interleaved:
                position = _position(lane)
                for p in range(size):
                    blocks[b, p * BLOCK + position] = codes[row, p] if row >= 0 else 0
            else:
                for p in range(size):
                    blocks[b, lane * size + p] = codes[row, p] if row >= 0 else 0


@entry("void(int64, int64[::1], int64, uint8[:, ::1], float32[:, ::1])")
def lift_rows(interleaved: int, slots: Any, address: int, codes: Any, terms: Any) -> None:
    """Read the codes [n, bytes] and terms [n, 2] in some slots, int64 [n], of blocks at an address."""
    size = codes.shape[1]
    stride = BLOCK * (size + TERM_BYTES)
    for i in range(slots.shape[0]):
        b = slots[i] // BLOCK
        lane = slots[i] % BLOCK
        source = carray(pointer_to(address + b * stride + BLOCK * size, np.float32(0)), (2, BLOCK))
        block = carray(pointer_to(address + b * stride, np.uint8(0)), (BLOCK * size,))
        terms[i, 0] = source[0, lane]
        terms[i, 1] = source[1, lane]
        if interleaved:
            position = _position(lane)
            for p in range(size):
                codes[i, p] = block[p * BLOCK + position]
        else:
            for p in range(size):
                codes[i, p] = block[lane * size + p]
