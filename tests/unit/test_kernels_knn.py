"""Exact nearest neighbours equal a plain numpy scan, bit for bit, on every path and on data made to break bounds."""

from __future__ import annotations

import itertools
import pathlib
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path as FilePath

import kernel_reference
import numpy as np
import pytest

from vectorlake.errors import InvalidInputError
from vectorlake.kernels import ExactKnn, Metric, Path, distances_at, pairwise_distances
from vectorlake.kernels.knn import shares_of

RNG = np.random.default_rng
PATHS = [Path.DIRECT, Path.AVX2, Path.NUMKONG, Path.FLOAT]
TYPES = ["f4", "f8", "f2", "i1", "u1"]
SUMS = [Metric.L2, Metric.COSINE, Metric.DOT]


@pytest.fixture(params=PATHS, ids=lambda path: path.value)
def path(request: pytest.FixtureRequest) -> Path:
    import llvmlite.binding

    if request.param is Path.AVX2 and not llvmlite.binding.get_host_cpu_features().get("avx2"):
        pytest.skip("this CPU has no AVX2")
    return request.param


def drawn(seed: int, shape: tuple[int, int], kind: str) -> np.ndarray:
    values = RNG(seed).standard_normal(shape) * 30
    if kind == "i1":
        return values.clip(-128, 127).astype("i1")
    return np.abs(values).clip(0, 255).astype("u1") if kind == "u1" else values.astype(kind)


def check(
    queries: np.ndarray,
    vectors: np.ndarray,
    k: int,
    metric: Metric,
    path: Path,
    *,
    threads: int = 2,
    cuts: tuple[int, ...] = (),
    valid: np.ndarray | None = None,
    row_ids: np.ndarray | None = None,
) -> None:
    ids = np.arange(len(vectors), dtype=np.int64) if row_ids is None else row_ids
    knn = ExactKnn(queries, k=k, metric=metric, threads=threads, path=path)
    bounds = [0, *cuts, len(vectors)]
    for start, end in itertools.pairwise(bounds):
        mask = None if valid is None else valid[start:end]
        knn.add(vectors[start:end], ids[start:end], mask)
    kernel_reference.assert_equal_to_scan(knn.result(), queries, vectors, k, metric, ids=ids, valid=valid)


@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    ("n", "m", "d", "k"),
    [(7, 900, 37, 10), (3, 40, 1, 50), (25, 2100, 64, 1), (5, 1500, 16, 400)],
    ids=["odd", "k above rows", "one", "many"],
)
def test_equals_a_float64_scan(path: Path, kind: str, metric: Metric, n: int, m: int, d: int, k: int) -> None:
    check(drawn(1, (n, d), kind), drawn(2, (m, d), kind), k, metric, path)


@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize("dimension", [2, 3, 4, 11, 12, 13, 15, 16, 17, 31, 100, 1000, 5000])
def test_any_dimension(path: Path, metric: Metric, dimension: int) -> None:
    check(drawn(3, (5, dimension), "f4"), drawn(4, (300, dimension), "f4"), 7, metric, path)


def hard_data() -> Iterator[tuple[str, np.ndarray]]:
    rng = RNG(5)
    normal = rng.standard_normal((700, 24)).astype("f4")
    yield "all equal", np.ones((700, 24), "f4") * np.float32(0.3)
    yield "all zero", np.zeros((700, 24), "f4")
    yield "duplicates", normal[rng.integers(0, 9, 700)]
    yield "huge", normal * np.float32(1e30)
    yield "largest", (normal / np.abs(normal).max() * np.finfo("f4").max).astype("f4")
    yield "tiny", normal * np.float32(1e-30)
    yield "denormal", normal * np.float32(1e-42)
    yield "all scales", normal * (10.0 ** rng.integers(-35, 35, (700, 1))).astype("f4")
    yield "scales of doubles", normal * 10.0 ** rng.integers(-300, 300, (700, 1))
    yield "far from the origin", normal * np.float32(1e-4) + np.float32(1000)
    outlier = normal.copy()
    outlier[:, 3] = rng.standard_normal(700) * 1e6
    yield "outlier coordinate", outlier
    constant = normal.copy()
    constant[:, 5:] = 7
    yield "constant columns", constant
    yield "one direction", normal[:1] * rng.uniform(0.1, 9, (700, 1)).astype("f4")
    yield "int8 extremes", rng.choice(np.array([-128, 127], "i1"), (700, 24))
    yield "uint8 extremes", rng.choice(np.array([0, 255], "u1"), (700, 24))
    broken = normal.copy()
    broken[::3, 4], broken[1::5, 7], broken[2::7, 1] = np.nan, np.inf, -np.inf
    yield "not finite", broken
    yield "nothing finite", np.full((700, 24), np.nan, "f4")
    yield "halves", np.concatenate([normal[:350], np.full((350, 24), 65504)]).astype("f2")
    grid = rng.integers(-2, 3, (700, 24)).astype("f4")
    yield "ties on a grid", grid


