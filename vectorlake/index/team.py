"""Threads that share out rows; compiled functions leave the interpreter free meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def share(function: Callable[[int, int], None], count: int, *, threads: int, step: int) -> None:
    """Call `function(first, end)` for ranges that make up range(count), of at most `step`; returns when all are done."""
    parts = [(first, min(first + step, count)) for first in range(0, count, step)]
    helpers = min(threads, len(parts)) - 1
    following = itertools.count()

    def work() -> None:
        while (place := next(following)) < len(parts):
            function(*parts[place])

    if helpers < 1:
        work()
        return
    with ThreadPoolExecutor(helpers, "vectorlake-ivf") as pool:
        others = [pool.submit(work) for _ in range(helpers)]
        work()
        for other in others:
            other.result()
