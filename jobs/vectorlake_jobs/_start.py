"""How all jobs are started: the options of a run, and the choice between running a job and telling its plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict, Unpack

from vectorlake.jobs import Executor, Job, JobRun, Plan, Progress, plan_job, run_job


class Running(TypedDict, total=False):
    """The options of a run; see `vectorlake.jobs.run_job`."""

    job_id: str | None
    engine: str | Executor
    workers: int | None
    memory_limit: int
    retries: int
    progress: Callable[[Progress], None] | None


class RunOptions(Running, total=False):
    """What every job takes besides its own arguments."""

    dry_run: bool


def start(job: Job, *, dry_run: bool = False, **options: Unpack[Running]) -> JobRun | Plan:
    """Run a job, or with `dry_run` tell its plan."""
    return plan_job(job) if dry_run else run_job(job, **options)
