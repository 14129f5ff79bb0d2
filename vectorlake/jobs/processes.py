"""Tasks in processes of this machine, each with a pipe of its own, so that the death of one costs its task only.

A process that is begun anew imports for more than a second. So on Linux they are forked, as Python does by default from 3.14
on: not from the driver, whose threads they would not have but the locks of these, but from a server that has imported what
tasks need, and does nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Final

import numpy as np

from vectorlake.errors import UnsupportedError
from vectorlake.jobs.executor import Attempt, Call, Capacity, worker_died
from vectorlake.jobs.worker import run_task
from vectorlake.kernels.team import cores

_TICK: Final = 0.5
_GOODBYE: Final = 5.0
"""Seconds in which a process that was asked to end has to."""
_PAYLOAD: Final = b""
"""Tells a worker that what follows is a payload, and no task."""


_IMPORTED: Final = (
    "vectorlake.jobs.processes",
    "vectorlake.lake.lake",
    "vectorlake.search.exact",
    "vectorlake.table.table",
    "vectorlake_jobs",
)
"""What the server imports. No formats: their libraries start threads, or warn of forks."""


def _context() -> ForkServerContext | SpawnContext:
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))  # of no effect once the server runs
    return context


def _serve(pipe: Connection, environment: Mapping[str, str]) -> None:
    """A worker's whole life: a payload, tasks, another payload, …, until the driver closes the pipe or dies.

    Args:
        environment: the driver's: the server has that of the time when it was started.
    """
    os.environ.clear()
    os.environ.update(environment)
    np.random.seed()
    random.seed()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the driver decides what follows
    with suppress(EOFError, OSError):
        pipe.send_bytes(b"")
        payload = b""
        while True:
            told = pipe.recv_bytes()
            if told == _PAYLOAD:
                payload = pipe.recv_bytes()
            else:
                pipe.send_bytes(run_task(payload, told))


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    ready: bool = False
    payload: bytes | None = None
    call: Call | None = None

    @classmethod
    def start(cls) -> _Worker:
        context = _context()
        mine, its = context.Pipe()
        process = context.Process(
            target=_serve, args=(its, dict(os.environ)), name="vectorlake-job", daemon=True
        )
        process.start()
        its.close()
        return cls(process, mine)

    @property
    def free(self) -> bool:
        return self.ready and self.call is None and not self.pipe.closed

    def give(self, payload: bytes, call: Call) -> bool:
        """Let it begin a task; False if it is not there any more."""
        try:
            if self.payload is not payload:
                self.pipe.send_bytes(_PAYLOAD)
                self.pipe.send_bytes(payload)
                self.payload = payload
            self.pipe.send_bytes(call.data)
        except OSError:
            self.end()
            return False
        self.call = call
        return True

    def hear(self) -> Attempt | None:
        """How its task ended, in an attempt or in its death; None where it has only told that it's there.

        Raises:
            UnsupportedError: it could not be started.
        """
        call, self.call = self.call, None
        try:
            said = self.pipe.recv_bytes()
        except (EOFError, OSError):
            death = self.death()
            self.end()
            if not self.ready:
                raise UnsupportedError(
                    f"workers can't be started: {death}. A script that starts a job needs "
                    'if __name__ == "__main__": around what it does, since workers import it; or choose engine "threads"'
                ) from None
            return None if call is None else worker_died(call, death)
        self.ready = True
        return None if call is None else Attempt.from_bytes(said)

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
    """Runs tasks in processes, which wait for the next stage when one is done.

    An iterator that is closed ends those that are at work, at once; `close` ends all.
    """

    def __init__(self) -> None:
        self._idle: deque[_Worker] = deque()

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
        left = len(calls)
        crew: list[_Worker] = []
        try:
            while left:
                while len(crew) < min(workers, left):
                    crew.append(self._hired())
                for worker in crew:
                    if waiting and worker.free and worker.give(payload, waiting[0]):
                        waiting.popleft()
                crew = [worker for worker in crew if not worker.pipe.closed]
                ready = wait([worker.pipe for worker in crew], timeout=_TICK)
                if crew and not ready:
                    yield None
                for worker in [one for one in crew if one.pipe in ready]:
                    attempt = worker.hear()
                    if attempt is not None:
                        left -= 1
                        yield attempt
                crew = [worker for worker in crew if not worker.pipe.closed]
        finally:
            for worker in crew:
                if worker.call is None and not worker.pipe.closed:
                    self._idle.append(worker)
                else:
                    worker.end()

    def close(self) -> None:
        """As every executor does: the processes end."""
        for worker in self._idle:  # all at once: each takes a moment to end
            worker.pipe.close()
        while self._idle:
            self._idle.pop().end()

    def _hired(self) -> _Worker:
        with suppress(IndexError):
            return self._idle.pop()
        return _Worker.start()


def executor() -> Processes:
    """The executor of this module."""
    return Processes()
