"""The graph kind beyond what every kind promises: recall of the beam, filters, duplicates, and equal kernels everywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vectorlake.errors import InvalidInputError
from vectorlake.index.calibrate import calibrate
from vectorlake.index.graph import GraphKind
from vectorlake.index.protocol import NO_SLOT, Ask, Nominated, Searcher, takes_turns
from vectorlake.index.slots import slot_words
from vectorlake.kernels import Metric, pairwise_distances
from vectorlake.kernels.capability import has_avx2
from vectorlake.kernels.counter import counter
from vectorlake.kernels.distance import address_of
from vectorlake.kernels.graph import lanes, rotation
from vectorlake.kernels.graph.record import STEP, Layout
from vectorlake.kernels.jit import entry
from vectorlake.kernels.team import Team
from vectorlake.testing.index_kinds import Recipe, RowsInMemory

ROWS, DIMENSION = 5_000, 40
EFFORT = 64
"""So small that the beam is searched, and not all rows measured."""


def clustered(rows: int, *, seed: int = 1, centres: int = 60) -> npt.NDArray[np.float32]:
    means = np.random.default_rng(0).normal(size=(centres, DIMENSION))
    rng = np.random.default_rng(seed)
    values = means[rng.integers(0, centres, rows)] + 0.6 * rng.normal(size=(rows, DIMENSION))
    return values.astype(np.float32)


VECTORS = clustered(ROWS)
QUERIES = clustered(60, seed=2)


@pytest.fixture(scope="module", params=sorted(GraphKind.metrics))
def opened(request: pytest.FixtureRequest) -> tuple[Metric, Searcher]:
    return request.param, Recipe(GraphKind(), request.param).make(VECTORS).opened()


def recall(
    searcher: Searcher, metric: Metric, ask: Ask, allowed: npt.NDArray[np.bool_] | None = None
) -> float:
    """Recall@10 among what is allowed."""
    known = pairwise_distances(ask.queries, VECTORS, metric)
    if allowed is not None:
        known[:, ~allowed] = np.inf
    count = min(10, len(VECTORS) if allowed is None else int(allowed.sum()))
    truth = np.argsort(known, axis=1, kind="stable")[:, :count]
    slots = searcher.search(ask).slots
    return float(np.mean([np.isin(right, mine).mean() for right, mine in zip(truth, slots, strict=True)]))


def test_the_beam_finds_nearly_all_and_visits_few(opened: tuple[Metric, Searcher]) -> None:
    metric, searcher = opened
    for queries in (QUERIES, QUERIES[:1]):
        found = searcher.search(Ask(queries, 20, EFFORT))
        assert 0 < found.probed <= 2 * EFFORT * len(queries)
    assert recall(searcher, metric, Ask(QUERIES, 20, EFFORT)) >= 0.95
    assert recall(searcher, metric, Ask(QUERIES, 20, 256)) >= 0.99


def test_alone_together_and_on_threads_are_the_same(opened: tuple[Metric, Searcher]) -> None:
    _, searcher = opened
    together = searcher.search(Ask(QUERIES, 12, EFFORT))
    threaded = searcher.search(Ask(np.tile(QUERIES, (4, 1)), 12, EFFORT, threads=2))
    for i in range(len(QUERIES)):
        alone = searcher.search(Ask(QUERIES[i : i + 1], 12, EFFORT))
        np.testing.assert_array_equal(alone.slots[0], together.slots[i])
        np.testing.assert_array_equal(threaded.slots[i + 2 * len(QUERIES)], together.slots[i])
        np.testing.assert_array_equal(alone.estimates[0], together.estimates[i])


def in_turns(searcher: Searcher, ask: Ask) -> list[Nominated]:
    shared = replace(ask, turn=counter())
    answers: list[Nominated] = []
    Team(ask.threads).together(lambda: answers.append(searcher.search(shared)))
    return answers


def test_threads_that_take_turns_answer_each_query_once(opened: tuple[Metric, Searcher]) -> None:
    _, searcher = opened
    for allowed in (None, masks()["near 0.5"]):
        share = 1.0 if allowed is None else float(allowed.mean())
        ask = Ask(QUERIES, 12, EFFORT, None if allowed is None else slot_words(allowed), share, threads=2)
        assert takes_turns(searcher, ask)
        alone = searcher.search(ask)
        answers = in_turns(searcher, ask)
        taken = [answer.taken for answer in answers if answer.taken is not None]
        assert sorted(np.concatenate(taken).tolist()) == list(range(len(QUERIES)))
        for mine, answer in zip(taken, answers, strict=True):
            np.testing.assert_array_equal(answer.slots[mine], alone.slots[mine])
        assert sum(answer.probed for answer in answers) == alone.probed
    few = slot_words(masks()["near 0.01"])
    assert not takes_turns(searcher, Ask(QUERIES, 12, EFFORT, few, 0.01)), "all of them are measured"
    assert not takes_turns(searcher, Ask(QUERIES, 12, searcher.largest_effort))


def masks() -> dict[str, npt.NDArray[np.bool_]]:
    rng = np.random.default_rng(3)
    away = np.linalg.norm(VECTORS - QUERIES[:1], axis=1)
    order = np.argsort(away)
    made = {f"random {share:g}": rng.random(ROWS) < share for share in (0.5, 0.1, 0.01, 0.001)}
    for share in (0.5, 0.1, 0.01):
        for name, part in (("near", order[: int(share * ROWS)]), ("far", order[-int(share * ROWS) :])):
            made[f"{name} {share:g}"] = np.isin(np.arange(ROWS), part)
    return made


@pytest.mark.parametrize("effort", [24, 40, EFFORT])
@pytest.mark.parametrize("name", masks())
def test_recall_under_a_filter(opened: tuple[Metric, Searcher], name: str, effort: int) -> None:
    metric, searcher = opened
    allowed = masks()[name]
    plain = recall(searcher, metric, Ask(QUERIES, 20, effort))
    ask = Ask(QUERIES, 20, effort, slot_words(allowed), float(allowed.mean()))
    slots = searcher.search(ask).slots
    assert allowed[slots[slots != NO_SLOT]].all()
    assert recall(searcher, metric, ask, allowed) >= plain - 0.01


def test_queries_that_a_filter_leads_astray_are_searched_farther(opened: tuple[Metric, Searcher]) -> None:
    """Those far from all that a filter lets pass; the others cost what they cost anyway."""
    _, searcher = opened
    allowed = masks()["near 0.5"]
    away = np.linalg.norm(QUERIES - QUERIES[0], axis=1)
    outside = away > np.linalg.norm(VECTORS[allowed] - QUERIES[0], axis=1).max()
    assert 0 < outside.sum() < len(QUERIES)

    def compared(which: npt.NDArray[np.bool_]) -> float:
        ask = Ask(QUERIES[which], 20, EFFORT, slot_words(allowed), float(allowed.mean()))
        return searcher.search(ask).scored / int(which.sum())

    assert compared(outside) > 2 * compared(~outside)


def test_a_row_that_is_omitted_is_neither_found_nor_a_way_to_others(opened: tuple[Metric, Searcher]) -> None:
    metric, searcher = opened
    rows = np.arange(0, ROWS, 25)
    passed = searcher.search(Ask(VECTORS[rows], 12, 16, omitted=rows)).slots
    plain = searcher.search(Ask(VECTORS[rows], 12, 16)).slots
    assert not (passed == rows[:, None]).any()
    if metric is not Metric.DOT:
        assert (plain == rows[:, None]).any(axis=1).mean() > 0.95
    known = pairwise_distances(VECTORS[rows], VECTORS, metric)
    known[np.arange(len(rows)), rows] = np.inf
    truth = np.argsort(known, axis=1, kind="stable")[:, :10]

    def found(slots: npt.NDArray[np.int64]) -> float:
        return float(np.mean([np.isin(right, mine).mean() for right, mine in zip(truth, slots, strict=True)]))

    assert 0.5 < found(passed) < 1


def test_calibration_tells_the_recall_of_queries_that_are_no_rows() -> None:
    made = Recipe(GraphKind(), Metric.L2).make(VECTORS)
    searcher = made.opened()
    rng = np.random.default_rng(4)
    rows = RowsInMemory(VECTORS, np.arange(ROWS))
    rungs = calibrate(made.kind, made.config, searcher, rows, rng=rng, threads=1)
    queries = clustered(400, seed=9)
    for effort, pool, told in rungs[:6]:
        assert told - 0.02 < recall(searcher, Metric.L2, Ask(queries, pool, effort)) < told + 0.1


def test_duplicates_are_all_found() -> None:
    distinct = clustered(40, seed=5)
    vectors = np.repeat(distinct, 100, axis=0)[np.random.default_rng(6).permutation(4_000)]
    searcher = Recipe(GraphKind(), Metric.L2).make(vectors).opened()
    found = searcher.search(Ask(distinct[:5], 100, 16))
    assert found.scored < 5 * len(vectors)
    for query, slots in zip(distinct, found.slots, strict=False):
        assert (vectors[slots] == query).all()
        assert len(set(slots.tolist())) == 100


def test_every_row_finds_itself() -> None:
    """Also outliers, and rows in far, small clusters."""
    vectors = clustered(3_000)
    vectors[::100] *= 9
    vectors[1_500:1_520] += 6
    searcher = Recipe(GraphKind(), Metric.L2).make(vectors).opened()
    slots = searcher.search(Ask(vectors, 4, 64)).slots
    assert (slots == np.arange(3_000)[:, None]).any(axis=1).all()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_doubles_beyond_the_range_of_singles(scale: float) -> None:
    vectors = clustered(1_500).astype(np.float64) * scale
    made = Recipe(GraphKind(), Metric.L2).make(vectors)
    queries = vectors[:20].astype(np.float32)
    slots = made.opened().search(Ask(queries, 5, 64)).slots
    assert scale > 1 or (slots == np.arange(20)[:, None]).any(axis=1).all()


def test_threads_and_blocks_change_no_bit() -> None:
    vectors = clustered(3_000)
    one = Recipe(GraphKind(), Metric.COSINE, threads=1).make(vectors).segment
    other = Recipe(GraphKind(), Metric.COSINE, threads=2).make(vectors, block_rows=700).segment
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="memory_limit"):
        Recipe(GraphKind(), Metric.L2, memory=1 << 20).make(VECTORS)


@pytest.mark.parametrize("dimension", [1, 40, 64, 100, 128, 384, 500])
def test_rotation_keeps_products(dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    vectors = rng.normal(size=(6, dimension)).astype(np.float32)
    padded = Layout(dimension).padded
    signs = (2 * rng.integers(0, 2, (rotation.ROUNDS, padded)) - 1).astype(np.int8)
    out, usable = np.empty((6, padded), np.float32), np.empty(6, np.bool_)
    centre = np.zeros(dimension, np.float32)
    rotation.prepare_rows(0, vectors, 0, 6, centre, False, signs, out, usable)
    assert usable.all()
    np.testing.assert_allclose(out @ out.T, vectors @ vectors.T, rtol=1e-4, atol=1e-4 * dimension)
    if dimension == 384:
        # One element is spread over all: no code of one bit depends on few.
        single = np.zeros((1, dimension), np.float32)
        single[0, 3] = 1
        rotation.prepare_rows(0, single, 0, 1, centre, False, signs, out, usable)
        assert np.abs(out[0]).max() < 0.5


@entry("void(int64, int64, int64, int64, int64)")
def sums_both_ways(codes: int, table: int, blocks: int, fast: int, plain: int) -> None:
    lanes.code_sums_avx2(codes, table, blocks, fast, codes)
    lanes.code_sums_portable(codes, table, blocks, plain, codes)


@entry("void(int64, int64, int64, int64, int32[::1])")
def products_both_ways(left: int, right: int, query: int, dimension: int, out: Any) -> None:
    out[0] = lanes.product_avx2(left, right, dimension)
    out[1] = lanes.product_portable(left, right, dimension)
    out[2] = lanes.query_product_avx2(left, query, dimension)
    out[3] = lanes.query_product_portable(left, query, dimension)


@entry("void(int64, int64, int64, int64, int32[::1], int32[::1])")
def fours_both_ways(left: int, stride: int, right: int, dimension: int, fast: Any, plain: Any) -> None:
    lanes.products_of_four_avx2(left, stride, right, dimension, address_of(fast))
    lanes.products_of_four_portable(left, stride, right, dimension, address_of(plain))


@pytest.mark.skipif(not has_avx2(), reason="this CPU has no AVX2, so there is one way only")
@pytest.mark.parametrize("blocks", [1, 2, 6, 16, 128])
def test_kernels_with_and_without_avx2_agree(blocks: int) -> None:
    rng = np.random.default_rng(blocks)
    padded = blocks * STEP
    codes = rng.integers(0, 256, 4 * padded).astype(np.uint8)
    table = rng.integers(0, 32, 4 * padded).astype(np.uint8)
    fast, plain = np.zeros(32, np.uint16), np.zeros(32, np.uint16)
    sums_both_ways(codes.ctypes.data, table.ctypes.data, blocks, fast.ctypes.data, plain.ctypes.data)
    np.testing.assert_array_equal(fast, plain)
    patterns = codes.reshape(-1, 16)
    nibbles = np.concatenate([patterns & 15, patterns >> 4], axis=1)
    expected = np.take_along_axis(table.reshape(-1, 16), nibbles.astype(np.int64), axis=1).sum(axis=0)
    np.testing.assert_array_equal(fast, expected)
    left, right = rng.integers(-127, 128, (2, padded)).astype(np.int8)
    query = rng.integers(-2000, 2001, padded).astype(np.int16)
    out = np.zeros(4, np.int32)
    products_both_ways(left.ctypes.data, right.ctypes.data, query.ctypes.data, padded, out)
    one, other = int(left.astype(np.int64) @ right), int(left.astype(np.int64) @ query)
    assert out.tolist() == [one, one, other, other]
    wide = rng.integers(-127, 128, (5, padded)).astype(np.int16)
    fours, same = np.zeros(4, np.int32), np.zeros(4, np.int32)
    fours_both_ways(wide.ctypes.data, 2 * padded, wide[4].ctypes.data, padded, fours, same)
    assert fours.tolist() == same.tolist() == (wide[:4].astype(np.int64) @ wide[4]).tolist()
