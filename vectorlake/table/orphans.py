"""Files that no version refers to: left by writers that were killed or lost a race."""

from __future__ import annotations

from collections.abc import Iterator

from vectorlake.errors import InvalidInputError
from vectorlake.metadata.manifest import Manifest
from vectorlake.store.protocol import ObjectInfo
from vectorlake.table.log import FOLDER as METADATA
from vectorlake.table.log import LATEST, TableLog

_FOLDERS = ("data", "deletes", "index", "blobs")


def orphans(log: TableLog, *, older_than_ms: int) -> Iterator[ObjectInfo]:
    """Files last written before a time (ms since the epoch) to which no version of the table refers.

    A running writer's files are unreferenced until it commits: leave it a grace period.
    """
    if older_than_ms < 0:
        raise InvalidInputError("the time before which files count as orphans can't be negative")
    # Listed before the references are read: what a writer commits in between was written before, and is then referenced.
    listed = [
        info
        for folder in (*_FOLDERS, METADATA)
        for info in (*log.store.list(folder), *log.store.leftovers(folder))
    ]
    used = _referenced(log)
    for info in listed:
        metadata = info.path.startswith(f"{METADATA}/")
        protected = metadata and not info.path.startswith(f"{METADATA}/m-") and "/.tmp" not in info.path
        if info.path in used or protected or info.path == LATEST:
            continue
        if info.last_modified.timestamp() * 1000 < older_than_ms:
            yield info


def _referenced(log: TableLog) -> set[str]:
    used: set[str] = set()
    for snapshot in (snapshot for line in log.lines() for snapshot in line.all()):
        for ref in snapshot.manifests:
            if ref.path not in used:
                used.add(ref.path)
                used.update(_paths(log.manifest(ref)))
    return used


def _paths(manifest: Manifest) -> Iterator[str]:
    files = manifest.table["files"].combine_chunks().flatten()
    if len(files):
        yield from files.field("path").to_pylist()
    deletes = manifest.table["deletes"].combine_chunks()
    yield from (path for path in deletes.field("path").to_pylist() if path)
