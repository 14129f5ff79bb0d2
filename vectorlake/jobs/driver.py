"""Run a job from where it stopped to its end: plan, tasks through an executor, commit, each step written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import msgspec

import vectorlake.errors as errors
from vectorlake.clock import Clock, system_clock
from vectorlake.errors import InvalidInputError, JobStoppedError, VectorlakeError
from vectorlake.ids import NewId, random_id
from vectorlake.jobs.executor import Call, Capacity, Executor, executor_named
from vectorlake.jobs.job import Done, Job, StageDone
from vectorlake.jobs.records import JobFolder, check_names, check_parameters
from vectorlake.jobs.worker import Payload
from vectorlake.kernels.team import cores
from vectorlake.metadata.job import Failure, JobRecord, OutcomeRecord, Plan, Stage, Task, TaskRecord
from vectorlake.tracing import span

MEMORY: Final = 1 << 30
"""Bytes that a job uses, roughly, unless it is told otherwise."""
LEAST_MEMORY: Final = 32 << 20
RETRIES: Final = 2


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes:
        tasks: done of this stage, and in all; those done by an earlier run are among them.
        rows: likewise.
    """

    job_id: str
    stage: str
    tasks: tuple[int, int]
    rows: tuple[int, int]


Told: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True)
class JobRun:
    """What a call of `run_job` did.

    Attributes:
        job_id: with which the job can be asked for, resumed or dropped.
        outcome: what came out of it, as the job's commit said.
        executed: tasks that this call ran to their end.
        reused: tasks that an earlier one had done.
        failures: attempts of this call that failed, and were made again.
    """

    job_id: str
    outcome: Mapping[str, Any]
    executed: int
    reused: int
    failures: Sequence[Failure] = ()


class JobFailedError(JobStoppedError):
    """A task failed as often as allowed."""

    def __init__(self, message: str, *, job_id: str, failures: Sequence[Failure]) -> None:
        super().__init__(message, job_id=job_id)
        self.failures = tuple(failures)


class JobCancelledError(JobStoppedError):
    """Someone cancelled the job."""

    def __init__(self, job_id: str) -> None:
        told = f"job {job_id!r} was cancelled; nothing was committed: start it again under this id to go on, or drop it"
        super().__init__(told, job_id=job_id)


def plan_job(job: Job) -> Plan:
    """What a job would do: its tasks, rows, bytes and the versions it reads. Prints as a line; nothing is written."""
    plan = job.plan()
    check_names(plan.stage, ())
    return plan


def run_job(
    job: Job,
    *,
    job_id: str | None = None,
    engine: str | Executor = "local",
    workers: int | None = None,
    memory_limit: int = MEMORY,
    retries: int = RETRIES,
    progress: Told | None = None,
    clock: Clock = system_clock,
    new_id: NewId = random_id,
) -> JobRun:
    """Run a job to its end, or go on with one that was interrupted: tasks that are done are not done again.

    One commit at the end, or none. After a crash of a worker or of this process, Ctrl-C or a cancel, call it again with the
    same job and `job_id`. A job that has ended gives its outcome again and does nothing.

    Args:
        job: what to do.
        job_id: names this job among those that write the same table; by default a new name.
        engine: `"local"` (processes of this machine), `"threads"`, `"spark"`, `"ray"`, `"daft"`, or an executor.
        workers: tasks at a time; by default as many as the engine has room for.
        memory_limit: bytes to use, roughly. On one machine the workers share it; in a cluster it is each worker's.
        retries: how often a failed task is tried again; a wrong argument or damaged file fails at once.
        progress: called now and then.

    Raises:
        InvalidInputError: what the job was asked for can't be; the job was begun with other parameters under this id;
            it can't be sent to workers. An error that a task raised on purpose has the same kind here.
        JobFailedError: a task failed too often; its reasons are kept (`job_status`).
        JobCancelledError: `cancel_job` was called.
        ConflictError: the job's commit met a change that it doesn't go with.
        UnsupportedError: the engine is not installed.
    """
    _check(workers, memory_limit, retries)
    executor = executor_named(engine) if isinstance(engine, str) else engine
    capacity = executor.capacity(workers)
    identity = new_id() if job_id is None else job_id
    running = _Run(
        job,
        JobFolder(job.home(), identity),
        executor,
        capacity,
        memory_limit,
        retries,
        progress or (lambda _: None),
        clock,
        new_id,
    )
    with span("job", kind=job.name, job=identity), closing(executor):
        return running.to_end()


