"""Threads that share out one step of a search."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final


def cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_FEWEST: Final = 8
"""So many helpers there may be on the smallest machine."""


class _Helpers:
    """The threads that help whoever asks: to start one anew takes longer than to wake it, and a search lasts a few ms."""

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            # No thread lives on in a child, which is never told.
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        # Two for each core serve several who ask at a time; more would only wait for each other.
        self.pool = concurrent.futures.ThreadPoolExecutor(max(_FEWEST, 2 * cores()), "vectorlake-team")


_HELPERS: Final = _Helpers()


@dataclass(frozen=True)
class Team:
    """Threads that share out the parts of one step: the caller, and helpers as far as there are any."""

    threads: int

    def run(self, function: Callable[[int, int], None], parts: Sequence[tuple[int, int]]) -> None:
        """Call the function for every part; returns when all are done."""
        if self.threads < 2 or len(parts) < 2:
            for part in parts:
                function(*part)
            return
        following = itertools.count()

        def work() -> None:
            while (place := next(following)) < len(parts):
                function(*parts[place])

        _together(work, min(self.threads, len(parts)))

    def share(self, function: Callable[[int, int], None], count: int, step: int) -> None:
        """Call `function(first, end)` for ranges that make up range(count), of at most `step` or a thread's share."""
        step = max(1, min(step, -(-count // max(self.threads, 1))))
        self.run(function, [(first, min(first + step, count)) for first in range(0, count, step)])

    def together(self, function: Callable[[], None]) -> None:
        """Call the function once in each thread; it shares out the work by itself.

        It may find all done when it is called, and is not called at all by helpers that come too late.
        """
        _together(function, self.threads)


def _together(function: Callable[[], None], threads: int) -> None:
    others: list[concurrent.futures.Future[None]] = []
    # When the main thread has ended, no more threads may start: the caller does all by itself.
    with contextlib.suppress(RuntimeError):
        others.extend(_HELPERS.pool.submit(function) for _ in range(threads - 1))
    try:
        function()
    finally:
        # Who has not begun yet would find nothing left: helpers that all wait for helpers can't block each other.
        failures = [other.exception() for other in others if not other.cancel()]
    for failure in failures:
        if failure is not None:
            raise failure
