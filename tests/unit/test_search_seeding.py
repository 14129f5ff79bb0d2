"""Bounds from an index make an exact search quicker and change no bit of its answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vectorlake as vl
from vectorlake.errors import InvalidInputError
from vectorlake.kernels import ExactKnn, Metric
from vectorlake.search import seeding


def clustered(rows: int, rng: np.random.Generator) -> np.ndarray:
    centres = rng.standard_normal((30, 24)) * 3
    return (centres[rng.integers(0, 30, rows)] + rng.standard_normal((rows, 24))).astype("f4")


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
def test_the_answer_is_that_of_the_scan(metric: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    vectors = clustered(3000, rng)
    vectors[100:130] = vectors[7]  # ties at the k-th place
    table = vl.connect(str(tmp_path)).create_table("t", {"id": range(3000), "vec": vectors})
    queries = np.concatenate([vectors[:40], clustered(40, rng)])
    before = table.knn(queries, k=10, metric=metric)
    table.create_index("vec", nlist=60, metric=metric, calibrate=False)
    table.create_index("vec", "flat", metric=metric, calibrate=False)
    asked: list[Any] = []
    bounds_by_index = seeding.bounds_by_index

    def spy(*args: Any, **options: Any) -> Any:
        asked.append(bounds_by_index(*args, **options))
        return asked[-1]

    monkeypatch.setattr(seeding, "_LEAST_ROWS", 1)
    monkeypatch.setattr(seeding, "bounds_by_index", spy)
    assert table.knn(queries, k=10, metric=metric, mode="exact").equals(before)
    assert np.isfinite(asked[0]).mean() > 0.9
    table.delete("id < 20")
    table.append({"id": range(3000, 3020), "vec": vectors[:20]})
    seeded = table.knn(queries, k=10, metric=metric, mode="exact")
    monkeypatch.setattr(seeding, "bounds_by_index", lambda *args, **options: None)
    assert seeded.equals(table.knn(queries, k=10, metric=metric, mode="exact"))
    assert len(asked) == 2
    assert asked[1] is not None


@pytest.mark.parametrize("queries", [3, 40])
def test_nothing_beyond_a_bound_is_found_and_everything_at_it(queries: int) -> None:
    rng = np.random.default_rng(4)
    vectors, asked = clustered(2000, rng), clustered(queries, rng)
    whole = ExactKnn(asked, k=12, metric=Metric.L2)
    whole.add(vectors, np.arange(2000))
    row_ids, distances, _ = whole.result()
    bounded = ExactKnn(asked, k=12, metric=Metric.L2, bounds=np.ascontiguousarray(distances[:, 4]))
    bounded.add(vectors, np.arange(2000))
    ids, found, counts = bounded.result()
    assert counts.tolist() == [5] * queries
    assert (ids[:, :5] == row_ids[:, :5]).all()
    assert (ids[:, 5:] == -1).all()
    assert (found[:, :5] == distances[:, :5]).all()
    assert np.isinf(found[:, 5:]).all()


def test_bounds_are_one_for_each_query() -> None:
    with pytest.raises(InvalidInputError, match="2 queries came with bounds of shape"):
        ExactKnn(np.zeros((2, 4), "f4"), k=1, metric=Metric.L2, bounds=np.zeros(3))
