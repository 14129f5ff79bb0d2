"""How to search an index: how much to look at, and whether a filter's rows are better scanned. Pure decisions.

Costs are nanoseconds of one core, from measurements on one machine; what counts is their ratio.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from vectorlake.metadata.index import Index

DEFAULT_RECALL: Final = 0.95
CALIBRATED_K: Final = 10
_SELECTED_POOL: Final = 3
"""How many times as many rows are measured where a selection leaves some out (`under_selection`)."""
"""The k that calibrations are for."""

_PAIR: Final = 0.30
"""To measure one element of one row for one query in float64."""
_PAIR_BATCH: Final = 0.02
"""The same by certified integer products, in batches."""
_GATHER_ROW: Final = 60.0
"""To find one row by position."""
_GATHER_BYTE: Final = 0.10
"""To bring one byte of it in."""
_CODE_BYTE: Final = 0.08
"""To score one byte of codes."""
_HOP: Final = 900.0
"""To follow one node of a graph, its neighbours scored."""
_NOMINATED: Final = 150.0
"""To measure one nominated row of usual size exactly, beside its bytes."""
_ASK: Final = 50_000.0
"""To ask a segment at all."""
_FEW: Final = 4
"""Batches up to so many queries are measured pair by pair."""


class Strategy(enum.StrEnum):
    """How rows that may be found are looked at."""

    PROBE = "probe"
    """Segments nominate among all live rows."""
    PROBE_SELECTED = "probe the selected rows"
    """Segments nominate among the slots that the filter leaves."""
    SCAN_SELECTED = "scan the selected rows"
    """Every row that the filter leaves is measured."""


@dataclass(frozen=True)
class Effort:
    """How much a segment looks at.

    Attributes:
        effort: partitions, or beam width.
        pool: slots to nominate for each query.
        recall: as calibrated; None where it is not known.
        why: where the numbers come from.
    """

    effort: int
    pool: int
    recall: float | None
    why: str


@dataclass(frozen=True)
class Wish:
    """How much the caller wants to be looked at; what is None is chosen.

    Attributes:
        effort: partitions (nprobe) or mean visits (ef).
        pool: slots to nominate.
        target: recall to aim at.
    """

    effort: int | None = None
    pool: int | None = None
    target: float | None = None


def settle_effort(
    index: Index, ladder: Sequence[tuple[int, int]], wish: Wish, *, k: int, largest: int
) -> Effort:
    """Pick effort and pool: as wished, else the least that reached the target when the model was calibrated.

    Between two rungs recall is taken to grow with the logarithm of the effort; it grows faster at first, so that this
    errs on the safe side.

    Args:
        index: its calibration is looked at.
        ladder: (effort, pool) for k = 10 in ascending order, where it has no calibration.
        wish: what the caller gave.
        k: neighbours wanted; pools grow with it.
        largest: the effort beyond which more changes nothing.
    """
    known = tuple(index.calibration)
    if wish.effort is not None:
        rungs = known or tuple((effort, pool, math.nan) for effort, pool in ladder)
        near = next((rung for rung in rungs if rung[0] >= wish.effort), rungs[-1] if rungs else None)
        pool = near[1] if near else CALIBRATED_K
        recall = near[2] if near and near[0] == wish.effort and k <= CALIBRATED_K else None
        effort = min(wish.effort, largest)
        return Effort(effort, _pool(wish, pool, k), _number(recall), "as given")
    target = DEFAULT_RECALL if wish.target is None else wish.target
    if not known:
        effort, pool = ladder[-1] if ladder else (largest, CALIBRATED_K)
        return Effort(
            min(effort, largest),
            _pool(wish, pool, k),
            None,
            "the most, as the index has no calibration",
        )
    reached = next((i for i, rung in enumerate(known) if rung[2] >= target), None)
    if reached is None:
        effort, pool, recall = known[-1]
        why = f"the most: recall@10 of {target:g} was not reached when the index was calibrated"
        return Effort(min(effort, largest), _pool(wish, pool, k), recall, why)
    effort, pool, recall = known[reached]
    if reached and known[reached - 1][2] < recall:
        low = known[reached - 1]
        share = (target - low[2]) / (recall - low[2])
        effort = math.ceil(_between(low[0], effort, share))
        pool = math.ceil(_between(low[1], pool, share))
        recall = target
    why = f"calibrated for recall@10 of {target:g}"
    return Effort(min(effort_for(effort, k), largest), _pool(wish, pool, k), recall, why)


def under_selection(effort: Effort, wish: Wish) -> Effort:
    """The same with more rows measured, for a selection of rows.

    Where a query's own surroundings are left out, all that remains is about equally far, and the estimates of short codes
    don't tell it apart.
    """
    return effort if wish.pool is not None else replace(effort, pool=_SELECTED_POOL * effort.pool)


def _pool(wish: Wish, pool: int, k: int) -> int:
    return pool_for(pool, k) if wish.pool is None else max(wish.pool, k)


def pool_for(pool: int, k: int) -> int:
    """The pool for another k than 10: larger for more, a little less than as many times."""
    grown: float = pool * max(1.0, k / CALIBRATED_K) ** 0.85
    return max(k, math.ceil(grown))


def effort_for(effort: int, k: int) -> int:
    """The effort for another k than 10: farther neighbours lie in more partitions."""
    return effort if k <= CALIBRATED_K else math.ceil(effort * (k / CALIBRATED_K) ** 0.25)


@dataclass(frozen=True)
class Facts:
    """What a strategy is chosen from.

    Attributes:
        queries: how many.
        dimension: elements of a vector.
        row_bytes: bytes of one.
        slots: slots of all segments.
        segments: how many.
        survivors: rows that the selection leaves, in segments; None without a selection.
        effort: how much each segment would look at.
        largest: the effort that looks at everything.
        graph: whether segments are graphs.
        forced: whether the caller said how much to look at, so that segments are asked in any case.
    """

    queries: int
    dimension: int
    row_bytes: int
    slots: int
    segments: int
    survivors: int | None
    effort: Effort
    largest: int
    graph: bool
    forced: bool


@dataclass(frozen=True)
class Choice:
    """A strategy, and what each possible one was estimated to cost, in nanoseconds."""

    strategy: Strategy
    costs: Mapping[Strategy, float]


def choose_strategy(facts: Facts) -> Choice:
    """The cheapest way to look at the rows that a selection leaves; without one, segments are asked."""
    if facts.survivors is None:
        return Choice(Strategy.PROBE, {Strategy.PROBE: _probing(facts, 1.0)})
    selectivity = facts.survivors / max(facts.slots, 1)
    costs = {
        Strategy.PROBE_SELECTED: _probing(facts, selectivity),
        Strategy.SCAN_SELECTED: _scanning(facts),
    }
    if facts.forced:
        return Choice(Strategy.PROBE_SELECTED, costs)
    return Choice(min(costs, key=lambda strategy: costs[strategy]), costs)


def _probing(facts: Facts, selectivity: float) -> float:
    """Fewer selected rows mean more partitions until as many were seen; a graph follows as many more nodes."""
    pool = facts.effort.pool * (_NOMINATED + facts.row_bytes * _GATHER_BYTE)
    if facts.graph:
        looked = facts.effort.effort / max(selectivity, 1e-6) * _HOP * facts.segments
    else:
        share = min(1.0, facts.effort.effort / max(facts.largest, 1) / max(selectivity, 1e-6))
        looked = share * facts.slots * (facts.dimension / 8) * _CODE_BYTE
    return facts.segments * _ASK + facts.queries * (looked + pool)


def _scanning(facts: Facts) -> float:
    rows = facts.survivors or 0
    pair = _PAIR if facts.queries <= _FEW else _PAIR_BATCH
    gathered = _GATHER_ROW + facts.row_bytes * _GATHER_BYTE
    return rows * (gathered + facts.queries * facts.dimension * pair)


def _between(low: float, high: float, share: float) -> float:
    if low <= 0 or high <= 0:
        return low + (high - low) * share
    return math.exp(math.log(low) + (math.log(high) - math.log(low)) * share)


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
