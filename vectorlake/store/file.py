"""A store's object as a seekable file, read by ranges with a little read-ahead, for readers such as
pyarrow's."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa

from vectorlake.errors import CorruptDataError, NotFoundError
from vectorlake.store.protocol import Store

# Footers and page headers come in small reads: one request brings the next ones along.
_READ_AHEAD = 256 << 10
# A large read is split so that several connections carry it.
_SPLIT = 8 << 20


class RangeFile(io.RawIOBase):
    """A read-only file over `store`'s object at `path`, `size` bytes long. Not thread-safe, as files are
    not."""

    def __init__(self, store: Store, path: str, size: int) -> None:
        super().__init__()
        self._store, self._path, self._size = store, path, size
        self._position = 0
        self._ahead, self._ahead_start = b"", 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def size(self) -> int:
        """Length in bytes."""
        return self._size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        data = self._fetch(self._position, wanted)
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        return self.read(-1)

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _fetch(self, start: int, length: int) -> bytes:
        if length <= 0:
            return b""
        inside = start - self._ahead_start
        if inside >= 0 and inside + length <= len(self._ahead):
            return self._ahead[inside : inside + length]
        if length >= _READ_AHEAD:
            starts = range(start, start + length, _SPLIT)
            parts = self._store.get_ranges(
                self._path, [(first, min(_SPLIT, start + length - first)) for first in starts]
            )
            return self._whole(parts[0] if len(parts) == 1 else b"".join(parts), start, length)
        # Near the end (a footer) what comes before is wanted next, elsewhere what follows.
        first = max(0, min(start, self._size - _READ_AHEAD))
        self._ahead = self._store.get_range(self._path, first, min(_READ_AHEAD, self._size - first))
        self._ahead_start = first
        inside = start - first
        return self._whole(self._ahead[inside : inside + length], start, length)

    def _whole(self, data: bytes, start: int, length: int) -> bytes:
        if len(data) < length:
            raise CorruptDataError(
                f"{self._store.uri}/{self._path} ends at byte {start + len(data):,} where {self._size:,} "
                "bytes were registered: it was replaced or cut; restore it, or sync from the source"
            )
        return data


def open_input(store: Store, path: str, size: int | None = None) -> pa.NativeFile:
    """The object as a seekable `pyarrow.NativeFile`: the file itself on local disk, ranges of it elsewhere.

    `size` in bytes spares a request on a remote store. Raises `NotFoundError`, `StorageError`; reading past a
    cut end raises `CorruptDataError`.
    """
    local = store.local_path(path)
    if local is not None:
        try:
            # Not memory-mapped: a file that is cut while it is mapped ends the process.
            return pa.OSFile(str(local), "rb")
        except FileNotFoundError as error:
            raise NotFoundError(
                f"no object at {store.uri}/{path}: check the path, or whether it was removed"
            ) from error
        except OSError:
            store.get_range(path, 0, 1)
            raise
    length = store.head(path).size if size is None else size
    return pa.PythonFile(RangeFile(store, path, length), mode="r")
