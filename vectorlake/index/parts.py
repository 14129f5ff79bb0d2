"""How a batch of queries is cut into parts, of which threads take one after another."""

from __future__ import annotations

from typing import Final

_LARGEST_PART: Final = 256
"""Queries that are searched together at most: their tables stay in a core's cache."""
_LEAST_PART: Final = 32
"""A part of so many queries is not cut further: each would pass over all codes by itself."""
_SHARES: Final = 2
"""A thread takes one part of so many for each thread of what is left, so that none waits long for the last."""


def parts_of(count: int, threads: int) -> list[tuple[int, int]]:
    """Ranges that make up a batch of queries, for threads that take one after another: ever smaller ones, as one core may be
    slower."""
    parts = []
    first = 0
    while first < count:
        size = min(count - first, _LARGEST_PART)
        if threads > 1:
            size = min(size, max(_LEAST_PART, (count - first) // (_SHARES * threads)))
        parts.append((first, first + size))
        first += size
    return parts
