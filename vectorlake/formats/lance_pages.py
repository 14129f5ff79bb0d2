"""The raw pages of a Lance vector column, mapped into memory.

Lance writes the vectors of a fixed-size list without nulls one after the other, so that a page's only buffer
is the array itself. Whether that is so is told by the buffers' sizes and, by the caller, by comparing rows.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

_PROBED_PAGES = 16


class MappedPages:
    """Pages [rows, dim] of one column in row order, read-only, over a mapped file.

    `pages` are for reading on; `take` goes through a second map whose pages the kernel is told not to read
    ahead.
    """

    def __init__(self, pages: list[np.ndarray], scattered: list[np.ndarray]) -> None:
        self.pages = pages
        self.starts = np.concatenate([[0], np.cumsum([len(page) for page in pages], dtype=np.int64)])
        self._scattered = scattered

    def window(self, start: int, stop: int) -> np.ndarray:
        """Rows `[start, stop)`, which must lie in one page, as a view."""
        index = int(np.searchsorted(self.starts, start, side="right")) - 1
        first = int(self.starts[index])
        return self.pages[index][start - first : stop - first]

    def take(self, positions: np.ndarray) -> np.ndarray:
        """The rows at ascending positions, copied."""
        taken = np.empty((len(positions), self.pages[0].shape[1]), self.pages[0].dtype)
        cuts = np.searchsorted(positions, self.starts)
        for i in np.flatnonzero(cuts[1:] > cuts[:-1]).tolist():
            part = slice(int(cuts[i]), int(cuts[i + 1]))
            np.take(self._scattered[i], positions[part] - self.starts[i], axis=0, out=taken[part])
        return taken

    def probes(self) -> np.ndarray:
        """Positions worth comparing: the first, a middle and the last row of some pages, the outer two among
        them."""
        count = len(self.pages)
        chosen = np.unique(np.linspace(0, count - 1, min(count, _PROBED_PAGES)).astype(np.int64))
        first, end = self.starts[chosen], self.starts[chosen + 1]
        return np.unique(np.concatenate([first, (first + end) // 2, end - 1]))


def map_pages(path: Path, column: Any, *, kind: pa.DataType, rows: int) -> MappedPages | None:
    """Map the pages of a column that Lance's metadata describes; None where they are not plain arrays.

    Args:
        path: the file.
        column: Lance's description of the column, or None.
        kind: the column's Arrow type, a vector.
        rows: rows in the file.
    """
    if column is None:
        return None
    dtype = np.dtype(kind.value_type.to_pandas_dtype())
    row_bytes = kind.list_size * dtype.itemsize
    places = []
    for page in column.pages:
        buffers = page.buffers
        if len(buffers) != 1 or not buffers[0].size or buffers[0].size % row_bytes:
            return None
        places.append((int(buffers[0].position), int(buffers[0].size) // row_bytes))
    # With nulls every row has one byte more.
    if sum(count for _, count in places) != rows:
        return None
    with path.open("rb") as file:
        forward = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        scattered = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(scattered, "madvise"):
        scattered.madvise(mmap.MADV_RANDOM)
    if any(position + count * row_bytes > len(forward) for position, count in places):
        return None

    def arrays(mapped: mmap.mmap) -> list[np.ndarray]:
        shape = kind.list_size
        return [
            np.frombuffer(mapped, dtype, count * shape, position).reshape(count, shape)
            for position, count in places
        ]

    return MappedPages(arrays(forward), arrays(scattered))
