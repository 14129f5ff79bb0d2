"""An index over token vectors: whatever changes, searching all of it is searching exactly, and less of it finds nearly all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import vectorlake as vl

SHARED = Path(__file__).parents[3] / "shared" / "data" / "multivector"
D = 16
EVERYTHING = {"nprobe": 10_000, "pool": 10_000}


def documents(count: int, seed: int) -> list[np.ndarray]:
    """Ragged documents about a few topics each."""
    topics = np.random.default_rng(0).standard_normal((40, D))
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        own = topics[rng.choice(40, 3)]
        length = int(rng.integers(1, 12))
        made.append((own[rng.integers(0, 3, length)] + rng.standard_normal((length, D)) * 0.4).astype("f4"))
    return made


def rows(some: list[Any], first: int = 0) -> pa.Table:
    values = [None if part is None else list(part) for part in some]
    return pa.table({"id": range(first, first + len(some)), "tokens": pa.array(values, vl.multivector(D))})


def indexed(metric: str = "dot", **options: Any) -> vl.Table:
    some: list[Any] = [*documents(250, 1), None, np.empty((0, D), "f4")]
    table = vl.connect("memory://").create_table("t", rows(some), properties={"write.fragment-rows": "100"})
    table.create_index("tokens", "tokens", metric=metric, **{"centroids": 16, **options})
    return table


def same_as_exact(table: vl.Table, queries: list[np.ndarray], metric: str, **options: Any) -> None:
    exact = table.knn(queries, "tokens", 12, metric, mode="exact", **options)
    assert table.knn(queries, "tokens", 12, metric, mode="index", **EVERYTHING, **options).equals(exact)


@pytest.mark.parametrize("metric", ["dot", "cosine"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_all_of_it_is_the_exact_search(metric: str, bits: int) -> None:
    same_as_exact(indexed(metric, bits=bits, calibrate=False), documents(5, 2), metric)


def test_appends_deletes_updates_merges_and_filters() -> None:
    table, queries = indexed(calibrate=False), documents(4, 3)
    table.delete("id % 9 = 0")
    same_as_exact(table, queries, "dot")
    table.append(rows(documents(60, 4), 1000))
    table.update({"tokens": "tokens"}, where="id < 20")
    same_as_exact(table, queries, "dot")
    same_as_exact(table, queries, "dot", filter="id % 5 = 1")
    same_as_exact(table, queries, "dot", include=[1, 7, 255, 260], exclude=[7])
    table.optimize_indexes()
    assert table.explain_knn(queries, "tokens", 5, mode="index").uncovered_rows == 0
    same_as_exact(table, queries, "dot")
    table.compact()
    same_as_exact(table, queries, "dot", filter="id >= 1000")


def test_a_little_of_it_finds_nearly_all() -> None:
    table, queries = indexed(), documents(40, 5)
    exact = table.knn(queries, "tokens", 10, "dot", mode="exact")
    told = table.explain_knn(queries, "tokens", 10, target_recall=0.9)
    assert told.scored < 40 * 250
    assert recall(told.found, exact) >= 0.85


def test_it_is_evaluated_and_explained() -> None:
    table = indexed()
    own = table.evaluate_index("tokens_tokens", sample=20, k=5)
    assert own.sampled
    assert own.recall >= 0.8
    assert table.evaluate_index("tokens_tokens", documents(6, 9), k=5, nprobe=16, pool=250).recall == 1.0
    with pytest.raises(vl.InvalidInputError, match="use knn"):
        table.searcher("tokens")
    assert "(tokens)" in str(table.explain_knn(documents(2, 2), "tokens", 3, mode="index"))


def recall(found: pa.Table, exact: pa.Table) -> float:
    pairs = [set(zip(t["query"].to_pylist(), t["row_id"].to_pylist(), strict=True)) for t in (found, exact)]
    return len(pairs[0] & pairs[1]) / len(pairs[1])


def test_null_and_empty_queries_and_few_rows() -> None:
    table = indexed(calibrate=False)
    queries: list[Any] = [None, documents(1, 6)[0], np.empty((0, D), "f4")]
    same_as_exact(table, queries, "dot")
    same_as_exact(table, queries, "dot", filter="id < 3")
    small = vl.connect("memory://").create_table("t", rows(documents(3, 7)))
    small.create_index("tokens", "tokens", metric="cosine")
    same_as_exact(small, documents(2, 8), "cosine")


def test_what_does_not_fit_is_refused() -> None:
    table = vl.connect("memory://").create_table("t", rows(documents(30, 1)))
    with pytest.raises(vl.InvalidInputError, match="metrics are cosine, dot"):
        table.create_index("tokens", "tokens", metric="l2")
    with pytest.raises(vl.InvalidInputError, match="kind='tokens'"):
        table.create_index("tokens", "ivf", metric="dot")
    with pytest.raises(vl.InvalidInputError, match="bits must be"):
        table.create_index("tokens", "tokens", metric="dot", bits=3)
    plain = vl.connect("memory://").create_table("p", {"vec": np.ones((30, 4), "f4")})
    with pytest.raises(vl.InvalidInputError, match="kind='ivf'"):
        plain.create_index("vec", "tokens", metric="dot")


@pytest.mark.skipif(not SHARED.exists(), reason="the shared multivectors are not here")
def test_recall_on_real_tokens() -> None:
    data = pq.read_table(SHARED / "documents.parquet", columns=["tokens"]).slice(0, 1000)
    queries = pq.read_table(SHARED / "queries.parquet", columns=["tokens"]).slice(0, 50)
    table = vl.connect("memory://").create_table("t", data)
    table.create_index("tokens", "tokens", metric="dot", centroids=256)
    exact = table.knn(queries, "tokens", 10, "dot", mode="exact")
    told = table.explain_knn(queries, "tokens", 10, target_recall=0.98)
    assert recall(told.found, exact) >= 0.95
    assert told.candidates < 50 * 1000 / 2
