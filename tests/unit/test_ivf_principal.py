"""Codes of an inverted file that cover only the directions that vectors differ along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vectorlake as vl
from vectorlake.index.ivf import IvfKind
from vectorlake.index.ivf_model import Model, model_of, transformed
from vectorlake.kernels.metric import Metric
from vectorlake.testing.index_kinds import Recipe

DIMENSION, RANK, ROWS, QUERIES = 96, 24, 3000, 50


def along_few(count: int, seed: int = 1) -> np.ndarray:
    """Vectors that differ along RANK directions, and hardly along the others."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((DIMENSION, DIMENSION)))[0][:RANK]
    points = rng.standard_normal((count, RANK)) @ basis
    return (points + 0.05 * rng.standard_normal((count, DIMENSION)) + 0.3).astype("f4")


def trained(rows: np.ndarray, metric: Metric = Metric.L2, **options: object) -> Model:
    chosen = {"nlist": 8, "bits": 1, "energy": 0.95, "sample": 10_000, "iterations": 3, **options}
    config, arrays = Recipe(IvfKind(), metric, chosen, threads=2).train(rows)
    model = model_of(arrays, config)
    again = model_of(model.arrays(), config)
    assert again.shape == model.shape
    np.testing.assert_array_equal(again.directions, model.directions)
    return again


@pytest.mark.parametrize("metric", [Metric.L2, Metric.COSINE, Metric.DOT])
def test_the_directions_that_hold_the_energy_are_covered(metric: Metric) -> None:
    rows = along_few(ROWS)
    model = trained(rows, metric)
    assert model.shape.covered == 32  # RANK directions, and up to a multiple of what a code's bytes hold
    assert model.shape.row_bytes == 4
    turned, _, _ = transformed(model, rows[:200], as_queries=False, threads=1)
    energies = np.square(turned).sum(axis=0)
    assert energies[:32].sum() > 0.97 * energies.sum()
    assert energies[:32].max() < 8 * energies[:32].mean()  # each bit tells something
    kept = (
        rows[:200] / np.linalg.norm(rows[:200], axis=1, keepdims=True)
        if metric is Metric.COSINE
        else rows[:200]
    )
    moved = (kept - model.mean) / model.scale
    np.testing.assert_allclose(
        turned @ turned.T, moved @ moved.T, atol=0.01 * np.square(moved).sum(axis=1).max()
    )


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        (along_few(ROWS), {"energy": 1.0}),
        (along_few(ROWS), {"bits": 2, "energy": 1.0}),
        (np.random.default_rng(2).standard_normal((ROWS, DIMENSION)).astype("f4"), {}),
        (along_few(2 * DIMENSION), {}),
        (np.ones((ROWS, DIMENSION), "f4"), {}),
    ],
    ids=["asked", "more bits", "all directions alike", "too few rows to tell", "constant"],
)
def test_codes_cover_all_else(rows: np.ndarray, options: dict[str, object]) -> None:
    model = trained(rows, **options)
    assert model.shape.covered == model.shape.width == DIMENSION
    assert not len(model.directions)


@pytest.mark.parametrize("bits", [1, 3])
@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
def test_searches_equal_the_scan_when_all_is_looked_at(metric: str, bits: int, tmp_path: Path) -> None:
    rows = along_few(ROWS + QUERIES)
    table = vl.connect(str(tmp_path)).create_table("t", {"vec": rows[:ROWS]})
    table.create_index("vec", metric=metric, name="ix", bits=bits, energy=0.95, nlist=12, calibrate=False)
    asked = rows[ROWS:]
    exact = table.knn(asked, metric=metric, mode="exact")
    for queries in (asked, asked[:1]):
        found = table.knn(queries, metric=metric, index="ix", nprobe=12, pool=ROWS)
        assert found.equals(exact.slice(0, found.num_rows))
    # A short code nominates well: what it leaves out tells little.
    few = table.knn(asked, metric=metric, index="ix", nprobe=12, pool=300)
    pairs = [
        set(zip(one["query"].to_pylist(), one["row_id"].to_pylist(), strict=True)) for one in (few, exact)
    ]
    assert len(pairs[0] & pairs[1]) > 0.95 * len(pairs[1])
    table.append({"vec": along_few(200, seed=3)})
    table.optimize_indexes()
    exact = table.knn(asked, metric=metric, mode="exact")
    assert table.knn(asked, metric=metric, index="ix", nprobe=12, pool=2 * ROWS).equals(exact)


@pytest.mark.parametrize("energy", [0, -0.5, 1.01, "all", True])
def test_energy_out_of_range(energy: object, tmp_path: Path) -> None:
    table = vl.connect(str(tmp_path)).create_table("t", {"vec": along_few(50)})
    with pytest.raises(vl.InvalidInputError, match="energy must be a number above 0 and at most 1"):
        table.create_index("vec", energy=energy)
    with pytest.raises(vl.InvalidInputError, match="energy goes with codes 'rabitq'"):
        table.create_index("vec", codes="int8", energy=0.9)
