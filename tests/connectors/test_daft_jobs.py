"""Jobs on Daft: a process for each task, one commit, killed tasks tried again, finished ones not done again."""

from __future__ import annotations

from pathlib import Path

import pytest
from job_kills import Kills
from plain_job import CountJob

import vectorlake as vl
from vectorlake.jobs import JobFailedError, executor_named, job_status, run_job

daft = pytest.importorskip("daft", reason="daft is in the extra daft")
pytestmark = pytest.mark.slow


def test_tasks_run_in_processes_and_are_not_done_again(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    for task in ("t0", "t1", "t2"):
        (marks / f"fault-{task}").touch()
    table = vl.connect(tmp_path / "lake").create_table("t", {"id": list(range(40))})
    job = CountJob(table.uri, str(marks), faults={"t0": "raise", "t1": "exit", "t2": "always"})
    with pytest.raises(JobFailedError, match="never any luck"):
        run_job(job, job_id="j", engine="daft", retries=1)
    assert table.refresh().version == 1
    kinds = sorted(str(failure) for failure in job_status(table.store, "j").failures)
    assert len(kinds) == 4
    assert "no luck this time" in kinds[0]
    assert "WorkerDied" in kinds[1]
    (marks / "fault-t2").unlink()
    done = run_job(job, job_id="j", engine="daft")
    assert (done.outcome["count"], done.executed, done.reused) == (40, 2, 3)
    assert [job.marked(f"run-t{n}") for n in range(4)] == [2, 2, 3, 1]


# One job of several stages and few tasks, with both in one run: here each task begins a process, and what a job does in it
# is the same on every engine.


def test_a_killed_driver_and_then_a_worker(kills: Kills, tmp_path: Path) -> None:
    kills.only("dedup").start_driver("daft", tmp_path).kill()
    kills.resume("daft", "dedup", tmp_path, worker_dies=True)


def test_a_daft_that_runs_on_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectorlake_daft._jobs.get_or_infer_runner_type", lambda: "ray")
    with pytest.raises(vl.UnsupportedError, match="choose engine 'ray'"):
        executor_named("daft")
