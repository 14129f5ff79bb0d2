"""Time as a parameter, so that simulations replay from a seed: what a clock is, and the system's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], int]
"""Now, in ms since the epoch; may stand still or step back, as system clocks do."""


def system_clock() -> int:
    """The machine's clock."""
    return time.time_ns() // 1_000_000
