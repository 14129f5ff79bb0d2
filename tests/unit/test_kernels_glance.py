"""The first look at pairs of rows tells what numpy tells, sums in 16 bits and comparisons that saturate included."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vectorlake.kernels.approximate import fill_reaches
from vectorlake.kernels.capability import has_avx2
from vectorlake.kernels.codes import aligned
from vectorlake.kernels.distance import address_of
from vectorlake.kernels.glance import LINE, NEVER, ONE, PANEL, STEP, TILE, shift_for, sift, to_panels
from vectorlake.kernels.ivf.fastscan import COARSE
from vectorlake.kernels.jit import entry


@entry("void(int64, uint8[:, ::1], int64, int16[::1], int16[::1], int16[::1], int16[:, ::1], int32[::1])")
def look(
    panel: int, tables: Any, shift: int, factors: Any, halves: Any, reaches: Any, lines: Any, masks: Any
) -> None:
    own = np.empty(TILE, np.int64)
    for q in range(TILE):
        own[q] = address_of(tables[q])
    sift(
        panel,
        address_of(own),
        tables.shape[1] // 32,
        shift,
        address_of(factors),
        address_of(halves),
        address_of(reaches),
        address_of(lines),
        address_of(masks),
    )


def scaled(sums: npt.NDArray[np.int64], factors: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return (sums * factors + ONE // 2) // ONE


@pytest.mark.skipif(not has_avx2(), reason="this CPU has no AVX2")
@pytest.mark.parametrize("padded", [STEP, 2 * STEP, 6 * STEP, 12 * STEP])
@pytest.mark.parametrize("entries", ["least", "most", "random"])
def test_what_passes(padded: int, entries: str) -> None:
    rng = np.random.default_rng(padded)
    signs = rng.random((PANEL, padded)) < 0.5
    tables = rng.integers(0, COARSE + 1, (TILE, padded // 4, 16)).astype(np.uint8)
    if entries != "random":
        tables[:] = COARSE if entries == "most" else 0
    factors, weights = (rng.integers(ONE // 4, ONE, count) for count in (PANEL, TILE))
    halves, own_halves = (rng.integers(0, 1500, count) for count in (PANEL, TILE))
    reaches, own_reaches = (rng.integers(-500, 2500, count) for count in (PANEL, TILE))
    halves[5], halves[6], own_halves[3] = NEVER, -NEVER, -NEVER
    reaches[7], own_reaches[1] = ONE - 1, -ONE
    lines = np.stack([np.full(TILE, COARSE * padded // 8), weights, own_halves, own_reaches], axis=1)
    codes = signs.reshape(PANEL, padded // 4, 4) @ np.array([1, 2, 4, 8])
    found = np.take_along_axis(tables[:, None].astype(np.int64), codes[None, :, :, None], axis=3)
    sums = (found.sum(axis=(2, 3)) - lines[:, :1]) << shift_for(padded)
    assert np.abs(sums).max() < ONE
    nearness = scaled(scaled(sums, lines[:, 1:2]), factors) - halves
    total = nearness.clip(-ONE, ONE - 1) + np.maximum(reaches, lines[:, 3:])
    expected = total.clip(-ONE, ONE - 1) >= lines[:, 2:3]
    # One is near to all but the one that never is, and one within no reach but the longest.
    assert expected[3, np.arange(PANEL) != 5].all()
    assert expected[:, 6].all()
    assert not expected[:3, 5].any()
    panel, masks = aligned(to_panels(signs)), np.empty(TILE, np.int32)
    short = (part.astype(np.int16) for part in (factors, halves, reaches, lines))
    look(panel.ctypes.data, tables.reshape(TILE, -1), shift_for(padded), *short, masks)
    bits = (masks[:, None].astype(np.uint32) >> np.arange(PANEL, dtype=np.uint32)) & 1
    np.testing.assert_array_equal(bits == 1, expected)


def test_reaches_are_rounded_up_and_kept_within_16_bits() -> None:
    reaches = np.array([0.0, 0.5, 1.0, 3e38, -3e38, 9.0], np.float32)
    short, lines = np.zeros(6, np.int16), np.zeros((6, LINE), np.int16)
    fill_reaches(reaches, 3.0, 1.0, 0, 5, short, lines)
    assert short.tolist() == lines[:, LINE - 1].tolist() == [1, 3, 4, ONE - 1, -ONE, 0]
    assert not lines[:, : LINE - 1].any()
