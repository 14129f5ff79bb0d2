"""What is measured of whom: a contestant builds an index over vectors and answers queries at several settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np


class Skip(Exception):
    """A contestant can't take part; the message says why."""


class Unreadable(Exception):
    """A data set can't be read as it was asked for; the message says why."""


@dataclass(frozen=True)
class JoinTruth:
    """What a self-join of the first `rows` should find: `neighbors` int [s, k] of the rows `sample` int [s]."""

    rows: int
    sample: np.ndarray
    neighbors: np.ndarray


@dataclass(frozen=True)
class Data:
    """One data set, as every contestant gets it.

    Attributes:
        base: [n, d] float32; of unit length under cosine.
        queries: [m, d] float32.
        neighbors: int [m, >= k], the true nearest, nearest first.
        metric: "l2", "cosine" or "dot".
        element: how the vectors came (`float16`, `float32`, `uint8`): what a table stores.
        join: None where no self-join is asked for.
    """

    name: str
    base: np.ndarray
    queries: np.ndarray
    neighbors: np.ndarray
    metric: str
    element: str
    join: JoinTruth | None = None


@dataclass(frozen=True)
class Setting:
    """One point of a sweep, by the contestant's own names; later ones look at more."""

    values: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.values.items()) or "-"


class Contestant:
    """One index of one library, made anew in a process of its own. What a subclass does not say is done by doing nothing."""

    def load(self, data: Data, folder: Path) -> None:
        """Bring the vectors to where the index is built from, on disk if the library works from there; not timed."""

    def build(self, data: Data, folder: Path, *, threads: int) -> None:
        """Build the index; this is timed."""
        raise NotImplementedError

    def save(self, folder: Path) -> int | None:
        """Write the index to disk if building did not: its bytes there, None if it can't be saved."""
        return None

    def settings(self) -> Sequence[Setting]:
        """Ascending in effort."""
        return [Setting()]

    def prepare(self, setting: Setting, *, k: int, threads: int) -> None:
        """Whatever is done once before searches under a setting; not timed."""

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Ids [m, k] of the nearest rows (positions in `Data.base`), -1 where fewer were found."""
        raise NotImplementedError


BEAMS: Final = (10, 16, 24, 32, 40, 48, 52, 56, 60, 64, 72, 80, 96, 112, 128, 160, 192, 208, 256, 384, 512)
"""Values of `ef` for graphs that are compared closely."""


def grid(**axes: Sequence[Any]) -> list[Setting]:
    """All combinations; the first axis varies slowest."""
    points: list[dict[str, Any]] = [{}]
    for name, values in axes.items():
        points = [{**point, name: value} for point in points for value in values]
    return [Setting(point) for point in points]
