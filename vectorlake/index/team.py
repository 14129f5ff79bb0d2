"""Threads that share out rows; compiled functions leave the interpreter free meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from vectorlake.kernels.team import Team


def share(function: Callable[[int, int], None], count: int, *, threads: int, step: int) -> None:
    """Call `function(first, end)` for ranges that make up range(count), of at most `step`; returns when all are done."""
    parts = [(first, min(first + step, count)) for first in range(0, count, step)]
    with Team(min(threads, len(parts))) as team:
        team.run(function, parts)
