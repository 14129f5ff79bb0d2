"""Which versions of a table expire, and which tombstones of expired ones may go. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vectorlake.errors import InvalidInputError, NotFoundError
from vectorlake.schema import listing


@dataclass(frozen=True, slots=True)
class Entry:
    """One file among a table's versions: a snapshot, or the tombstone of one that has expired."""

    version: int
    timestamp_ms: int
    """When it was committed, by its writer's clock."""
    expired_ms: int | None = None
    """When it was replaced by a tombstone, by the store's clock; None for a snapshot."""

    @property
    def live(self) -> bool:
        return self.expired_ms is None


def due(
    entries: Sequence[Entry], *, tags: Mapping[str, int], keep_last: int, before_ms: int | None
) -> tuple[int, ...]:
    """The versions that expire: neither among the newest `keep_last`, nor tagged, nor the newest at any time since
    `before_ms`.

    Args:
        entries: all of the table's, ascending by version; the last one is the head.
        tags: name → version.
        keep_last: at least 1, so that the head stays.
        before_ms: versions that were the newest at this time or later stay, so that every point in time since can be
            read; None: whatever their age.
    """
    live = [entry.version for entry in entries if entry.live]
    spared = {*live[-keep_last:], *tags.values()}
    return tuple(
        entry.version
        for entry, next_ in pairwise(entries)
        if entry.live
        and entry.version not in spared
        and (before_ms is None or next_.timestamp_ms < before_ms)
    )


def named(entries: Sequence[Entry], versions: Sequence[int], *, tags: Mapping[str, int]) -> tuple[int, ...]:
    """The versions asked for by number that are not expired yet.

    Raises:
        InvalidInputError: one is the newest, or a tag names it.
        NotFoundError: there is no such version.
    """
    known = {entry.version: entry for entry in entries}
    if missing := [version for version in versions if version not in known]:
        raise NotFoundError(
            f"there is no version {missing[0]}, so it can't expire; nothing was removed: history() lists what there is"
        )
    for version in versions:
        if holding := sorted(name for name, tagged in tags.items() if tagged == version):
            raise InvalidInputError(
                f"version {version} can't expire: the tag{'s' if len(holding) > 1 else ''} {listing(holding)} would "
                "name nothing; nothing was removed: delete the tag first, or leave the version"
            )
    if entries and entries[-1].version in versions:
        raise InvalidInputError(
            f"version {entries[-1].version} is the newest and never expires; nothing was removed"
        )
    return tuple(sorted({version for version in versions if known[version].live}))


def forgettable(entries: Sequence[Entry], *, before_ms: int) -> tuple[int, ...]:
    """The tombstones to remove: written before a time, by the store's clock, and not right behind a snapshot.

    That a snapshot's successor is always there, were it as a tombstone, is how a reader of the snapshot knows that it
    is not the newest (format specification, "Expiry"). A predecessor that became a tombstone lately counts as a
    snapshot, because it may become one again.
    """

    def old(entry: Entry) -> bool:
        return entry.expired_ms is not None and entry.expired_ms < before_ms

    held = {entry.version + 1 for entry in entries if not old(entry)}
    return tuple(entry.version for entry in entries[:-1] if old(entry) and entry.version not in held)


def brought_back(entries: Sequence[Entry], *, tags: Mapping[str, int]) -> tuple[int, ...]:
    """Expired versions that a tag names: it was made while they expired, so they become snapshots again."""
    tagged = set(tags.values())
    return tuple(entry.version for entry in entries if not entry.live and entry.version in tagged)
