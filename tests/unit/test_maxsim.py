"""MaxSim over multivector columns: bit for bit a float64 scan, for ragged, empty, null and hostile documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_reference import lane_sum

import vectorlake as vl
from vectorlake.kernels import Metric
from vectorlake.kernels.maxsim import ExactMaxSim, Tokens

D = 12
METRICS = [Metric.DOT, Metric.COSINE]
SHARED = Path(__file__).parents[3] / "shared" / "data" / "multivector"


def maxsim(query: np.ndarray, document: np.ndarray, metric: Metric) -> float:
    """Minus MaxSim in plain numpy; infinity where there is none."""
    left, right = query.astype("f8"), document.astype("f8")
    right = right[np.isfinite(right).all(axis=1)]
    with np.errstate(all="ignore"):
        if metric is Metric.COSINE:
            lengths = [np.sqrt(lane_sum(side * side)) for side in (left, right)]
            left, right = left[lengths[0] > 0], right[(lengths[1] > 0) & np.isfinite(lengths[1])]
        products = lane_sum(left[:, None] * right[None])
        if metric is Metric.COSINE:
            both = np.sqrt(lane_sum(left * left))[:, None] * np.sqrt(lane_sum(right * right))[None]
            products = np.where((both > 0) & np.isfinite(both), np.clip(products / both, -1, 1), -np.inf)
        products = np.where(products < np.inf, products, -np.inf)
        if 0 in products.shape:
            return np.inf
        total = 0.0
        for best in products.max(axis=1):
            total += best
    return -total if np.isfinite(total) else np.inf


def expected(
    queries: list[np.ndarray | None], documents: list[np.ndarray | None], k: int, metric: Metric
) -> list[tuple[int, int, int, float]]:
    rows = []
    for at, query in enumerate(queries):
        if query is None or not len(query):
            continue
        scored = [
            (maxsim(query, document, metric), row)
            for row, document in enumerate(documents)
            if document is not None and len(document)
        ]
        scored = sorted(pair for pair in scored if pair[0] < np.inf)[:k]
        rows += [(at, rank, row, distance) for rank, (distance, row) in enumerate(scored)]
    return rows


def found(table: pa.Table) -> list[tuple[int, int, int, float]]:
    names = ("query", "rank", "row_id", "distance")
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def column(documents: list[np.ndarray | None], element: str = "f32") -> pa.Array:
    kind = vl.multivector(D, element)
    return pa.array([None if part is None else list(part) for part in documents], kind)


def ragged(count: int, seed: int = 0, element: str = "f4") -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = [(int(rng.integers(1, 15)), D) for _ in range(count)]
    if np.dtype(element).kind in "iu":
        return [rng.integers(0, 100, shape).astype(element) for shape in shapes]
    return [rng.standard_normal(shape).astype(element) for shape in shapes]


def table_of(documents: list[np.ndarray | None], element: str = "f32", **properties: str) -> vl.Table:
    data = pa.table({"id": range(len(documents)), "tokens": column(documents, element)})
    written = {"write.fragment-rows": "40", **{name.replace("_", "."): v for name, v in properties.items()}}
    return vl.connect("memory://").create_table("t", data, properties=written)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("element", ["f32", "f16", "f64", "int8", "uint8"])
def test_equals_a_float64_scan(metric: Metric, element: str) -> None:
    numpy_name = {"f32": "f4", "f16": "f2", "f64": "f8", "int8": "i1", "uint8": "u1"}[element]
    documents: list[Any] = ragged(110, element=numpy_name)
    documents[3] = documents[70]
    documents[5] = np.repeat(documents[70], 3, axis=0)  # repeats change nothing: a tie of three
    documents[9] = None
    documents[10] = np.empty((0, D), numpy_name)
    queries = ragged(5, 1, numpy_name)
    queries[2] = documents[70]
    answer = table_of(documents, element).knn(queries, "tokens", 9, metric)
    assert found(answer) == expected(queries, documents, 9, metric)


@pytest.mark.parametrize("vector_format", ["lance", "parquet", "vortex", "arrow"])
def test_every_format_gives_the_same(vector_format: str) -> None:
    documents: list[Any] = [*ragged(60), None, np.empty((0, D), "f4")]
    table = table_of(documents, **{"write_vector-format": vector_format})
    table.delete("id IN (3, 4, 41)")
    kept = [None if row in (3, 4, 41) else part for row, part in enumerate(documents)]
    assert found(table.knn(documents[3:6], k=70, metric="dot")) == expected(
        documents[3:6], kept, 70, Metric.DOT
    )


def test_filters_columns_and_few_rows() -> None:
    documents: list[Any] = ragged(100)
    table = table_of(documents)
    answer = table.knn(documents[:2], k=200, metric="cosine", filter="id % 7 = 0", columns=["id"])
    kept = [part if row % 7 == 0 else None for row, part in enumerate(documents)]
    assert found(answer) == expected(documents[:2], kept, 200, Metric.COSINE)
    assert answer["id"].to_pylist() == answer["row_id"].to_pylist()
    assert table.knn(documents[0], metric="dot", filter="id < 0").num_rows == 0


def test_every_form_of_query() -> None:
    documents: list[Any] = ragged(30)
    table = table_of(documents)
    queries = documents[:3]
    array = column(queries)
    wanted = expected(queries, documents, 4, Metric.DOT)
    forms = [
        queries,
        [part.tolist() for part in queries],
        array,
        pa.chunked_array([array[:1], array[1:]]),
        array.cast(pa.large_list(pa.list_(pa.float32(), D))),
        array.cast(pa.list_(pa.list_(pa.float32()))),
        pa.table({"x": [1, 2, 3], "tokens": array}),
        pa.record_batch({"tokens": array}),
        table.scan(columns=["tokens"], filter="id < 3"),
    ]
    for form in forms:
        assert found(table.knn(form, k=4, metric="dot")) == wanted
    one = expected(queries[:1], documents, 4, Metric.DOT)
    for single in (queries[0], queries[0].tolist(), list(queries[0]), array[0], array[0].values, array[:1]):
        assert found(table.knn(single, k=4, metric="dot")) == one
    stacked = np.stack([part[:1] for part in queries])
    assert found(table.knn(stacked, k=4, metric="dot")) == expected(list(stacked), documents, 4, Metric.DOT)
    best = table.search(queries[0]).metric("dot").where("id > 3").select(["id"]).limit(2).to_list()
    assert [row["id"] for row in best] == [
        row for _, _, row, _ in found(table.knn(queries[0], k=30, metric="dot")) if row > 3
    ][:2]


def test_null_and_empty_queries_find_nothing() -> None:
    documents: list[Any] = ragged(10)
    queries: list[Any] = [None, documents[1], [], np.empty((0, D), "f4"), documents[2]]
    answer = table_of(documents).knn(queries, k=2, metric="cosine")
    assert found(answer) == expected(queries, documents, 2, Metric.COSINE)
    assert set(answer["query"].to_pylist()) == {1, 4}
    zeros = np.zeros((2, D), "f4")
    assert table_of(documents).knn(zeros, metric="cosine").num_rows == 0
    assert table_of(documents).knn([], metric="cosine").num_rows == 0


def test_padding_and_null_tokens_do_not_count() -> None:
    rng = np.random.default_rng(0)
    token = rng.standard_normal(D).astype("f4")
    values = pa.array([[list(token), [0.0] * D], [list(token), None], [None], [[0.0] * D]], vl.multivector(D))
    table = vl.connect("memory://").create_table("t", {"tokens": values})
    padded = np.stack([token, np.zeros(D, "f4")])
    answer = table.knn(padded, metric="cosine")
    assert answer["row_id"].to_pylist() == [0, 1]
    assert answer["distance"].to_pylist() == [maxsim(token[None], token[None], Metric.COSINE)] * 2
    assert table.knn(-token[None], metric="dot")["row_id"].to_pylist() == [0, 3, 1]


@pytest.mark.parametrize(
    ("queries", "options", "words"),
    [
        (np.zeros((2, D)), {"metric": "l2"}, "'dot' or 'cosine'"),
        (np.zeros((2, D)), {"metric": "hamming"}, "'dot' or 'cosine'"),
        (np.zeros((2, D + 1)), {"metric": "dot"}, "query 0 have dimension 13"),
        ([np.ones((1, D)), np.full((1, D), np.nan)], {"metric": "dot"}, "query 1 holds NaN"),
        ([[[1.0] * D, [1.0]]], {"metric": "dot"}, "query 0 are ragged"),
        (np.zeros(D), {"metric": "dot"}, "rank 1"),
        ([1.0] * D, {"metric": "dot"}, "list of numbers"),
        (pa.table({"x": [1]}), {"metric": "dot"}, "one multivector column"),
        (["some text"], {"metric": "dot"}, "can't read multivector"),
        (np.zeros((2, D)), {"metric": "dot", "k": 0}, "k must be"),
    ],
)
def test_bad_input_is_explained(queries: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(vl.InvalidInputError, match=words):
        table_of(ragged(3)).knn(queries, **options)


WILD = [0.0, 1.0, -1.0, 1e-45, 3e38, -1e30, np.nan, np.inf]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_the_values_threads_and_cuts(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["f4", "f8", "f2"]))
    dimension = data.draw(st.integers(1, 35))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))

    def tokens(count: int, *, finite: bool) -> Tokens:
        offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 9, count))])
        values = rng.standard_normal((int(offsets[-1]), dimension))
        if data.draw(st.booleans()):
            values = np.round(values)
        values *= data.draw(st.sampled_from([1.0, 1e-30, 1e160, 1e-160] if kind == "f8" else [1.0, 1e-4]))
        wild = [value for value in WILD if np.isfinite(value) or not finite]
        places = rng.random(values.shape) < data.draw(st.sampled_from([0, 0, 0.05]))
        values[places] = rng.choice(wild, int(places.sum()))
        with np.errstate(over="ignore"):
            cast = values.astype(kind)
        return Tokens(np.nan_to_num(cast, posinf=1.0, neginf=-1.0) if finite else cast, offsets)

    documents, queries = tokens(data.draw(st.integers(0, 60)), finite=False), tokens(4, finite=True)
    metric = data.draw(st.sampled_from(METRICS))
    k = data.draw(st.integers(1, 8))
    search = ExactMaxSim(queries, k=k, metric=metric, threads=data.draw(st.integers(1, 3)))
    cut = data.draw(st.integers(0, len(documents)))
    ids = rng.permutation(len(documents)) * 3
    for part in (np.arange(cut), np.arange(cut, len(documents))):
        search.add(documents.take(part), ids[part])
    row_ids, distances, counts = search.result()

    def parts(some: Tokens) -> list[np.ndarray]:
        return np.split(some.vectors, some.offsets[1:-1]) if len(some) else []

    for q, query in enumerate(parts(queries)):
        scored = [(maxsim(query, part, metric), int(ids[i])) for i, part in enumerate(parts(documents))]
        scored = sorted(pair for pair in scored if pair[0] < np.inf)[:k] if len(query) else []
        assert counts[q] == len(scored)
        assert row_ids[q, : counts[q]].tolist() == [row for _, row in scored]
        assert distances[q, : counts[q]].tolist() == [distance for distance, _ in scored]


@pytest.mark.skipif(not SHARED.exists(), reason="the shared multivectors are not here")
def test_shared_set_has_its_published_neighbours() -> None:
    documents, queries = (
        pq.read_table(SHARED / "documents.parquet"),
        pq.read_table(SHARED / "queries.parquet"),
    )
    table = vl.connect("memory://").create_table("t", documents.select(["tokens"]))
    answer = table.knn(queries, "tokens", 100, "dot")
    scores = -answer["distance"].to_numpy().reshape(100, 100)
    assert np.allclose(scores, np.load(SHARED / "scores.npy"), atol=1e-4)
    ids = answer["row_id"].to_numpy().reshape(100, 100)
    wanted = np.load(SHARED / "neighbors.npy")
    assert np.mean([len(set(a) & set(b)) for a, b in zip(ids, wanted, strict=True)]) >= 99.9
