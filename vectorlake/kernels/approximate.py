"""Compiled step of a self-join that may miss a few neighbours: a first look at all pairs, and the rest as in `symmetric`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vectorlake.kernels.aim import Aim
from vectorlake.kernels.codes import aligned_zeros
from vectorlake.kernels.distance import address_of
from vectorlake.kernels.glance import (
    LINE,
    LONGEST,
    NEVER,
    ONE,
    PANEL,
    STEP,
    TILE,
    shift_for,
    sift,
    to_panels,
)
from vectorlake.kernels.ivf.fastscan import COARSE
from vectorlake.kernels.ivf.tables import fill_tables
from vectorlake.kernels.jit import entry, inner
from vectorlake.kernels.microkernel import trailing_zeros
from vectorlake.kernels.settle import WAITING, settle

_SHORTEST = np.float64(-(2**15))
_LONGEST = np.float64(2**15 - 1)
_USUAL = 3.2
"""A head's factor is some 2.5 times its length over the root of its dimension, as it is turned at random; at most this."""
_LEAST = np.float32(1e-30)
_NO_CODEBOOK = np.empty((0, 16, 1), np.float32)
_CHUNK = 8 * PANEL
"""Rows of the other block that all tiles meet before the next: their integers stay in the nearest cache."""


@inner
def _in_grains(reach: float, grain: float, margin: float) -> Any:
    """A reach in the units of integers, rounded up."""
    return np.int16(min(max(np.ceil(np.float64(reach) * grain + margin), _SHORTEST), _LONGEST))


@entry("void(float32[::1], float64, float64, int64, int64, int16[::1], int16[:, ::1])")
def fill_reaches(
    reaches: Any, grain: float, margin: float, first: int, end: int, short: Any, lines: Any
) -> None:
    """Write the reaches of rows [first, end), float32, in the units of `glance.sift`.

    Args:
        reaches: float32 [rows].
        grain: so many units are one.
        margin: units added to each.
        first, end: the rows.
        short: int16 [rows], written.
        lines: int16 [rows, LINE], of which the last numbers are written.
    """
    for i in range(first, end):
        short[i] = lines[i, LINE - 1] = _in_grains(reaches[i], grain, margin)


