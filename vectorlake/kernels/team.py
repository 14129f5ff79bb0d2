"""Threads that share out one step of a search."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Final, Self

_MOST: Final = 256
"""Threads of all teams of a process: they start when they are wanted, and are kept."""


class _Helpers:
    """The threads that help whoever asks: to start one anew takes longer than to wake it, and a search lasts a few ms."""

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            # No thread lives on in a child, which is never told.
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self.pool = concurrent.futures.ThreadPoolExecutor(_MOST, "vectorlake-knn")


_HELPERS: Final = _Helpers()


class Team:
    """Threads that share out the parts of one step: the caller, and helpers as far as there are any."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, function: Callable[[int, int], None], parts: Sequence[tuple[int, int]]) -> None:
        """Call the function for every part; returns when all are done."""
        helpers = min(self.threads, len(parts)) - 1
        if helpers < 1:
            for part in parts:
                function(*part)
            return
        following = itertools.count()

        def work() -> None:
            while (place := next(following)) < len(parts):
                function(*parts[place])

        others = [_HELPERS.pool.submit(work) for _ in range(helpers)]
        try:
            work()
        finally:
            # Who has not begun yet finds nothing left: helpers that all wait for helpers can't block each other.
            begun = [other for other in others if not other.cancel()]
            concurrent.futures.wait(begun)
        for other in begun:
            other.result()


def cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