HARD = dict(hard_data())


@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize("name", HARD)
def test_hard_data(path: Path, metric: Metric, name: str) -> None:
    vectors = HARD[name]
    finite = vectors[np.isfinite(vectors).all(axis=1)]
    near = finite[:6] if len(finite) else np.ones((2, 24), "f4")
    other = (RNG(6).standard_normal((3, 24)) * 3).astype("f4")
    for queries in (near, other):
        check(queries, vectors, 9, metric, path, cuts=(5, 300))


@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize("scale", [0.0, 1e-320, 1e-200, 1e-40, 1e40, 1e160, 1e300])
def test_queries_of_any_length(path: Path, metric: Metric, scale: float) -> None:
    queries = RNG(7).standard_normal((6, 20)) * scale
    check(queries, RNG(8).standard_normal((400, 20)), 5, metric, path)
    check(queries, queries[RNG(9).integers(0, 6, 300)], 5, metric, path)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("cuts", [(), (1,), (17, 18, 500), (512, 1024), (0, 0, 2999)])
def test_cuts_and_threads_change_nothing(path: Path, threads: int, cuts: tuple[int, ...]) -> None:
    vectors = drawn(10, (3000, 48), "f4")
    check(drawn(11, (30, 48), "f4"), vectors, 12, Metric.L2, path, threads=threads, cuts=cuts)


def test_more_rows_than_a_block_of_codes(path: Path) -> None:
    vectors = drawn(12, (40_000, 8), "f4")
    for k in (3, 700):
        check(drawn(13, (9, 8), "f4"), vectors, k, Metric.L2, path)


def test_candidates_overflow_their_room(path: Path) -> None:
    near_duplicates = np.float32(1) + drawn(14, (20_000, 8), "f4") * np.float32(1e-8)
    check(near_duplicates[:5], near_duplicates, 11, Metric.COSINE, path)


def test_equal_distances_go_by_row_id(path: Path) -> None:
    vectors = np.repeat(drawn(15, (4, 10), "f4"), 300, axis=0)
    row_ids = RNG(16).permutation(2**40 + np.arange(1200)).astype(np.int64)
    check(vectors[::300], vectors, 8, Metric.L2, path, row_ids=row_ids, cuts=(100, 900))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_masked_rows_never_match(path: Path, share: float) -> None:
    valid = RNG(17).uniform(size=2000) < share
    check(
        drawn(18, (6, 12), "f4"),
        drawn(19, (2000, 12), "f4"),
        20,
        Metric.DOT,
        path,
        valid=valid,
        cuts=(7, 1500),
    )


def test_types_may_differ_between_blocks_and_queries(path: Path) -> None:
    queries = drawn(20, (5, 9), "f2")
    blocks = [drawn(21 + i, (200, 9), kind) for i, kind in enumerate(TYPES)]
    knn = ExactKnn(queries, k=30, metric=Metric.L2, path=path)
    for i, block in enumerate(blocks):
        knn.add(block, np.arange(200 * i, 200 * (i + 1)))
    vectors = np.concatenate([block.astype("f8") for block in blocks])
    kernel_reference.assert_equal_to_scan(knn.result(), queries, vectors, 30, Metric.L2)


