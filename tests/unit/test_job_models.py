"""Clusters and projections of jobs, beside what scikit-learn and numpy give for the same rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from vectorlake_jobs import apply_model, cluster, reduce

import vectorlake as vl
from vectorlake.errors import AlreadyExistsError, InvalidInputError
from vectorlake.jobs import JobRun, Plan

QUICK: dict[str, Any] = {"engine": "threads", "workers": 2}
CENTRES = np.array([[0, 0, 0, 0], [9, 0, 0, 0], [0, 9, 0, 3], [9, 9, 9, 0]], np.float32)


def near(centre: int, rows: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(rows, 4)) * np.array([1, 0.5, 0.25, 0.125])
    return (CENTRES[centre] + noise).astype(np.float32)


def vectors(rows: np.ndarray, holes: tuple[int, ...] = ()) -> pa.Array:
    mask = pa.array(np.isin(np.arange(len(rows)), holes))
    return pa.FixedSizeListArray.from_arrays(rows.reshape(-1), rows.shape[1], mask=mask)


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    return vl.connect(tmp_path / "lake")


@pytest.fixture
def items(lake: vl.Lake) -> vl.Table:
    """Four blobs of 100 rows, mixed, in two fragments, with a null vector and deleted rows."""
    rows = np.concatenate([near(centre, 100, centre) for centre in range(4)])
    truth = np.repeat(np.arange(4), 100)
    order = np.random.default_rng(9).permutation(400)
    rows, truth = rows[order], truth[order]
    table = lake.create_table(
        "items", {"id": np.arange(250), "truth": truth[:250], "vec": vectors(rows[:250], (5,))}
    )
    table.append({"id": np.arange(250, 400), "truth": truth[250:], "vec": vectors(rows[250:])})
    table.delete("id % 50 = 7")
    return table


def matrix(table: vl.Table, column: str = "vec") -> np.ndarray:
    array = table.scan([column], f"{column} IS NOT NULL").to_arrow()[column].combine_chunks()
    plain = array.storage if isinstance(array, pa.ExtensionArray) else array
    return plain.flatten().to_numpy().reshape(len(plain), -1)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("batch_share", [1.0, 0.6])
def test_blobs_are_clusters(items: vl.Table, metric: str, batch_share: float) -> None:
    version = items.version
    if metric == "cosine":  # directions that differ
        items.update({"truth": "truth"}, where="id < 0")
    done = cluster(items, k=4, metric=metric, batch_share=batch_share, task_rows=100, **QUICK)
    assert isinstance(done, JobRun)
    items.refresh()
    assert items.version == done.outcome["version"] == version + 1
    rows = items.scan(["truth", "cluster", "vec"]).to_arrow().to_pylist()
    assert all((row["cluster"] is None) == (row["vec"] is None) for row in rows)
    if metric == "l2":
        pairs = {(row["truth"], row["cluster"]) for row in rows if row["vec"] is not None}
        assert sorted(cluster for _, cluster in pairs) == [0, 1, 2, 3]
        assert len(pairs) == 4


def test_the_inertia_is_that_of_scikit_learn(items: vl.Table) -> None:
    from sklearn.cluster import KMeans

    done = cluster(items, k=4, task_rows=64, iterations=30, tolerance=0, **QUICK)
    assert isinstance(done, JobRun)
    peer = KMeans(4, n_init=5, random_state=0).fit(matrix(items))
    assert done.outcome["inertia"] == pytest.approx(peer.inertia_, rel=1e-4)
    assert done.outcome["passes"] <= 30


def test_the_same_seed_gives_the_same_clusters_however_it_is_cut(items: vl.Table) -> None:
    for name in ("a", "b"):
        cluster(items.refresh(), k=4, column="vec", as_column=name, seed=3, task_rows=100, **QUICK)
    found = items.refresh().scan(["a", "b"]).to_arrow()
    assert found["a"].equals(found["b"])


def test_a_kept_model_is_applied_to_rows_that_come_later(items: vl.Table, lake: vl.Lake) -> None:
    cluster(items, k=4, model="models.blobs", lake=lake, **QUICK)
    items.refresh().append({"id": [900, 901], "truth": [2, 0], "vec": vectors(CENTRES[[2, 0]])})
    known = {
        row["truth"]: row["cluster"]
        for row in items.scan(["truth", "cluster"]).to_arrow().to_pylist()
        if row["cluster"] is not None
    }
    apply_model(items, lake.table("models.blobs"), as_column="cluster", **QUICK)
    found = items.refresh().scan(["truth", "cluster"], "id >= 900").to_arrow().to_pylist()
    assert [row["cluster"] for row in found] == [known[2], known[0]]


def test_pca_is_that_of_the_covariance(items: vl.Table, lake: vl.Lake) -> None:
    from sklearn.decomposition import PCA

    done = reduce(items, dimensions=2, task_rows=90, model="models.pca", lake=lake, **QUICK)
    assert isinstance(done, JobRun)
    rows = matrix(items)
    peer = PCA(2).fit(rows.astype(np.float64))
    assert done.outcome["explained_variance"] == pytest.approx(peer.explained_variance_ratio_.sum(), abs=1e-5)
    found, wanted = matrix(items.refresh(), "reduced"), peer.transform(rows)
    assert np.abs(np.abs(found) - np.abs(wanted)).max() < 1e-3
    assert items.count("reduced IS NULL") == 1
    assert items.schema.field("reduced").type == vl.vector(2)


@pytest.mark.parametrize("element", ["f32", "f16"])
def test_truncated_vectors_are_the_first_numbers_of_unit_length(items: vl.Table, element: str) -> None:
    reduce(items, dimensions=3, method="truncate", element=element, **QUICK)
    rows = matrix(items)[:, :3]
    wanted = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = matrix(items.refresh(), "reduced")
    assert found.dtype == {"f32": np.float32, "f16": np.float16}[element]
    assert np.allclose(found, wanted, atol=1e-6 if element == "f32" else 1e-3)


def test_a_random_projection_is_linear_and_of_its_seed(items: vl.Table) -> None:
    reduce(items, dimensions=2, method="random", column="vec", as_column="a", seed=1, **QUICK)
    reduce(items.refresh(), dimensions=2, method="random", column="vec", as_column="b", seed=1, **QUICK)
    items.refresh()
    assert np.array_equal(matrix(items, "a"), matrix(items, "b"))
    solved, left, _, _ = np.linalg.lstsq(
        matrix(items).astype(np.float64), matrix(items, "a").astype(np.float64)
    )
    assert left.max() < 1e-6
    assert solved.shape == (4, 2)


UMAP = """
import sys
import numpy as np
import vectorlake as vl
from vectorlake_jobs import reduce

