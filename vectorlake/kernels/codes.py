"""Rows encoded once, to be searched again and again: the integers of their heads, finer ones, and their bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.kernels.metric import Metric
from vectorlake.kernels.quantize import TERMS, Frame
from vectorlake.kernels.rows import Rows

PANEL: Final = 16
"""Rows of a panel: those whose words of four bytes stand side by side."""
LEVELS: Final = 52
"""Integers of heads lie in -LEVELS..LEVELS, and are stored plus LEVELS."""
HEAD_STEP: Final = 12
FINE_STEP: Final = 16
_LINE: Final = 64


@dataclass(frozen=True)
class RowCodes:
    """What `ExactKnn.add_encoded` searches. Slots are the positions of rows.

    Attributes:
        metric: the distance that they were encoded for.
        frame: where product space lies.
        count: how many slots.
        panels: uint8 [ceil(count / 16), p / 4, 16, 4], integers of the heads plus 52: word after word of 16 rows at a
            time; p is the head's dimension, or all, rounded up to a multiple of 12.
        terms: float64 [5, slots], the terms of the bound (see `quantize`), not scaled.
        fine: int8 [slots, d rounded up to a multiple of 16], integers of all dimensions in -127..127, not rotated.
        fine_terms: float64 [5, slots], their terms.
    """

    metric: Metric
    frame: Frame
    count: int
    panels: npt.NDArray[np.uint8]
    terms: npt.NDArray[np.float64]
    fine: npt.NDArray[np.int8]
    fine_terms: npt.NDArray[np.float64]


def head_width(frame: Frame) -> int:
    """How many integers of a head are stored."""
    return -(-frame.kept // HEAD_STEP) * HEAD_STEP


def fine_width(dimension: int) -> int:
    """How many finer integers of a row are stored."""
    return -(-dimension // FINE_STEP) * FINE_STEP


def to_panels(rows: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Integers of heads [slots, p] as panels; slots beyond the last are zero."""
    count, width = rows.shape
    padded = np.full((-(-count // PANEL) * PANEL, width), LEVELS, np.uint8)
    np.add(rows, LEVELS, out=padded[:count], casting="unsafe")
    words = padded.reshape(-1, PANEL, width // 4, 4)
    return np.ascontiguousarray(words.transpose(0, 2, 1, 3))


def from_panels(panels: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.int8]:
    """The integers of heads, int8 [count, p]."""
    blocks, words = panels.shape[:2]
    # By whole words, and unsigned bytes wrap to what the signed ones are.
    rows = np.ascontiguousarray(panels).view(np.int32).reshape(blocks, words, PANEL).transpose(0, 2, 1)
    placed = np.ascontiguousarray(rows).view(np.uint8).reshape(blocks * PANEL, words * 4)
    np.subtract(placed, np.uint8(LEVELS), out=placed)
    return placed.view(np.int8)[:count]


def aligned(array: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The same bytes at an address that wide loads accept; copied only if they are not there already."""
    if array.flags.c_contiguous and array.ctypes.data % 32 == 0:
        return array
    placed = aligned_zeros(*array.shape)
    placed[...] = array
    return placed


def aligned_zeros(*shape: int) -> npt.NDArray[np.uint8]:
    """Zeros that begin where a cache line does."""
    return _from_line(np.zeros(math.prod(shape) + _LINE, np.uint8), shape)


def aligned_empty(*shape: int) -> npt.NDArray[np.uint8]:
    """Memory that begins where a cache line does, not yet written to: if it is much, numpy asks for large pages for it."""
    return _from_line(np.empty(math.prod(shape) + _LINE, np.uint8), shape)


def _from_line(store: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    start = -store.ctypes.data % _LINE
    return store[start : start + math.prod(shape)].reshape(shape)


class RowEncoder:
    """Encodes rows block by block, with bounds that hold for every query.

    Args:
        frame: where product space lies.
        metric: one whose distances are sums.
    """

    def __init__(self, frame: Frame, metric: Metric) -> None:
        from vectorlake.kernels.paths import CodePath, Task

        none = Rows.of(np.zeros((0, len(frame.centre)), np.float32), what="queries")
        self._path = CodePath(Task(none, metric, frame, np.empty((0, 1)), np.empty((0, 1), np.int64)))

    def encode(self, vectors: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        """Encode rows.

        Args:
            vectors: [m, d], as stored.

        Returns:
            int8 [m, p] of the heads, float64 [5, m] their terms, int8 [m, width] finer ones, float64 [5, m] their
            terms.

        Raises:
            InvalidInputError: wrong shapes or types.
        """
        from vectorlake.kernels.paths import Block, one_by_one

        rows = Rows.of(vectors, what="vectors", dimension=len(self._path.task.frame.centre))
        nothing = np.empty(0, np.bool_)
        parts = []
        for first in range(0, rows.count, self._path.block_rows):
            end = min(first + self._path.block_rows, rows.count)
            block = Block(rows, np.empty(0, np.int64), nothing, first, end)
            parts.append(self._path.codes(block, one_by_one))
        if not parts:
            width, fine = self._path.padded, self._path.fine_padded
            empty = np.empty((TERMS, 0))
            return np.empty((0, width), np.int8), empty, np.empty((0, fine), np.int8), empty
        axes = (0, 1, 0, 1)
        return tuple(
            np.concatenate(pieces, axis=axis)
            for pieces, axis in zip(zip(*parts, strict=True), axes, strict=True)
        )
