"""The compiled parts of inverted files, against plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vectorlake.kernels.capability import has_avx2
from vectorlake.kernels.distance import address_of
from vectorlake.kernels.ivf import fastscan, kmeans
from vectorlake.kernels.ivf.encode import BY_BITS, BY_BYTES, encode_rows
from vectorlake.kernels.ivf.kmeans import k_means
from vectorlake.kernels.ivf.layout import lift_rows, place_rows
from vectorlake.kernels.ivf.multiply import multiply, panels_of
from vectorlake.kernels.ivf.nearest import nearest_centroids
from vectorlake.kernels.ivf.probe import choose_probes
from vectorlake.kernels.ivf.rotation import padded, random_rotation
from vectorlake.kernels.ivf.scan import LOOK_UPS, scan
from vectorlake.kernels.ivf.tables import fill_tables
from vectorlake.kernels.ivf.transform import DEAD, FINE, KEEP_LENGTH, ONE_LENGTH, transform_rows
from vectorlake.kernels.jit import entry
from vectorlake.kernels.rows import FLOAT32

NO_WORDS = np.empty(0, np.uint32)
NO_CODEBOOK = np.empty((0, 16, 1), np.float32)


def blocks_of(codes: npt.NDArray[np.uint8], terms: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    count = -(-len(codes) // 32)
    rows = np.full(count * 32, -1, np.int64)
    rows[: len(codes)] = np.arange(len(codes))
    blocks = np.empty((count, 32 * (codes.shape[1] + 8)), np.uint8)
    place_rows(1, rows, codes, terms, 0, count, blocks)
    return blocks


def scanned(
    blocks: npt.NDArray[np.uint8],
    tables: npt.NDArray[np.uint8],
    *,
    planes: int,
    fine: bool,
    pool: int,
    allowed: npt.NDArray[np.uint32] = NO_WORDS,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Scan one partition for all queries."""
    count = len(tables)
    estimates, slots = np.empty((count, pool), np.float32), np.empty((count, pool), np.int64)
    scan(
        LOOK_UPS,
        int(fine),
        planes,
        tables.shape[1] // 32,
        blocks.shape[1],
        np.array([blocks.ctypes.data]),
        np.array([0, len(blocks)]),
        allowed,
        tables,
        np.ones(count, np.float32),
        np.zeros(count, np.float32),
        np.zeros((count, 1), np.int32),
        np.zeros((count, 1), np.float32),
        np.empty(0, np.int64),
        pool,
        2 * pool + 128,
        estimates,
        slots,
        np.zeros(2, np.int64),
    )
    order = np.argsort(slots, axis=1)
    return np.take_along_axis(estimates, order, 1), np.take_along_axis(slots, order, 1)


def sums_of(
    codes: npt.NDArray[np.uint8], tables: npt.NDArray[np.uint8], planes: int
) -> npt.NDArray[np.float32]:
    """What the scan computes, in plain numpy."""
    pairs = codes.shape[1] // planes
    numbers = np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), planes, 2 * pairs)
    entries = tables.reshape(len(tables), 2 * pairs, 16).astype(np.int64)
    found = entries[:, np.arange(2 * pairs)[None, None, :], numbers]
    weights = 2 ** np.arange(planes)[::-1]
    return (found.sum(axis=3) * weights).sum(axis=2).astype(np.float32)


@pytest.mark.parametrize(("planes", "fine"), [(1, False), (1, True), (3, True)])
@pytest.mark.parametrize("rows", [1, 32, 77, 200])
@pytest.mark.parametrize("queries", [1, 4, 7])
def test_scanned_sums_are_those_of_numpy(planes: int, fine: bool, rows: int, queries: int) -> None:
    rng = np.random.default_rng(rows + queries)
    pairs = 12
    codes = rng.integers(0, 256, (rows, planes * pairs), np.uint8)
    terms = np.stack([rng.integers(0, 9, rows), rng.integers(1, 4, rows)], axis=1).astype(np.float32)
    tables = rng.integers(0, 128 if fine else 32, (queries, 32 * pairs), np.uint8)
    estimates, slots = scanned(blocks_of(codes, terms), tables, planes=planes, fine=fine, pool=rows)
    assert (slots == np.arange(rows)).all()
    assert (estimates == terms[:, 0] + terms[:, 1] * sums_of(codes, tables, planes)).all()


