"""Jobs resume where they stopped, commit once, keep reasons, can be watched and cancelled, and leave nothing behind."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from plain_job import CountJob

import vectorlake as vl
from vectorlake.errors import InvalidInputError, NotFoundError, UnsupportedError
from vectorlake.jobs import (
    JobCancelledError,
    JobFailedError,
    JobFolder,
    Progress,
    State,
    Task,
    TaskResult,
    Work,
    cancel_job,
    drop_job,
    job_status,
    list_jobs,
    plan_job,
    run_job,
)

EVERY = dt.timedelta(seconds=-5)


@pytest.fixture
def table(tmp_path: Path) -> vl.Table:
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


@pytest.mark.parametrize("engine", ["local", "threads"])
def test_a_job_runs_commits_once_and_is_not_done_again(
    table: vl.Table, count: Callable[..., CountJob], engine: str
) -> None:
    job = count()
    seen: list[Progress] = []
    done = run_job(job, job_id="j", engine=engine, workers=2, progress=seen.append)
    assert done.outcome == {"version": 2, "count": 40}
    assert (done.executed, done.reused) == (5, 0)
    assert seen[0].tasks == (0, 4)
    assert max(one.rows for one in seen if one.stage == "count") == (40, 40)
    assert table.refresh().snapshot.summary["job"] == "j"
    again = run_job(job, job_id="j", engine=engine)
    assert (again.outcome, again.executed, again.reused) == (done.outcome, 0, 5)


@pytest.mark.parametrize("dies", [False, True])
def test_processes_serve_all_stages_and_end_with_the_job(
    table: vl.Table, count: Callable[..., CountJob], dies: bool
) -> None:
    job, met = count(), set()

    def watch(progress: Progress) -> None:
        for process in multiprocessing.active_children():
            met.add(process.pid)
            if dies and progress.stage == "count" and progress.tasks == (4, 4):
                process.kill()
                process.join()

    done = run_job(job, workers=1, progress=watch)
    assert done.outcome["count"] == 40
    assert (len(met), len(done.failures)) == (1 + dies, 0), "it was idle when it died"
    assert not multiprocessing.active_children()
    assert executions(job) == [1, 1, 1, 1]
    assert table.refresh().version == 2


def test_a_dry_run_tells_the_plan_and_writes_nothing(table: vl.Table, count: Callable[..., CountJob]) -> None:
    before = [info.path for info in table.store.list()]
    plan = plan_job(count())
    assert (len(plan.stage.tasks), plan.rows, plan.bytes) == (4, 40, 320)
    assert str(plan) == "4 tasks (count), 40 rows, 320 bytes; reads table at version 1"
    assert [info.path for info in table.store.list()] == before


@pytest.mark.parametrize(
    ("engine", "fault", "told"),
    [
        ("threads", "raise", "RuntimeError: no luck this time"),
        ("local", "raise", "RuntimeError: no luck this time"),
        ("local", "exit", "WorkerDied: the worker process"),
    ],
)
def test_failed_tasks_are_tried_again_and_the_reasons_kept(
    table: vl.Table, count: Callable[..., CountJob], engine: str, fault: str, told: str
) -> None:
    job = count(t1=fault)
    done = run_job(job, job_id="j", engine=engine, workers=2)
    assert done.outcome["count"] == 40
    assert executions(job) == [1, 2, 1, 1]
    (failure,) = done.failures
    assert told in str(failure)
    assert job_status(table.store, "j").failures == (failure,)


def test_a_task_that_fails_too_often_stops_the_job_which_goes_on_later(
    table: vl.Table, count: Callable[..., CountJob]
) -> None:
    job = count(t2="always")
    with pytest.raises(JobFailedError, match=r"task t2 \(count\): RuntimeError: never any luck") as caught:
        run_job(job, job_id="j", engine="threads", retries=1)
    assert len(caught.value.failures) == 2
    assert "plain_job.py" in caught.value.failures[0].details
    assert table.refresh().version == 1
    Path(job.marks, "fault-t2").unlink()
    done = run_job(job, job_id="j", engine="threads")
    assert (done.executed, done.reused) == (2, 3)
    assert executions(job) == [1, 1, 3, 1]


def test_an_error_on_purpose_keeps_its_kind_and_is_not_tried_again(count: Callable[..., CountJob]) -> None:
    job = count(t2="invalid")
    with pytest.raises(InvalidInputError, match="row ids 3 to 5"):
        run_job(job, job_id="j", engine="local", workers=1)
    assert job.marked("run-t2") == 1


def test_other_parameters_are_refused_by_name(count: Callable[..., CountJob]) -> None:
    job = count()
    run_job(job, job_id="j", engine="threads")
    other = CountJob(job.uri, job.marks, tasks=3)
    with pytest.raises(InvalidInputError, match=r"tasks \(was 4, is 3\)"):
        run_job(other, job_id="j", engine="threads")


class Unsendable(CountJob):
    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("cannot pickle '_thread.lock' object")


@pytest.mark.parametrize(
    ("wishes", "kind", "told"),
    [
        ({"engine": "sparc"}, InvalidInputError, "did you mean 'spark'"),
        ({"job_id": "a/b"}, InvalidInputError, "job's id"),
        ({"workers": 0}, InvalidInputError, "workers must be"),
        ({"memory_limit": 5}, InvalidInputError, "memory_limit must be"),
        ({"retries": -1}, InvalidInputError, "retries must be"),
    ],
)
def test_wrong_wishes_are_refused(
    count: Callable[..., CountJob], wishes: dict[str, object], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        run_job(count(), **wishes)  # type: ignore[arg-type]


def test_what_cannot_be_sent_is_refused(count: Callable[..., CountJob], table: vl.Table) -> None:
    plain = count()
    with pytest.raises(InvalidInputError, match=r"can't be sent to a worker: cannot pickle"):
        run_job(Unsendable(plain.uri, plain.marks), engine="threads")
    assert table.refresh().version == 1


def test_an_engine_that_is_not_there_names_its_extra(
    count: Callable[..., CountJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vectorlake_spark._jobs", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'vectorlake\[spark\]'"):
        run_job(count(), engine="spark")


def test_a_result_that_is_no_json_is_told(table: vl.Table, tmp_path: Path) -> None:
    class Odd(CountJob):
        def run(self, task: Task, work: Work) -> TaskResult:
            return TaskResult({"a": object()})

    with pytest.raises(InvalidInputError, match=r"result of task t\d is no JSON"):
        run_job(Odd(table.uri, str(tmp_path)), engine="threads", workers=1)


@pytest.mark.parametrize("engine", ["threads", "local"])
def test_cancel_stops_a_job_from_outside_and_it_can_go_on(
    table: vl.Table, count: Callable[..., CountJob], engine: str
) -> None:
    job = count(t3="wait")
    caught: list[BaseException] = []

    def run() -> None:
        try:
            run_job(job, job_id="j", engine=engine, workers=1)
        except JobCancelledError as e:
            caught.append(e)

    running = threading.Thread(target=run)
    running.start()
    _await(lambda: job.marked("run-t3") == 1)
    cancel_job(vl.open_table(job.uri).store, "j")
    if engine == "threads":  # a thread can't be stopped amid its task
        Path(job.marks, "fault-t3").unlink()
    running.join(30)
    assert len(caught) == 1
    assert job_status(table.store, "j").state is State.CANCELLED
    assert table.refresh().version == 1
    Path(job.marks, "fault-t3").unlink(missing_ok=True)
    done = run_job(job, job_id="j", engine="threads")
    assert done.outcome["count"] == 40
    assert executions(job)[:3] == [1, 1, 1]
    assert job_status(table.store, "j").state is State.FINISHED


def test_a_killed_driver_loses_no_finished_task(table: vl.Table, count: Callable[..., CountJob]) -> None:
    job = count(t3="wait")
    driver = _driver(job, "t3")
    _await(lambda: _finished(table, "count") == 3)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    Path(job.marks, "fault-t3").unlink()
    done = run_job(job, job_id="j", workers=2)
    assert done.outcome["count"] == 40
    assert executions(job)[:3] == [1, 1, 1]
    assert table.refresh().version == 2
    assert job.marked("plan") == 1


def test_a_killed_worker_costs_its_task_only(table: vl.Table, count: Callable[..., CountJob]) -> None:
    job = count(t3="wait")
    driver = _driver(job, "t3")
    _await(lambda: _finished(table, "count") == 3)
    (mark,) = Path(job.marks).glob("run-t3-*")
    os.kill(int(mark.name.rpartition("-")[2]), signal.SIGKILL)
    Path(job.marks, "fault-t3").unlink()
    assert driver.wait(60) == 0
    assert executions(job) == [1, 1, 1, 2]
    assert table.refresh().version == 2
    assert "killed by signal 9" in job_status(table.store, "j").failures[0].message


def test_a_driver_killed_after_its_commit_does_not_commit_again(
    table: vl.Table, count: Callable[..., CountJob]
) -> None:
    job = count(commit="wait")
    driver = _driver(job, "commit")
    _await(lambda: table.refresh().version == 2)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    table.append({"id": [1000]})
    Path(job.marks, "fault-commit").unlink()
    done = run_job(job, job_id="j")
    assert done.outcome == {"version": 2, "count": 40}
    assert done.executed == 0
    assert job.marked("commit") == 2
    assert table.refresh().version == 3


def test_ctrl_c_stops_the_workers_and_the_job_goes_on_later(
    table: vl.Table, count: Callable[..., CountJob]
) -> None:
    job = count(t3="wait")
    driver = _driver(job, "t3")
    _await(lambda: _finished(table, "count") == 3)
    (mark,) = Path(job.marks).glob("run-t3-*")
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(60) != 0
    _await(lambda: not _alive(int(mark.name.rpartition("-")[2])))
    Path(job.marks, "fault-t3").unlink()
    assert run_job(job, job_id="j", engine="threads").reused == 3


def test_two_drivers_of_one_job_commit_once(table: vl.Table, count: Callable[..., CountJob]) -> None:
    job = count(t0="wait")
    outcomes: list[dict[str, object]] = []
    drivers = [
        threading.Thread(
            target=lambda: outcomes.append(dict(run_job(job, job_id="j", engine="threads").outcome))
        )
        for _ in range(2)
    ]
    for driver in drivers:
        driver.start()
    _await(lambda: job.marked("run-t0") == 2)
    Path(job.marks, "fault-t0").unlink()
    for driver in drivers:
        driver.join(30)
    assert outcomes == [{"version": 2, "count": 40}] * 2
    assert table.refresh().version == 2


def test_orphan_collection_spares_a_live_job_and_clears_a_dead_one(
    table: vl.Table, count: Callable[..., CountJob], tmp_path: Path
) -> None:
    job = count(t2="always")
    with pytest.raises(JobFailedError):
        run_job(job, job_id="j", engine="threads", retries=0)
    files = [info.path for info in table.store.list("data") if info.path.endswith(".bin")]
    assert len(files) == 3
    assert table.collect_orphans(older_than=EVERY) == []
    _age(table, dt.timedelta(days=8))
    assert {path.split("/")[1] for path in table.collect_orphans(older_than=EVERY)} == {"j"}
    assert sorted(table.collect_orphans(older_than=EVERY)) == sorted(files)
    assert list(table.store.list("jobs")) == []


def test_a_task_of_which_a_file_is_gone_is_done_again(
    table: vl.Table, count: Callable[..., CountJob]
) -> None:
    job = count(t2="always")
    with pytest.raises(JobFailedError):
        run_job(job, job_id="j", engine="threads", retries=0)
    kept = JobFolder(table.store, "j").results("count")
    table.store.delete(kept["t1"].files)
    Path(job.marks, "fault-t2").unlink()
    assert run_job(job, job_id="j", engine="threads").reused == 2
    assert executions(job) == [1, 2, 2, 1]


def test_a_dropped_job_is_forgotten_and_its_files_are_orphans(
    table: vl.Table, count: Callable[..., CountJob]
) -> None:
    job = count(t2="always")
    with pytest.raises(JobFailedError):
        run_job(job, job_id="j", engine="threads", retries=0)
    assert [str(one) for one in list_jobs(table.store)] == ["j (count) unfinished, count: 3 of 4 tasks"]
    drop_job(table.store, "j")
    assert list_jobs(table.store) == []
    assert len(table.collect_orphans(older_than=EVERY)) == 3
    for ask in (job_status, cancel_job, drop_job):
        with pytest.raises(NotFoundError, match="no job 'j'"):
            ask(table.store, "j")


def test_a_job_that_is_dropped_while_it_runs_commits_nothing(
    table: vl.Table, count: Callable[..., CountJob]
) -> None:
    job = count(t3="wait")
    caught: list[BaseException] = []

    def run() -> None:
        try:
            run_job(job, job_id="j", engine="threads", workers=1)
        except NotFoundError as e:
            caught.append(e)

    running = threading.Thread(target=run)
    running.start()
    _await(lambda: job.marked("run-t3") == 1)
    drop_job(table.store, "j")
    Path(job.marks, "fault-t3").unlink()
    running.join(30)
    assert len(caught) == 1
    assert table.refresh().version == 1
    assert list_jobs(table.store) == []
    _age(table, dt.timedelta(days=8))
    table.collect_orphans(older_than=EVERY)
    table.collect_orphans(older_than=EVERY)
    assert list(table.store.list("jobs")) == []
    assert not [info.path for info in table.store.list("data") if info.path.endswith(".bin")]


def _driver(job: CountJob, fault: str) -> subprocess.Popen[bytes]:
    script = str(Path(__file__).with_name("plain_job.py"))
    command = [sys.executable, script, job.uri, job.marks, fault]
    return subprocess.Popen(command, start_new_session=True)


def _finished(table: vl.Table, stage: str) -> int:
    return len(list(table.store.list(f"jobs/j/results/{stage}")))


def _await(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _age(table: vl.Table, by: dt.timedelta) -> None:
    root = table.store.local_path("jobs")
    assert root is not None
    then = time.time() - by.total_seconds()
    for path in root.rglob("*"):
        os.utime(path, (then, then))
