"""Search by leading directions, and by codes that were kept, equals a float64 scan bit for bit, whatever the directions."""

from __future__ import annotations

import kernel_reference
import numpy as np
import pytest
from test_kernels_knn import HARD, PATHS, RNG, SUMS, drawn

from vectorlake.errors import InvalidInputError
from vectorlake.kernels import ExactKnn, Metric, Path, codes, head, paths
from vectorlake.kernels.quantize import Frame, centre_of
from vectorlake.kernels.rows import Rows


@pytest.fixture(params=[path for path in PATHS if path is not Path.DIRECT], ids=lambda path: path.value)
def path(request: pytest.FixtureRequest) -> Path:
    import llvmlite.binding

    if request.param is Path.AVX2 and not llvmlite.binding.get_host_cpu_features().get("avx2"):
        pytest.skip("this CPU has no AVX2")
    return request.param


def directions(vectors: np.ndarray, metric: Metric, kept: int) -> np.ndarray:
    """Some directions: leading ones where the data has them, else any."""
    centre = centre_of(Rows.of(vectors, what="vectors"), metric, np.empty(0, bool))
    finite = vectors[np.isfinite(vectors).all(axis=1)]
    found = head.choose_head(finite, finite[:5], centre, metric, batch=None, kept=kept)
    if len(found) == kept:
        return found
    dimension = vectors.shape[1]
    return np.linalg.qr(RNG(kept).standard_normal((dimension, dimension)))[0][:kept].astype("f4")


def encoded(vectors: np.ndarray, metric: Metric, rotation: np.ndarray | None) -> codes.RowCodes:
    centre = centre_of(Rows.of(vectors, what="vectors"), metric, np.empty(0, bool))
    frame = Frame.of(centre, rotation)
    heads, terms, fine, fine_terms = codes.RowEncoder(frame, metric).encode(vectors)
    return codes.RowCodes(metric, frame, len(vectors), codes.to_panels(heads), terms, fine, fine_terms)


def places(vectors: np.ndarray) -> np.ndarray:
    return vectors.ctypes.data + np.arange(len(vectors), dtype=np.int64) * vectors.strides[0]


def check_encoded(
    queries: np.ndarray,
    vectors: np.ndarray,
    k: int,
    metric: Metric,
    path: Path,
    rotation: np.ndarray | None,
    valid: np.ndarray | None = None,
) -> None:
    knn = ExactKnn(queries, k=k, metric=metric, threads=2, path=path)
    where = places(vectors)
    if valid is not None:
        where[~valid] = 0
    knn.add_encoded(encoded(vectors, metric, rotation), where, vectors.dtype, np.arange(len(vectors)))
    kernel_reference.assert_equal_to_scan(knn.result(), queries, vectors, k, metric, valid=valid)