@entry("void(int64, int64, uint8[:, ::1], int64[::1], int64, float32, float32[:, :, ::1])")
def _add_up(portable: int, fine: int, blocks: Any, tables: Any, pairs: int, factor: Any, sums: Any) -> None:
    """A block past four queries, or two blocks past one, as `sums` has places."""
    at, stride, table_at, out = address_of(blocks), blocks.shape[1], address_of(tables), address_of(sums)
    if portable:
        fastscan.scan_portable(sums.shape[0], sums.shape[1], at, stride, table_at, pairs, factor, out)
    elif sums.shape[0] > 1:
        if fine:
            fastscan.scan_group_fine(at, stride, table_at, pairs, factor, out)
        else:
            fastscan.scan_group_coarse(at, stride, table_at, pairs, factor, out)
    elif fine:
        fastscan.scan_one_fine(at, stride, table_at, pairs, factor, out)
    else:
        fastscan.scan_one_coarse(at, stride, table_at, pairs, factor, out)


@pytest.mark.skipif(not has_avx2(), reason="this CPU has no AVX2")
@pytest.mark.parametrize("fine", [0, 1])
@pytest.mark.parametrize("shape", [(fastscan.GROUP, 1), (1, fastscan.TOGETHER)])
def test_portable_sums_are_those_of_avx2(fine: int, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(11)
    pairs = 20
    blocks = rng.integers(0, 256, (2, pairs * 32), np.uint8)
    tables = [rng.integers(0, 128 if fine else 32, 32 * pairs, np.uint8) for _ in range(4)]
    addresses = np.array([table.ctypes.data for table in tables])
    before = rng.integers(0, 99, (*shape, 32)).astype(np.float32)
    sums = [before.copy(), before.copy()]
    for portable in (0, 1):
        _add_up(portable, fine, blocks, addresses, pairs, np.float32(2), sums[portable])
    assert (sums[0] == sums[1]).all()
    assert (sums[0] != before).any()


@pytest.mark.parametrize("queries", [1, 5, 6, 13])
@pytest.mark.parametrize(("partitions", "dimension"), [(1, 3), (16, 32), (70, 37)])
def test_products_with_centroids_are_those_of_numpy(queries: int, partitions: int, dimension: int) -> None:
    rng = np.random.default_rng(queries + partitions)
    asked = rng.integers(-9, 10, (queries, dimension)).astype(np.float32)
    centroids = rng.integers(-9, 10, (partitions, dimension)).astype(np.float32)
    panels = panels_of(centroids)
    products = np.full((queries, panels.shape[0] * panels.shape[2]), np.nan, np.float32)
    multiply(asked, panels, products)
    assert (products[:, :partitions] == asked @ centroids.T).all()
    assert (products[:, partitions:] == 0).all()


@pytest.mark.parametrize("waves", [[], [1], [3, 11]])
def test_the_nearest_partitions_are_chosen_and_come_wave_by_wave(waves: list[int]) -> None:
    rng = np.random.default_rng(len(waves))
    distances = rng.permutation(60 * 20).reshape(20, 60).astype(np.float32)
    handicaps = rng.integers(0, 300, 60).astype(np.float32)
    probes, shifts = np.empty((20, 17), np.int32), np.empty((20, 17), np.float32)
    dead = np.zeros(20, np.uint8)
    dead[4] = 1
    products = np.concatenate([distances, np.full((20, 4), -1e9, np.float32)], axis=1)  # padding is not read
    choose_probes(
        products,
        np.float32(1),
        np.zeros(60, np.float32),
        np.zeros(20, np.float32),
        dead,
        np.empty(0, np.int64),
        0,
        np.array(waves, np.int64),
        np.empty((0, 1), np.float32),
        handicaps,
        17,
        probes,
        shifts,
    )
    assert (probes[4] == -1).all()
    alive = dead == 0
    assert (np.take_along_axis(distances, probes, 1)[alive] == shifts[alive]).all()
    chosen = np.take_along_axis(distances + handicaps, probes, 1)[alive]
    order = np.sort(distances + handicaps, axis=1)[alive]
    for end in (*waves, 17):
        assert (np.sort(chosen[:, :end], axis=1) == order[:, :end]).all()


def test_only_what_is_allowed_passes_and_the_nearest_of_it() -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 256, (500, 8), np.uint8)
    terms = np.stack([rng.random(500), np.ones(500)], axis=1).astype(np.float32)
    tables = rng.integers(0, 32, (5, 256), np.uint8)
    allowed = rng.random(512) < 0.3
    allowed[64:160] = False
    words = np.packbits(allowed, bitorder="little").view(np.uint32)
    estimates, slots = scanned(blocks_of(codes, terms), tables, planes=1, fine=False, pool=20, allowed=words)
    assert allowed[slots].all()
    assert (slots < 500).all()
    want = np.sort((terms[:, 0] + sums_of(codes, tables, 1))[:, allowed[:500]], axis=1)[:, :20]
    assert (np.sort(estimates, axis=1) == want).all()


