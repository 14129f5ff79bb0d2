"""Tasks on threads of this process: for work that releases the GIL, and for stores in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from vectorlake.jobs.executor import Attempt, Call, Capacity
from vectorlake.jobs.worker import run_task
from vectorlake.kernels.team import cores

_TICK = 0.5


def attempts_on_threads(
    attempt: Callable[[Call], Attempt],
    calls: Sequence[Call],
    *,
    workers: int,
    died: Callable[[Call, BaseException], Attempt] | None = None,
    stop: Callable[[], None] | None = None,
) -> Iterator[Attempt | None]:
    """Attempt each call on a thread, `workers` at a time: attempts as they end, None while none does.

    Closed, it waits for those that run, and begins no other.

    Args:
        died: makes an attempt of an error that a call raised; without it, the error is raised.
        stop: called in the end, before those that run are waited for, to make them end sooner.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="vectorlake-job")
    waiting = {pool.submit(attempt, call): call for call in calls}
    try:
        while waiting:
            done, _ = wait(waiting, timeout=_TICK, return_when=FIRST_COMPLETED)
            for future in done:
                call, error = waiting.pop(future), future.exception()
                yield future.result() if error is None or died is None else died(call, error)
            if not done:
                yield None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        try:
            if stop is not None:
                stop()
        finally:
            pool.shutdown(wait=True)


class Threads:
    """Runs tasks on threads. Closed, it waits for those that run."""

    def capacity(self, workers: int | None) -> Capacity:
        """By default one worker a core."""
        count = workers or cores()
        return Capacity(count, max(1, cores() // count))

    def run(self, payload: bytes, calls: Sequence[Call], *, workers: int) -> Iterator[Attempt | None]:
        """As every executor does."""
        return attempts_on_threads(
            lambda call: Attempt.from_bytes(run_task(payload, call.data)), calls, workers=workers
        )

    def close(self) -> None:
        """Nothing is kept."""


def executor() -> Threads:
    """The executor of this module."""
    return Threads()
