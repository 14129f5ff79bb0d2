"""Hosts that work on one store, one at a time: which of them goes on at a store call is drawn from the seed.

Each host is a thread that runs only while it has the turn, so that any two operations can interleave at any of their
store calls, and one seed always gives the same run.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable

STUCK_S = 240
"""A host that keeps the turn for so long waits for a lock that a paused one holds."""


class Stopped(BaseException):
    """The world has ended; unwinds a host that is paused."""


class Host:
    """Runs `work` again and again, each time it is given a turn while idle; `pause` gives the turn back."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.name = name
        self.busy = False
        self.weight = 1.0
        self._work = work
        self._mine, self._others = threading.Semaphore(0), threading.Semaphore(0)
        self._failure: BaseException | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def go_on(self) -> bool:
        """Give the host the turn until it pauses or has done a piece of work; whether it has done it.

        Raises:
            BaseException: whatever its work raised.
        """
        self._mine.release()
        if not self._others.acquire(timeout=STUCK_S):
            assert self._thread.ident is not None
            frame = sys._current_frames()[self._thread.ident]
            raise AssertionError(f"{self.name} is stuck at\n{''.join(traceback.format_stack(frame))}")
        if self._failure is not None:
            raise self._failure
        return not self.busy

    def pause(self) -> None:
        """Called from the host's own work, which may have handed a read to another thread: let others go on."""
        self._others.release()
        self._mine.acquire()
        if self._stopped:
            raise Stopped

    def stop(self) -> None:
        self._stopped = True
        self._mine.release()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._mine.acquire()
            if self._stopped:
                return
            self.busy = True
            try:
                self._work()
            except Stopped:
                return
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                self._failure = error
            self.busy = False
            self._others.release()
