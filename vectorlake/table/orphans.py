"""Files that no version refers to: left by writers that were killed or lost a race, or by versions that expired."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final

import numpy as np

from vectorlake.errors import ConflictError, CorruptDataError, InvalidInputError, NotFoundError
from vectorlake.ids import NewId
from vectorlake.metadata.job import FOLDER as JOBS
from vectorlake.plan.commit import Delta
from vectorlake.store.protocol import ObjectInfo, Store
from vectorlake.table.job_files import JobFiles, job_files
from vectorlake.table.log import FOLDER as METADATA
from vectorlake.table.log import LINES, TableLog, branch_folder
from vectorlake.table.references import References, path_hash, path_hashes
from vectorlake.table.store_clock import modified_ms, store_time_ms

GRACE: Final = dt.timedelta(days=3)
"""Files of this age or younger may be a running writer's."""
LONG_WRITE_MS: Final = 12 * 3600 * 1000
"""A writer that took longer looks whether its files are there yet before it commits."""
FOLDERS: Final = ("data", "deletes", "index", "blobs", "keys")
"""Of a table: where its files lie, besides the metadata."""
_BATCH: Final = 10_000


class Orphans(list[str]):
    """Paths of files to which no version refers, relative to the table's folder, and their size."""

    def __init__(self, paths: Iterable[str] = (), *, size: int = 0) -> None:
        super().__init__(paths)
        self.size = size
        """Bytes of all of them together."""


def collect(log: TableLog, *, older_than: dt.timedelta, new_id: NewId, dry_run: bool = False) -> Orphans:
    """Remove files of the table that no snapshot of any line refers to and that were written longer ago.

    Ages are taken by the store's own clock throughout, so that no machine's wrong clock can make a file look old. With
    an `older_than` of zero or less, no file is too young. What unfinished jobs have written stays, whatever its age, until
    nothing was heard of the job for a week; then first its records go, and its files the next time. Memory grows by eight
    bytes a file, and by the paths returned.

    Raises:
        InvalidInputError: `older_than` is no timedelta.
        CorruptDataError: a snapshot or manifest can't be read, so it can't be told what is unused; nothing was removed.
    """
    if not isinstance(older_than, dt.timedelta):
        raise InvalidInputError(
            f"older_than is a datetime.timedelta, such as timedelta(days=3), not {older_than!r}"
        )
    before_ms = None
    if older_than > dt.timedelta(0):
        before_ms = store_time_ms(log.store, new_id=new_id) - int(older_than.total_seconds() * 1000)
    # Read before the references: what a job commits in between is then in its records yet.
    jobs = _job_files(log.store, new_id)
    references = References(log)
    # Listed before the references are read: what a writer commits in between was written before, and is then referenced.
    listed = np.fromiter((path_hash(info.path) for info in _candidates(log, before_ms)), np.uint64)
    unused = np.setdiff1d(_without(np.unique(listed), references), path_hashes(jobs.kept))
    found = Orphans()
    _take(found, jobs.dead, log.store, dry_run=dry_run)
    candidates = (info for info in _candidates(log, before_ms) if _holds(unused, path_hash(info.path)))
    while batch := list(islice(candidates, _BATCH)):
        # Asked again right before: a writer that began before the grace period may have committed by now.
        unused = _without(unused, references)
        batch = [info for info in batch if _holds(unused, path_hash(info.path))]
        _take(found, batch, log.store, dry_run=dry_run)
    return found


def _take(found: Orphans, files: Sequence[ObjectInfo], store: Store, *, dry_run: bool) -> None:
    if not dry_run:
        store.delete([info.path for info in files])
    found.extend(info.path for info in files)
    found.size += sum(info.size for info in files)


def _job_files(store: Store, new_id: NewId) -> JobFiles:
    if next(iter(store.list(JOBS)), None) is None:
        return JobFiles()
    return job_files(store, store_time_ms(store, new_id=new_id))


def _candidates(log: TableLog, before_ms: int | None) -> Iterator[ObjectInfo]:
    """The files that are neither snapshots nor names of the table's, and old enough."""
    known = tuple(f"{branch_folder(branch)}/" for branch in log.branches())
    for folder in (*FOLDERS, METADATA):
        for listing in (log.store.list(folder), log.store.leftovers(folder)):
            for info in listing:
                if folder == METADATA and not _collectable(info.path, known):
                    continue
                if before_ms is None or modified_ms(info) < before_ms:
                    yield info


def _collectable(path: str, branches: tuple[str, ...]) -> bool:
    """Whether a file among the metadata may be an orphan: manifests, temporary files, snapshots of no branch."""
    left_by_branch = path.startswith(f"{LINES}/") and not path.startswith(branches)
    return left_by_branch or path.startswith(f"{METADATA}/m-") or "/.tmp" in path


def _without(hashes: np.ndarray, references: References) -> np.ndarray:
    """The sorted hashes that are not among the newly read references."""
    try:
        return np.setdiff1d(hashes, references.read(), assume_unique=True)
    except CorruptDataError as e:
        raise CorruptDataError(
            f"it can't be told which files are unused, so none was removed: {e}; or let the versions that need the file "
            "expire, and collect then"
        ) from e


def _holds(hashes: np.ndarray, wanted: int) -> bool:
    at = int(np.searchsorted(hashes, np.uint64(wanted)))
    return at < len(hashes) and int(hashes[at]) == wanted


def check_still_there(store: Store, delta: Delta, *, started_ms: int, now_ms: int) -> None:
    """Refuse to commit new files of which one is gone, if writing them took so long that a collection may have come by.

    Costs nothing for writes of less than 12 hours. To be called right before the snapshot is put; both times are by one
    clock, and one that was set back counts as a long time.

    Raises:
        ConflictError: names a missing file.
    """
    if 0 <= now_ms - started_ms < LONG_WRITE_MS:
        return
    paths = sorted(_new_files(delta))
    with ThreadPoolExecutor(8) as pool:
        for path, there in zip(paths, pool.map(lambda path: _exists(store, path), paths), strict=True):
            if not there:
                raise ConflictError(
                    f"{store.uri}/{path} was removed before it could be committed: the write took longer than the grace "
                    "period of an orphan collection; nothing was committed: write again, in smaller parts, and collect "
                    "with a longer older_than"
                )


def _new_files(delta: Delta) -> set[str]:
    """The files of the table's own that a change brings."""
    paths: set[str] = set()
    for fragment in delta.added:
        paths |= {file.path for file in fragment.files if not file.foreign}
        if fragment.keys is not None:
            paths.add(fragment.keys.path)
        paths |= {segment.path for segment in fragment.balls}
        if fragment.deletes is not None:
            paths.add(fragment.deletes.path)
    for update in delta.updates:
        paths |= {file.path for file in update.files}
        paths |= {segment.path for segment in update.balls}
        if update.deletes is not None:
            paths.add(update.deletes.path)
    return paths


def _exists(store: Store, path: str) -> bool:
    try:
        store.head(path)
    except NotFoundError:
        return False
    return True