table = vl.connect(sys.argv[1]).table("items")
reduce(table, dimensions=2, method="umap", engine="threads", workers=1)
rows = table.refresh().scan(["truth", "reduced"], "reduced IS NOT NULL").to_arrow()
flat, truth = np.array(rows["reduced"].to_pylist()), rows["truth"].to_numpy()
middles = np.stack([flat[truth == number].mean(axis=0) for number in range(4)])
nearest = np.linalg.norm(flat[:, None] - middles, axis=2).argmin(axis=1)
print(len(rows), (nearest == truth).mean())
"""


@pytest.mark.slow
def test_umap_lays_blobs_apart(lake: vl.Lake) -> None:
    """In a process that compiles nothing: for few rows umap's own compiling is nearly all that it does."""
    rows = np.concatenate([near(centre, 10, centre) for centre in range(4)])
    lake.create_table("items", {"truth": np.repeat(np.arange(4), 10), "vec": vectors(rows, (5,))})
    environment = {
        **os.environ,
        "NUMBA_DISABLE_JIT": "1",
        "PYTHONPATH": os.pathsep.join(place for place in sys.path if place),
    }
    command = [sys.executable, "-c", UMAP, str(lake.uri)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, share = done.stdout.split()
    assert (int(count), float(share) > 0.95) == (39, True)


def test_a_dry_run_writes_nothing(items: vl.Table) -> None:
    plan = cluster(items, k=4, task_rows=100, dry_run=True)
    assert isinstance(plan, Plan)
    assert (len(plan.stage.tasks), plan.rows) == (5, 400)
    assert items.refresh().schema.names == ["id", "truth", "vec"]


BAD: dict[str, tuple[Any, str]] = {
    "too many clusters": (lambda t, lake: cluster(t, k=395, **QUICK), "different vectors"),
    "no clusters": (lambda t, lake: cluster(t, k=0), "k must be a whole number from 1"),
    "metric": (lambda t, lake: cluster(t, k=2, metric="dot"), "metric must be one of l2, cosine"),
    "share": (lambda t, lake: cluster(t, k=2, batch_share=0), "batch_share must be above 0"),
    "no vectors": (lambda t, lake: cluster(t, k=2, column="id"), "column of vectors is needed|holds"),
    "method": (lambda t, lake: reduce(t, dimensions=2, method="svd"), "method must be one of pca"),
    "dimensions": (lambda t, lake: reduce(t, dimensions=5), "from 1 up to 4"),
    "onto itself": (
        lambda t, lake: reduce(t, dimensions=2, column="vec", as_column="vec"),
        "can't hold its own",
    ),
    "no lake": (lambda t, lake: reduce(t, dimensions=2, model="m"), "lake="),
    "no model": (lambda t, lake: apply_model(t, t, as_column="c", column="vec"), "holds no model"),
    "rows": (lambda t, lake: apply_model(t, t, as_column="c", rows="some"), "'missing' or 'all'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_can_not_be_is_refused(items: vl.Table, lake: vl.Lake, case: str) -> None:
    start, message = BAD[case]
    with pytest.raises(vl.VectorlakeError, match=message):
        start(items, lake)
    assert items.refresh().schema.names == ["id", "truth", "vec"]
    assert lake.tables() == ["main.items"]


def test_a_column_of_nulls_has_nothing_to_fit_to(lake: vl.Lake) -> None:
    table = lake.create_table("none", {"id": [1, 2], "vec": vectors(np.zeros((2, 4), np.float32), (0, 1))})
    with pytest.raises(InvalidInputError, match="nothing to fit to"):
        reduce(table, dimensions=2, **QUICK)


def test_a_model_of_another_dimension_is_refused(items: vl.Table, lake: vl.Lake) -> None:
    cluster(items, k=2, model="m", lake=lake, **QUICK)
    other = lake.create_table("other", {"vec": vectors(np.ones((3, 2), np.float32))})
    with pytest.raises(vl.VectorlakeError, match="vectors of 4 numbers"):
        apply_model(other, lake.table("m"), as_column="c", **QUICK)
    with pytest.raises(AlreadyExistsError, match="'m'"):
        cluster(items, k=2, model="m", lake=lake, **QUICK)
