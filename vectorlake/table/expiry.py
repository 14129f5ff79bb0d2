"""Expire versions: leave a tombstone in a snapshot's place, and remove it once no writer can be heading for its name."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from vectorlake.clock import Clock
from vectorlake.errors import InvalidInputError
from vectorlake.ids import NewId
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.metadata.tombstone import Tombstone, bury, unbury
from vectorlake.plan.expiry import Entry, brought_back, due, forgettable, named
from vectorlake.table.expiry_cost import cost
from vectorlake.table.log import TableLog, snapshot_path
from vectorlake.table.references import parallel
from vectorlake.table.store_clock import modified_ms, store_time_ms

AGE: Final = dt.timedelta(days=5)
"""Versions that were the newest within this time stay by default (as in Iceberg)."""
TOMBSTONE_AGE: Final = dt.timedelta(days=7)
"""No writer is assumed to wait longer between reading the head and its put of the next version."""
CLOCK_TOLERANCE: Final = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Expiry:
    """What an expiry did, or would do."""

    versions: tuple[int, ...]
    """The versions that expired: they can't be opened any more."""
    forgotten: tuple[int, ...] = ()
    """Versions that expired earlier, of which now the tombstone is gone too."""
    files: int = 0
    """Files that only these versions need, which `collect_orphans` can remove now. Counted by a dry run only."""
    bytes: int = 0
    """Their size; deletion vectors share files and are not counted. By a dry run only."""
    rows: int = 0
    """Rows that only these versions have, those deleted in them included. By a dry run only."""


def expire(
    log: TableLog,
    *,
    older_than: dt.timedelta | dt.datetime | None,
    keep_last: int,
    versions: Sequence[int] | None,
    clock: Clock,
    new_id: NewId,
    dry_run: bool = False,
) -> Expiry:
    """Expire versions of the log's line; files are left to orphan collection.

    Each version expires by one atomic replacement of its file. Cut short, the rest is done by the next expiry.

    Raises:
        InvalidInputError: a version asked for is tagged or the newest; bad arguments; this machine's clock and the
            store's disagree, so that ages can't be told. Nothing was removed.
        NotFoundError: there is no such version.
    """
    if isinstance(keep_last, bool) or not isinstance(keep_last, int) or keep_last < 1:
        raise InvalidInputError(f"keep_last is at least 1, the newest version, not {keep_last!r}")
    now_ms = store_time_ms(log.store, new_id=new_id)
    before_ms = None if versions is not None else _cutoff(older_than, clock=clock, store_ms=now_ms)
    entries = _entries(log)
    spared = _spared(log)
    if versions is None:
        chosen = due(entries, tags=spared, keep_last=keep_last, before_ms=before_ms)
    else:
        chosen = named(entries, [_number(version) for version in versions], tags=spared)
    gone = forgettable(entries, before_ms=now_ms - int(TOMBSTONE_AGE.total_seconds() * 1000))
    if dry_run:
        freed = cost(log, chosen)
        return Expiry(chosen, gone, files=freed.files, bytes=freed.bytes, rows=freed.rows)
    parallel(lambda version: _bury(log, version), chosen)
    back = _bring_back(log, entries, chosen)
    chosen = tuple(version for version in chosen if version not in back)
    gone = tuple(version for version in gone if version not in back)
    log.store.delete([snapshot_path(version, log.folder) for version in gone])
    return Expiry(chosen, gone)


def _number(version: object) -> int:
    if isinstance(version, bool) or not isinstance(version, int | np.integer):
        raise InvalidInputError(f"versions to expire are numbers, not {version!r}")
    return int(version)


def _cutoff(older_than: dt.timedelta | dt.datetime | None, *, clock: Clock, store_ms: int) -> int | None:
    """The time before which versions must have been replaced by newer ones, in ms since the epoch.

    An age needs to know the time now. Versions are dated by their writers' clocks, so it is taken from this machine's,
    as they did, and refused if the store says otherwise: by a clock that is ahead, everything would look old.
    """
    if older_than is None:
        return None
    if isinstance(older_than, dt.datetime):
        return int(older_than.timestamp() * 1000)
    if not isinstance(older_than, dt.timedelta):
        raise InvalidInputError(f"older_than is a timedelta, a datetime or None, not {older_than!r}")
    if older_than <= dt.timedelta(0):
        return None
    now_ms = clock()
    if abs(now_ms - store_ms) > CLOCK_TOLERANCE.total_seconds() * 1000:
        here, there = (dt.datetime.fromtimestamp(ms / 1000, dt.UTC).isoformat() for ms in (now_ms, store_ms))
        raise InvalidInputError(
            f"this machine's clock says {here} and the store's {there}, so it can't be told how old versions are; nothing "
            "was removed: set the clock, or give older_than as a datetime, or name the versions"
        )
    return now_ms - int(older_than.total_seconds() * 1000)


def _entries(log: TableLog) -> list[Entry]:
    """All versions of the line, ascending, without keeping their snapshots in memory."""

    def read(item: tuple[int, int]) -> Entry | None:
        version, written_ms = item
        found = log.entry(version)
        if found is None:  # removed by another expiry since it was listed
            return None
        return Entry(version, found.timestamp_ms, written_ms if isinstance(found, Tombstone) else None)

    listed = sorted((version, modified_ms(info)) for version, info in log.version_files())
    return [entry for entry in parallel(read, listed) if entry is not None]


def _spared(log: TableLog) -> dict[str, int]:
    """Name → version that must not expire: tags, and the version at which a branch begins on the branch's own line."""
    if log.branch is not None:
        return {log.branch.name: log.branch.version}
    return {tag.name: tag.version for tag in log.tags()}


def _bury(log: TableLog, version: int) -> None:
    path = snapshot_path(version, log.folder)
    if isinstance(log.entry(version), Snapshot):
        log.store.put(path, bury(log.store.get(path), f"{log.store.uri}/{path}"))


def _bring_back(log: TableLog, entries: Sequence[Entry], chosen: Sequence[int]) -> frozenset[int]:
    """Undo the expiry of versions that have been tagged meanwhile, or while an earlier expiry was cut short.

    Who makes a tag looks afterwards whether its version is there yet: one of the two sees the other.
    """
    expired = [
        Entry(entry.version, entry.timestamp_ms, 0)
        for entry in entries
        if not entry.live or entry.version in set(chosen)
    ]
    back = brought_back(expired, tags=_spared(log))
    for version in back:
        found = log.entry(version)
        if isinstance(found, Tombstone):
            log.store.put(snapshot_path(version, log.folder), unbury(found))
    return frozenset(back)
