"""How wide a beam is and where its search may end, for a mean number of visits: measured on the graph itself.

A search ends at the first vertex that is farther than all of its pool by a slack (`kernels.graph.beam`), so that hard
queries visit many vertices and easy ones few. That finds more with as many visits on embeddings of texts: with a beam twice
as wide, a fifth fewer visits reached recall 0.965 and two fifths fewer 0.99. On Gaussian noise, where all queries are as
hard, it finds less. What slack is right depends on how distances spread and how well codes tell them. So for each of some
numbers of visits the slack that makes for it in the mean is searched for, and taken if with it more of the nearest of some
vertices are found.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vectorlake.index.calibrate import K

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

POOL: Final = 14
"""Vectors in bytes rank the ten nearest among the first twelve."""

_EFFORTS: Final = (32, 64, 128, 256, 512)
"""Mean visits for which is measured."""
_RUNGS: Final = tuple(round(16 * 1.25**i) for i in range(38))
"""Mean visits for which is told what to do."""
_VISITS: Final = 1 << 14
"""So many vertices are visited for one measurement, but by searches for at least and at most so many vertices."""
_FEWEST: Final = 64
_QUERIES: Final = 256
_FAIR: Final = 1.05
"""Who visits so many times as much may find more for that alone: filling a pool takes visits, whatever the slack."""
_TRUTH: Final = 1024
"""Width of the beam whose finds are taken for the truth."""
_LEAST: Final = -8
_MOST: Final = 2
"""Slacks are looked for between these powers of two."""
_HALVINGS: Final = 7


@dataclass(frozen=True)
class Outcome:
    """What searches for some vertices came to.

    Attributes:
        visits: vertices visited by one in the mean.
        slots: int64 [n, POOL], nearest first; -1 where none.
    """

    visits: float
    slots: Ints


Search = Callable[[Ints, int, float], Outcome]
"""Searches for vertices, int64 [n], passing over themselves, with a beam's width and a slack."""


def measure_slacks(search: Search, vertices: Ints, share: float) -> Floats:
    """Where searches should end, so that they visit a share of their beam in the mean, where that finds more.

    Args:
        search: searches the graph.
        vertices: int64 [n], in random order.
        share: above 0; at 1 searches never end early.

    Returns:
        float32 [m, 3], for `beam_for`: mean visits, ascending, the width of the beam, and the slack, infinite where all
        of the beam is visited; empty if that is so everywhere, or there are too few vertices to tell.
    """
    slacks: list[tuple[int, float]] = []
    better: list[bool] = []
    truth, truest = np.empty((0, K), np.int64), 0
    for effort in _EFFORTS if share < 1 else ():
        width = math.ceil(effort / share)
        if 4 * width > len(vertices):
            break
        some = vertices[: max(_FEWEST, min(_QUERIES, min(_VISITS, len(vertices)) // effort))]
        slack = _slack(lambda slack, some=some, width=width: search(some, width, slack).visits, effort)  # type: ignore[misc]
        if truest < max(_TRUTH, 2 * width):
            truest = max(_TRUTH, 2 * width)
            truth = search(some, truest, math.inf).slots[:, :K]
        truth = truth[: len(some)]  # never more than before
        early, plain = search(some, width, slack), search(some, effort, math.inf)
        slacks.append((effort, slack))
        gain = _found(early.slots, truth) - _found(plain.slots, truth)
        # Where both find all, what held for fewer visits does.
        more = gain > 0 or (gain == 0 and bool(better) and better[-1])
        better.append(more and early.visits <= _FAIR * plain.visits)
    if not any(better):
        return np.empty((0, 3), np.float32)
    told = []
    for effort in _RUNGS:
        nearest = min(range(len(slacks)), key=lambda i: abs(math.log(slacks[i][0] / effort)))
        slack = _between(slacks, effort) if better[nearest] else math.inf
        early_end = 0 < slack < math.inf
        told.append((effort, math.ceil(effort / share), slack) if early_end else (effort, effort, math.inf))
    return np.array(told, np.float32)


def beam_for(slacks: Floats, effort: int) -> tuple[int, float]:
    """The width of a beam and the slack for so many visits in the mean, by what `measure_slacks` returned."""
    if not len(slacks) or effort > slacks[-1, 0]:
        return effort, math.inf
    place = max(0, int(np.searchsorted(slacks[:, 0], effort, side="right")) - 1)
    rung, width, slack = map(float, slacks[place])
    if place + 1 < len(slacks) and effort > rung:
        following, _, other = map(float, slacks[place + 1])
        if math.isfinite(slack) and math.isfinite(other):
            slack = _on_line((rung, slack), (following, other), effort)
    return math.ceil(effort * width / rung), slack


def _slack(visits: Callable[[float], float], wanted: float) -> float:
    """The slack that makes for so many visits, by bisection: more slack, more visits."""
    if visits(2.0**_MOST) < wanted:
        return math.inf
    low, high = float(_LEAST), float(_MOST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if visits(2.0**middle) < wanted else (low, middle)
    return float(2.0 ** ((low + high) / 2))


def _between(slacks: list[tuple[int, float]], effort: int) -> float:
    """The slack for so many visits: linear in their logarithm between those measured and beyond."""
    if len(slacks) == 1:
        return slacks[0][1]
    place = next((i for i in range(1, len(slacks) - 1) if effort <= slacks[i][0]), len(slacks) - 1)
    (lower, low), (upper, high) = slacks[place - 1 : place + 1]
    if math.isinf(low) or math.isinf(high):
        return math.inf
    return _on_line((lower, low), (upper, high), effort)


def _on_line(before: tuple[float, float], after: tuple[float, float], effort: float) -> float:
    """The slack on the line through two, over the logarithm of visits."""
    (lower, low), (upper, high) = before, after
    return low + math.log(effort / lower) / math.log(upper / lower) * (high - low)


def _found(slots: Ints, truth: Ints) -> float:
    """The share of true neighbours that are among those found."""
    hits = [np.isin(right[right >= 0], mine).sum() for mine, right in zip(slots, truth, strict=True)]
    return float(sum(hits)) / max(1, int((truth >= 0).sum()))