def test_arrays_are_read_where_they_stand(path: Path, tmp_path: FilePath) -> None:
    vectors = drawn(30, (600, 40), "f4")
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    wide = np.zeros((600, 50), "f4")
    wide[:, 7:47] = vectors
    views = {"mapped": mapped, "strided": wide[:, 7:47], "fortran": np.asfortranarray(vectors)}
    views["reversed"] = vectors[::-1].copy()[::-1]
    views["swapped"] = vectors.astype(">f4")
    views["unaligned"] = np.frombuffer(b"x" + vectors.tobytes(), np.uint8)[1:].view("f4").reshape(600, 40)
    for view in views.values():
        check(vectors[:7], view, 6, Metric.COSINE, path)


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_to_search(path: Path, count: int) -> None:
    knn = ExactKnn(np.ones((count, 5), "f4"), k=4, metric=Metric.L2, path=path)
    knn.add(np.empty((0, 5), "f4"), np.empty(0, np.int64))
    row_ids, distances, counts = knn.result()
    assert row_ids.shape == distances.shape == (count, 4)
    assert (row_ids == -1).all()
    assert np.isinf(distances).all()
    assert counts.tolist() == [0] * count


def test_no_queries_but_rows(path: Path) -> None:
    knn = ExactKnn(np.empty((0, 5), "f4"), k=4, metric=Metric.L2, path=path)
    knn.add(np.ones((10, 5), "f4"), np.arange(10))
    assert knn.result()[0].shape == (0, 4)


def test_results_may_be_read_between_blocks(path: Path) -> None:
    vectors = drawn(31, (300, 6), "f4")
    knn = ExactKnn(vectors[:5], k=3, metric=Metric.L2, path=path)
    for start in range(0, 300, 100):
        knn.add(vectors[start : start + 100], np.arange(start, start + 100))
        seen = vectors[: start + 100]
        kernel_reference.assert_equal_to_scan(knn.result(), vectors[:5], seen, 3, Metric.L2)


@pytest.mark.parametrize("count", [1, 17, 500, 1000, 5000])
@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("least", [None, 16])
def test_shares_are_whole_tiles(count: int, threads: int, least: int | None) -> None:
    path = types.SimpleNamespace(group=120, least_group=least, tile=4)
    shares = shares_of(count, threads, path)  # type: ignore[arg-type]
    assert [first for first, _ in shares] + [count] == [0] + [end for _, end in shares]
    assert all(first % path.tile == 0 and 0 < end - first <= path.group for first, end in shares)
    if least is not None and threads > 1 and count > threads * path.group:
        sizes = [end - first for first, end in shares]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] <= least


@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize("kind", TYPES)
def test_distances_follow_their_definition(kind: str, metric: Metric) -> None:
    queries, vectors = drawn(32, (4, 23), kind), drawn(33, (50, 23), kind)
    found = pairwise_distances(queries, vectors, metric)
    assert np.array_equal(found, kernel_reference.scan_distances(queries, vectors, metric))
    left, right = np.array([3, 0, 0]), np.array([49, 7, 7])
    assert np.array_equal(distances_at(queries, vectors, left, right, metric), found[left, right])


def test_every_half_is_widened_exactly() -> None:
    halves = np.arange(65536, dtype=np.uint16).view("f2")[:, None]
    found = pairwise_distances(np.array([[1.0]]), halves, Metric.DOT)[0]
    wanted = -halves[:, 0].astype("f8")
    assert np.array_equal(found, np.where(np.isfinite(wanted), wanted, np.inf))


@pytest.mark.parametrize(
    ("name", "metric"),
    [("l2", Metric.L2), (" Cosine ", Metric.COSINE), ("IP", Metric.DOT), ("euclidean", Metric.L2)],
)
def test_metric_names(name: str, metric: Metric) -> None:
    assert Metric.parse(name) is metric


