"""Writers on one machine take turns to commit: a queue for speed, not a lock that anything relies on.

Of many writers that race for the next version one wins, and what the others prepared is wasted. On local disk an
advisory lock lets them wait instead. Whoever does not get it in time, or can't, goes ahead: put-if-absent decides.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Final

from vectorlake.store.protocol import Store

try:
    import fcntl
except ImportError:  # not on this platform: everybody goes ahead
    fcntl = None  # type: ignore[assignment]

_WAIT_S: Final = 0.5
_POLL_S: Final = 0.0005


@contextlib.contextmanager
def turn(store: Store, folder: str) -> Iterator[None]:
    """Wait for one's turn among the writers of a folder on local disk, half a second at most."""
    path = store.local_path(folder)
    if path is None or fcntl is None:
        yield
        return
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # the folder itself: no file is left behind
    except OSError:  # no folder yet: the commit itself will tell
        yield
        return
    try:
        deadline = time.monotonic() + _WAIT_S
        while time.monotonic() < deadline:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_POLL_S)
            except OSError:  # some network file systems have no such locks
                break
        yield
    finally:
        os.close(handle)  # which releases the lock, as the death of the process does
