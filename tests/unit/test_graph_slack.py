"""Where searches of a graph end: the slack measured for a mean number of visits, what is read off, and what it brings."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from vectorlake.errors import InvalidInputError
from vectorlake.index.graph import SLACKS, GraphKind
from vectorlake.index.graph_slack import POOL, Outcome, beam_for, measure_slacks
from vectorlake.index.protocol import Ask
from vectorlake.index.slots import slot_words
from vectorlake.kernels import Metric, pairwise_distances
from vectorlake.testing.index_kinds import Made, Recipe

VERTICES = np.arange(100_000)
TABLE = np.array([[32, 32, np.inf], [64, 128, 0.2], [128, 256, 0.4]], np.float32)


@pytest.mark.parametrize(
    ("effort", "width", "slack"),
    [
        (8, 8, math.inf),
        (32, 32, math.inf),
        (63, 63, math.inf),
        (64, 128, 0.2),
        (65, 130, 0.2045),
        (90, 180, 0.2984),
        (128, 256, 0.4),
        (129, 129, math.inf),
    ],
)
def test_beam_and_slack_are_read_off_between_rungs(effort: int, width: int, slack: float) -> None:
    assert beam_for(TABLE, effort) == (width, pytest.approx(slack, abs=1e-4))


def test_without_slacks_all_of_a_beam_is_visited() -> None:
    assert beam_for(TABLE[:0], 90) == (90, math.inf)


class Graph:
    """Visits grow with the slack up to the whole beam; what is found is told for each way to search."""

    def __init__(self, early: int, plain: int, least: float = 0.0) -> None:
        self.found, self.least = {True: early, False: plain}, least
        self.asked: list[tuple[int, int]] = []

    def __call__(self, some: npt.NDArray[np.int64], width: int, slack: float) -> Outcome:
        self.asked.append((len(some), width))
        slots = np.full((len(some), POOL), -1)
        slots[:, :10] = np.arange(10)
        is_truth = math.isinf(slack) and width >= 1024
        slots[:, 10 if is_truth else self.found[math.isfinite(slack)] : 10] = 99
        return Outcome(width if math.isinf(slack) else max(self.least, width * slack / (1 + slack)), slots)


def test_the_slack_that_makes_for_the_wanted_visits_is_found() -> None:
    graph = Graph(early=9, plain=8)
    table = measure_slacks(graph, VERTICES, 0.5)
    assert (table[:, 1] == 2 * table[:, 0]).all()
    assert table[:, 2] == pytest.approx(np.ones(len(table)), rel=0.05), "half of the beam is visited at 1"
    assert table[0, 0] == 16
    assert table[-1, 0] > 50_000
    assert {count for count, _ in graph.asked} == {64, 128, 256}


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (Graph(early=8, plain=9), "it finds less"),
        (Graph(early=9, plain=9), "it finds no more"),
        (Graph(early=9, plain=8, least=4096), "it visits more"),
    ],
)
def test_searches_do_not_end_early_where_that_brings_nothing(graph: Graph, why: str) -> None:
    assert measure_slacks(graph, VERTICES, 0.5).shape == (0, 3), why


def test_each_number_of_visits_is_decided_by_the_nearest_measured() -> None:
    table = measure_slacks(Graph(early=9, plain=8, least=60), VERTICES, 0.5)
    few = table[:, 0] < 45
    assert np.isinf(table[few, 2]).all(), "for 32 visits no slack makes, 60 are needed to begin with"
    assert np.isfinite(table[~few, 2]).all()


@pytest.mark.parametrize(("share", "count"), [(1.0, 100_000), (0.5, 255), (0.5, 0)])
def test_nothing_is_measured_where_searches_never_end_early_or_vertices_are_few(
    share: float, count: int
) -> None:
    graph = Graph(early=9, plain=8)
    assert measure_slacks(graph, VERTICES[:count], share).shape == (0, 3)
    assert not graph.asked


ROWS, DIMENSION, CLUSTERS, DIRECTIONS = 6_000, 64, 12, 48


def drawn(rows: int, seed: int) -> npt.NDArray[np.float32]:
    """Clusters of few directions and of many: queries differ in how hard they are."""
    fixed, rng = np.random.default_rng(0), np.random.default_rng(seed)
    means = fixed.normal(size=(CLUSTERS, DIMENSION))
    ways = fixed.normal(size=(CLUSTERS, DIRECTIONS, DIMENSION))
    for cluster in range(CLUSTERS):
        ways[cluster, 2 + cluster :] = 0
    which = rng.integers(0, CLUSTERS, rows)
    values = means[which] + np.einsum("ij,ijk->ik", rng.normal(size=(rows, DIRECTIONS)), ways[which])
    return (values + 0.3 * rng.normal(size=values.shape)).astype(np.float32)


VECTORS = {
    "mixed": np.concatenate([drawn(ROWS, 1), drawn(200, 2)]),
    "noise": np.random.default_rng(1).normal(size=(ROWS + 200, 32)).astype(np.float32),
}


@cache
def made(name: str, metric: Metric, visits: float = 0.5) -> Made:
    return Recipe(GraphKind(), metric, {"visits": visits}).make(VECTORS[name][:ROWS])


@cache
def truth(name: str, metric: Metric) -> npt.NDArray[np.int64]:
    known = pairwise_distances(VECTORS[name][ROWS:], VECTORS[name][:ROWS], metric)
    return np.argsort(known, axis=1, kind="stable")[:, :10]


def outcome(segment: Made, name: str, effort: int) -> tuple[float, float]:
    """Visits of a search in the mean, and the share of neighbours that were missed."""
    found = segment.opened().search(Ask(VECTORS[name][ROWS:], 14, effort))
    right = truth(name, segment.config.metric)
    hits = np.mean([np.isin(ours, mine).mean() for ours, mine in zip(right, found.slots, strict=True)])
    return found.probed / len(right), 1 - float(hits)


@pytest.mark.parametrize(
    ("name", "metric"), [*(("mixed", metric) for metric in sorted(GraphKind.metrics)), ("noise", Metric.L2)]
)
def test_as_many_visits_find_no_less(name: str, metric: Metric) -> None:
    for effort in (32, 64, 128, 256):
        (visits, missed), (visits_before, missed_before) = (
            outcome(made(name, metric, share), name, effort) for share in (0.5, 1.0)
        )
        assert 0.6 < visits / visits_before < 1.3
        assert missed <= missed_before + 0.015


def test_more_is_found_where_queries_differ_in_how_hard_they_are() -> None:
    assert len(made("mixed", Metric.L2).segment[SLACKS])
    assert not len(made("mixed", Metric.L2, 1.0).segment[SLACKS])
    assert not len(made("noise", Metric.L2).segment[SLACKS]), "there they don't"
    for effort in (64, 128):
        (visits, missed), (visits_before, missed_before) = (
            outcome(made("mixed", Metric.L2, share), "mixed", effort) for share in (0.5, 1.0)
        )
        assert visits <= visits_before
        assert missed <= 0.7 * missed_before


@pytest.mark.parametrize("share", [0.99, 0.5])
def test_a_filter_keeps_early_ends_and_recall(share: float) -> None:
    """Rows that were deleted are filtered, too: a few of them must not cost what early ends bring."""
    passing = np.random.default_rng(3).random(ROWS) < share
    known = pairwise_distances(VECTORS["mixed"][ROWS:], VECTORS["mixed"][:ROWS], Metric.L2)
    right = np.argsort(np.where(passing, known, np.inf), axis=1, kind="stable")[:, :10]
    ask = Ask(VECTORS["mixed"][ROWS:], 14, 64, slot_words(passing), share)
    found = made("mixed", Metric.L2).opened().search(ask)
    missed = 1 - np.mean([np.isin(a, b).mean() for a, b in zip(right, found.slots, strict=True)])
    visits, missed_of_all = outcome(made("mixed", Metric.L2), "mixed", 64)
    assert found.probed / len(right) <= 1.2 * visits / share
    assert missed <= missed_of_all + 0.001


def test_segments_from_before_there_were_slacks_are_searched_as_they_were() -> None:
    now = made("mixed", Metric.L2)
    before = replace(
        now,
        config=replace(now.config, options={k: v for k, v in now.config.options.items() if k != "visits"}),
        segment={name: array for name, array in now.segment.items() if name != SLACKS},
    )
    assert outcome(before, "mixed", 64) == outcome(made("mixed", Metric.L2, 1.0), "mixed", 64)


@pytest.mark.parametrize("share", [0, -0.5, 1.5, True, "half", float("nan")])
def test_a_share_of_visits_that_can_not_be_is_refused(share: object) -> None:
    with pytest.raises(InvalidInputError, match="visits must be a number above 0 and at most 1"):
        Recipe(GraphKind(), Metric.L2, {"visits": share}).config(VECTORS["noise"])
