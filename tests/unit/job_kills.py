"""Workers and drivers of the jobs in `job_cases`, killed in the middle of a task on any engine, and what must hold then."""

from __future__ import annotations

import datetime as dt
import importlib
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
from job_cases import CASES, make_lake

import vectorlake as vl
from vectorlake.ids import random_id
from vectorlake.jobs import (
    Attempt,
    Call,
    Capacity,
    Job,
    JobFolder,
    JobRun,
    Task,
    TaskResult,
    Work,
    executor_named,
    job_status,
)
from vectorlake.jobs.worker import Payload
from vectorlake.metadata.job import RESULTS

KILLED = ("knn-join", "build-index", "cluster")
"""Jobs that are killed on every engine that others run, one for each shape: one stage, with a new table at its end; stages
that each take what the one before has left; and stages of which a job learns only as it runs how many there will be."""
UNHARMED = tuple(name for name in CASES if name not in KILLED)
"""The others: there they only run. What a job does in a task is the same everywhere, and all are killed in local processes."""
DAYS = dt.timedelta(days=1)
JOB = "j"
MARK = "VECTORLAKE_TEST_PROCESS"
"""The environment variable by which what a process has started is found."""


class Fate(Enum):
    """What happens to the worker of one task."""

    NONE = "none"
    DIES = "dies"
    IS_STUCK = "is stuck"


@dataclass(frozen=True)
class Watched(Job):
    """A job that leaves a mark for each task that is begun, and whose first one after `after` others meets its fate."""

    job: Job
    marks: str
    fate: Fate
    after: int

    def run(self, task: Task, work: Work) -> TaskResult:
        self._mark(f"begun-{work.stage.name}.{task.id}")
        if self.fate is not Fate.NONE and len(list(Path(self.marks).glob("done-*"))) >= self.after:
            self._meet_fate()
        result = self.job.run(task, work)
        self._mark("done")
        return result

    def _mark(self, what: str) -> None:
        Path(self.marks, f"{what}-{random_id()}").touch()

    def _meet_fate(self) -> None:
        try:
            with Path(self.marks, "fate").open("x") as file:
                file.write(f"{os.getpid()}\n")
        except FileExistsError:
            return
        if self.fate is Fate.DIES:
            os.kill(os.getpid(), signal.SIGKILL)
        driver, parent = multiprocessing.parent_process(), os.getppid()
        # A forked worker's parent is a server, which lives as long as the worker.
        while os.getppid() == parent if driver is None else driver.is_alive():
            time.sleep(0.02)
        os._exit(1)


class Disturbed:
    """An engine whose tasks are watched."""

    def __init__(self, engine: str, marks: Path, fate: Fate = Fate.NONE, *, after: int = 0) -> None:
        self._inner, self._marks = executor_named(engine), marks
        self._fate, self._after = fate, after

    def capacity(self, workers: int | None) -> Capacity:
        return self._inner.capacity(workers)

    def run(self, payload: bytes, calls: Sequence[Call], *, workers: int) -> Iterator[Attempt | None]:
        loaded: Payload = pickle.loads(payload)
        watched = Watched(loaded.job, str(self._marks), self._fate, self._after)
        sent = replace(loaded, job=watched).to_bytes()
        if self._fate is Fate.IS_STUCK:
            # One after another, each with a share of the cores: all jobs can be stuck side by side.
            for call in calls:
                yield from self._inner.run(sent, [call], workers=len(CASES))
        else:
            yield from self._inner.run(sent, calls, workers=workers)

    def close(self) -> None:
        self._inner.close()


@dataclass(frozen=True)
class Undisturbed:
    """What a job leaves that nobody disturbs, and how many tasks it takes."""

    contents: Any
    tasks: int

    @property
    def enough(self) -> int:
        """So many tasks are done when something happens."""
        return min(3, self.tasks - 2)