@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("kept", [0, 12])
def test_hard_data(path: Path, metric: Metric, name: str, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = HARD[name]
    finite = vectors[np.isfinite(vectors).all(axis=1)]
    near = finite[:6] if len(finite) else np.ones((2, 24), "f4")
    other = (RNG(6).standard_normal((3, 24)) * 3).astype("f4")
    rotation = directions(vectors, metric, kept) if kept else None
    for queries in (near, other):
        check_encoded(queries, vectors, 9, metric, path, rotation)
        monkeypatch.setattr(head, "head_for", lambda *_: rotation)
        knn = ExactKnn(queries, k=9, metric=metric, threads=2, path=path)
        for start, end in ((0, 5), (5, 300), (300, 700)):
            knn.add(vectors[start:end], np.arange(start, end))
        kernel_reference.assert_equal_to_scan(knn.result(), queries, vectors, 9, metric)


@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize("kind", ["f4", "f8", "f2", "u1"])
@pytest.mark.parametrize(("d", "kept"), [(1, 1), (37, 0), (37, 13)])
def test_types_and_dimensions(path: Path, metric: Metric, kind: str, d: int, kept: int) -> None:
    vectors, queries = drawn(50, (700, d), kind), drawn(51, (9, d), kind)
    rotation = directions(vectors, metric, kept) if kept else None
    for k in (1, 10, 800):
        check_encoded(queries, vectors, k, metric, path, rotation, valid=RNG(1).uniform(size=700) < 0.6)


@pytest.mark.parametrize("scale", [0.0, 1e-320, 1e-200, 1e-40, 1e40, 1e160, 1e300])
@pytest.mark.parametrize("metric", SUMS)
def test_queries_of_any_length(path: Path, metric: Metric, scale: float) -> None:
    vectors = RNG(8).standard_normal((400, 20))
    rotation = directions(vectors, metric, 12)
    check_encoded(RNG(7).standard_normal((6, 20)) * scale, vectors, 5, metric, path, rotation)


def test_several_blocks_of_codes_and_rows_without(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "PANELS_ROWS", paths.MOST_ROWS)
    vectors = drawn(52, (40_000, 24), "f4") * (0.8 ** np.arange(24, dtype="f4"))
    queries = vectors[:40_000:4000] + np.float32(0.01)
    kept = encoded(vectors[:37_000], Metric.L2, directions(vectors, Metric.L2, 12))
    knn = ExactKnn(queries, k=20, metric=Metric.L2, threads=2, path=path)
    knn.add_encoded(kept, places(vectors[:37_000]), "f4", np.arange(37_000))
    knn.add(vectors[37_000:], np.arange(37_000, 40_000))
    kernel_reference.assert_equal_to_scan(knn.result(), queries, vectors, 20, Metric.L2)


def test_a_head_is_taken_where_energy_is_concentrated() -> None:
    rng = RNG(53)
    spread = rng.standard_normal((9000, 128)).astype("f4")
    steep = spread * (0.9 ** np.arange(128, dtype="f4"))
    turned = steep @ np.linalg.qr(rng.standard_normal((128, 128)))[0].astype("f4")
    none = np.zeros(128, "f4")
    found = head.choose_head(turned, turned[:64], none, Metric.L2, batch=None)
    assert 0 < len(found) < 96
    assert Frame.of(none, found).drift < 1e-4
    assert len(head.choose_head(spread, spread[:64], none, Metric.L2, batch=None)) == 0


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_joins_take_a_head_once_they_are_long(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (drawn(54, (8400 * 3, 64), "f4") * (0.8 ** np.arange(64, dtype="f4"))).astype("f4")
    taken: list[int] = []
    choose = head.choose_head

    def watched(*args: object, **options: object) -> np.ndarray:
        found = choose(*args, **options)  # type: ignore[arg-type]
        taken.append(len(found))
        return found

    monkeypatch.setattr(head, "choose_head", watched)
    # In multiplications for each thread, what so many blocks take.
    monkeypatch.setattr(head, "_FIND", (blocks * 8400 * 1100 * 84 / 2 / head._PAYS, 0.0))
    knn = ExactKnn(rows[:1100], k=5, metric=Metric.L2, threads=2)
    for first in range(0, len(rows), 8400):
        knn.add(rows[first : first + 8400], np.arange(first, first + 8400))
        assert len(taken) == (first >= (blocks - 1) * 8400)
    row_ids, distances, _ = knn.result()
    assert taken[0] > 0
    few = np.arange(0, 1100, 137)
    kernel_reference.assert_equal_to_scan(
        (row_ids[few], distances[few], np.full(len(few), 5)), rows[few], rows, 5, Metric.L2
    )


def test_panels_are_what_was_put_in() -> None:
    integers = RNG(55).integers(-52, 53, (83, 36)).astype("i1")
    panels = codes.to_panels(integers)
    assert panels.shape == (6, 9, 16, 4)
    assert np.array_equal(codes.from_panels(panels, 83), integers)


def test_codes_of_another_metric_are_refused() -> None:
    vectors = drawn(56, (40, 8), "f4")
    kept = encoded(vectors, Metric.L2, None)
    with pytest.raises(InvalidInputError, match="codes are of l2 in 8 dimensions, the search is of dot in 8"):
        ExactKnn(vectors, k=1, metric=Metric.DOT).add_encoded(kept, places(vectors), "f4", np.arange(40))
    with pytest.raises(InvalidInputError, match="40 codes came with"):
        ExactKnn(vectors, k=1, metric=Metric.L2).add_encoded(kept, places(vectors)[1:], "f4", np.arange(40))
