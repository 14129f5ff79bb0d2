"""What is left to visit: the least is found, as many are below a cutoff as are wanted, and few more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectorlake.kernels.graph import frontier
from vectorlake.kernels.jit import entry

# Also next to each other.
KEYS = st.one_of(
    st.sets(st.integers(-3, 200), min_size=1, max_size=150),
    st.sets(st.integers(-(2**63) + 1, 2**63 - 2), min_size=1, max_size=150),
)


@entry("void(int64[::1], int64, int64[::1])")
def least_of(keys: Any, count: int, out: Any) -> None:
    out[0], out[1] = frontier.least(keys, count)
    out[2] = frontier.below(keys, count, out[0] + 1)


@entry("void(int64[::1], int64, int64, int64, int64[::1])")
def cutoff_of(keys: Any, left: int, visited: int, width: int, out: Any) -> None:
    out[0] = frontier.cutoff(keys, left, visited, width)


@settings(max_examples=200, deadline=None)
@given(KEYS, st.randoms(use_true_random=False), st.integers(0, 20))
def test_the_least_is_found(keys: set[int], random: Any, more: int) -> None:
    some = sorted(keys)
    random.shuffle(some)
    out = np.zeros(3, np.int64)
    # What stands behind those that count is nobody's.
    least_of(np.array(some + [-(2**63)] * more, np.int64), len(some), out)
    assert out.tolist() == [min(some), some.index(min(some)), 1]


@settings(max_examples=200, deadline=None)
@given(KEYS, st.randoms(use_true_random=False), st.data())
def test_enough_are_below_a_cutoff_and_few_more(keys: set[int], random: Any, data: st.DataObject) -> None:
    some = sorted(keys)
    random.shuffle(some)
    width = data.draw(st.integers(1, len(some)))
    left = data.draw(st.integers(1, len(some)))
    array = np.array(some[:left] + [-(2**63)] * 5 + some[left:], np.int64)
    out = np.zeros(1, np.int64)
    more = frontier.excess.py_func(width)
    if len(some) > width + more:
        cutoff_of(array, left, len(some) - left, width, out)
        assert width <= (np.array(some) < out[0]).sum() <= width + more // 4


@pytest.mark.parametrize("width", [1, 20, 90, 127, 128, 300, 10_000_000])
def test_there_is_room_for_a_visit_before_some_are_dropped(width: int) -> None:
    from vectorlake.kernels.graph.record import DEGREE

    more: Any = frontier.excess
    assert more.py_func(width) >= 0
    assert width + more.py_func(width) + DEGREE + 1 <= width + frontier.ROOM
