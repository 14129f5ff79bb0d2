"""Exact search on a device of torch's equals the scan bit for bit; the same code runs on torch's CPU device.

Without torch (the extra `gpu`) or without a GPU the tests that need them are skipped.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

import kernel_reference
import numpy as np
import pytest
from test_kernels_knn import HARD, SUMS, TYPES, drawn

import vectorlake as vl
from vectorlake.errors import InvalidInputError, UnsupportedError
from vectorlake.kernels import ExactKnn, Metric, Path


def needed(device: str = "cpu") -> Any:
    torch = pytest.importorskip("torch", reason="torch is in the extra gpu")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU that torch can use")
    return torch


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    needed(request.param)
    return str(request.param)


@pytest.fixture
def torch() -> Iterator[Any]:
    """torch, with its setting of how to multiply put back."""
    found = needed()
    yield found
    found.set_float32_matmul_precision("highest")


def check(
    device: str,
    queries: np.ndarray,
    vectors: np.ndarray,
    k: int,
    metric: Metric,
    *,
    cuts: tuple[int, ...] = (),
    valid: np.ndarray | None = None,
    row_ids: np.ndarray | None = None,
) -> None:
    ids = np.arange(len(vectors), dtype=np.int64) if row_ids is None else row_ids
    knn = ExactKnn(queries, k=k, metric=metric, threads=2, device=device)
    for start, end in itertools.pairwise([0, *cuts, len(vectors)]):
        knn.add(vectors[start:end], ids[start:end], None if valid is None else valid[start:end])
    kernel_reference.assert_equal_to_scan(knn.result(), queries, vectors, k, metric, ids=ids, valid=valid)


@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    ("n", "m", "d", "k"),
    [(7, 900, 37, 10), (3, 40, 1, 50), (60, 2100, 64, 1), (5, 1500, 16, 400)],
    ids=["odd", "k above rows", "one", "many"],
)
def test_equals_a_float64_scan(
    device: str, kind: str, metric: Metric, n: int, m: int, d: int, k: int
) -> None:
    check(device, drawn(1, (n, d), kind), drawn(2, (m, d), kind), k, metric)


@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize("name", HARD)
def test_hard_data(device: str, metric: Metric, name: str) -> None:
    vectors = HARD[name]
    finite = vectors[np.isfinite(vectors).all(axis=1)]
    near = finite[:6] if len(finite) else np.ones((2, 24), "f4")
    for queries in (near, drawn(6, (3, 24), "f4")):
        check(device, queries, vectors, 9, metric, cuts=(5, 300))


@pytest.mark.parametrize("metric", SUMS)
@pytest.mark.parametrize("scale", [0.0, 1e-320, 1e-40, 1e160])
def test_queries_of_any_length(device: str, metric: Metric, scale: float) -> None:
    queries = np.random.default_rng(7).standard_normal((6, 20)) * scale
    check(device, queries, np.random.default_rng(8).standard_normal((400, 20)), 5, metric)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_masks_ties_and_ids(device: str, share: float) -> None:
    rng = np.random.default_rng(9)
    vectors = np.repeat(drawn(10, (20, 12), "f4"), 100, axis=0)
    valid = rng.uniform(size=2000) < share
    ids = rng.permutation(2000)
    check(device, vectors[::300], vectors, 20, Metric.L2, valid=valid, row_ids=ids, cuts=(7, 1500))


def test_more_rows_than_a_block_and_more_queries_than_a_group(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vectorlake.kernels.gpu._BLOCK_ROWS", 2048)
    monkeypatch.setattr("vectorlake.kernels.gpu._PAIRS", 2048 * 24)
    vectors = drawn(12, (9000, 8), "f4")
    for k in (3, 700):
        check(device, drawn(13, (100, 8), "f4"), vectors, k, Metric.L2)


def test_more_survivors_than_are_looked_at_at_once(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectorlake.kernels.gpu._PAIRS", 1 << 15)
    monkeypatch.setattr("vectorlake.kernels.gpu._BLOCK_ROWS", 2048)
    monkeypatch.setattr("vectorlake.kernels.gpu._CHUNKS", 300)
    monkeypatch.setattr("vectorlake.kernels.gpu._SURVIVORS", 20_000)
    vectors = np.repeat(drawn(24, (3, 8), "f4"), 1701, axis=0)  # the bound can't tell equal rows apart
    check(device, drawn(25, (40, 8), "f4"), vectors, 30, Metric.L2, row_ids=np.arange(5103)[::-1].copy())


@pytest.mark.parametrize("metric", SUMS)
def test_rows_that_must_not_match_never_pass(device: str, metric: Metric) -> None:
    vectors = drawn(26, (1000, 9), "f4") * np.float32(1e-20)
    queries = np.concatenate([drawn(27, (3, 9), "f8"), drawn(28, (3, 9), "f8") * 1e150])
    valid = np.random.default_rng(29).uniform(size=1000) < 0.02
    check(device, queries, vectors, 50, metric, valid=valid)


@pytest.mark.parametrize("metric", SUMS)
def test_takes_the_codes_of_a_flat_index(device: str, metric: Metric) -> None:
    from test_kernels_head import directions, encoded, places

    vectors, queries = drawn(14, (1500, 70), "f4"), drawn(15, (30, 70), "f4")
    knn = ExactKnn(queries, k=6, metric=metric, device=device)
    knn.add_encoded(
        encoded(vectors, metric, directions(vectors, metric, 24)), places(vectors), "f4", np.arange(1500)
    )
    kernel_reference.assert_equal_to_scan(knn.result(), queries, vectors, 6, metric)


def test_only_survivors_are_measured(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vectorlake.kernels import gpu

    measured = []

    def count(*args: Any) -> None:
        bounds = args[12]
        measured.append(bounds[-1] - bounds[0])
        gpu_measure(*args)

    gpu_measure = gpu.measure_survivors
    monkeypatch.setattr(gpu, "measure_survivors", count)
    check("cpu", drawn(16, (48, 96), "f4"), drawn(17, (6000, 96), "f4"), 10, Metric.COSINE)
    assert 480 <= sum(measured) < 600  # far fewer than 48 * 6000: the bound tells almost all others apart


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_settings_of_torch_change_nothing_and_stay(torch: Any, precision: str) -> None:
    from vectorlake.kernels.gpu import multiplied

    torch.set_float32_matmul_precision(precision)
    left, right = (torch.from_numpy(drawn(seed, (64, 256), "f4")) for seed in (18, 19))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = multiplied(left, right)
    wanted = left.double() @ right.double().T
    lengths = left.double().norm(dim=1)[:, None] * right.double().norm(dim=1)
    assert found.dtype == torch.float32
    assert bool(((found.double() - wanted).abs() <= 256 * 2.0**-24 * lengths).all())
    assert torch.get_float32_matmul_precision() == precision
    check("cpu", drawn(20, (9, 40), "f4"), drawn(21, (500, 40), "f4"), 5, Metric.L2)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_products_ask_for_true_float32(torch: Any, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vectorlake.kernels.gpu import multiplied

    backends = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    seen = set()

    def watched(*args: Any, **options: Any) -> Any:
        seen.update(getattr(backend, "fp32_precision", "ieee") for backend in backends)
        seen.add("out" if "out" in options else "cast by autocast")
        return mm(*args, **options)

    mm = torch.mm
    monkeypatch.setattr(torch, "mm", watched)
    torch.set_float32_matmul_precision(precision)
    multiplied(torch.ones(2, 3), torch.ones(4, 3))
    assert seen <= {"ieee", "none", "out"}
    assert "out" in seen


def test_a_device_without_true_float32_is_refused(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vectorlake.kernels import gpu

    def rounded(queries: Any, vectors: Any) -> Any:
        return (queries.bfloat16() @ vectors.bfloat16().T).float()

    gpu.check_device.cache_clear()
    monkeypatch.setattr(gpu, "multiplied", rounded)
    with pytest.raises(UnsupportedError, match="fewer bits"):
        gpu.check_device("cpu")


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("nonsense", InvalidInputError, "knows no device 'nonsense'"),
        ("cuda:99", UnsupportedError, "can't use the device 'cuda:99'"),
        ("meta", UnsupportedError, "can't use the device 'meta'"),
    ],
)
def test_devices_that_are_not_there(torch: Any, name: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        ExactKnn(np.ones((1, 3), "f4"), k=1, metric=Metric.L2, device=name)


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from vectorlake.kernels import gpu

    gpu.check_device.cache_clear()
    monkeypatch.setitem(sys.modules, "torch", None)
    for asked in ({"device": "cpu"}, {"path": Path.GPU}):
        with pytest.raises(UnsupportedError, match=r"vectorlake\[gpu\]"):
            ExactKnn(np.ones((1, 3), "f4"), k=1, metric=Metric.L2, **asked)


def test_a_device_is_for_its_path_only() -> None:
    with pytest.raises(InvalidInputError, match=r"not for Path\.FLOAT"):
        ExactKnn(np.ones((1, 3), "f4"), k=1, metric=Metric.L2, path=Path.FLOAT, device="cpu")


def test_a_table_is_searched_on_a_device(device: str, tmp_path: FilePath) -> None:
    vectors = drawn(22, (700, 24), "f4")
    table = vl.connect(str(tmp_path)).create_table("t", {"id": np.arange(700), "vec": vectors})
    table.create_index("vec", "flat", metric="l2")
    table.delete("id % 7 = 3")
    for given in ({}, {"filter": "id < 300"}, {"k": None, "max_distance": 9e4}, {"metric": "cosine"}):
        wanted = table.knn(vectors[:9], **given)
        assert len(wanted) > 0
        assert table.knn(vectors[:9], device=device, **given).equals(wanted)


def test_tables_refuse_a_device_that_would_not_be_used(tmp_path: FilePath) -> None:
    bits = np.random.default_rng(23).integers(0, 255, (40, 8), "u1")
    table = vl.connect(str(tmp_path)).create_table("t", {"vec": bits})
    with pytest.raises(InvalidInputError, match="device='cpu' is for exact searches"):
        table.knn(bits[:1], metric="hamming", device="cpu")
    table.create_index("vec", "flat", metric="l2")
    with pytest.raises(InvalidInputError, match="device='cpu' is for exact searches"):
        table.knn(bits[:1], mode="index", device="cpu")
