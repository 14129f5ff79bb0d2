"""Jobs on Spark: tasks in its workers, one commit, failed and killed tasks tried again, finished ones not done again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import plain_job
import pytest
from plain_job import CountJob
from spark_support import session

import vectorlake as vl
from vectorlake.jobs import JobFailedError, job_status, run_job

pytest.importorskip("vectorlake_spark")
pytestmark = pytest.mark.slow


@pytest.fixture
def table(tmp_path: Path) -> vl.Table:
    # Spark's workers have a path of their own, on which the tests are not.
    session().sparkContext.addPyFile(plain_job.__file__)
    return vl.connect(tmp_path / "lake").create_table("t", {"id": list(range(40))})


@pytest.fixture
def count(table: vl.Table, tmp_path: Path) -> Callable[..., CountJob]:
    marks = tmp_path / "marks"
    marks.mkdir()

    def make(**faults: str) -> CountJob:
        for task in faults:
            (marks / f"fault-{task}").touch()
        return CountJob(table.uri, str(marks), faults=faults)

    return make


def executions(job: CountJob) -> list[int]:
    return [job.marked(f"run-t{n}") for n in range(job.tasks)]


def test_a_job_runs_in_sparks_workers_and_is_not_done_again(
    table: vl.Table, count: Callable[..., CountJob]
) -> None:
    job = count()
    done = run_job(job, job_id="j", engine="spark")
    assert done.outcome == {"version": 2, "count": 40}
    assert run_job(job, job_id="j", engine="spark").executed == 0
    assert executions(job) == [1, 1, 1, 1]
    assert table.refresh().version == 2


@pytest.mark.parametrize(("fault", "told"), [("raise", "RuntimeError: no luck"), ("exit", "WorkerDied")])
def test_failed_and_killed_tasks_are_tried_again(
    table: vl.Table, count: Callable[..., CountJob], fault: str, told: str
) -> None:
    job = count(t1=fault)
    done = run_job(job, job_id="j", engine="spark")
    assert done.outcome["count"] == 40
    assert executions(job) == [1, 2, 1, 1]
    (failure,) = job_status(table.store, "j").failures
    assert told in str(failure)


def test_a_job_that_failed_goes_on_where_it_stopped(table: vl.Table, count: Callable[..., CountJob]) -> None:
    job = count(t2="always")
    with pytest.raises(JobFailedError, match="never any luck"):
        run_job(job, job_id="j", engine="spark", retries=1)
    assert table.refresh().version == 1
    Path(job.marks, "fault-t2").unlink()
    done = run_job(job, job_id="j", engine="spark")
    assert (done.executed, done.reused) == (2, 3)
    assert executions(job) == [1, 1, 3, 1]