@dataclass(frozen=True)
class Kills:
    """A lake, and what the jobs of `job_cases` make of it if they are not disturbed."""

    folder: Path
    undisturbed: Mapping[str, Undisturbed]

    @classmethod
    def prepare(cls, folder: Path) -> Kills:
        """Run each job once."""
        make_lake(folder / "lake")
        undisturbed = {}
        for name, case in CASES.items():
            lake = _copied(folder, folder / "undisturbed" / name)
            done = case.start(lake, engine="threads", workers=1)
            undisturbed[name] = Undisturbed(case.contents(lake), done.executed)
        return cls(folder, undisturbed)

    def only(self, *names: str) -> Kills:
        """With these jobs."""
        return replace(self, undisturbed={name: self.undisturbed[name] for name in names})

    def run(self, engine: str, name: str, folder: Path) -> None:
        """Run a job that nobody disturbs."""
        case, wanted = CASES[name], self.undisturbed[name]
        lake, marks = _copied(self.folder, folder), _marks(folder)
        done = case.start(lake, job_id=JOB, engine=Disturbed(engine, marks), workers=2)
        assert isinstance(done, JobRun)
        assert done.executed == wanted.tasks
        assert job_status(lake.folder(case.table), JOB).failures == ()
        _check_begun(marks, wanted.tasks, again=0)
        _check_end(lake, name, wanted)

    def kill_worker(self, engine: str, name: str, folder: Path) -> None:
        """Run a job, one worker of which is killed: it is tried again, and that is all."""
        case, wanted = CASES[name], self.undisturbed[name]
        lake, marks = _copied(self.folder, folder), _marks(folder)
        disturbed = Disturbed(engine, marks, Fate.DIES, after=wanted.enough)
        done = case.start(lake, job_id=JOB, engine=disturbed, workers=2)
        assert isinstance(done, JobRun)
        assert done.executed == wanted.tasks
        failures = job_status(lake.folder(case.table), JOB).failures
        assert [failure.kind for failure in failures] == ["WorkerDied"]
        _check_begun(marks, wanted.tasks, again=1)
        _check_end(lake, name, wanted)

    def start_driver(self, engine: str, folder: Path, **environment: str) -> Driver:
        """Start all jobs in one process, and wait until each has done some tasks and is in the midst of another."""
        for name in self.undisturbed:
            _copied(self.folder, folder / name)
            _marks(folder / name)
        enough = {name: one.enough for name, one in self.undisturbed.items()}
        return Driver.start(engine, folder, enough, environment)

    def resume(self, engine: str, name: str, folder: Path, *, worker_dies: bool = False) -> None:
        """Go on with a job whose driver was killed: what was done is not done again. On request then a worker is killed."""
        case, wanted = CASES[name], self.undisturbed[name]
        lake, marks = vl.connect(folder / name / "lake"), folder / name / "marks"
        home = lake.folder(case.table)
        before = _attempts(home)
        assert len(before) == wanted.enough
        assert job_status(home, JOB).outcome is None
        written = {path for record in before.values() for path in record[1]}
        assert written <= {info.path for kind in ("data", "index") for info in home.list(kind)}
        if lake.exists(case.table):
            orphans = set(lake.table(case.table).collect_orphans(older_than=dt.timedelta(seconds=-5)))
            assert not orphans & written, "a job that can be resumed keeps its files"
        # Two workers at a time are with a killed one; here a second would only take as long to start as the first.
        fate = Fate.DIES if worker_dies else Fate.NONE
        (marks / "fate").unlink()  # that of the first driver
        # Not of the task that was stuck: it is begun a second time as it is.
        disturbed = Disturbed(engine, marks, fate, after=wanted.enough + 1)
        done = case.start(lake, job_id=JOB, engine=disturbed, workers=1)
        assert isinstance(done, JobRun)
        died = [failure.kind for failure in job_status(home, JOB).failures]
        assert died == ["WorkerDied"] * worker_dies
        assert (done.reused, done.executed) == (len(before), wanted.tasks - len(before))
        after = _attempts(home)
        assert {key: after[key] for key in before} == before, "what was done was not done again"
        _check_begun(marks, wanted.tasks, again=1 + worker_dies)
        _check_end(lake, name, wanted)


