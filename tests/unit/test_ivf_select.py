"""Selection of the smallest of many estimates."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectorlake.kernels.ivf.select import keep_smallest, nearest_first
from vectorlake.kernels.jit import entry


@entry("int64(float32[::1], int64[::1], int64, int64, int64, float32[::1])")
def _keep(values: Any, slots: Any, count: int, wanted: int, slack: int, bound: Any) -> Any:
    kept, bound[0] = keep_smallest(values, slots, count, wanted, slack)
    return kept


@entry("void(float32[::1], int64, int32[::1], float32[::1])")
def _nearest(distances: Any, wanted: int, places: Any, values: Any) -> None:
    nearest_first(distances, wanted, places, values)


def check_kept(values: npt.NDArray[np.float32], wanted: int) -> None:
    mine, slots, bound = values.copy(), np.arange(len(values)), np.zeros(1, np.float32)
    kept = _keep(mine, slots, len(values), wanted, 0, bound)
    assert kept == wanted
    assert sorted(mine[:wanted]) == sorted(values)[:wanted]
    assert len(set(slots[:wanted].tolist())) == wanted
    assert (values[slots[:wanted]] == mine[:wanted]).all()
    assert bound[0] >= mine[:wanted].max()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-(2.0**120), 2.0**120, width=32), min_size=1, max_size=60),
    st.integers(0, 59),
)
def test_exactly_the_smallest_are_kept(values: list[float], place: int) -> None:
    array = np.array(values, np.float32)
    check_kept(array, place % len(array) + 1)


@pytest.mark.parametrize("far", [1e37, -1e37])
def test_one_far_value_does_not_blur_the_others(far: float) -> None:
    values = np.random.default_rng(1).random(500, np.float32)
    values[7] = far
    check_kept(values, 100)
    places, found = np.empty(50, np.int32), np.empty(50, np.float32)
    _nearest(values, 50, places, found)
    assert sorted(found) == sorted(values)[:50]
    assert (values[places] == found).all()


def test_slack_keeps_a_few_more_but_none_that_are_not_next() -> None:
    values = np.random.default_rng(2).standard_normal(1000).astype(np.float32)
    mine, slots, bound = values.copy(), np.arange(1000), np.zeros(1, np.float32)
    kept = _keep(mine, slots, 1000, 100, 25, bound)
    assert 100 <= kept <= 125
    assert sorted(mine[:kept]) == sorted(values)[:kept]
