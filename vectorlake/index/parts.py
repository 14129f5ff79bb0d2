"""How a batch of queries is cut into parts, of which threads take one after another."""

from __future__ import annotations

from typing import Final

_LARGEST: Final = 256
"""Queries that are searched together at most: their tables stay in a core's cache."""
_SMALL: Final = 128
"""A part of so many queries is not cut further where each thread has another: each part passes over all codes by itself,
and begins in Python."""
_LEAST: Final = 32
"""Nor is one of so many, however many threads there are."""
_SHARES: Final = 1.5
"""A thread takes one part of so many for each thread of what is left, so that none waits long for the last."""


def parts_of(count: int, threads: int) -> list[tuple[int, int]]:
    """Ranges that make up a batch of queries, for threads that take one after another: ever smaller ones, as one core may be
    slower."""
    least = max(_LEAST, min(_SMALL, count // (2 * threads)))
    parts = []
    first = 0
    while first < count:
        size = min(count - first, _LARGEST)
        if threads > 1:
            size = min(size, max(least, int((count - first) / (_SHARES * threads))))
        parts.append((first, first + size))
        first += size
    return parts
