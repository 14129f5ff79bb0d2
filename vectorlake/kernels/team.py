"""Threads that share out one step of a search."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Self


class Team:
    """Threads that share out the parts of one step; none are started for one."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self.threads > 1:
            self._pool = concurrent.futures.ThreadPoolExecutor(self.threads - 1, "vectorlake-knn")
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def run(self, function: Callable[[int, int], None], parts: Sequence[tuple[int, int]]) -> None:
        """Call the function for every part; returns when all are done."""
        if self._pool is None:
            for part in parts:
                function(*part)
            return
        following = itertools.count()

        def work() -> None:
            while (place := next(following)) < len(parts):
                function(*parts[place])

        others = [self._pool.submit(work) for _ in range(min(self.threads, len(parts)) - 1)]
        try:
            work()
        finally:
            concurrent.futures.wait(others)
        for other in others:
            other.result()


def cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
