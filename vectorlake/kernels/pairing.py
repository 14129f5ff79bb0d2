"""Which two blocks meet next: every pair once, nearest first, and no block in two places at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


class Meetings:
    """Hands pairs of blocks out to threads; what a block holds needs no lock while it is met.

    Args:
        pairs: int [pairs, 2], in the order to prefer; a block may meet itself.
    """

    def __init__(self, pairs: npt.NDArray[np.int64]) -> None:
        self._left: Iterator[list[int]] = iter(pairs.tolist())
        self._passed_by: list[list[int]] = []
        self._busy: set[int] = set()
        self._changed = threading.Condition()
        self._stopped = False

    def take(self) -> tuple[int, int] | None:
        """The next pair of which neither is busy, after waiting for one; None when none is left."""
        with self._changed:
            while not self._stopped:
                pair = self._free()
                if pair is not None:
                    self._busy.update(pair)
                    return pair
                if not self._passed_by:
                    return None
                self._changed.wait()
            return None

    def give_back(self, pair: tuple[int, int]) -> None:
        """Say that a pair has met."""
        with self._changed:
            self._busy.difference_update(pair)
            self._changed.notify_all()

    def stop(self) -> None:
        """Hand out no more: one meeting failed."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _free(self) -> tuple[int, int] | None:
        for at, (one, other) in enumerate(self._passed_by):
            if one not in self._busy and other not in self._busy:
                del self._passed_by[at]
                return one, other
        for one, other in self._left:
            if one not in self._busy and other not in self._busy:
                return one, other
            self._passed_by.append([one, other])
        return None