@pytest.mark.parametrize("interleaved", [0, 1])
def test_what_was_placed_is_lifted(interleaved: int) -> None:
    rng = np.random.default_rng(4)
    codes, terms = rng.integers(0, 256, (70, 12), np.uint8), rng.random((70, 2), np.float32)
    rows = np.full(96, -1, np.int64)
    slots = np.sort(rng.choice(96, 70, replace=False))
    rows[slots] = rng.permutation(70)
    blocks = np.empty((3, 32 * 20), np.uint8)
    place_rows(interleaved, rows, codes, terms, 0, 3, blocks)
    again, terms_again = np.empty_like(codes), np.empty_like(terms)
    lift_rows(interleaved, slots, blocks.ctypes.data, again, terms_again)
    assert (again == codes[rows[slots]]).all()
    assert (terms_again == terms[rows[slots]]).all()


def transform(vectors: npt.NDArray[np.float32], mode: int = KEEP_LENGTH, seed: int = 0) -> Any:
    width = padded(vectors.shape[1])
    out, states = np.empty((len(vectors), width), np.float32), np.empty(len(vectors), np.uint8)
    transform_rows(
        mode,
        FLOAT32,
        vectors.ctypes.data,
        vectors.strides[0],
        0,
        len(vectors),
        1.0,
        np.zeros(vectors.shape[1]),
        1.0,
        *random_rotation(width, np.random.default_rng(seed)),
        out,
        states,
        np.empty(len(vectors)),
    )
    return out, states


@pytest.mark.parametrize("dimension", [3, 32, 96, 100, 960])
def test_rotation_keeps_products_and_spreads_every_element(dimension: int) -> None:
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((20, dimension)).astype(np.float32)
    rotated, states = transform(vectors)
    assert (states == FINE).all()
    np.testing.assert_allclose(rotated @ rotated.T, vectors @ vectors.T, atol=1e-4 * dimension)
    single = np.zeros((1, dimension), np.float32)
    single[0, 0] = 1
    # No element of a rotated unit vector is large: their magnitudes are about those of a normal distribution.
    assert np.abs(transform(single)[0]).max() < 6 / np.sqrt(padded(dimension))


def test_rows_that_never_match_are_told() -> None:
    vectors = np.ones((3, 8), np.float32)
    vectors[1] = 0
    vectors[2, 3] = np.nan
    assert transform(vectors, ONE_LENGTH)[1].tolist() == [FINE, DEAD, DEAD]
    assert transform(vectors, KEEP_LENGTH)[1].tolist() == [FINE, FINE, DEAD]


