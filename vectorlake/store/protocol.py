"""What a table needs of an object store and nothing more: one narrow door to disk, memory, S3, GCS, Azure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object: its path relative to the store's root, size in bytes, e-tag where the store has one, and
    time."""

    path: str
    size: int
    e_tag: str | None
    last_modified: datetime


@runtime_checkable
class Store(Protocol):
    """Objects under one root URI. Paths are relative, `/`-separated, without a leading slash.

    All methods are safe to call from several threads. Errors: `NotFoundError` (no such object),
    `AlreadyExistsError` (`put_new` on a taken path), `StorageError` (refused or failed), each naming the full
    URI.
    """

    @property
    def uri(self) -> str:
        """The root, e.g. `file:///data/lake`, `s3://bucket/lake`, `memory://name`; no trailing slash."""
        ...

    @property
    def storage_options(self) -> dict[str, str]:
        """Options (endpoint, region, keys...) with which another client may open the same root natively."""
        ...

    def child(self, path: str) -> Store:
        """The same store rooted one or more folders deeper."""
        ...

    def get(self, path: str) -> bytes:
        """All bytes of an object."""
        ...

    def get_range(self, path: str, start: int, length: int) -> bytes:
        """`length` bytes from offset `start`; fewer only at the object's end."""
        ...

    def get_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several `(start, length)` ranges of one object, fetched together."""
        ...

    def head(self, path: str) -> ObjectInfo:
        """Size, e-tag and time of an object without reading it."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write an object whole, replacing one that is there. Atomic: readers see the old or the new
        bytes."""
        ...

    def put_new(self, path: str, data: bytes) -> None:
        """Put-if-absent: exactly one of many racing callers wins, the others get `AlreadyExistsError`.

        Durable when it returns (local disk: file and folder are fsynced before the name appears). A caller
        that gets an error may still have won (a lost reply): read the object back and compare.
        """
        ...

    def staged(self, path: str) -> AbstractContextManager[Path]:
        """Write a large object through a local file: yields a path to create; on a clean exit it is moved or
        uploaded to `path`; on an exception (Ctrl-C too) nothing appears under `path` and the local file is
        removed.

        The bytes are durable on exit; on local disk the name is durable once `sync_folders` was called, which
        a writer does once before the commit that refers to it.
        """
        ...

    def sync_folders(self, paths: Iterable[str]) -> None:
        """Make the names of the objects at `paths` durable (local: fsync of their folders, once each; else
        nothing)."""
        ...

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Objects whose path begins with the folder `prefix`, in lexicographic order, after `start_after` if
        given."""
        ...

    def leftovers(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Temporary files under the folder `prefix` that `list` leaves out: of writers at work or killed
        (judge by age; `delete` takes their paths). Empty where the store keeps none."""
        ...

    def delete(self, paths: Iterable[str]) -> None:
        """Remove objects; one that is already gone is not an error."""
        ...

    def local_path(self, path: str) -> Path | None:
        """Where the object lies on local disk (the root for `""`), or None if the store is not local."""
        ...
