"""A worker or the driver of each job is killed in the middle: what is done stays done, the result is that of an
undisturbed run, and no file is left over for good."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from job_cases import CASES, Disturbed, kill_a_worker, make_lake

import vectorlake as vl
from vectorlake.jobs import JobFolder, JobRun, job_status
from vectorlake.metadata.job import RESULTS

pytestmark = pytest.mark.slow
DAYS = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "lake"
    make_lake(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, int]]:
    """What each job leaves, and how many tasks it takes."""
    found: dict[str, tuple[Any, int]] = {}
    for name, case in CASES.items():
        lake = _copy(made, tmp_path_factory.mktemp(name))
        done = case.start(lake, engine="threads", workers=1)
        found[name] = (case.contents(lake), done.executed)
    return found


def _copy(made: Path, into: Path) -> vl.Lake:
    shutil.copytree(made, into / "lake")
    return vl.connect(into / "lake")


@pytest.mark.parametrize("name", list(CASES))
def test_a_killed_worker(
    made: Path, tmp_path: Path, name: str, undisturbed: dict[str, tuple[Any, int]]
) -> None:
    case, lake = CASES[name], _copy(made, tmp_path)
    wanted, tasks = undisturbed[name]
    done = case.start(lake, job_id="j", engine=Disturbed(2, kill_a_worker), workers=2)
    assert isinstance(done, JobRun)
    assert done.executed == tasks
    assert case.contents(lake) == wanted
    failures = job_status(lake.folder(case.table), "j").failures
    assert [failure.kind for failure in failures] in ([], ["WorkerDied"]), (
        "it may have been between two tasks"
    )
    _nothing_is_left_over(lake, case.table)
    assert case.contents(lake) == wanted


@pytest.mark.parametrize("name", list(CASES))
def test_a_killed_driver(
    made: Path, tmp_path: Path, name: str, undisturbed: dict[str, tuple[Any, int]]
) -> None:
    case, lake = CASES[name], _copy(made, tmp_path)
    wanted, tasks = undisturbed[name]
    home = lake.folder(case.table)
    enough = min(3, tasks - 2)  # one more may be on its way
    _kill_driver(name, tmp_path, after=enough)
    before = _attempts(home)
    assert enough <= len(before) < tasks
    assert job_status(home, "j").outcome is None
    home_files = {info.path for info in home.list("data")} | {info.path for info in home.list("index")}
    if lake.exists(case.table):
        spared = set(lake.table(case.table).collect_orphans(older_than=dt.timedelta(seconds=-5)))
        written = {path for record in before.values() for path in record[1]}
        assert not spared & written, "a job that can be resumed keeps its files"
        assert written <= home_files
    done = case.start(lake, job_id="j", engine="threads", workers=1)
    assert isinstance(done, JobRun)
    assert (done.reused, done.executed) == (len(before), tasks - len(before))
    after = _attempts(home)
    assert {key: after[key] for key in before} == before, "what was done was not done again"
    assert case.contents(lake) == wanted
    _nothing_is_left_over(lake, case.table)
    assert case.contents(lake) == wanted


def test_a_job_that_nobody_resumes_leaves_nothing(made: Path, tmp_path: Path) -> None:
    lake = _copy(made, tmp_path)
    _kill_driver("build-index", tmp_path, after=3)
    table = lake.table("items")
    referenced = _files(table)
    _age(tmp_path / "lake", 8 * DAYS)
    table.collect_orphans()
    table.collect_orphans()
    assert {info.path for info in table.store.list("index")} == {
        path for path in referenced if path.startswith("index/")
    }
    assert list(table.store.list("jobs")) == []


def _kill_driver(name: str, folder: Path, *, after: int) -> None:
    """Start a job in a process of its own, and kill that once so many tasks are done."""
    mark = folder / "stalled"
    script = str(Path(__file__).with_name("job_cases.py"))
    command = [sys.executable, script, name, str(folder / "lake"), str(after), str(mark)]
    driver = subprocess.Popen(command, start_new_session=True)
    until = time.monotonic() + 120
    while not mark.exists():
        assert driver.poll() is None, "the driver ended by itself"
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    _await_end_of(driver.pid)


def _await_end_of(session: int) -> None:
    """Wait until the driver's workers have noticed that it is gone."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise AssertionError("workers outlive their driver")


def _attempts(home: Any) -> dict[str, tuple[str, tuple[str, ...]]]:
    folder = JobFolder(home, "j")
    stages = {info.path.split("/")[3] for info in home.list(f"jobs/j/{RESULTS}")}
    return {
        f"{stage}/{task}": (record.attempt, record.files)
        for stage in stages
        for task, record in folder.results(stage).items()
    }


def _nothing_is_left_over(lake: vl.Lake, name: str) -> None:
    """After a week every file that is there is one that a snapshot refers to."""
    table = lake.table(name)
    root = table.store.local_path("")
    assert root is not None
    _age(root, 8 * DAYS)
    table.collect_orphans()
    table.collect_orphans()
    assert table.verify() == []
    there = {
        info.path
        for folder in ("data", "index", "deletes", "keys", "jobs")
        for info in table.store.list(folder)
    }
    history = (table.at(snapshot.version) for snapshot in table.history())
    assert there == {path for version in history for path in _files(version)}


def _files(table: vl.Table) -> set[str]:
    listed = set(table.files().column("path").to_pylist())
    return {path for path in listed if not path.startswith("metadata/")}


def _age(root: Path, by: dt.timedelta) -> None:
    then = time.time() - by.total_seconds()
    for path in root.rglob("*"):
        os.utime(path, (then, then))