@pytest.mark.parametrize("planes", [1, 2, 4])
def test_estimates_of_inner_products_are_unbiased_and_sharpen_with_bits(planes: int) -> None:
    """Over rotations, the mean of the estimate is the product (Gao & Long 2024), and its error falls with the bits."""
    rng = np.random.default_rng(6)
    dimension, rotations = 64, 300
    row = rng.standard_normal((1, dimension)).astype(np.float32)
    query = (row + rng.standard_normal((1, dimension))).astype(np.float32)
    row /= np.linalg.norm(row)
    query /= np.linalg.norm(query)
    estimates = []
    for seed in range(rotations):
        rotated = transform(np.concatenate([row, query]), seed=seed)[0]
        codes = np.empty((1, planes * dimension // 8), np.uint8)
        terms = np.empty((1, 2), np.float32)
        zero = np.zeros((1, dimension), np.float32)
        encode_rows(
            BY_BITS, planes, NO_CODEBOOK, 1, np.float32(1), zero, zero[0], rotated[:1],
            np.zeros(1, np.uint8), np.zeros(1, np.int32), 0, 1, codes, terms,
        )  # fmt: skip
        tables = np.empty((1, 4 * dimension), np.uint8)
        slopes, bases = np.empty(1, np.float32), np.empty(1, np.float32)
        fill_tables(rotated[1:], planes, 127, NO_CODEBOOK, 0, 1, tables, slopes, bases)
        product = slopes[0] * sums_of(codes, tables, planes)[0, 0] + bases[0]
        estimates.append(-(terms[0, 0] + terms[0, 1] * product))
    errors = np.array(estimates) - float(row[0] @ query[0])
    deviation = errors.std()
    assert deviation < 0.8 / (2 ** (planes - 1) * np.sqrt(dimension))
    assert abs(errors.mean()) < 5 * deviation / np.sqrt(rotations)


@pytest.mark.parametrize("by_dot", [0, 1])
def test_bytes_estimate_distances_closely(by_dot: int) -> None:
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((50, 24)).astype(np.float32)
    centroids = rng.standard_normal((3, 24)).astype(np.float32)
    places = rng.integers(0, 3, 50).astype(np.int32)
    query = rng.standard_normal(24).astype(np.float32)
    codes, terms = np.empty((50, 24), np.uint8), np.empty((50, 2), np.float32)
    encode_rows(
        BY_BYTES, 1, NO_CODEBOOK, by_dot, np.float32(1), centroids, np.zeros(24, np.float32), rows,
        np.zeros(50, np.uint8), places, 0, 50, codes, terms,
    )  # fmt: skip
    estimates = terms[:, 0] + terms[:, 1] * (codes.view(np.int8) @ query)
    apart = query - centroids[places]
    shifts = -(centroids[places] @ query) if by_dot else np.square(apart).sum(axis=1)
    truth = -(rows @ query) if by_dot else np.square(rows - query).sum(axis=1)
    np.testing.assert_allclose(estimates + shifts, truth, atol=0.4)


def test_nearest_centroids() -> None:
    rng = np.random.default_rng(8)
    rows, centroids = rng.standard_normal((300, 9)), rng.standard_normal((21, 9))
    places, distances = nearest_centroids(rows.astype(np.float32), centroids.astype(np.float32))
    exact = np.square(rows[:, None] - centroids[None]).sum(axis=2)
    assert (places == exact.argmin(axis=1)).all()
    np.testing.assert_allclose(distances, exact.min(axis=1), atol=1e-3)


@pytest.mark.parametrize("flat_most", [4096, 20])
def test_no_partition_is_ten_times_the_mean(flat_most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skewed data: half of the rows in one tight cluster, others far apart."""
    rng = np.random.default_rng(9)
    monkeypatch.setattr(kmeans, "FLAT_MOST", flat_most)
    size, count, iterations = 3000, 32, 8
    tight = rng.standard_normal((size // 2, 8)) * 0.05
    wide = rng.standard_normal((size // 2, 8)) * 3 + 5
    rows = np.concatenate([tight, wide]).astype(np.float32)
    centroids = k_means(rows, count, iterations=iterations, rng=np.random.default_rng(1))
    assert centroids.shape == (count, 8)
    sizes = np.bincount(nearest_centroids(rows, centroids)[0], minlength=count)
    assert sizes.max() < 10 * sizes.mean()
    again = k_means(rows, count, iterations=iterations, rng=np.random.default_rng(1))
    assert (again == centroids).all()


def test_k_means_of_equal_rows_and_of_too_few() -> None:
    equal = np.ones((40, 5), np.float32)
    assert np.isfinite(k_means(equal, 7, iterations=4, rng=np.random.default_rng(0))).all()
    few = np.eye(3, 5, dtype=np.float32)
    assert k_means(few, 7, iterations=4, rng=np.random.default_rng(0)).shape == (7, 5)
