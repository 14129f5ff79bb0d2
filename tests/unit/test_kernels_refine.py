"""The kernel that measures nominated rows: bit for bit the exact distances, and the nearest of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectorlake.kernels import Metric, pairwise_distances
from vectorlake.kernels.refine import settle
from vectorlake.kernels.rows import Rows
from vectorlake.search.heaps import Heaps
from vectorlake.search.refine import refine_mapped

CASES = [
    (metric, element)
    for metric in (Metric.L2, Metric.COSINE, Metric.DOT)
    for element in ("f4", "f8", "f2", "i1", "u1")
]
CASES.append((Metric.HAMMING, "u1"))


@pytest.mark.parametrize(("metric", "element"), CASES)
@pytest.mark.parametrize("threads", [1, 3])
def test_nominated_rows_are_measured_bit_for_bit(metric: Metric, element: str, threads: int) -> None:
    rng = np.random.default_rng(3)
    vectors = (rng.standard_normal((200, 37)) * 40).clip(-120, 120).astype(element)
    vectors[5] = 0
    vectors[9] = vectors[8]
    queries = (
        vectors[:70] if element in ("i1", "u1") else vectors[:70].astype("f8" if element == "f8" else "f4")
    )
    queries = np.ascontiguousarray(queries)
    slots = np.stack([rng.permutation(200)[:60] for _ in queries]).astype(np.int64)
    slots[:, ::7] = -1
    places = vectors.ctypes.data + np.arange(200, dtype=np.int64) * vectors.strides[0]
    places[17] = 0  # a slot without a live row
    row_ids = np.arange(200, dtype=np.int64)[::-1].copy()
    heaps = Heaps.empty(len(queries), 11, None)
    rows = Rows.of(vectors, what="vectors")
    refine_mapped(Rows.of(queries, what="queries"), metric, rows.code, slots, places, row_ids, heaps, threads)
    found = heaps.found()
    distances = pairwise_distances(queries, vectors, metric)
    for query in range(len(queries)):
        there = [s for s in slots[query] if s >= 0 and s != 17 and np.isfinite(distances[query, s])]
        wanted = sorted((distances[query, s], row_ids[s]) for s in there)[:11]
        assert found.counts[query] == len(wanted)
        got = zip(found.distances[query, : len(wanted)], found.row_ids[query, : len(wanted)], strict=True)
        assert [(d, r) for d, r in got] == wanted


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), max_size=40, unique_by=lambda pair: pair[1]),
    st.integers(1, 12),
    st.one_of(st.none(), st.integers(0, 5)),
)
def test_heaps_keep_and_sort_the_nearest(pairs: list[tuple[int, int]], k: int, most: int | None) -> None:
    from vectorlake.search.found import Found

    heaps = Heaps.empty(1, k, most)
    for start in range(0, len(pairs), 7):
        part = pairs[start : start + 7]
        distances = np.array([[float(distance) for distance, _ in part]])
        ids = np.array([[row for _, row in part]], np.int64)
        heaps.offer(Found(ids, distances, np.array([len(part)])))
    found = heaps.found()
    wanted = sorted((float(d), r) for d, r in pairs if most is None or d <= most)[:k]
    count = int(found.counts[0])
    assert (
        list(zip(found.distances[0, :count].tolist(), found.row_ids[0, :count].tolist(), strict=True))
        == wanted
    )
    assert (found.row_ids[0, count:] == -1).all()
    assert np.isinf(found.distances[0, count:]).all()


def test_settling_a_heap_of_one() -> None:
    distances, ids = np.array([[2.0]]), np.array([[7]], np.int64)
    settle(distances, ids)
    assert (distances[0, 0], ids[0, 0]) == (2.0, 7)
