"""Recall under filters: never more than one point below what was aimed at without one, whatever the filter selects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl

ROWS, DIMENSION, CLUSTERS, QUERIES, K = 12_000, 24, 60, 60, 10
TARGET, SLACK = 0.95, 0.01
SHARES = (0.5, 0.1, 0.01, 0.001)


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> tuple[vl.Table, np.ndarray]:
    """Vectors about centres with an index of each kind, and queries of the same distribution. Columns hold shares of the
    table: `free` is independent of the vectors, `near` grows with the distance from one vector, `along` with one
    coordinate, `cluster` selects whole clusters."""
    rng = np.random.default_rng(11)
    centres = rng.normal(size=(CLUSTERS, DIMENSION))
    member = rng.integers(0, CLUSTERS, ROWS + QUERIES)
    every = (centres[member] + 0.6 * rng.normal(size=(len(member), DIMENSION))).astype(np.float32)
    vectors, queries = every[:ROWS], every[ROWS:]

    def share(values: np.ndarray) -> np.ndarray:
        return np.argsort(np.argsort(values, kind="stable")) / ROWS

    data = pa.table(
        {
            "vec": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSION),
            "free": share(rng.random(ROWS)),
            "near": share(np.square(vectors - vectors[0]).sum(axis=1)),
            "along": share(vectors[:, 0]),
            "cluster": share(member[:ROWS].astype(float)),
        }
    )
    folder: Path = tmp_path_factory.mktemp("filtered")
    table = vl.connect(folder).create_table("t", data)
    table.create_index("vec", "ivf", metric="l2")
    table.create_index("vec", "graph", metric="l2")
    return table, queries


@pytest.mark.parametrize("column", ["free", "near", "along", "cluster"])
@pytest.mark.parametrize("kind", ["ivf", "graph"])
def test_recall_under_filters(kind: str, column: str, clustered: tuple[vl.Table, np.ndarray]) -> None:
    table, queries = clustered
    recalls = {}
    for share in (None, *SHARES):
        where = None if share is None else f"{column} < {share}"
        exact = table.knn(queries, k=K, filter=where)
        found = table.knn(queries, k=K, filter=where, index=f"vec_{kind}", target_recall=TARGET)
        recalls[share] = recall(found, exact)
        # Every search finds as many rows as the scan does: a filter leaves none out.
        assert len(found) == len(exact) == QUERIES * min(K, round(ROWS * (share or 1.0)))
    assert all(value >= TARGET - SLACK for value in recalls.values()), recalls


@pytest.mark.parametrize("column", ["free", "near", "along", "cluster"])
@pytest.mark.parametrize("nprobe", [4, 8])
def test_recall_of_as_many_partitions(
    nprobe: int, column: str, clustered: tuple[vl.Table, np.ndarray]
) -> None:
    """The planner scans what is left of a small table; where partitions are asked for, they are probed."""
    table, queries = clustered
    recalls = {}
    for share in (None, *SHARES):
        where = None if share is None else f"{column} < {share}"
        exact = table.knn(queries, k=K, filter=where)
        recalls[share] = recall(table.knn(queries, k=K, filter=where, index="vec_ivf", nprobe=nprobe), exact)
    assert min(recalls.values()) >= recalls[None] - SLACK, recalls


def recall(found: pa.Table, exact: pa.Table) -> float:
    """Share of the pairs (query, row) of the exact answer that were found."""
    pairs = [
        set(zip(one["query"].to_pylist(), one["row_id"].to_pylist(), strict=True)) for one in (found, exact)
    ]
    return len(pairs[0] & pairs[1]) / len(pairs[1])
