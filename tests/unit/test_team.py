"""Threads that share out work: each part once, failures told, no waiting for helpers that can't come."""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

from vectorlake.kernels import team
from vectorlake.kernels.counter import counter, take
from vectorlake.kernels.distance import address_of
from vectorlake.kernels.jit import entry
from vectorlake.kernels.team import Team


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("count", "step"), [(0, 4), (1, 4), (7, 3), (100, 1), (10, 1000)])
def test_each_part_is_done_once(threads: int, count: int, step: int) -> None:
    done: list[tuple[int, int]] = []
    Team(threads).share(lambda first, end: done.append((first, end)), count, step)
    assert sorted(place for first, end in done for place in range(first, end)) == list(range(count))
    assert all(0 < end - first <= step for first, end in done)
    assert len(done) >= min(threads, count) / 2


@pytest.mark.parametrize("bad", range(4))
def test_a_failure_in_any_part_is_told_once_all_have_ended(bad: int) -> None:
    running: set[int] = set()

    def part(first: int, _end: int) -> None:
        running.add(first)
        if first == bad:
            raise ValueError(f"part {first}")
        running.discard(first)

    with pytest.raises(ValueError, match=f"part {bad}"):
        Team(3).run(part, [(place, place + 1) for place in range(4)])
    assert running == {bad}


def test_threads_start_together_and_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    helpers = team._Helpers()
    monkeypatch.setattr(team, "_HELPERS", helpers)
    met, names = threading.Barrier(3), set()

    def work() -> None:
        met.wait(timeout=30)
        names.add(threading.get_ident())

    for _ in range(40):
        Team(3).together(work)
    helpers.pool.shutdown()
    assert 3 <= len(names) <= 1 + max(team._FEWEST, 2 * team.cores())


def test_helpers_that_wait_for_helpers_block_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(team._HELPERS, "pool", pool)
        done: list[int] = []

        def deeper(level: int) -> None:
            if level == 0:
                done.append(1)
            else:
                Team(3).run(lambda _first, _end: deeper(level - 1), [(0, 1), (1, 2), (2, 3)])

        outer = threading.Thread(target=deeper, args=(4,))
        outer.start()
        outer.join(timeout=60)
        assert not outer.is_alive()
        assert len(done) == 3**4


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system has no fork")
def test_a_forked_process_has_helpers_of_its_own() -> None:
    script = """
import os, sys, threading
from vectorlake.kernels.team import Team
def work():
    met.wait(timeout=30)
met = threading.Barrier(2)
Team(2).together(work)
child = os.fork()
if child == 0:
    met = threading.Barrier(2)
    Team(2).together(work)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "7"


def test_a_thread_that_outlives_the_main_one_works_alone() -> None:
    script = """
import threading
from vectorlake.kernels.team import Team
Team(2).together(lambda: None)
done = []
def late():
    threading.main_thread().join()
    Team(2).share(lambda first, end: done.append(end), 4, 1)
    print(len(done))
threading.Thread(target=late).start()
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("4", "")


@entry("void(int64[::1], int64, int64[::1])")
def take_all(turn: Any, end: int, takers: Any) -> None:
    while True:
        place = take(address_of(turn), 1)
        if place >= end:
            return
        takers[place] += 1


def test_a_counter_gives_each_number_once() -> None:
    turn, takers = counter(5), np.zeros(200_000, np.int64)
    Team(4).together(lambda: take_all(turn, len(takers), takers))
    np.testing.assert_array_equal(takers, np.arange(len(takers)) >= 5)
