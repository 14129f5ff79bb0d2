"""Tasks in processes of this machine, each with a pipe of its own, so that the death of one costs its task only."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

from vectorlake.errors import UnsupportedError
from vectorlake.jobs.executor import Attempt, Call, Capacity, worker_died
from vectorlake.jobs.worker import run_task
from vectorlake.kernels.team import cores

_TICK: Final = 0.5
_GOODBYE: Final = 5.0
"""Seconds in which a process that was asked to end has to."""


def _serve(pipe: Connection) -> None:
    """A worker's whole life: a payload, then tasks, until the driver closes the pipe or dies."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the driver decides what follows
    with suppress(EOFError, OSError):
        pipe.send_bytes(b"")
        payload = pipe.recv_bytes()
        while True:
            pipe.send_bytes(run_task(payload, pipe.recv_bytes()))


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    ready: bool = False
    call: Call | None = None

    @classmethod
    def start(cls) -> _Worker:
        # Not forked: a fork would take over locks of threads that it doesn't have.
        context = multiprocessing.get_context("spawn")
        mine, its = context.Pipe()
        process = context.Process(target=_serve, args=(its,), name="vectorlake-job", daemon=True)
        process.start()
        its.close()
        return cls(process, mine)

    def end(self) -> None:
        """Let it go; a task that it's doing is lost."""
        self.pipe.close()
        if self.call is not None:
            self.process.terminate()
        self.process.join(_GOODBYE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def death(self) -> str:
        self.process.join(_GOODBYE)
        code = self.process.exitcode
        how = (
            f"was killed by signal {-code}"
            if code is not None and code < 0
            else f"ended with exit code {code}"
        )
        return f"the worker process {self.process.pid} {how}; out of memory is a usual reason"


class Processes:
    """Runs tasks in processes that are started for a stage and end with it. Closed, it ends them at once."""

    def capacity(self, workers: int | None) -> Capacity:
        """By default one worker a core."""
        count = workers or cores()
        return Capacity(count, max(1, cores() // count))

    def run(self, payload: bytes, calls: Sequence[Call], *, workers: int) -> Iterator[Attempt | None]:
        """As every executor does.

        Raises:
            UnsupportedError: workers can't be started, as in a script whose main part runs when it is imported.
        """
        waiting = deque(calls)
        crew: list[_Worker] = []
        try:
            left = len(calls)
            crew.extend(_Worker.start() for _ in range(min(workers, left)))
            while left:
                ready = wait([worker.pipe for worker in crew], timeout=_TICK)
                if not ready:
                    yield None
                for worker in [one for one in crew if one.pipe in ready]:
                    attempt = self._heard(worker, payload, waiting)
                    if worker.pipe.closed:
                        crew.remove(worker)
                        if waiting:
                            crew.append(_Worker.start())
                    if attempt is not None:
                        left -= 1
                        yield attempt
        finally:
            for worker in crew:
                worker.end()

    def _heard(self, worker: _Worker, payload: bytes, waiting: deque[Call]) -> Attempt | None:
        """Take in what a worker says, and give it the next task; the attempt that ended, if one did."""
        call, attempt = worker.call, None
        try:
            said = worker.pipe.recv_bytes()
            if call is not None:
                attempt = Attempt.from_bytes(said)
            else:
                worker.ready = True
                worker.pipe.send_bytes(payload)
            worker.call = None
            if waiting:
                worker.call = waiting.popleft()
                worker.pipe.send_bytes(worker.call.data)
        except (EOFError, OSError):
            death = worker.death()
            lost, worker.call = worker.call, None
            worker.pipe.close()
            if not worker.ready:
                raise UnsupportedError(
                    f"workers can't be started: {death}. A script that starts a job needs "
                    'if __name__ == "__main__": around what it does, since workers import it; or choose engine "threads"'
                ) from None
            if attempt is not None and lost is not None:  # it died between its task and the next one
                waiting.appendleft(lost)
            elif lost is not None:
                return worker_died(lost, death)
        return attempt


def executor() -> Processes:
    """The executor of this module."""
    return Processes()