@entry(
    "void(int64, int64, int64, int64, int64, int64, int64, int16[::1], int16[::1], int16[:, ::1], float64, float64, "
    "int64, int64, float32[:, ::1], int64, int64[::1], int64[::1], float64, float64, float64, int64, int64, int64, "
    "int64, int16[::1], float32[::1], float64[:, ::1], int64[:, ::1])"
)
def meet_blocks(
    metric: int,
    dimension: int,
    padded: int,
    shift: int,
    tables: int,
    panels: int,
    count: int,
    factors: Any,
    halves: Any,
    lines: Any,
    grain: float,
    margin: float,
    fine_width: int,
    fine: int,
    fine_terms: Any,
    code: int,
    places: Any,
    row_ids: Any,
    slope: float,
    slack: float,
    tiny: float,
    first: int,
    end: int,
    other: int,
    other_end: int,
    short: Any,
    reaches: Any,
    distances: Any,
    ids: Any,
) -> None:
    """`symmetric.join_blocks`, where a pair that the first look doesn't let pass is passed over.

    Args:
        metric, dimension, count, fine_width, fine, fine_terms, code, places, row_ids, slope, slack, tiny, first, end, other,
            other_end, reaches, distances, ids: as there.
        padded: of heads, a multiple of STEP.
        shift: see `glance.shift_for`.
        tables: address of uint8 [rows, 4 * padded].
        panels: address of all rows' codes (see `glance`).
        factors, halves: int16 [rows].
        lines: int16 [rows, LINE].
        grain, margin: see `fill_reaches`.
        short: int16 [rows], what it writes, lowered with the reaches.
    """
    ones = np.empty(WAITING + TILE * _CHUNK, np.int64)
    others = np.empty(WAITING + TILE * _CHUNK, np.int64)
    apart = np.empty(WAITING + TILE * _CHUNK, np.float32)
    masks = np.empty(TILE, np.int32)
    own_tables = np.empty(TILE, np.int64)
    buffer = np.empty(dimension, np.float32)
    query = np.empty(dimension, np.float64)
    same = first == other
    waiting = 0
    last, other_last = min(end, count), min(other_end, count)
    for start in range(other, other_last, _CHUNK):
        stop = min(start + _CHUNK, other_end)
        tiles_end = min(stop, last) if same else last
        for tile in range(first, tiles_end, TILE):
            for q in range(TILE):
                own_tables[q] = tables + (tile + q) * 4 * padded
            for row in range(start, stop, PANEL):
                passed = sift(
                    panels + row * (padded // 8),
                    address_of(own_tables),
                    padded // 8,
                    shift,
                    address_of(factors) + 2 * row,
                    address_of(halves) + 2 * row,
                    address_of(short) + 2 * row,
                    address_of(lines) + 2 * LINE * tile,
                    address_of(masks),
                )
                if passed == 0:
                    continue
                for q in range(TILE):
                    bits = np.int64(masks[q]) & 0xFFFFFFFF
                    i = tile + q
                    while bits != 0:
                        j = row + trailing_zeros(bits)
                        ones[waiting], others[waiting] = i, j
                        waiting += i < count and j < count and (not same or j > i)
                        bits &= bits - 1
            final = start + _CHUNK >= other_last and tile + TILE >= tiles_end
            if waiting < WAITING and not final:
                continue
            kept = settle(
                metric,
                fine_width,
                fine,
                fine_terms,
                code,
                places,
                row_ids,
                slope,
                slack,
                tiny,
                ones,
                others,
                waiting,
                apart,
                same,
                query,
                buffer,
                reaches,
                distances,
                ids,
            )
            waiting = 0
            for at in range(kept):
                i, j = ones[at], others[at]
                short[i] = lines[i, LINE - 1] = _in_grains(reaches[i], grain, margin)
                short[j] = lines[j, LINE - 1] = _in_grains(reaches[j], grain, margin)


@dataclass(frozen=True)
class FirstLook:
    """All rows as the first look takes them, block by block; see `glance`.

    Attributes:
        aim: how to look.
        grain: units of squares here in one of the reaches'.
        padded: of heads.
        panels: the codes.
        tables: uint8 [rows, 4 * padded].
        factors, halves, short: int16 [rows], of the rows of panels: factors, half squares, and reaches.
        lines: int16 [rows, LINE], of the rows of tiles.
    """

    aim: Aim
    grain: float
    padded: int
    panels: npt.NDArray[np.uint8]
    tables: npt.NDArray[np.uint8]
    factors: npt.NDArray[np.int16]
    halves: npt.NDArray[np.int16]
    short: npt.NDArray[np.int16]
    lines: npt.NDArray[np.int16]

    @classmethod
    def empty(cls, room: int, width: int, aim: Aim, unit: float) -> FirstLook:
        """A look at no rows yet.

        Args:
            room: how many rows there may be, a multiple of PANEL.
            width: of the heads.
            aim: how to look.
            unit: length, in product space, of what reaches are told in squares of.
        """
        padded = -(-width // STEP) * STEP
        return cls(
            aim,
            (unit * aim.scale) ** 2,
            padded,
            aligned_zeros(room // PANEL, padded // 8, PANEL),
            np.zeros((room, 4 * padded), np.uint8),
            np.zeros(room, np.int16),
            np.full(room, NEVER, np.int16),
            np.full(room, -NEVER, np.int16),
            np.zeros((room, LINE), np.int16),
        )

    @property
    def shift(self) -> int:
        """How many bits sums are shifted."""
        return shift_for(self.padded)

    @property
    def margin(self) -> float:
        """What is added to a reach, in units of squares here; one for what is rounded."""
        return self.aim.margin * self.aim.scale**2 + 1

    def arrange(
        self, first: int, end: int, heads: npt.NDArray[np.int8], terms: npt.NDArray[np.float64]
    ) -> None:
        """Put rows in their places.

        Args:
            first, end: the places, whole panels; those that no row is for stay empty.
            heads: int8 [m, width], the integers of heads.
            terms: float64 [5, m], their terms (see `quantize`).
        """
        count, width = heads.shape
        scale, _, length, nearness, beyond = terms
        known = np.isfinite(nearness) & (length * self.aim.scale <= LONGEST)
        every = np.zeros((end - first, self.padded), np.float32)
        every[:count, :width] = (
            heads * np.where(known, scale * self.aim.scale, 0.0).astype(np.float32)[:, None]
        )
        sums = np.abs(every).sum(axis=1)
        by_signs = 2 * np.square(every).sum(axis=1) / np.maximum(sums, _LEAST)
        slopes, bases = np.empty(end - first, np.float32), np.empty(end - first, np.float32)
        fill_tables(every, 1, COARSE, _NO_CODEBOOK, 0, end - first, self.tables[first:end], slopes, bases)
        usual = _USUAL * LONGEST / np.sqrt(self.padded)
        factors = by_signs / usual * ONE
        weights = slopes * usual * ONE / 2**self.shift
        known &= (factors < ONE)[:count] & (weights < ONE)[:count]
        with np.errstate(over="ignore", invalid="ignore"):
            halves = np.floor((-nearness - self.aim.trust * np.square(beyond) / 2) * self.aim.scale**2)
        self.halves[first : first + count] = np.where(known, halves, -NEVER)
        self.factors[first:end] = np.minimum(factors, ONE - 1)
        self.lines[first:end, 0] = -bases / np.maximum(slopes, _LEAST)
        self.lines[first:end, 1] = np.minimum(weights, ONE - 1)
        self.lines[first:end, 2] = self.halves[first:end]
        self.panels[first // PANEL : end // PANEL] = to_panels(every >= 0)
