"""Heavy work in tasks that resume: what a job is, how one is run, watched and stopped, and what executors implement.

The jobs themselves are in the package `vectorlake_jobs`; see docs/jobs.md.
"""

from __future__ import annotations

from vectorlake.jobs.committing import JobTable, commit_once
from vectorlake.jobs.driver import JobCancelledError, JobFailedError, JobRun, Progress, plan_job, run_job
from vectorlake.jobs.executor import Attempt, Call, Capacity, Executor, executor_named, worker_died
from vectorlake.jobs.functions import load_function
from vectorlake.jobs.job import Done, Job, Json, StageDone, TaskResult, Work
from vectorlake.jobs.records import JobFolder
from vectorlake.jobs.status import JobStatus, State, cancel_job, drop_job, job_status, list_jobs
from vectorlake.jobs.threads import attempts_on_threads
from vectorlake.jobs.worker import run_task
from vectorlake.metadata.job import Failure, Plan, Stage, Task

__all__ = [
    "Attempt",
    "Call",
    "Capacity",
    "Done",
    "Executor",
    "Failure",
    "Job",
    "JobCancelledError",
    "JobFailedError",
    "JobFolder",
    "JobRun",
    "JobStatus",
    "JobTable",
    "Json",
    "Plan",
    "Progress",
    "Stage",
    "StageDone",
    "State",
    "Task",
    "TaskResult",
    "Work",
    "attempts_on_threads",
    "cancel_job",
    "commit_once",
    "drop_job",
    "executor_named",
    "job_status",
    "list_jobs",
    "load_function",
    "plan_job",
    "run_job",
    "run_task",
    "worker_died",
]
