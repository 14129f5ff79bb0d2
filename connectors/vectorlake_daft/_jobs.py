"""Jobs on Daft: each task is a frame of one row, computed in a process of its own, whose death costs that task only."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import daft
from daft import DataType, col
from daft.runners import get_or_infer_runner_type

from vectorlake import UnsupportedError
from vectorlake.jobs import (
    Attempt,
    Call,
    Capacity,
    attempts_on_threads,
    executor_named,
    run_task,
    worker_died,
)


@daft.func(return_dtype=DataType.binary(), use_process=True)
def _attempt(payload: bytes, data: bytes, path: list[str]) -> bytes:
    sys.path.extend(place for place in path if place not in sys.path)
    return run_task(payload, data)


class DaftExecutor:
    """Runs tasks in processes that Daft's runner on this machine starts, one a task."""

    def capacity(self, workers: int | None) -> Capacity:
        """By default one worker a core."""
        return executor_named("local").capacity(workers)

    def run(self, payload: bytes, calls: Sequence[Call], *, workers: int) -> Iterator[Attempt | None]:
        """As every executor does. Daft can't stop a process: closed, it waits for those that run."""
        return attempts_on_threads(
            lambda call: _one(payload, call),
            calls,
            workers=workers,
            died=lambda call, error: worker_died(call, str(error)),
        )

    def close(self) -> None:
        """Nothing is kept: a process ends with its task."""


def _one(payload: bytes, call: Call) -> Attempt:
    # A frame a task: a frame of many keeps its first results back until the last one is there, and dies as a whole.
    frame = daft.from_pydict({"payload": [payload], "data": [call.data], "path": [sys.path]})
    found: Any = frame.select(_attempt(col("payload"), col("data"), col("path")).alias("attempt"))
    return Attempt.from_bytes(found.to_pydict()["attempt"][0])


def executor() -> DaftExecutor:
    """The executor of this module.

    Raises:
        UnsupportedError: this process runs Daft on Ray.
    """
    if get_or_infer_runner_type() == "ray":
        raise UnsupportedError(
            "jobs on Daft run on this machine, and Daft is told to run on Ray: choose engine 'ray', which uses the same "
            "cluster"
        )
    return DaftExecutor()