@dataclass(frozen=True)
class Driver:
    """A process that runs jobs, each of which is stuck in a task."""

    process: subprocess.Popen[bytes]
    mark: str
    workers: tuple[int, ...]

    @classmethod
    def start(
        cls, engine: str, folder: Path, enough: Mapping[str, int], environment: Mapping[str, str]
    ) -> Driver:
        mark = random_id()
        command = [sys.executable, __file__, engine, str(folder), json.dumps(enough)]
        places = os.pathsep.join(place for place in sys.path if place)
        process = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": places, MARK: mark, **environment}
        )
        fates = [folder / name / "marks" / "fate" for name in enough]
        try:
            wait_until(
                lambda: process.poll() is not None or all(fate.exists() for fate in fates), seconds=120
            )
            assert process.poll() is None, "the driver ended by itself"
            wait_until(lambda: all(fate.read_text().endswith("\n") for fate in fates))
        except BaseException:
            process.kill()
            process.wait()
            raise
        return cls(process, mark, tuple(int(fate.read_text()) for fate in fates))

    def kill(self) -> None:
        """Kill it, and wait until all of its processes and all workers that are stuck have ended."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: not marked(self.mark) and not any(map(psutil.pid_exists, self.workers)))


def marked(mark: str) -> list[int]:
    """The processes that were given a mark, and those that they have started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def wait_until(holds: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait until something holds; fails if it never does."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def _copied(made: Path, into: Path) -> vl.Lake:
    shutil.copytree(made / "lake", into / "lake")
    return vl.connect(into / "lake")


def _marks(folder: Path) -> Path:
    marks = folder / "marks"
    marks.mkdir()
    return marks


def _check_begun(marks: Path, tasks: int, *, again: int) -> None:
    """So many tasks were begun twice, all others once."""
    begun = Counter(path.name.rpartition("-")[0] for path in marks.glob("begun-*"))
    assert len(begun) == tasks
    assert sorted(begun.values()) == [1] * (tasks - again) + [2] * again


def _check_end(lake: vl.Lake, name: str, wanted: Undisturbed) -> None:
    case = CASES[name]
    assert case.contents(lake) == wanted.contents
    check_nothing_is_left_over(lake.table(case.table))
    assert case.contents(lake) == wanted.contents


def _attempts(home: Any) -> dict[str, tuple[str, tuple[str, ...]]]:
    folder = JobFolder(home, JOB)
    stages = {info.path.split("/")[3] for info in home.list(f"jobs/{JOB}/{RESULTS}")}
    return {
        f"{stage}/{task}": (record.attempt, record.files)
        for stage in stages
        for task, record in folder.results(stage).items()
    }


def check_nothing_is_left_over(table: vl.Table) -> None:
    """After a week every file that is there is one that a snapshot refers to."""
    collect_after_a_week(table)
    assert table.verify() == []
    kinds = ("data", "index", "deletes", "keys", "jobs")
    there = {info.path for kind in kinds for info in table.store.list(kind)}
    history = (table.at(snapshot.version) for snapshot in table.history())
    assert there == {path for version in history for path in files_of(version)}


def collect_after_a_week(table: vl.Table) -> None:
    """Remove orphans as if all that is there had been there for eight days."""
    root = table.store.local_path("")
    assert root is not None
    then = time.time() - (8 * DAYS).total_seconds()
    for path in root.rglob("*"):
        os.utime(path, (then, then))
    table.collect_orphans()
    table.collect_orphans()


def files_of(table: vl.Table) -> set[str]:
    """The files of a version, beside its metadata."""
    listed = set(table.files().column("path").to_pylist())
    return {path for path in listed if not path.startswith("metadata/")}


def drive(engine: str, folder: Path, enough: Mapping[str, int]) -> None:
    """Run all jobs side by side."""
    # Arrow imports pandas when it first makes an array: threads that do so at a time may wait for each other's imports.
    pa.array([None])
    if engine == "spark":
        importlib.import_module("spark_support").session(cores=len(enough))
    if engine == "ray":
        importlib.import_module("vectorlake_ray._cluster").cluster()

    def start(name: str) -> None:
        disturbed = Disturbed(engine, folder / name / "marks", Fate.IS_STUCK, after=enough[name])
        CASES[name].start(vl.connect(folder / name / "lake"), job_id=JOB, engine=disturbed, workers=1)

    threads = [threading.Thread(target=start, args=[name]) for name in enough]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    # As tests import it: workers know its classes by that name.
    importlib.import_module("job_kills").drive(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
