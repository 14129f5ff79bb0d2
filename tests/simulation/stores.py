"""A store in memory that dates objects by a clock of its own and tells of every change: what a simulated world stands on."""

from __future__ import annotations

import contextlib
import datetime as dt
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import ClassVar

from vectorlake.errors import AlreadyExistsError, NotFoundError
from vectorlake.store.protocol import ObjectInfo


class Change(Enum):
    PUT = "an object is there, or is another one"
    DELETE = "an object is about to be removed"


@dataclass
class Disk:
    """What all stores of one world share; paths are whole ones."""

    now_ms: int
    """The store's own time; it never goes back."""
    changed: Callable[[Change, str], None] = lambda change, path: None
    objects: dict[str, bytes] = field(default_factory=dict)
    written_ms: dict[str, int] = field(default_factory=dict)

    def put(self, path: str, data: bytes) -> None:
        self.objects[path], self.written_ms[path] = data, self.now_ms
        self.changed(Change.PUT, path)

    def delete(self, path: str) -> None:
        if path in self.objects:
            self.changed(Change.DELETE, path)
            del self.objects[path], self.written_ms[path]


class SimulatedStore:
    """One host's door to a `Disk`. Hosts have URIs of their own, so that they share no cache of this process."""

    storage_options: ClassVar[dict[str, str]] = {}

    def __init__(self, disk: Disk, host: str, prefix: str = "") -> None:
        self._disk, self._host, self._prefix = disk, host, prefix

    @property
    def uri(self) -> str:
        return f"memory://{self._host}/{self._prefix}".rstrip("/")

    def child(self, path: str) -> SimulatedStore:
        return SimulatedStore(self._disk, self._host, f"{self._prefix}{path}/")

    def local_path(self, path: str) -> Path | None:
        return None

    def get(self, path: str) -> bytes:
        try:
            return self._disk.objects[self._prefix + path]
        except KeyError:
            raise NotFoundError(f"no object at {self.uri}/{path}") from None

    def get_range(self, path: str, start: int, length: int) -> bytes:
        return self.get(path)[start : start + length]

    def get_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        data = self.get(path)
        return [data[start : start + length] for start, length in ranges]

    def head(self, path: str) -> ObjectInfo:
        size, written_ms = len(self.get(path)), self._disk.written_ms[self._prefix + path]
        return ObjectInfo(path, size, None, dt.datetime.fromtimestamp(written_ms / 1000, dt.UTC))

    def put(self, path: str, data: bytes) -> None:
        self._disk.put(self._prefix + path, bytes(data))

    def put_new(self, path: str, data: bytes) -> None:
        if self._prefix + path in self._disk.objects:
            raise AlreadyExistsError(f"{self.uri}/{path} exists already")
        self.put(path, data)

    @contextlib.contextmanager
    def staged(self, path: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="vectorlake-simulated-") as folder:
            local = Path(folder) / path.rpartition("/")[2]
            yield local
            self.put(path, local.read_bytes())

    def sync_folders(self, paths: Iterable[str]) -> None:
        pass

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        folder = self._prefix + (f"{prefix}/" if prefix else "")
        cut = len(self._prefix)
        found = sorted(path[cut:] for path in self._disk.objects if path.startswith(folder))
        yield from [self.head(path) for path in found if start_after is None or path > start_after]

    def leftovers(self, prefix: str = "") -> Iterator[ObjectInfo]:
        yield from ()

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._disk.delete(self._prefix + path)
