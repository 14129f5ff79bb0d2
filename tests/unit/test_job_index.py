"""Indexes built and kept by jobs: of several parts, merged, searched as those of the table itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vectorlake_jobs import build_index, update_index

import vectorlake as vl
from vectorlake.errors import AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError
from vectorlake.jobs import JobRun, Plan, executor_named

QUICK: dict[str, Any] = {"engine": "threads", "workers": 2}
RNG = np.random.default_rng(8)


def rows(first: int, count: int) -> dict[str, Any]:
    return {"id": np.arange(first, first + count), "vec": RNG.normal(size=(count, 16)).astype(np.float32)}


@pytest.fixture
def table(tmp_path: Path) -> vl.Table:
    table = vl.connect(tmp_path / "lake").create_table("t", rows(0, 1500))
    table.append(rows(1500, 500))
    table.delete("id % 10 = 4")
    return table


def same_as_exact(table: vl.Table) -> None:
    queries = RNG.normal(size=(20, 16)).astype(np.float32)
    found = table.knn(queries, k=5, mode="index", nprobe=10_000, pool=10_000)
    assert found.column("row_id").to_pylist() == table.knn(queries, k=5).column("row_id").to_pylist()


@pytest.mark.parametrize(("segment_rows", "segments"), [(4_000_000, 1), (1000, 2), (300, 7)], ids=str)
@pytest.mark.parametrize("kind", ["ivf", "flat"])
def test_an_index_of_many_parts(table: vl.Table, kind: str, segment_rows: int, segments: int) -> None:
    done = build_index(table, kind=kind, task_rows=300, segment_rows=segment_rows, calibrate=False, **QUICK)
    assert isinstance(done, JobRun)
    (info,) = table.refresh().indexes()
    assert len(table.snapshot.indexes[0].segments) == done.outcome["segments"] == segments
    assert done.outcome["indexed_rows"] == 1800
    assert info.uncovered_rows == 0
    assert table.snapshot.operation == "create-index"
    assert table.snapshot.summary["job"] == done.job_id
    same_as_exact(table)


def test_the_same_model_as_without_a_job(table: vl.Table) -> None:
    build_index(table, name="a", task_rows=300, **QUICK)
    table.refresh().create_index("vec", name="b")
    (one, other) = table.snapshot.indexes
    assert one.options == other.options
    assert one.calibration
    queries = RNG.normal(size=(30, 16)).astype(np.float32)
    found = [
        table.knn(queries, k=5, index=name, nprobe=3).column("row_id").to_pylist() for name in ("a", "b")
    ]
    assert found[0] == found[1]


def test_only_what_is_new_is_taken_in(table: vl.Table) -> None:
    build_index(table, task_rows=2000, calibrate=False, **QUICK)
    table.refresh().append(rows(5000, 200))
    table.delete("id < 50")
    plan = update_index(table, "vec_ivf", dry_run=True)
    assert isinstance(plan, Plan)
    assert plan.rows == 200
    done = update_index(table, "vec_ivf", task_rows=90, **QUICK)
    assert isinstance(done, JobRun)
    assert table.refresh().snapshot.operation == "optimize-index"
    (info,) = table.indexes()
    assert info.uncovered_rows == 0
    same_as_exact(table)
    again = update_index(table, "vec_ivf", **QUICK)
    assert isinstance(again, JobRun)
    assert table.refresh().version == done.outcome["version"], "nothing was left to do"


def test_an_outgrown_index_is_made_anew(table: vl.Table) -> None:
    build_index(table, task_rows=2000, calibrate=False, **QUICK)
    before = table.refresh().snapshot.indexes[0]
    table.append(rows(5000, 6000))
    update_index(table, "vec_ivf", **QUICK)
    (after,) = table.refresh().snapshot.indexes
    assert table.snapshot.operation == "rebuild-index"
    assert after.model_id != before.model_id
    assert table.indexes()[0].uncovered_rows == 0


def test_what_others_commit_meanwhile(table: vl.Table) -> None:
    inner = executor_named("threads")
    other = vl.open_table(table.uri)

    class Changing:
        capacity, close = inner.capacity, inner.close

        @staticmethod
        def run(*args: Any, **kwargs: Any) -> Any:
            if other.version == table.version:
                other.append(rows(9000, 30))
                other.delete("id < 100")
                other.compact()
            return inner.run(*args, **kwargs)

    build_index(table, task_rows=300, calibrate=False, engine=Changing())
    (info,) = table.refresh().indexes()
    assert info.uncovered_rows == 30
    same_as_exact(table)


@pytest.mark.parametrize(
    ("wishes", "kind", "told"),
    [
        ({"column": "id"}, InvalidInputError, "not a vector"),
        ({"column": "vek"}, NotFoundError, "did you mean 'vec'"),
        ({"kind": "ivff"}, InvalidInputError, "ivf"),
        ({"metric": "l3"}, InvalidInputError, "l3"),
        ({"index_options": {"partitionz": 3}}, InvalidInputError, "partition"),
        ({"name": "there"}, AlreadyExistsError, "there"),
    ],
)
def test_wrong_wishes_are_refused(
    table: vl.Table, wishes: dict[str, Any], kind: type[Exception], told: str
) -> None:
    table.create_index("vec", "flat", name="there", calibrate=False)
    with pytest.raises(kind, match=told):
        build_index(table, **wishes, **QUICK)
    with pytest.raises(NotFoundError, match="did you mean 'there'"):
        update_index(table, "ther", **QUICK)


def test_an_index_that_another_changed_meanwhile(table: vl.Table) -> None:
    build_index(table, task_rows=2000, calibrate=False, **QUICK)
    table.refresh().append(rows(7000, 100))
    inner = executor_named("threads")

    class Changing:
        capacity, close = inner.capacity, inner.close

        @staticmethod
        def run(*args: Any, **kwargs: Any) -> Any:
            vl.open_table(table.uri).optimize_indexes()
            return inner.run(*args, **kwargs)

    with pytest.raises(ConflictError, match="another writer has changed index"):
        update_index(table, "vec_ivf", engine=Changing(), job_id="j")
