"""Look at the jobs of a table, ask one to stop, or forget it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from vectorlake.errors import NotFoundError
from vectorlake.jobs.records import JobFolder, job_ids
from vectorlake.metadata.job import Failure, JobRecord, folder_of
from vectorlake.store.protocol import Store
from vectorlake.table.log import FOLDER as METADATA
from vectorlake.table.orphans import FOLDERS


class State(StrEnum):
    """What may be expected of a job."""

    UNFINISHED = "unfinished"
    """It runs, or was interrupted and can be resumed."""
    CANCELLED = "cancelled"
    FINISHED = "finished"


@dataclass(frozen=True)
class JobStatus:
    """How far a job is.

    Attributes:
        stage: the last stage that was planned, with its tasks done and in all; None before the plan.
        outcome: what came out of it, once it has finished.
        failures: why attempts failed, of all its runs.
        touched: when anything of it was written down last, by the store's clock.
    """

    record: JobRecord
    state: State
    stage: tuple[str, int, int] | None
    outcome: dict[str, Any] | None
    failures: tuple[Failure, ...]
    touched: datetime

    def __str__(self) -> str:
        at = "" if self.stage is None else f", {self.stage[0]}: {self.stage[1]} of {self.stage[2]} tasks"
        return f"{self.record.id} ({self.record.name}) {self.state}{at}"


def job_status(home: Store, job_id: str) -> JobStatus:
    """How far a job of the table in the folder `home` is (`table.store`).

    Raises:
        NotFoundError: there is none of that id.
    """
    folder = JobFolder(home, job_id)
    record = folder.record()
    outcome = folder.outcome()
    state = State.FINISHED if outcome else State.CANCELLED if folder.cancelled() else State.UNFINISHED
    plan = folder.plan()
    stage = None if plan is None else plan.stage
    number = 1
    while stage is not None and (following := folder.stage(number)) is not None:
        stage, number = following, number + 1
    told = None if stage is None else (stage.name, len(folder.results(stage.name)), len(stage.tasks))
    touched = max(info.last_modified for info in home.list(folder_of(job_id)))
    value = None if outcome is None else outcome.value
    return JobStatus(record, state, told, value, tuple(folder.failures()), touched)


def list_jobs(home: Store) -> list[JobStatus]:
    """The jobs of the table in the folder `home`, the one that was begun last first."""
    found: list[JobStatus] = []
    for job_id in job_ids(home):
        with suppress(NotFoundError):  # dropped while a task ran, whose record came after
            found.append(job_status(home, job_id))
    return sorted(found, key=lambda one: one.record.created_ms, reverse=True)


def cancel_job(home: Store, job_id: str) -> None:
    """Ask a job to stop: whoever runs it, on whatever machine, stops before the next task. It can be resumed.

    Raises:
        NotFoundError: there is none of that id.
    """
    folder = JobFolder(home, job_id)
    folder.record()
    if folder.outcome() is None:
        folder.cancel()


def drop_job(home: Store, job_id: str) -> None:
    """Forget a job. What it has committed stays; what it has written and not committed becomes orphans.

    `Table.collect_orphans` removes these. Where there is no table yet, since the job was to create it, they are removed
    at once. Stop the job first: one that runs goes on.

    Raises:
        NotFoundError: there is none of that id.
    """
    folder = JobFolder(home, job_id)
    folder.record()
    folder.remove()
    if next(iter(home.list(METADATA)), None) is None and next(job_ids(home), None) is None:
        listed = (info for part in FOLDERS for info in (*home.list(part), *home.leftovers(part)))
        # Not deeper: a table of another name may lie there.
        home.delete([info.path for info in listed if info.path.count("/") == 1])
