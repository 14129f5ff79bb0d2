"""What the tasks of a write have staged, known in one place.

In a module of its own, without Ray Data: an actor begins with a process that imports this, and each write waits for it.
"""

from __future__ import annotations


class Register:
    """An actor that knows what was staged: a task that failed, or whose result got lost, tells the driver nothing."""

    def __init__(self) -> None:
        self._staged: list[bytes] = []
        self._open = True

    def add(self, staged: bytes) -> bool:
        """Take note; False if the write was given up meanwhile."""
        if self._open:
            self._staged.append(staged)
        return self._open

    def close(self) -> list[bytes]:
        """All that was staged; nothing more is taken."""
        self._open = False
        return self._staged
