"""A clustering that arranges the table: rows keep their ids and values, and lie by cluster, so that others are skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vectorlake_jobs import cluster

import vectorlake as vl
from vectorlake.errors import InvalidInputError
from vectorlake.jobs import JobRun, Plan, executor_named

QUICK: dict[str, Any] = {"engine": "threads", "workers": 2}
ROWS, DIMENSION, K = 4800, 6, 8


def vectors() -> np.ndarray:
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(K, DIMENSION)) * 30
    return (centres[rng.integers(K, size=ROWS)] + rng.normal(size=(ROWS, DIMENSION))).astype("f4")


@pytest.fixture
def table(tmp_path: Path) -> vl.Table:
    items = vl.connect(tmp_path / "lake").create_table("t", {"id": np.arange(ROWS), "vec": vectors()})
    items.delete("id % 11 = 0")
    return items


def contents(table: vl.Table) -> list[dict[str, Any]]:
    return table.scan(["_row_id", "id", "vec"]).to_arrow().sort_by("_row_id").to_pylist()


def test_rows_lie_by_cluster_and_others_are_skipped(table: vl.Table) -> None:
    before, version = contents(table), table.version
    done = cluster(table, k=K, arrange=True, target_rows=1200, **QUICK)
    assert isinstance(done, JobRun)
    assert done.outcome["version"] == table.refresh().version == version + 2
    assert done.outcome["arranged_rows"] == len(before)
    assert contents(table) == before
    assert table.verify() == []
    clusters = table.scan(["cluster"]).to_arrow()["cluster"].to_numpy()
    assert (np.diff(clusters) >= 0).all()
    told = table.explain_knn(vectors()[7], column="vec", k=3)
    assert told.fragments_skipped > 0
    assert told.runs_skipped > told.runs / 2
    assert told.found.equals(table.at(version).knn(vectors()[7], "vec", 3))
    # A filter by cluster opens the fragments that have it, and those alone.
    held = [len(list(table.view.fragments(table.view.bind(f"cluster = {number}")))) for number in range(K)]
    assert table.snapshot.num_fragments == 4
    assert max(held) < 4
    assert table.count("cluster = 3") == int((clusters == 3).sum())


def test_started_again_it_does_nothing_twice(table: vl.Table) -> None:
    first = cluster(table, k=K, arrange=True, job_id="by-like", **QUICK)
    again = cluster(table, k=K, arrange=True, job_id="by-like", **QUICK)
    assert isinstance(first, JobRun)
    assert isinstance(again, JobRun)
    assert (again.executed, again.outcome) == (0, first.outcome)
    assert table.refresh().version == first.outcome["version"]


def test_a_plan_writes_nothing(table: vl.Table) -> None:
    assert isinstance(cluster(table, k=K, arrange=True, dry_run=True, **QUICK), Plan)
    assert table.refresh().version == 2


def test_what_others_do_meanwhile_stays(table: vl.Table) -> None:
    inner = executor_named("threads")

    class Changing:
        capacity, close = inner.capacity, inner.close

        @staticmethod
        def run(*args: Any, **kwargs: Any) -> Any:
            other = vl.open_table(table.uri)
            if "cluster" in other.schema.names and other.count("id = 50") == 1:
                other.delete("id = 50")
                other.append({"id": [90_000], "vec": vectors()[:1]})
            return inner.run(*args, **kwargs)

    cluster(table, k=K, arrange=True, engine=Changing())
    ids = {row["id"] for row in contents(table.refresh())}
    assert 50 not in ids
    assert 90_000 in ids
    assert table.verify() == []
    assert table.knn(vectors()[0], "vec", 2, columns=["id"])["id"].to_pylist()[0] in (0, 90_000)


def test_wrong_wishes_are_refused(table: vl.Table) -> None:
    with pytest.raises(InvalidInputError, match="target_rows"):
        cluster(table, k=K, arrange=True, target_rows=0, **QUICK)
