"""What a job keeps in its folder while it runs: values as JSON, and their names (docs/rfcs/0017)."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

FOLDER: Final = "jobs"
"""Of a table's folder: what its jobs have done so far."""
RECORD: Final = "job.json"
OUTCOME: Final = "outcome.json"
CANCEL: Final = "cancel"
STARTED: Final = "started"
SCRATCH: Final = "scratch"
RESULTS: Final = "results"
FAILURES: Final = "failures"
VERSION: Final = 1
NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
"""What the ids of jobs and tasks and the names of stages look like: each is part of a path."""


class Task(msgspec.Struct, frozen=True):
    """A part of a stage's work: as small as what is lost when a worker dies, as large as a worker's memory allows.

    Attributes:
        id: names it within its stage.
        input: says what to do, for the job's `run`.
        rows: how many rows it reads, for progress and a dry run.
        bytes: about how many bytes they have.
    """

    id: str
    input: dict[str, Any] = {}
    rows: int = 0
    bytes: int = 0


class Stage(msgspec.Struct, frozen=True):
    """Tasks that don't depend on each other.

    Attributes:
        name: names it within its job.
        shared: what all of its tasks and the stages after it may read.
    """

    name: str
    tasks: tuple[Task, ...]
    shared: dict[str, Any] = {}


class Plan(msgspec.Struct, frozen=True):
    """What a job is going to do.

    Attributes:
        sources: the versions of the tables that it reads, by names of the job's own; they stay pinned if it resumes.
        stage: the first stage; later ones may follow from its results.
    """

    sources: dict[str, int]
    stage: Stage

    @property
    def rows(self) -> int:
        """Rows that the first stage reads."""
        return sum(task.rows for task in self.stage.tasks)

    @property
    def bytes(self) -> int:
        """About how many bytes these have."""
        return sum(task.bytes for task in self.stage.tasks)

    def __str__(self) -> str:
        pinned = ", ".join(f"{name} at version {version}" for name, version in self.sources.items())
        tasks = (
            f"{len(self.stage.tasks):,} tasks ({self.stage.name}), {self.rows:,} rows, {self.bytes:,} bytes"
        )
        return f"{tasks}; reads {pinned}" if pinned else tasks


class JobRecord(msgspec.Struct, frozen=True):
    """Which job it is: written first, and compared when it's started again."""

    id: str
    name: str
    parameters: dict[str, Any]
    created_ms: int
    library: str
    """The release that began it."""
    version: int = VERSION


class TaskRecord(msgspec.Struct, frozen=True):
    """A task that is done.

    Attributes:
        attempt: names the attempt that did it.
        value: its result.
        files: those that it wrote for the job's commit, relative to the table's folder.
        elapsed_ms: how long it took.
    """

    task: str
    attempt: str
    value: dict[str, Any]
    files: tuple[str, ...] = ()
    elapsed_ms: int = 0


class Failure(msgspec.Struct, frozen=True):
    """Why an attempt at a task failed.

    Attributes:
        kind: the class of the error.
        message: what it says.
        details: the traceback on the worker, if there was one.
        final: whether another attempt would fail alike.
    """

    stage: str
    task: str
    kind: str
    message: str
    details: str = ""
    final: bool = False

    def __str__(self) -> str:
        return f"task {self.task} ({self.stage}): {self.kind}: {self.message}"


class OutcomeRecord(msgspec.Struct, frozen=True):
    """How a job ended: it's never done again."""

    value: dict[str, Any]
    finished_ms: int
    tasks: int


def folder_of(job_id: str) -> str:
    """A job's folder in its table's."""
    return f"{FOLDER}/{job_id}"
