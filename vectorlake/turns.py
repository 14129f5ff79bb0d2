"""Processes of one machine take turns at what they would else do against each other: a queue for speed, not a lock that
anything relies on.

An advisory lock on something that is there anyway lets the others wait. Whoever does not get it in time, or can't, goes
ahead.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on this platform: everybody goes ahead
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def turn(place: Path | None, *, wait_s: float, poll_s: float) -> Iterator[None]:
    """Wait for one's turn at a file or folder, which is neither written nor left with another beside it.

    Args:
        place: None, or one that is not there: everybody goes ahead.
        wait_s: seconds after which one goes ahead.
        poll_s: seconds between two looks.
    """
    if place is None or fcntl is None:
        yield
        return
    try:
        handle = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(poll_s)
            except OSError:  # some network file systems have no such locks
                break
        yield
    finally:
        os.close(handle)  # which releases the lock, as the death of the process does
