"""Jobs on Ray: each task of a job is a Ray task, on whichever machine of the cluster has a core for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

import ray
from ray.exceptions import RayError

from vectorlake.jobs import Attempt, Call, Capacity, run_task, worker_died
from vectorlake_ray._cluster import cluster

_TICK: Final = 0.5


class RayExecutor:
    """Runs tasks in a Ray cluster: the one that this process is connected to, else that of `ray.init()`."""

    def capacity(self, workers: int | None) -> Capacity:
        """By default as many workers as the cluster has cores, of one thread each."""
        there = cluster()
        count = workers or there.cores
        return Capacity(count, max(1, there.cores // count), one_machine=there.machines == 1)

    def run(self, payload: bytes, calls: Sequence[Call], *, workers: int) -> Iterator[Attempt | None]:
        """As every executor does. Closed, it kills what runs."""
        sent = ray.put(payload)
        threads = self.capacity(workers).threads
        # A job tries failed tasks again itself, and keeps the reason.
        remote = ray.remote(num_cpus=threads, max_retries=0)(run_task)
        waiting = deque(calls)
        running: dict[Any, Call] = {}
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    call = waiting.popleft()
                    running[remote.options(name=f"{call.stage}: {call.task}").remote(sent, call.data)] = call
                done, _ = ray.wait(list(running), timeout=_TICK)
                if not done:
                    yield None
                for ref in done:
                    yield _attempt(running.pop(ref), ref)
        finally:
            for ref in running:
                ray.cancel(ref, force=True)

    def close(self) -> None:
        """Nothing is kept: the cluster is the user's."""


def _attempt(call: Call, ref: Any) -> Attempt:
    try:
        return Attempt.from_bytes(ray.get(ref))
    except RayError as e:
        return worker_died(call, next(iter(str(e).splitlines()), type(e).__name__))


def executor() -> RayExecutor:
    """The executor of this module."""
    return RayExecutor()