def test_unknown_metric_names_the_likeliest() -> None:
    with pytest.raises(InvalidInputError, match="did you mean 'cosine'"):
        Metric.parse("cosin")


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 16, 48, 129])
@pytest.mark.parametrize("threads", [1, 2])
def test_hamming_counts_bits(path: Path, size: int, threads: int) -> None:
    queries, vectors = (RNG(seed).integers(0, 256, (n, size), "u1") for seed, n in ((40, 9), (41, 3000)))
    vectors[::7] = queries[1]
    valid = RNG(42).uniform(size=3000) < 0.7
    ids = RNG(43).permutation(3000)
    for k in (1, 12, 2500):
        check(
            queries, vectors, k, Metric.HAMMING, path, threads=threads, valid=valid, row_ids=ids, cuts=(11,)
        )
    wide = np.zeros((300, size + 3), "u1")
    wide[:, 1 : size + 1] = vectors[:300]
    check(queries, wide[:, 1 : size + 1], 5, Metric.HAMMING, path)
    found = pairwise_distances(queries, vectors, Metric.HAMMING)
    assert np.array_equal(found, kernel_reference.scan_distances(queries, vectors, Metric.HAMMING))


@pytest.mark.parametrize("kind", ["f4", "f8", "f2", "i1"])
def test_hamming_is_for_packed_bits(kind: str) -> None:
    bits, other = np.ones((2, 8), "u1"), np.ones((2, 8), kind)
    with pytest.raises(InvalidInputError, match=f"queries have elements of type {other.dtype}"):
        ExactKnn(other, k=1, metric=Metric.HAMMING)
    with pytest.raises(InvalidInputError, match=f"vectors have elements of type {other.dtype}"):
        ExactKnn(bits, k=1, metric=Metric.HAMMING).add(other, np.arange(2))
    with pytest.raises(InvalidInputError, match="packbits"):
        pairwise_distances(bits, other, Metric.HAMMING)


ONE = np.ones((1, 3), "f4")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"queries": np.ones(3, "f4")}, "matrix"),
        ({"queries": np.ones((1, 0), "f4")}, "dimension 0"),
        ({"queries": np.ones((1, 3), "i8")}, "int64"),
        ({"queries": np.array([[1, np.nan, 0]])}, "query 0"),
        ({"k": 0}, "k is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"vectors": np.ones((1, 4), "f4")}, "dimension 4, but 3"),
        ({"row_ids": np.arange(2)}, r"row ids of shape \(2,\)"),
        ({"valid": np.ones(2, bool)}, r"mask of shape \(2,\)"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], said: str) -> None:
    given: dict[str, object] = {"queries": ONE, "k": 1, "threads": 1, "vectors": ONE, "row_ids": np.arange(1)}
    given |= arguments
    with pytest.raises(InvalidInputError, match=said):
        ExactKnn(given["queries"], k=given["k"], metric=Metric.L2, threads=given["threads"]).add(
            given["vectors"], given["row_ids"], given.get("valid")
        )


def test_import_loads_no_compiler() -> None:
    script = "import sys, vectorlake.kernels; print({'numba', 'numkong', 'llvmlite'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_cache_is_tied_to_the_sources_compiled_in() -> None:
    from vectorlake.kernels import jit

    @jit.entry("int64(int64)")
    def double(value: int) -> int:
        return 2 * value

    assert double(21) == 42
    import numba

    dispatcher = numba.njit(lambda value: value)
    dispatcher.enable_caching()
    jit._stamp(dispatcher)
    assert jit.sources_digest(__name__) in dispatcher._cache._cache_file._source_stamp


@pytest.mark.parametrize(
    ("module", "included", "left_out"),
    [
        (
            "ivf.scan",
            {"ivf/scan.py", "ivf/fastscan.py", "microkernel.py", "jit.py"},
            {"graph/beam.py", "paths.py"},
        ),
        ("graph.beam", {"graph/beam.py", "graph/lanes.py", "distance.py"}, {"ivf/scan.py", "select.py"}),
        ("heap", {"heap.py", "jit.py"}, {"select.py"}),
    ],
)
def test_sources_are_those_a_module_imports(module: str, included: set[str], left_out: set[str]) -> None:
    from vectorlake.kernels import jit

    package = pathlib.Path(jit.__file__).parent
    found = {str(source.relative_to(package)) for source in jit.sources_of(f"vectorlake.kernels.{module}")}
    assert included <= found
    assert not left_out & found


def test_sources_of_a_module_elsewhere_are_all() -> None:
    from vectorlake.kernels import jit

    assert len(jit.sources_of(__name__)) == len(list(pathlib.Path(jit.__file__).parent.rglob("*.py")))
