"""Values that are worked out once and kept, such as what belongs to a snapshot or to a table's open files."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import RLock
from typing import Any, Final, TypeVar

T = TypeVar("T")
_MOST: Final = 256


class Memo:
    """The most recently used values by key. Safe to share between threads: a value is made by one of them."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._held: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = RLock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key; made and kept if there is none yet. Nothing is kept if that fails."""
        with self._lock:
            if key not in self._held:
                self._held[key] = make()
            self._held.move_to_end(key)
            value: T = self._held[key]
            while len(self._held) > self._most:
                self._held.popitem(last=False)
            return value
