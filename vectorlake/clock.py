"""Time and ids as values that are passed in, so that simulations replay from a seed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], int]
"""Now, in ms since the epoch."""

NewId: TypeAlias = Callable[[], str]
"""A name that nobody else has: 32 lower-case hexadecimal digits."""


def system_clock() -> int:
    """The machine's clock."""
    return time.time_ns() // 1_000_000


def random_id() -> str:
    """A random UUID (version 4) without dashes."""
    return uuid.uuid4().hex
