"""Branches: lines of versions beside the main one, and taking one over into the main line."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np

from vectorlake.clock import Clock
from vectorlake.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    UnsupportedError,
)
from vectorlake.ids import NewId
from vectorlake.metadata.index import Index
from vectorlake.metadata.snapshot import Branch, ManifestRef, Snapshot, is_staged
from vectorlake.plan.forward import with_sequences_at_most
from vectorlake.schema import Schema, did_you_mean, listing
from vectorlake.table.commit import Committer
from vectorlake.table.log import TableLog, snapshot_path

Version = int | str | dt.datetime
"""A version number, a tag, a branch, or a point in time."""

_COUNTS: Final = ("added_rows", "deleted_rows", "updated_rows")
_SHOWN: Final = 5


@dataclass(frozen=True)
class BranchInfo:
    """A branch as it stands."""

    name: str
    version: int
    """Its newest version."""
    fork_version: int
    """The version of the main line at which it begins."""
    timestamp_ms: int
    """When it was created, in ms since the epoch."""


def create_branch(log: TableLog, name: str, start: Snapshot, *, clock: Clock, new_id: NewId) -> TableLog:
    """Begin a branch at a version of the main line, and return its log.

    The snapshot is copied first, and the branch then appears by one put-if-absent: it is there whole, or not at all.

    Raises:
        AlreadyExistsError: a branch or tag has that name.
        NotFoundError: the version expired in the meantime.
    """
    require_main(log, "create a branch")
    not_staged(start, "create a branch")
    branch = Branch(name, new_id(), start.version, clock())
    line = log.on(branch)
    line.put_snapshot(start)
    try:
        log.put_branch(branch)
    except StorageError:  # it may be there all the same, and needs its snapshot; if not, that is an orphan
        raise
    except Exception:
        log.store.delete([snapshot_path(start.version, line.folder)])
        raise
    # Whoever expires versions looks for branches again before it removes files: one of the two sees the other.
    if log.find(start.version) is None:
        log.delete_branch(branch)
        raise NotFoundError(f"version {start.version} expired while branch {name!r} was created at it")
    return line


def list_branches(log: TableLog) -> list[BranchInfo]:
    """All branches, by name."""
    found: list[BranchInfo] = []
    for branch in log.branches():
        try:
            head = log.on(branch).latest()
        except NotFoundError:  # deleted since it was listed
            continue
        found.append(BranchInfo(branch.name, head.version, branch.version, branch.timestamp_ms))
    return found


def require_main(log: TableLog, action: str) -> None:
    """Refuse what only the main line offers.

    Raises:
        UnsupportedError: the log is a branch's.
    """
    if log.branch is not None:
        raise UnsupportedError(
            f"can't {action} from branch {log.branch.name!r}: this needs the main line, which lake.table(name) opens "
            "without a branch"
        )


def resolve(log: TableLog, version: Version) -> tuple[TableLog, Snapshot]:
    """The snapshot that a version names, and the log of the line on which it lies.

    Numbers and times are looked for on `log`'s own line; tags lie on the main one; a branch means its newest version.

    Raises:
        NotFoundError: no such version, tag or branch.
        InvalidInputError: nothing that names a version.
    """
    if isinstance(version, dt.datetime):
        return log, log.at_time(int(version.timestamp() * 1000))
    if isinstance(version, str):
        return (log, log.load(int(version))) if version.isdigit() else _named(log, version)
    if isinstance(version, bool) or not isinstance(version, int | np.integer):
        raise InvalidInputError(f"a version is a number, a tag, a branch or a datetime, not {version!r}")
    return log, log.load(int(version))


def _named(log: TableLog, name: str) -> tuple[TableLog, Snapshot]:
    branch = log.find_branch(name)
    if branch is not None:
        line = log.main.on(branch)
        return line, line.latest()
    try:
        tag = log.tag(name)
    except NotFoundError:
        known = [*(tag.name for tag in log.tags()), *(branch.name for branch in log.branches())]
        raise NotFoundError(
            f"no tag or branch {name!r}{did_you_mean(name, known)}; the tags and branches are {listing(known)}"
        ) from None
    own = log.branch is not None and tag.version <= log.branch.version
    line = log if own else log.main
    return line, line.tagged(tag)


def not_staged(snapshot: Snapshot, action: str) -> Snapshot:
    """The snapshot, if it is a version of the table.

    Raises:
        UnsupportedError: it is a transaction's own, which is no version before the transaction ends.
    """
    if is_staged(snapshot):
        raise UnsupportedError(
            f"can't {action} inside a transaction that has changed something: end it first"
        )
    return snapshot


def resolve_here(log: TableLog, version: Version) -> Snapshot:
    """The snapshot that a version names, which must be of the log's own line.

    Raises:
        UnsupportedError: it lies on another line, whose row ids mean other rows.
    """
    line, snapshot = resolve(log, version)
    if line.folder != log.folder:
        here = "the main line" if log.branch is None else f"branch {log.branch.name!r}"
        raise UnsupportedError(
            f"{version!r} is version {snapshot.version} of another line than {here}: only versions of the same line can "
            "be taken back; fast_forward(branch) takes a branch over into the main line"
        )
    return snapshot


Indexes: TypeAlias = Callable[[TableLog, Snapshot, int, int], tuple[Index, ...]]
"""What the indexes of a branch's newest version become on the main line: (branch's log, that version, where the branch
begins, the main line's new version)."""


