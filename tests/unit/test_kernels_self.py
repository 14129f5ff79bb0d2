"""A self-join that multiplies each pair once equals a scan in which no row matches itself, bit for bit."""

from __future__ import annotations

import threading
from typing import Any

import kernel_reference
import numpy as np
import pytest
from test_kernels_knn import HARD, RNG, SUMS, TYPES, drawn

from vectorlake.kernels import Metric, self_frame
from vectorlake.kernels import aim as aiming
from vectorlake.kernels.aim import Aim, aim
from vectorlake.kernels.capability import has_avx2
from vectorlake.kernels.pairing import Meetings
from vectorlake.kernels.self_knn import nearest_others

needs_avx2 = pytest.mark.skipif(not has_avx2(), reason="this CPU has no AVX2")


def check(vectors: np.ndarray, k: int, metric: Metric, *, threads: int = 2, block_rows: int = 96) -> None:
    ids = RNG(len(vectors)).permutation(len(vectors)).astype(np.int64)
    half = len(vectors) // 3
    blocks = [(vectors[:half], ids[:half]), (vectors[half:], ids[half:])]
    found = nearest_others(blocks, k=k, metric=metric, threads=threads, block_rows=block_rows)
    kernel_reference.assert_equal_to_self_scan(found, vectors, k, metric, ids=ids)


@needs_avx2
@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("rows", "d", "k"), [(700, 37, 10), (40, 1, 50), (500, 64, 1), (1, 3, 2)])
def test_equals_a_float64_scan(kind: str, metric: Metric, rows: int, d: int, k: int) -> None:
    check(drawn(2, (rows, d), kind), k, metric)


@needs_avx2
@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize("name", HARD)
def test_hard_data(name: str, metric: Metric) -> None:
    check(HARD[name][:400], 9, metric)


@needs_avx2
@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize("threads", [1, 3])
def test_with_a_head(metric: Metric, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    choose, kept = self_frame.choose_head, []

    def short(*args: object, **options: object) -> np.ndarray:
        kept.append(choose(*args, **options, kept=24))
        return kept[-1]

    monkeypatch.setattr(self_frame, "choose_head", short)
    spread = np.float32(0.9) ** np.arange(80, dtype="f4")
    check(drawn(3, (600, 80), "f4") * spread, 6, metric, threads=threads)
    assert [len(directions) for directions in kept] == [24]


class Tried:
    """`aim`, and what it found; no table is too small for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: list[Aim | None] = []
        monkeypatch.setattr(self_frame, "aim", self)
        monkeypatch.setattr(self_frame, "_LEAST_TO_AIM", 100)

    def __call__(self, *args: Any, **options: Any) -> Aim | None:
        self.found.append(aim(*args, **options))
        return self.found[-1]


def spread(kind: str, count: int, dimension: int) -> np.ndarray:
    """Rows with leading directions, evenly spread or in clusters, with some null vectors' like, zeros and duplicates."""
    rng = RNG(7)
    lengths = np.float32(0.97) ** np.arange(dimension, dtype="f4")
    rows = rng.standard_normal((count, dimension)) * lengths + 1
    if kind == "clustered":
        rows += 2 * (rng.standard_normal((12, dimension)) * lengths)[rng.integers(12, size=count)]
    rows[::97] = 0
    rows[1::50] = rows[2::50]
    return rows


@needs_avx2
@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize(("kind", "stored"), [("even", "f4"), ("clustered", "f2"), ("clustered", "i1")])
def test_a_recall_is_reached_by_a_first_look(
    metric: Metric, kind: str, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = Tried(monkeypatch)
    # However many pairs pass.
    monkeypatch.setattr(aiming, "_EXACT", np.inf)
    vectors = spread(kind, 2500, 96)
    vectors = (vectors * 12).clip(-128, 127).astype("i1") if stored == "i1" else vectors.astype(stored)
    rows = np.arange(len(vectors), dtype=np.int64)
    parts = [(vectors[:900], rows[:900]), (vectors[900:], rows[900:])]
    exact = nearest_others([(vectors, rows)], k=10, metric=metric)
    for recall in (0.9, 0.99):
        nearly = nearest_others(parts, k=10, metric=metric, recall=recall, threads=2)
        assert np.array_equal(nearly.own, exact.own)
        assert np.array_equal(nearly.counts, exact.counts)
        # A duplicate of a neighbour is as good.
        near = nearly.distances <= exact.distances[:, -1:]
        assert near.mean() > recall - 0.02
        assert (nearly.row_ids != nearly.own[:, None]).all()
        for row in range(0, len(nearly.own), 100):
            own = nearly.own[row]
            measured = kernel_reference.scan_distances(
                vectors[own : own + 1], vectors[nearly.row_ids[row]], metric
            )
            assert np.array_equal(measured[0], nearly.distances[row])
    assert all(found is not None and len(found.rotation) <= 64 for found in tried.found)


@needs_avx2
def test_what_a_first_look_tells_nothing_about_is_joined_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Tried(monkeypatch)
    vectors = RNG(3).standard_normal((1500, 64)).astype("f4")
    vectors *= np.exp(3 * RNG(4).standard_normal((1500, 1))).astype("f4")
    rows = np.arange(len(vectors))
    exact, nearly = (
        nearest_others([(vectors, rows)], k=5, metric=Metric.L2, recall=recall) for recall in (1.0, 0.99)
    )
    assert tried.found == [None]
    assert np.array_equal(nearly.row_ids, exact.row_ids)


@needs_avx2
@pytest.mark.parametrize("name", HARD)
def test_hard_data_with_a_recall(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_frame, "_LEAST_TO_AIM", 100)
    vectors = HARD[name][:400]
    found = nearest_others([(vectors, np.arange(400))], k=5, metric=Metric.L2, recall=0.9)
    assert ((found.row_ids >= 0).sum(axis=1) == found.counts).all()


@needs_avx2
def test_no_rows() -> None:
    found = nearest_others([], k=3, metric=Metric.L2)
    assert found.row_ids.shape == (0, 3)
    assert len(found.own) == 0


def test_pairs_meet_once_and_never_in_two_places() -> None:
    blocks = 9
    pairs = np.stack(np.triu_indices(blocks), axis=1).astype(np.int64)
    meetings, met, busy, clashes = Meetings(pairs), [], [0] * blocks, []

    def work() -> None:
        while (pair := meetings.take()) is not None:
            for block in set(pair):
                busy[block] += 1
                clashes.append(busy[block] > 1)
            met.append(pair)
            for block in set(pair):
                busy[block] -= 1
            meetings.give_back(pair)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(met) == [tuple(pair) for pair in pairs.tolist()]
    assert not any(clashes)
