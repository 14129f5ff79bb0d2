"""The vertices that a search has met: those it may still visit, in no order, and those it has visited.

A list kept in order is moved for each vertex that is met, seven a visit; only one is taken. To look through all that are
left for the least, several at a time, costs less, and so does to drop many at once when there are too many.

A frontier is an array of `width + ROOM` keys: vertices to visit from its beginning, visited ones from its end.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from vectorlake.kernels.distance import address_of, pointer_to
from vectorlake.kernels.graph.record import DEGREE
from vectorlake.kernels.jit import inner

_EXCESS: Final = 64
"""So many more than its width are in a wide frontier before some are dropped."""
ROOM: Final = _EXCESS + DEGREE + 1


@inner
def run_of(keys: Any, first: Any, count: Any) -> Any:
    """A view of keys[first : first + count] that owns nothing."""
    return carray(pointer_to(address_of(keys) + 8 * first, np.int64(0)), (count,))


@inner
def least(keys: Any, count: int) -> tuple[Any, Any]:
    """The least of keys[:count], at least one, and its place. Keys are distinct."""
    found = keys[0]
    for i in range(count):
        found = min(found, keys[i])
    place = 0
    for i in range(count):
        place += i if keys[i] == found else 0
    return found, place


@inner
def below(keys: Any, count: int, limit: int) -> Any:
    """How many of keys[:count] are below a limit."""
    smaller = np.int64(0)
    for i in range(count):
        smaller += np.int64(keys[i] < limit)
    return smaller


@inner
def excess(width: int) -> Any:
    """How many more than its width are in a frontier before some are dropped; a quarter of them may stay.

    What is dropped may come back with a better estimate, from nearer by. In narrow beams much depends on that: they take few
    more than their width, or none.
    """
    return min(_EXCESS, (width * width * width) >> 14) if width < 2 * _EXCESS else _EXCESS


@inner
def crowded(left: int, visited: int, width: int) -> Any:
    """Whether some must be dropped before more are met."""
    return left + visited > width + excess(width)


@inner
def cutoff(frontier: Any, left: int, visited: int, width: int) -> Any:
    """A key that `width` keys are below, or a few more: what is not below it won't be visited.

    Found by bisection of numbers, for it may be any between two keys.
    """
    past = run_of(frontier, frontier.shape[0] - visited, visited)
    low, high = frontier[0], frontier[0]
    for i in range(left):
        low, high = min(low, frontier[i]), max(high, frontier[i])
    for i in range(visited):
        low, high = min(low, past[i]), max(high, past[i])
    high += 1  # all are below it, and fewer than `width` are below the least
    most = width + (excess(width) >> 2)
    while True:
        middle = (low & high) + ((low ^ high) >> 1)
        if middle == low:
            return high
        count = below(frontier, left, middle) + below(past, visited, middle)
        if count < width:
            low = middle
        elif count > most:
            high = middle
        else:
            return middle
