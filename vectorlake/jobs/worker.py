"""What happens on a worker: open the payload, do a task, write down that it is done, tell how it ended."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec

from vectorlake.clock import Clock
from vectorlake.errors import (
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    UnsupportedError,
)
from vectorlake.ids import NewId
from vectorlake.jobs.executor import Attempt
from vectorlake.jobs.job import Job, TaskResult, Work
from vectorlake.jobs.records import JobFolder
from vectorlake.metadata.job import Failure, Stage, Task, TaskRecord
from vectorlake.store.protocol import Store

FINAL: Final = (InvalidInputError, UnsupportedError, NotFoundError, CorruptDataError)
"""What another attempt would run into again."""


@dataclass(frozen=True)
class Payload:
    """What all tasks of a stage have in common, as it's sent to each worker once."""

    job: Job
    home: Store
    job_id: str
    stage: Stage
    sources: Mapping[str, int]
    memory: int
    threads: int
    new_id: NewId
    clock: Clock

    def to_bytes(self) -> bytes:
        """The payload, pickled.

        Raises:
            InvalidInputError: the job holds what can't be sent to another process.
        """
        try:
            return _dumps(self)
        except Exception as e:
            raise InvalidInputError(
                f"job {self.job.name} can't be sent to a worker: {e}; give functions by import path ('module:name'), or "
                "define them at the top of a module, without locks, open files or connections in them"
            ) from e


def _dumps(payload: Payload) -> bytes:
    try:
        return pickle.dumps(payload)
    except (pickle.PicklingError, AttributeError, TypeError):
        try:
            import cloudpickle
        except ImportError:
            raise
        # Functions of a script or notebook, which pickle refers to by a name that workers don't know.
        dumped: bytes = cloudpickle.dumps(payload)
        return dumped


@lru_cache(maxsize=2)
def _loaded(payload: bytes) -> Payload:
    found = pickle.loads(payload)
    assert isinstance(found, Payload)
    return found


def run_task(payload: bytes, task: bytes) -> bytes:
    """Do one task and write down that it is done; for executors, which call it in a worker.

    The job is loaded once per process. Returns the bytes of an `Attempt`; whatever goes wrong is told there.
    """
    stage, told = msgspec.msgpack.decode(task, type=tuple[str, Task])
    try:
        return _attempt(_loaded(payload), told).to_bytes()
    except Exception as e:  # noqa: BLE001  it's told to the driver, which decides
        return Attempt(told.id, failure=_failure(stage, told.id, e)).to_bytes()


def _attempt(payload: Payload, task: Task) -> Attempt:
    folder = JobFolder(payload.home, payload.job_id)
    if folder.cancelled():
        return Attempt(task.id)
    work = Work(
        payload.job_id,
        payload.stage,
        payload.sources,
        payload.memory,
        payload.threads,
        folder.scratch,
        payload.new_id,
        payload.clock,
    )
    started_ms = payload.clock()
    result = payload.job.run(task, work)
    elapsed_ms = max(0, payload.clock() - started_ms)
    # Names of files are durable before anyone is told of them.
    payload.home.sync_folders(result.files)
    mine = TaskRecord(task.id, payload.new_id(), _plain(task, result), tuple(result.files), elapsed_ms)
    there = folder.put_result(payload.stage.name, mine)
    if there.attempt != mine.attempt:
        payload.home.delete(set(mine.files) - set(there.files))
    return Attempt(task.id, record=there)


def _plain(task: Task, result: TaskResult) -> dict[str, Any]:
    try:
        value: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(result.value))
    except (TypeError, msgspec.EncodeError) as e:
        raise InvalidInputError(f"the result of task {task.id} is no JSON: {e}") from e
    return value


def _failure(stage: str, task: str, error: Exception) -> Failure:
    return Failure(
        stage,
        task,
        type(error).__name__,
        "; ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", ())]),
        "".join(traceback.format_exception(error)),
        isinstance(error, FINAL),
    )
