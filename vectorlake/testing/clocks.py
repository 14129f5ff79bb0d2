"""Clocks and ids that tests set by hand, since time and ids are parameters of what is tested."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ManualClock:
    """A clock that stands still until `advance`, or steps by `step_ms` at each call.

    `now_ms` is the time of the next call, in milliseconds since 1970-01-01 UTC. Not thread-safe.
    """

    now_ms: int = 1_700_000_000_000
    step_ms: int = 0

    def __call__(self) -> int:
        now = self.now_ms
        self.now_ms += self.step_ms
        return now

    def advance(self, milliseconds: int) -> None:
        """Move time on; a negative number moves it back, as a corrected system clock does."""
        self.now_ms += milliseconds


@dataclass
class SequentialIds:
    """Ids as 32 hexadecimal digits that count up from `next_id`: replays a run. Not thread-safe."""

    next_id: int = 1

    def __call__(self) -> str:
        made = f"{self.next_id:032x}"
        self.next_id += 1
        return made
