"""Names that nobody else has, as a parameter: what a source of ids is, and the system's."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TypeAlias

NewId: TypeAlias = Callable[[], str]
"""Gives 32 lower-case hexadecimal digits, different each time."""


def random_id() -> str:
    """A random UUID (version 4) without dashes."""
    return uuid.uuid4().hex
