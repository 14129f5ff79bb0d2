"""Products of a tile and their test against what numpy computes, to the last bit for the products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as npst
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectorlake.kernels.capability import has_avx2
from vectorlake.kernels.codes import aligned, to_panels
from vectorlake.kernels.distance import address_of
from vectorlake.kernels.fused import FACTORS, MOST, TILE, lane_sums, least_scales, sift_tile, to_tiles
from vectorlake.kernels.jit import entry
from vectorlake.kernels.microkernel import LEVELS, PANEL_ROWS, STEP

Sift = Callable[..., int]


@pytest.fixture(scope="module")
def sift() -> Sift:
    if not has_avx2():
        pytest.skip("needs AVX2")

    @entry("int64(int64, int64, int64, float32[:, ::1], float32[:, ::1], int32[:, ::1])")
    def compiled(panel: int, queries: int, padded: int, terms: Any, factors: Any, products: Any) -> int:
        passed: int = sift_tile(
            panel,
            queries,
            padded // STEP,
            address_of(terms),
            np.int64(terms.shape[1] * 4),
            address_of(factors),
            address_of(products),
        )
        return passed

    return compiled


def largest_queries(padded: int, rng: np.random.Generator) -> npt.NDArray[np.int8]:
    """Queries whose lanes sum to as much as they may, with signs of one kind, of both, and at random."""
    heads = np.concatenate([np.ones((1, padded)), -np.ones((1, padded)), rng.standard_normal((2, padded))])
    found = np.rint(heads / least_scales(heads)[:, None])
    return np.clip(found, -LEVELS, LEVELS).astype(np.int8)


@pytest.mark.parametrize("padded", [STEP, 8 * STEP, 9 * STEP, 32 * STEP])
@pytest.mark.parametrize("fill", ["least", "most", "random"])
def test_products_are_exact(sift: Sift, padded: int, fill: str) -> None:
    rng = np.random.default_rng(padded)
    rows = rng.integers(-LEVELS, LEVELS + 1, (PANEL_ROWS, padded)).astype(np.int8)
    if fill != "random":
        rows[:] = LEVELS if fill == "most" else -LEVELS
    queries = largest_queries(padded, rng)
    assert len(queries) == TILE
    expected = queries.astype(np.int64) @ rows.astype(np.int64).T
    terms = np.zeros((5, PANEL_ROWS), np.float32)
    terms[0], terms[3], terms[4] = 1, np.arange(PANEL_ROWS), -2 * np.arange(PANEL_ROWS)
    factors = np.empty((TILE, FACTORS), np.float32)
    factors[:] = 1, 2, 1, 0
    factors[1, 3] = np.nan
    factors[3, 3] = np.median(expected[3])
    panel, tile = aligned(to_panels(rows)), to_tiles(queries)
    products = np.empty((TILE, PANEL_ROWS), np.int32)
    passed = sift(panel.ctypes.data, tile.ctypes.data, padded, terms, factors, products)
    np.testing.assert_array_equal(products, expected)
    bits = (np.uint64(passed % 2**64) >> np.arange(TILE * PANEL_ROWS, dtype=np.uint64)) & np.uint64(1)
    np.testing.assert_array_equal(bits.reshape(TILE, PANEL_ROWS) == 1, expected >= factors[:, 3:])


@given(
    npst.arrays(
        np.float64,
        st.tuples(st.integers(1, 3), st.integers(1, 200)),
        elements=st.floats(-1e6, 1e6, allow_subnormal=False),
    )
)
def test_rounded_queries_keep_to_their_sums(heads: npt.NDArray[np.float64]) -> None:
    scales = np.maximum(np.abs(heads).max(axis=1) / LEVELS, least_scales(heads))
    usable = scales > 1e-140
    rounded = np.rint(heads[usable] / scales[usable, None])
    assert np.abs(rounded).max(initial=0) <= LEVELS
    assert lane_sums(np.abs(rounded)).max(initial=0) <= MOST
