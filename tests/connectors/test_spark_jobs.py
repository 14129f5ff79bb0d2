"""Jobs on Spark: tasks in its workers, one commit, failed and killed tasks tried again, finished ones not done again."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import job_cases
import job_kills
import plain_functions
import plain_job
import pyarrow as pa
import pytest
import vectorlake_jobs
from job_kills import KILLED, UNHARMED, Kills
from plain_job import CountJob
from spark_support import SUBMIT, SUBMITTED, environment, session

import vectorlake as vl
from vectorlake.jobs import JobFailedError, job_status, run_job

pytest.importorskip("vectorlake_spark")
pytestmark = pytest.mark.slow


def send_modules() -> None:
    """Spark's workers have a path of their own, on which the tests are not."""
    for module in (plain_job, plain_functions, job_cases, job_kills):
        session().sparkContext.addPyFile(module.__file__)


@pytest.fixture
def table(tmp_path: Path) -> vl.Table:
    send_modules()
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


# --- every job, and of some, one for each shape that stages can have, the driver killed and then a worker


@pytest.mark.parametrize("name", UNHARMED)
def test_a_job_runs(kills: Kills, tmp_path: Path, name: str) -> None:
    send_modules()
    kills.run("spark", name, tmp_path)


@pytest.fixture(scope="module")
def killed(kills: Kills, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    kills.only(*KILLED).start_driver("spark", folder).kill()
    return folder


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_driver_and_then_a_worker(kills: Kills, killed: Path, name: str) -> None:
    send_modules()
    kills.resume("spark", name, killed, worker_dies=True)


# --- as a script


def test_spark_submit_starts_a_job(tmp_path: Path) -> None:
    values = pa.FixedSizeListArray.from_arrays(pa.array(range(80), pa.float32()), 2)
    vl.connect(tmp_path / "lake").create_table("v", {"id": list(range(40)), "vec": values})
    script = Path(vectorlake_jobs.__file__).with_name("__main__.py")
    how = ["knn-join", str(tmp_path / "lake"), "v", "--as-column", "near", "-k", "1", "--engine", "spark"]
    command = [str(SUBMIT), "--master", "local[2]", *SUBMITTED, str(script), *how]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "column near" in done.stdout
    near = vl.connect(tmp_path / "lake").table("v").scan(["near"]).to_arrow()["near"]
    assert near.null_count == 0