@dataclass
class _Run:
    """One call of `run_job`."""

    job: Job
    folder: JobFolder
    executor: Executor
    capacity: Capacity
    memory: int
    retries: int
    progress: Told
    clock: Clock
    new_id: NewId
    executed: int = 0
    reused: int = 0
    failures: list[Failure] = field(default_factory=list)

    def to_end(self) -> JobRun:
        import vectorlake

        parameters = msgspec.json.decode(msgspec.json.encode(dict(self.job.parameters)))
        record = JobRecord(self.folder.id, self.job.name, parameters, self.clock(), vectorlake.__version__)
        check_parameters(self.folder.begin(record), self.job.name, parameters)
        ended = self.folder.outcome()
        if ended is not None:
            return JobRun(self.folder.id, ended.value, 0, ended.tasks)
        self.folder.resume()
        plan = self.folder.plan() or self.folder.put_plan(plan_job(self.job))
        done = Done(
            self.folder.id,
            plan.sources,
            (),
            self.memory,
            cores(),
            self.folder.scratch,
            self.new_id,
            self.clock,
        )
        stage: Stage | None = plan.stage
        while stage is not None:
            values = self._done(stage, plan.sources)
            done = replace(done, stages=(*done.stages, StageDone(stage, values)))
            stage = self._next(done)
        self._check_cancelled()
        self.folder.record()  # dropped meanwhile, its files may be gone
        outcome = dict(self.job.commit(done))
        tasks = self.executed + self.reused
        ended = self.folder.put_outcome(OutcomeRecord(outcome, self.clock(), tasks))
        self.job.tidy(done)
        self.folder.remove_scratch()
        return JobRun(self.folder.id, ended.value, self.executed, self.reused, tuple(self.failures))

    def _next(self, done: Done) -> Stage | None:
        number = len(done.stages)
        known = self.folder.stage(number)
        if known is not None:
            return known
        self._check_cancelled()
        stage = self.job.next_stage(done)
        if stage is None:
            return None
        check_names(stage, [one.stage.name for one in done.stages])
        return self.folder.put_stage(number, stage)

    def _done(self, stage: Stage, sources: Mapping[str, int]) -> tuple[dict[str, Any], ...]:
        """The results of a stage, after doing what was not done yet."""
        known = self.folder.usable_results(stage.name)
        self.reused += len(known)
        left = [task for task in stage.tasks if task.id not in known]
        self._tell(stage, known)
        tried = 0
        while left:
            failed = self._round(stage, left, sources, known)
            left = [task for task in left if task.id not in known]
            if failed and tried == self.retries:
                raise self._given_up(failed[-1])
            tried += bool(failed)
        return tuple(known[task.id].value for task in stage.tasks)

    def _round(
        self, stage: Stage, tasks: Sequence[Task], sources: Mapping[str, int], known: dict[str, TaskRecord]
    ) -> list[Failure]:
        """Try each task once; takes in what is done, and gives what failed."""
        share = min(self.capacity.workers, len(tasks)) if self.capacity.one_machine else 1
        payload = Payload(
            self.job,
            self.folder.home,
            self.folder.id,
            msgspec.structs.replace(stage, tasks=()),
            sources,
            max(self.memory // share, 1),
            self.capacity.threads,
            self.new_id,
            self.clock,
        ).to_bytes()
        calls = [Call(task.id, stage.name, msgspec.msgpack.encode((stage.name, task))) for task in tasks]
        failed: list[Failure] = []
        attempts = self.executor.run(payload, calls, workers=self.capacity.workers)
        try:
            for attempt in attempts:
                if attempt is None or (attempt.record is None and attempt.failure is None):
                    self._check_cancelled()
                elif attempt.failure is not None:
                    failed.append(attempt.failure)
                    self.failures.append(attempt.failure)
                    self.folder.put_failure(attempt.failure, new_id=self.new_id)
                    if attempt.failure.final:
                        raise self._given_up(failed[-1])
                elif attempt.record is not None:
                    self.executed += 1
                    known[attempt.task] = attempt.record
                    self._tell(stage, known)
        finally:
            close = getattr(attempts, "close", None)
            if close is not None:
                close()
        return failed

    def _given_up(self, last: Failure) -> VectorlakeError:
        told = (
            f"job {self.folder.id!r} ({self.job.name}) stopped, nothing was committed; {last}; start it again under this id "
            "to go on, once the cause is mended"
        )
        kind = getattr(errors, last.kind, None)
        if last.final and isinstance(kind, type) and issubclass(kind, VectorlakeError):
            return kind(told)
        return JobFailedError(told, job_id=self.folder.id, failures=self.failures)

    def _check_cancelled(self) -> None:
        if self.folder.cancelled():
            raise JobCancelledError(self.folder.id)

    def _tell(self, stage: Stage, known: Mapping[str, TaskRecord]) -> None:
        done = [task.rows for task in stage.tasks if task.id in known]
        self.progress(
            Progress(
                self.folder.id,
                stage.name,
                (len(done), len(stage.tasks)),
                (sum(done), sum(task.rows for task in stage.tasks)),
            )
        )


def _check(workers: int | None, memory_limit: int, retries: int) -> None:
    whole: list[tuple[str, object, int]] = [
        ("memory_limit", memory_limit, LEAST_MEMORY),
        ("retries", retries, 0),
    ]
    if workers is not None:
        whole.append(("workers", workers, 1))
    for name, value, least in whole:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidInputError(f"{name} must be an integer of at least {least:,}, not {value!r}")