def fast_forward(
    log: TableLog, head: Snapshot, name: str, *, committer: Committer, clock: Clock, indexes: Indexes
) -> Snapshot:
    """Commit what a branch holds as the main line's next version; `head` is a version of it from which to look.

    Nothing is committed if the branch has no version of its own.

    Raises:
        ConflictError: the main line has got versions since the branch began.
    """
    require_main(log, f"fast-forward to {name!r}")
    branch = log.get_branch(name)
    line = log.on(branch)
    tip = line.latest()
    if tip.version == branch.version:
        return _checked(log, branch, log.latest(after=head))
    return committer.commit_made(
        head,
        lambda newest, commit_id: _forwarded(
            log,
            _checked(log, branch, newest),
            tip,
            branch,
            commit_id=commit_id,
            now_ms=clock(),
            indexes=indexes,
        ),
    )


def _checked(log: TableLog, branch: Branch, head: Snapshot) -> Snapshot:
    """The head of the main line, if it is yet that at which the branch begins."""
    if head.version == branch.version:
        return head
    later = [log.find(version) for version in log.versions(after=branch.version)]
    shown = [f"{found.version} ({found.operation})" for found in later if found is not None]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    raise ConflictError(
        f"branch {branch.name!r} begins at version {branch.version}, and the main line has got "
        f"{', '.join(shown[:_SHOWN]) or f'version {head.version}'}{more} since; nothing was committed: create the branch "
        "anew from the newest version, repeat there what was done on it, and fast-forward then"
    )


def _forwarded(
    log: TableLog,
    head: Snapshot,
    tip: Snapshot,
    branch: Branch,
    *,
    commit_id: str,
    now_ms: int,
    indexes: Indexes,
) -> Snapshot:
    """The main line's next snapshot, with the contents of the branch's newest one."""
    version = head.version + 1
    known = {ref.path for ref in head.manifests}
    manifests = tuple(
        ref if ref.path in known else _lowered(log, ref, tip.schema, version) for ref in tip.manifests
    )
    kept = indexes(log.on(branch), tip, branch.version, version)
    summary = _summary(log.on(branch), tip, branch)
    gone = sum(len(index.segments) for index in tip.indexes) - sum(len(index.segments) for index in kept)
    return msgspec.structs.replace(
        tip,
        version=version,
        parent=head.version,
        commit_id=commit_id,
        timestamp_ms=max(now_ms, head.timestamp_ms + 1),
        operation="fast-forward",
        summary=summary | ({"dropped_segments": gone} if gone else {}),
        manifests=manifests,
        indexes=kept,
    )


def _lowered(log: TableLog, ref: ManifestRef, schema: Schema, version: int) -> ManifestRef:
    before = log.manifest(ref)
    after = with_sequences_at_most(before, version)
    return ref if after is before else log.put_manifest(after, schema)


def _summary(line: TableLog, tip: Snapshot, branch: Branch) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "branch": branch.name,
        "branch_version": tip.version,
        "commits": tip.version - branch.version,
    }
    own = [snapshot for snapshot in line.all() if branch.version < snapshot.version <= tip.version]
    for key in _COUNTS:
        if count := sum(int(snapshot.summary.get(key, 0)) for snapshot in own):
            summary[key] = count
    return summary
