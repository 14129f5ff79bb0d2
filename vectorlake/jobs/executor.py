"""Where tasks run: what an executor is, and how one is found by name, in the core or in an engine's connector."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from vectorlake.errors import InvalidInputError, UnsupportedError
from vectorlake.metadata.job import Failure, TaskRecord
from vectorlake.schema import did_you_mean, listing


@dataclass(frozen=True)
class Capacity:
    """What an executor has.

    Attributes:
        workers: tasks that run at the same time.
        threads: that each of them may use.
        one_machine: whether the workers share the memory of this machine, and so the job's memory limit.
    """

    workers: int
    threads: int
    one_machine: bool = True


class Attempt(msgspec.Struct, frozen=True):
    """How one attempt at a task ended: with a record, with a failure, or with neither if the job was cancelled."""

    task: str
    record: TaskRecord | None = None
    failure: Failure | None = None

    def to_bytes(self) -> bytes:
        """The attempt as an engine may carry it."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Attempt:
        """An attempt from its bytes."""
        return msgspec.msgpack.decode(data, type=cls)


@dataclass(frozen=True)
class Call:
    """A task as it's sent to a worker.

    Attributes:
        task: its id.
        stage: its stage's name.
        data: what `vectorlake.jobs.run_task` takes besides the payload.
    """

    task: str
    stage: str
    data: bytes


class Executor(Protocol):
    """Runs `vectorlake.jobs.run_task(payload, call.data)` for some calls, side by side, in an engine's workers."""

    def capacity(self, workers: int | None) -> Capacity:
        """How many tasks run at the same time if so many workers are wanted; None for as many as there are."""
        ...

    def run(self, payload: bytes, calls: Sequence[Call], *, workers: int) -> Iterator[Attempt | None]:
        """Run each call once, and give the attempts as they end, in any order; None now and then while none does.

        `run_task` returns the bytes of an attempt and raises nothing. A call whose worker died gives an attempt that says
        so (`worker_died`). When the iterator is closed, tasks that run are stopped as far as the engine can.
        """
        ...

    def close(self) -> None:
        """Let go of what is kept from one `run` to the next. Called at the end of each job; `run` may follow again."""
        ...


def worker_died(call: Call, why: str) -> Attempt:
    """The attempt of a call whose worker did not live to tell."""
    return Attempt(call.task, failure=Failure(call.stage, call.task, "WorkerDied", why))


@dataclass(frozen=True)
class _Engine:
    module: str
    extra: str | None = None


ENGINES: Final = {
    "local": _Engine("vectorlake.jobs.processes"),
    "threads": _Engine("vectorlake.jobs.threads"),
    "spark": _Engine("vectorlake_spark._jobs", "spark"),
    "ray": _Engine("vectorlake_ray._jobs", "ray"),
    "daft": _Engine("vectorlake_daft._jobs", "daft"),
}
"""The modules in which executors are, each with a function `executor()`."""


def executor_named(name: str) -> Executor:
    """An executor by its name.

    Raises:
        InvalidInputError: an unknown name.
        UnsupportedError: the engine is not installed; names the extra.
    """
    engine = ENGINES.get(name)
    if engine is None:
        raise InvalidInputError(
            f"there is no engine {name!r}{did_you_mean(name, list(ENGINES))}; choose from {listing(list(ENGINES))}"
        )
    try:
        make: Callable[[], Executor] = importlib.import_module(engine.module).executor
        return make()
    except ImportError as e:
        if engine.extra is None:
            raise
        raise UnsupportedError(
            f"engine {name!r} is not installed ({e}): pip install 'vectorlake[{engine.extra}]', or choose engine 'local'"
        ) from e
