"""Tasks on threads of this process: for work that releases the GIL, and for stores in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from vectorlake.jobs.executor import Attempt, Call, Capacity
from vectorlake.jobs.worker import run_task
from vectorlake.kernels.team import cores

_TICK = 0.5


class Threads:
    """Runs tasks on threads. Closed, it waits for those that run."""

    def capacity(self, workers: int | None) -> Capacity:
        """By default one worker a core."""
        count = workers or cores()
        return Capacity(count, max(1, cores() // count))

    def run(self, payload: bytes, calls: Sequence[Call], *, workers: int) -> Iterator[Attempt | None]:
        """As every executor does."""
        pool = ThreadPoolExecutor(workers, thread_name_prefix="vectorlake-job")
        waiting: set[Future[bytes]] = {pool.submit(run_task, payload, call.data) for call in calls}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=_TICK, return_when=FIRST_COMPLETED)
                for future in done:
                    yield Attempt.from_bytes(future.result())
                if not done:
                    yield None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """Nothing is kept."""


def executor() -> Threads:
    """The executor of this module."""
    return Threads()
