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

from vectorlake.kernels.asked import encode_queries
from vectorlake.kernels.capability import has_avx2
from vectorlake.kernels.codes import aligned, to_panels
from vectorlake.kernels.distance import METRIC_DOT, address_of
from vectorlake.kernels.fused import FACTORS, MOST, STRETCH, TILE, lane_sums, sift_tile, stretch_of, to_tiles
from vectorlake.kernels.jit import entry
from vectorlake.kernels.microkernel import LEVELS, PANEL_ROWS, STEP
from vectorlake.kernels.quantize import ERROR, FACTS, NORM, SCALE

Sift = Callable[..., int]


@pytest.fixture(scope="module")
def sift() -> Sift:
    if not has_avx2():
        pytest.skip("needs AVX2")

    @entry("int64(int64, int64, int64, int64, float32[:, ::1], float32[:, ::1], int32[:, ::1])")
    def compiled(
        panel: int, queries: int, padded: int, stretch: int, terms: Any, factors: Any, products: Any
    ) -> int:
        passed: int = sift_tile(
            panel,
            queries,
            padded // STEP,
            stretch // STEP,
            address_of(terms),
            np.int64(terms.shape[1] * 4),
            address_of(factors),
            address_of(products),
        )
        return passed

    return compiled


def coded_queries(
    queries: npt.NDArray[np.float64], padded: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
    """The integers of queries under dot, and their facts."""
    count, dimension = queries.shape
    integers, facts = np.zeros((count, padded), np.int8), np.empty((count, FACTS))
    encode_queries(
        METRIC_DOT,
        queries.copy(),
        np.linalg.norm(queries, axis=1),
        0,
        np.zeros(dimension),
        np.zeros((0, dimension), np.float32),
        0.0,
        LEVELS,
        stretch_of(padded),
        MOST,
        integers,
        np.zeros((count, 0), np.float32),
        facts,
    )
    return integers, facts


def largest_queries(padded: int, rng: np.random.Generator) -> npt.NDArray[np.int8]:
    """Queries whose lanes sum to as much as they may, with signs of one kind, of both, and at random."""
    heads = np.concatenate([np.ones((1, padded)), -np.ones((1, padded)), rng.standard_normal((2, padded))])
    return coded_queries(heads, padded)[0]


@pytest.mark.parametrize("padded", [STEP, 8 * STEP, 9 * STEP, 17 * STEP, 32 * STEP])
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
    passed = sift(panel.ctypes.data, tile.ctypes.data, padded, stretch_of(padded), terms, factors, products)
    np.testing.assert_array_equal(products, expected)
    bits = (np.uint64(passed % 2**64) >> np.arange(TILE * PANEL_ROWS, dtype=np.uint64)) & np.uint64(1)
    np.testing.assert_array_equal(bits.reshape(TILE, PANEL_ROWS) == 1, expected >= factors[:, 3:])


@given(
    npst.arrays(
        np.float64,
        st.tuples(st.integers(1, 3), st.integers(1, 250)),
        elements=st.floats(-1e6, 1e6, allow_subnormal=False),
    )
)
def test_rounded_queries_keep_to_their_sums(queries: npt.NDArray[np.float64]) -> None:
    padded = -(-queries.shape[1] // STEP) * STEP
    integers, facts = coded_queries(queries, padded)
    wide = integers.astype(np.int16)
    assert np.abs(wide).max() <= LEVELS
    assert np.abs(lane_sums(np.abs(integers), stretch_of(padded))).max() <= MOST
    stands_for = facts[:, SCALE, None] * wide[:, : queries.shape[1]]
    assert (np.linalg.norm(queries - stands_for, axis=1) <= facts[:, ERROR]).all()
    assert (np.linalg.norm(stands_for, axis=1) <= facts[:, NORM]).all()


@pytest.mark.parametrize("padded", [STEP, 8 * STEP, 9 * STEP, 17 * STEP, 32 * STEP])
def test_stretches_are_alike(padded: int) -> None:
    steps, stretch = padded // STEP, stretch_of(padded) // STEP
    assert stretch <= STRETCH
    assert -(-steps // stretch) == -(-steps // STRETCH)
    assert steps > (-(-steps // stretch) - 1) * stretch
