"""Records of a graph in memory of large pages: visits go anywhere, and small pages have to be looked up for nearly each.

On a virtual machine, searches of records in pages of 2 MiB took 8 to 15 % less time than with pages of 4 KiB. A mapped file
has small pages on most systems, so records are copied once searches have read much of them.
"""

from __future__ import annotations

import threading
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.kernels.codes import aligned_empty

Bytes = npt.NDArray[np.uint8]

LARGEST: Final = 512 << 20
"""Bytes of records that are copied at most."""
REPAID: Final = 2
"""Records are copied when so many times their bytes were visited: the copy costs what visits of some six times gain."""
BATCH: Final = 64
"""Calls with fewer queries don't wait for a copy to be made."""


class Copying:
    """Decides when records are worth a copy, and makes it once.

    Args:
        records: uint8 [rows, size].
    """

    def __init__(self, records: npt.NDArray[Any]) -> None:
        self._records = records
        self._left = REPAID * records.nbytes
        self._wanted = 0 < records.nbytes <= LARGEST
        self._lock = threading.Lock()

    def after(self, visits: int, queries: int) -> Bytes | None:
        """The copy, if it is due after a call with so many visits and queries; None before and ever after."""
        if not self._wanted:
            return None
        self._left -= visits * self._records.shape[1]
        if self._left > 0 or queries < BATCH or not self._lock.acquire(blocking=False):
            return None
        # Never released: it is made once.
        self._wanted = False
        copy = aligned_empty(*self._records.shape)
        copy[:] = self._records
        return copy
