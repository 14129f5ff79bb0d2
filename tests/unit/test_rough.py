"""Distances in float32: the exact one always lies within their bounds, and the bounds are narrow."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectorlake.kernels import Metric, pairwise_distances
from vectorlake.kernels.distance import address_of, norm
from vectorlake.kernels.jit import entry
from vectorlake.kernels.reference import METRIC_CODES
from vectorlake.kernels.rough import QUICK, is_rough, rough_distance
from vectorlake.kernels.rows import FLOAT32, Rows

pytestmark = pytest.mark.skipif(not QUICK, reason="this CPU has no F16C and FMA")
METRICS = [Metric.L2, Metric.COSINE, Metric.DOT]


@entry("void(int64, float32[::1], float64[::1], int64, int64, int64, float32[::1])")
def _bounds(metric: int, query: Any, exact: Any, code: int, row: int, dimension: int, found: Any) -> None:
    length = norm(address_of(exact), dimension)
    found[0], found[1] = rough_distance(metric, address_of(query), length, code, row, dimension)


@entry("int64(int64, int64, int64)")
def _is_rough(metric: int, query_code: int, code: int) -> Any:
    return np.int64(is_rough(metric, query_code, code))


def bounds(
    query: npt.NDArray[np.float32], row: npt.NDArray[Any], metric: Metric
) -> tuple[np.float32, np.float32]:
    rows, found = Rows.of(row[None, :], what="rows"), np.empty(2, np.float32)
    _bounds(METRIC_CODES[metric], query, query.astype("f8"), rows.code, rows.address, len(query), found)
    return found[0], found[1]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_exact_distance_lies_within(data: st.DataObject) -> None:
    metric = data.draw(st.sampled_from(METRICS))
    half = data.draw(st.booleans())
    width = 16 if half else 32
    dimension = data.draw(st.integers(1, 70))
    element = st.floats(width=width)  # NaN and infinities too
    row = np.array(data.draw(st.lists(element, min_size=dimension, max_size=dimension)), f"f{width // 8}")
    given_ = data.draw(
        st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=dimension, max_size=dimension)
    )
    query = np.array(given_, "f4")
    low, high = bounds(query, row, metric)
    exact = pairwise_distances(query[None, :], row[None, :], metric)[0, 0]
    # An infinite distance is none: such a row is measured, and never found.
    assert low <= exact <= high or (np.isinf(exact) and low == -np.inf)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [5e-23, 1e-12, 1e-7, 1e12])
def test_rows_whose_squares_underflow_are_no_exception(metric: Metric, size: float) -> None:
    row, query = np.array([size, -size / 3], "f4"), np.array([1e10, 0.7], "f4")
    low, high = bounds(query, row, metric)
    assert low <= pairwise_distances(query[None, :], row[None, :], metric)[0, 0] <= high


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("element", ["f2", "f4"])
@pytest.mark.parametrize("dimension", [5, 384, 1536])
def test_bounds_are_narrow(metric: Metric, element: str, dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    query = rng.standard_normal(dimension).astype("f4")
    for row in rng.standard_normal((20, dimension)).astype(element):
        low, high = bounds(query, row, metric)
        exact = pairwise_distances(query[None, :], row[None, :], metric)[0, 0]
        scale = 1.0 if metric is Metric.COSINE else float(dimension)
        assert low <= exact <= high
        assert high - low < 1e-4 * scale


def test_nothing_rough_is_told_of_other_types() -> None:
    assert _is_rough(METRIC_CODES[Metric.L2], FLOAT32, FLOAT32)
    assert not _is_rough(METRIC_CODES[Metric.L2], FLOAT32, FLOAT32 + 1)
    assert not _is_rough(METRIC_CODES[Metric.L2], FLOAT32 + 1, FLOAT32)
    assert not _is_rough(3, FLOAT32, FLOAT32)
