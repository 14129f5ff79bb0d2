"""What a job is: plan, tasks, run, commit, over values; what it is given on workers and on the driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import msgspec

from vectorlake.clock import Clock, system_clock
from vectorlake.ids import NewId, random_id
from vectorlake.metadata.job import Plan, Stage, Task
from vectorlake.store.protocol import Store

Json: TypeAlias = Any
"""None, bool, int, float, str, and lists and string-keyed dicts of these."""


@dataclass(frozen=True)
class TaskResult:
    """What a task gives back.

    Attributes:
        value: JSON, and small: it travels to the driver, and a job may have many. What is larger goes to `Work.scratch`.
        files: paths, relative to the table's folder, of files that the task wrote and the commit will refer to.
            `collect_orphans` leaves them alone while the job lives.
    """

    value: dict[str, Json] = field(default_factory=dict)
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Work:
    """What a task is run with, on a worker.

    Attributes:
        stage: the task's stage, without its tasks.
        sources: the pinned versions of the plan.
        memory: bytes that this task may use, roughly: the job's limit, shared over the workers.
        threads: that this task may use.
        scratch: a folder of the job's own for what passes between tasks; it's removed when the job ends.
    """

    job_id: str
    stage: Stage
    sources: Mapping[str, int]
    memory: int
    threads: int
    scratch: Store
    new_id: NewId = random_id
    clock: Clock = system_clock


class StageDone(msgspec.Struct, frozen=True):
    """A stage with the results of its tasks, in the order of the tasks."""

    stage: Stage
    values: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Done:
    """What was done so far, on the driver.

    Attributes:
        stages: in order.
        memory: bytes that the driver may use, roughly: the job's limit.
        threads: that the driver may use.
        scratch: as for `Work`.
    """

    job_id: str
    sources: Mapping[str, int]
    stages: Sequence[StageDone]
    memory: int
    threads: int
    scratch: Store
    new_id: NewId = random_id
    clock: Clock = system_clock

    @property
    def values(self) -> tuple[dict[str, Json], ...]:
        """The results of the last stage."""
        return self.stages[-1].values

    def stage(self, name: str) -> StageDone:
        """A stage by its name."""
        return next(one for one in self.stages if one.stage.name == name)


class Job(Protocol):
    """A piece of heavy work that is cut into tasks, resumes where it stopped, and commits once, or not at all.

    A job is a value that pickle can send to workers: its tables by reference, its settings, its function. Classes derive
    from this one.
    """

    @property
    def name(self) -> str:
        """What kind of job it is, such as `knn-join`."""
        ...

    @property
    def parameters(self) -> Mapping[str, Json]:
        """All that its result depends on, as JSON: it's resumed only with equal ones. No credentials: they are stored."""
        ...

    def home(self) -> Store:
        """The folder of the table that it writes, in which its records lie too."""
        ...

    def plan(self) -> Plan:
        """Pin the versions to read, and cut the work into tasks. Called once, whatever happens; writes nothing.

        Raises:
            InvalidInputError: what was asked for can't be.
        """
        ...

    def run(self, task: Task, work: Work) -> TaskResult:
        """Do one task, on a worker. May be called again for the same task, there or elsewhere; commits nothing."""
        ...

    def next_stage(self, done: Done) -> Stage | None:
        """The tasks that follow from what was done so far, on the driver; None when it's time to commit."""
        return None

    def commit(self, done: Done) -> Mapping[str, Json]:
        """Make what the tasks did visible, in one commit, and say what came out of it, as JSON.

        May be called again if the driver died before it could write down the outcome: use `commit_once`.
        """
        ...

    def tidy(self, done: Done) -> None:
        """Remove what the tasks wrote and the commit did not take, once the outcome is written down.

        Not called if the driver dies before: `collect_orphans` does it then.
        """
        return None  # noqa: RET501  an empty body would make it abstract
