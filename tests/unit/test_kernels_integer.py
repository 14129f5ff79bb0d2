"""Integer vectors are found by exact products: equal to a plain numpy scan, bit for bit, at every edge of their range."""

from __future__ import annotations

import itertools

import kernel_reference
import numpy as np
import pytest

from vectorlake.kernels import ExactKnn, Metric, Path
from vectorlake.kernels.capability import has_avx2
from vectorlake.kernels.rows import Rows

RNG = np.random.default_rng
PATH = Path.AVX2 if has_avx2() else Path.AUTO
SUMS = [Metric.L2, Metric.COSINE, Metric.DOT]
EDGES = {"u1": [0, 255], "i1": [-128, 127]}


def drawn(seed: int, shape: tuple[int, int], kind: str) -> np.ndarray:
    low, high = EDGES.get(kind, [-300, 300])
    return RNG(seed).integers(low, high + 1, shape).astype(kind)


def check(
    queries: np.ndarray,
    vectors: np.ndarray,
    k: int,
    metric: Metric,
    *,
    cuts: tuple[int, ...] = (),
    threads: int = 2,
    valid: np.ndarray | None = None,
    ids: np.ndarray | None = None,
) -> None:
    ids = np.arange(len(vectors)) if ids is None else ids
    knn = ExactKnn(queries, k=k, metric=metric, threads=threads, path=PATH)
    for start, end in itertools.pairwise([0, *cuts, len(vectors)]):
        knn.add(vectors[start:end], ids[start:end], None if valid is None else valid[start:end])
    kernel_reference.assert_equal_to_scan(knn.result(), queries, vectors, k, metric, ids=ids, valid=valid)


@pytest.fixture
def only_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test where vectors are rounded, if this CPU multiplies integers as they are."""
    if has_avx2():
        monkeypatch.delattr(ExactKnn, "_filter")


@pytest.mark.usefixtures("only_integers")
@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize(
    "kinds", [("u1", "u1"), ("i1", "i1"), ("u1", "i1"), ("i1", "u1"), ("f4", "u1"), ("f2", "i1")]
)
@pytest.mark.parametrize(
    ("n", "m", "d", "k"), [(13, 700, 1, 9), (5, 333, 7, 400), (26, 1500, 128, 10), (7, 130, 960, 3)]
)
def test_equals_a_float64_scan(
    metric: Metric, kinds: tuple[str, str], n: int, m: int, d: int, k: int
) -> None:
    check(drawn(1, (n, d), kinds[0]), drawn(2, (m, d), kinds[1]), k, metric, cuts=(3, 90))


@pytest.mark.usefixtures("only_integers")
@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize("kinds", list(itertools.product(EDGES, EDGES)))
@pytest.mark.parametrize("dimension", [3, 64, 8256])
def test_extreme_elements(metric: Metric, kinds: tuple[str, str], dimension: int) -> None:
    queries, vectors = (
        RNG(seed).choice(np.array(EDGES[kind], kind), (count, dimension))
        for seed, count, kind in ((3, 8, kinds[0]), (4, 60, kinds[1]))
    )
    for i, (a, b) in enumerate(itertools.product(EDGES[kinds[0]], EDGES[kinds[1]])):
        queries[i], vectors[i] = a, b
    check(queries, vectors, 12, metric)


@pytest.mark.usefixtures("only_integers")
@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize("threads", [1, 3])
def test_ties_and_masks_over_blocks(metric: Metric, threads: int) -> None:
    vectors = RNG(5).integers(0, 3, (5_000, 6)).astype("u1")
    ids, valid = RNG(6).permutation(5_000), RNG(7).uniform(size=5_000) < 0.6
    queries = vectors[:40]
    check(queries, vectors, 30, metric, cuts=(5, 40, 4_001), threads=threads, valid=valid, ids=ids)
    check(queries, vectors, 30, metric, valid=np.zeros(5_000, bool))
    check(queries, np.zeros((500, 6), "i1"), 7, metric, ids=ids[:500])


@pytest.mark.parametrize("metric", SUMS)
def test_rows_that_come_nearer_and_nearer(metric: Metric) -> None:
    vectors = np.repeat(np.arange(255, -1, -1, "u1"), 80)[:, None].repeat(3, axis=1)
    check(np.full((9, 3), [[1, 2, 0]], "u1"), vectors, 50, metric)


@pytest.mark.parametrize("metric", SUMS)
def test_rows_of_other_types_between(metric: Metric) -> None:
    queries = drawn(8, (11, 20), "i1")
    whole = drawn(9, (400, 20), "i1")
    broken = (whole[:200] + RNG(10).standard_normal((200, 20))).astype("f4")
    wild = whole[:50].astype("f8") * 1e200
    knn = ExactKnn(queries, k=15, metric=metric, threads=2, path=PATH)
    blocks = [wild, whole, broken, whole[:100] + np.int8(0)]
    start = 0
    for block in blocks:
        knn.add(block, np.arange(start, start + len(block)))
        start += len(block)
    everything = np.concatenate([block.astype("f8") for block in blocks])
    kernel_reference.assert_equal_to_scan(
        knn.result(), queries, everything, 15, metric, ids=np.arange(start), valid=None
    )


@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize(
    ("queries", "dimension"),
    [
        (drawn(11, (6, 40), "f4") + np.float32(0.5), 40),
        (drawn(12, (6, 40), "f8") * 2.0**20, 40),
        (np.full((6, 40), 65504, "f2"), 40),
        (np.full((6, 40), -0.0, "f4"), 40),
        (drawn(13, (6, 9001), "u1"), 9001),
    ],
    ids=["halves", "huge", "halfs", "minus zero", "too long"],
)
def test_queries_at_the_edge_of_whole_numbers(metric: Metric, queries: np.ndarray, dimension: int) -> None:
    check(queries, drawn(14, (200, dimension), "u1"), 5, metric)


@pytest.mark.parametrize(
    ("queries", "taken"),
    [
        (np.ones((2, 3), "u1"), True),
        (np.full((2, 3), -128, "i1"), True),
        (np.full((2, 3), 300, "f8"), True),
        (np.full((2, 3), 16384, "f2"), True),
        (np.full((2, 3), 16400, "f2"), False),
        (np.full((2, 3), 0.25, "f4"), False),
        (np.full((2, 3), 1e300, "f8"), False),
        (np.ones((2, 8257), "u1"), False),
    ],
)
def test_which_queries_are_whole(queries: np.ndarray, taken: bool) -> None:
    from vectorlake.kernels.integer_path import whole_queries

    whole = whole_queries(Rows.of(queries, what="queries"))
    assert (whole is not None) == taken
    assert whole is None or np.array_equal(whole.astype("f8"), queries.astype("f8"))
