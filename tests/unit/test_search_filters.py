"""Recall under filters: never below the unfiltered one by more than a point, whatever the rows have to do with the query."""

from __future__ import annotations

import numpy as np
import pytest

import vectorlake as vl

ROWS, DIMENSION, QUERIES = 12_000, 24, 60
KINDS = {"ivf": {"nprobe": 8}, "graph": {"ef": 48}}


@pytest.fixture(scope="module", params=list(KINDS))
def indexed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[vl.Table, str, np.ndarray, np.ndarray]:
    """Clustered vectors with an index, its kind, and queries of the same clusters."""
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((60, DIMENSION)) * 1.2
    cluster = rng.integers(0, 60, ROWS + QUERIES)
    points = (centres[cluster] + rng.standard_normal((ROWS + QUERIES, DIMENSION))).astype("f4")
    data = {
        "cluster": cluster[:ROWS],
        "noise": rng.random(ROWS),
        "side": points[:ROWS, 0],
        "vec": points[:ROWS],
    }
    table = vl.connect(str(tmp_path_factory.mktemp("lake"))).create_table("t", data)
    table.create_index("vec", request.param, name="ix")
    return table, request.param, points[:ROWS], points[ROWS:]


def recall(table: vl.Table, queries: np.ndarray, **options: object) -> float:
    kept = {name: value for name, value in options.items() if name == "filter"}
    exact = table.knn(queries, **kept)  # type: ignore[arg-type]
    found = table.knn(queries, index="ix", **options)  # type: ignore[arg-type]
    pairs = [
        set(zip(one["query"].to_pylist(), one["row_id"].to_pylist(), strict=True)) for one in (exact, found)
    ]
    assert exact.num_rows > 0
    return len(pairs[0] & pairs[1]) / len(pairs[0])


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("column", ["noise", "side", "other side"])
def test_recall_holds_under_filters(
    share: float, column: str, indexed: tuple[vl.Table, str, np.ndarray, np.ndarray]
) -> None:
    table, kind, _, queries = indexed
    values = table.scan(columns=["noise" if column == "noise" else "side"]).to_arrow().column(0).to_numpy()
    if column == "other side":
        condition = f"side >= {float(np.quantile(values, 1 - share))!r}"
    else:
        condition = f"{column} <= {float(np.quantile(values, share))!r}"
    # As the planner likes, and by the index however few rows are left.
    for effort in ({}, {"target_recall": 0.8}, KINDS[kind]):
        bare = recall(table, queries, **effort)
        assert recall(table, queries, filter=condition, **effort) >= bare - 0.01


def test_a_target_is_reached_and_costs_accordingly(
    indexed: tuple[vl.Table, str, np.ndarray, np.ndarray],
) -> None:
    table, _, _, queries = indexed
    scored = []
    for target in (0.7, 0.9, 0.99):
        assert recall(table, queries, target_recall=target) >= target - 0.03
        scored.append(table.explain_knn(queries, target_recall=target).scored)
    assert scored == sorted(scored)
    told = table.evaluate_index("ix", queries, target_recall=0.9)
    assert told.expected_recall is not None
    assert abs(told.recall - told.expected_recall) < 0.1
