"""What the snapshots of a table refer to, as hashes of paths: eight bytes a file, so that a million files fit anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from vectorlake.errors import NotFoundError
from vectorlake.metadata import codec
from vectorlake.metadata.manifest import Manifest
from vectorlake.metadata.snapshot import ManifestRef, Snapshot
from vectorlake.metadata.tombstone import Tombstone
from vectorlake.table.log import TableLog

T = TypeVar("T")
R = TypeVar("R")
_THREADS: Final = 8
_BATCH: Final = 256
"""Snapshots or manifests that are read before their hashes are taken in."""


def path_hash(path: str) -> int:
    """64 bits of a path. Two paths of one hash make a file look referenced that is not, never the opposite."""
    return xxhash.xxh3_64_intdigest(path.encode())


def path_hashes(paths: Iterable[str]) -> np.ndarray:
    """The hashes of some paths, uint64."""
    return np.fromiter((path_hash(path) for path in paths), np.uint64)


def file_paths(manifest: Manifest) -> Iterator[pa.Array]:
    """The paths of all files that a manifest names, column by column: of any structs with a `path`, known or not."""
    for column in manifest.table.columns:
        for chunk in column.chunks:
            nested = pa.types.is_list(chunk.type) or pa.types.is_large_list(chunk.type)
            values = chunk.flatten() if nested else chunk
            if pa.types.is_struct(values.type) and values.type.get_field_index("path") >= 0:
                yield pc.drop_null(pc.struct_field(values, "path"))


class References:
    """The files that the snapshots of all lines of a table refer to, and those of expired versions that tags name.

    `read` takes in what was committed since it was called last. The main line is read before tags and branches: a
    branch or tag that was made at a version while that one expired is then seen on one side or the other.
    """

    def __init__(self, log: TableLog) -> None:
        self._log = log.main
        self._snapshots: set[str] = set()
        self._manifests: set[int] = set()

    def read(self) -> np.ndarray:
        """The hashes that are new since the last call, sorted.

        Raises:
            CorruptDataError: a snapshot or manifest is missing or damaged, so it can't be told what it refers to.
            UnsupportedError: one is of a newer release.
        """
        new: list[np.ndarray] = [np.empty(0, np.uint64)]
        for snapshots in self._new_snapshots():
            for snapshot in snapshots:
                new.append(path_hashes(_strings(codec.to_builtins(snapshot.indexes))))
                new.append(path_hashes(_strings(snapshot.other_indexes)))
                new.append(path_hashes(_strings(snapshot.extra)))
            refs = [ref for snapshot in snapshots for ref in snapshot.manifests]
            new.extend(self._read_manifests(refs))
        return np.unique(np.concatenate(new))

    def _new_snapshots(self) -> Iterator[list[Snapshot]]:
        for line in self._log.lines():
            fresh = (
                (version, info.path)
                for version, info in line.version_files()
                if info.path not in self._snapshots
            )
            while batch := list(islice(fresh, _BATCH)):
                found = parallel(line.find, [version for version, _ in batch])
                # Tombstones are looked at again each time: one may have become a snapshot again.
                self._snapshots.update(
                    path for (_, path), snapshot in zip(batch, found, strict=True) if snapshot is not None
                )
                yield [snapshot for snapshot in found if snapshot is not None]
            if line.branch is None:
                yield self._tagged()

    def _tagged(self) -> list[Snapshot]:
        kept: list[Snapshot] = []
        for tag in self._log.tags():
            try:
                if isinstance(self._log.entry(tag.version), Tombstone):
                    kept.append(self._log.tagged(tag))
            except NotFoundError:
                continue
        return kept

    def _read_manifests(self, refs: Iterable[ManifestRef]) -> Iterator[np.ndarray]:
        unread: dict[int, ManifestRef] = {}
        for ref in refs:
            key = path_hash(ref.path)
            if key not in self._manifests:
                unread[key] = ref
        self._manifests.update(unread)
        yield np.fromiter(unread, np.uint64)
        left = iter(unread.values())
        while batch := list(islice(left, _BATCH)):
            yield from parallel(self._hashes_in, batch)

    def _hashes_in(self, ref: ManifestRef) -> np.ndarray:
        paths = file_paths(self._log.read_manifest(ref))
        return np.concatenate([np.empty(0, np.uint64), *(path_hashes(some.to_pylist()) for some in paths)])


def parallel(function: Callable[[T], R], arguments: Sequence[T]) -> list[R]:
    """The function of each argument, in order, on a few threads."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, arguments))


def _strings(value: object) -> Iterator[str]:
    """All strings in a JSON value: any of them may name a file to a release that knows more than this one."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from _strings(member)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _strings(member)
