"""How much of an index is looked at, and whether a filter's rows are scanned: pure decisions."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from vectorlake.metadata.index import Index, IndexFile
from vectorlake.search.depth import page_depth
from vectorlake.search.plan import Effort, Facts, Strategy, Wish, choose_strategy, settle_effort

INDEX = Index(
    name="i", field_id=1, kind="ivf", kind_version=1, metric="l2", dimension=384, element="float32", model_id="m",
    model=IndexFile("p", 0, "", {}), calibration=((4, 20, 0.7), (16, 40, 0.9), (64, 80, 0.98), (256, 80, 0.98)),
)  # fmt: skip
LADDER = [(1, 10), (8, 20)]


def settle(wish: Wish, k: int = 10, index: Index = INDEX, largest: int = 256) -> Effort:
    return settle_effort(index, LADDER, wish, k=k, largest=largest)


def test_a_target_picks_the_least_effort_that_reached_it() -> None:
    assert settle(Wish(target=0.9)).effort == 16
    assert settle(Wish(target=0.5)).effort == 4
    assert 16 < settle(Wish(target=0.95)).effort < 64
    assert settle(Wish(target=0.95)) == settle(Wish())
    assert settle(Wish(target=0.98)).effort == 64
    beyond = settle(Wish(target=0.999))
    assert (beyond.effort, beyond.recall) == (256, 0.98)
    assert "not reached" in beyond.why
    efforts = [settle(Wish(target=float(t))).effort for t in np.linspace(0.1, 1, 60)]
    assert efforts == sorted(efforts)


def test_what_the_caller_says_is_taken() -> None:
    assert settle(Wish(effort=16)).effort == 16
    assert settle(Wish(effort=16)).recall == 0.9
    assert settle(Wish(effort=17)).recall is None
    assert settle(Wish(effort=10_000)).effort == 256
    assert settle(Wish(effort=16, pool=500)).pool == 500
    assert settle(Wish(effort=16, pool=5)).pool == 10


def test_pools_grow_with_k_and_never_hold_fewer() -> None:
    pools = [settle(Wish(target=0.9), k=k).pool for k in (1, 5, 10, 50, 1000)]
    assert pools == sorted(pools)
    assert pools[2] == 40
    assert pools[4] >= 1000
    assert settle(Wish(target=0.9), k=1000).effort > 16


def test_without_calibration_the_most_is_looked_at() -> None:
    bare = msgspec.structs.replace(INDEX, calibration=())
    assert (settle(Wish(), index=bare).effort, settle(Wish(), index=bare).pool) == (8, 20)
    assert settle(Wish(target=0.5), index=bare).effort == 8
    assert settle(Wish(effort=3), index=bare).effort == 3


def facts(survivors: int | None, *, queries: int = 1, forced: bool = False, graph: bool = False) -> Facts:
    effort = Effort(64, 80, 0.98, "")
    return Facts(queries, 384, 1536, 1_000_000, 1, survivors, effort, 1000, graph, forced)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("queries", [1, 1000])
def test_few_rows_are_scanned_and_many_probed(graph: bool, queries: int) -> None:
    assert choose_strategy(facts(None, queries=queries, graph=graph)).strategy is Strategy.PROBE
    assert choose_strategy(facts(100, queries=queries, graph=graph)).strategy is Strategy.SCAN_SELECTED
    assert choose_strategy(facts(0, queries=queries, graph=graph)).strategy is Strategy.SCAN_SELECTED
    assert choose_strategy(facts(900_000, queries=queries, graph=graph)).strategy is Strategy.PROBE_SELECTED
    assert choose_strategy(facts(100, forced=True, graph=graph)).strategy is Strategy.PROBE_SELECTED


def test_costs_are_told_and_the_least_is_chosen() -> None:
    for survivors in (10, 1_000, 100_000, 500_000):
        choice = choose_strategy(facts(survivors))
        assert choice.costs[choice.strategy] == min(choice.costs.values())


def test_neighbouring_pages_are_as_deep() -> None:
    assert page_depth(10) == page_depth(500) == 1024
    assert page_depth(1025) == page_depth(4000) == 4096
