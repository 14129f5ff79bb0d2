"""The changes that commit indexes: what was built from a snapshot, checked against what others committed since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import msgspec

from vectorlake.errors import ConflictError
from vectorlake.metadata.index import Index
from vectorlake.metadata.snapshot import Snapshot, is_staged
from vectorlake.plan.commit import Delta
from vectorlake.plan.index_changes import (
    OptimizePlan,
    check_column,
    check_same,
    index_named,
    names_taken,
    with_index,
    without_index,
)
from vectorlake.table.commit import Build
from vectorlake.table.log import TableLog
from vectorlake.table.view import View

Optimized: TypeAlias = tuple[Index, Index, OptimizePlan]
"""An index before and after, and what was planned for it."""

_REWINDS: Final = frozenset({"restore"})
"""Operations after which values of earlier versions are there again."""


def commit_built(view: View, operation: str, index: Index, *, before: Index | None) -> Build:
    """The change to an index that was created (`before` is None) or rebuilt from a view's snapshot."""
    base, log = view.snapshot, view.log

    def change(head: Snapshot) -> Delta:
        check_not_rewound(log, base, head)
        check_column(index, base, head)
        if before is not None:
            check_same(before, head, "rebuilt")
        elif index.name in names_taken(head):
            raise ConflictError(
                f"another writer has created index {index.name!r} meanwhile; nothing was committed: drop or rebuild "
                "that one, or choose another name"
            )
        summary = {"index": index.name, **_counts([index])}
        return Delta(operation, indexes=with_index(head.indexes, index), summary=summary)

    return change


def commit_optimized(view: View, done: Sequence[Optimized]) -> Build:
    """The change from some indexes (before, after) by what was planned for them."""
    base, log = view.snapshot, view.log

    def change(head: Snapshot) -> Delta:
        check_not_rewound(log, base, head)
        indexes = head.indexes
        for before, after, _ in done:
            now = check_same(before, head, "optimized")
            check_column(after, base, head)
            indexes = with_index(indexes, with_versions_of(now, after))
        return Delta("optimize-index", indexes=indexes, summary=_told(done))

    return change


def drop_index(name: str, snapshot: Snapshot) -> Build:
    """The change that takes an index away; its files stay while earlier versions refer to them.

    Raises:
        NotFoundError: no such index.
    """
    index_named(snapshot, name)

    def change(head: Snapshot) -> Delta | None:
        if all(index.name != name for index in head.indexes):
            return None
        return Delta("drop-index", indexes=without_index(head.indexes, name), summary={"index": name})

    return change


def check_not_rewound(log: TableLog, base: Snapshot, head: Snapshot) -> None:
    """Refuse segments of values that may no longer be the latest: after a restore earlier ones are there again.

    Raises:
        ConflictError: the table was restored since `base`, or it can't be told.
    """
    for version in range(base.version + 1, head.version + 1):
        found = head if version == head.version else log.find(version)
        names = {"restore"} if found is None else {found.operation, *found.summary.get("operations", ())}
        if names & _REWINDS and not (found is not None and is_staged(found)):
            raise ConflictError(
                "the table was restored to an earlier version while the index was built; nothing was committed: refresh "
                "the table and call again"
            )


def with_versions_of(now: Index, after: Index) -> Index:
    """An index whose segments have the versions that they have by now (compaction raises them)."""
    known = {segment.id: segment for segment in now.segments}
    return msgspec.structs.replace(
        after, segments=tuple(known.get(segment.id, segment) for segment in after.segments)
    )


def _counts(indexes: Sequence[Index]) -> dict[str, int]:
    segments = [segment for index in indexes for segment in index.segments]
    files = {segment.file.path: segment.file.size for segment in segments}
    files |= {index.model.path: index.model.size for index in indexes}
    return {
        "indexed_rows": sum(segment.rows for segment in segments),
        "index_files": len(files),
        "index_bytes": sum(files.values()),
    }


def _told(done: Sequence[Optimized]) -> dict[str, Any]:
    summary: dict[str, Any] = {"index": ", ".join(after.name for _, after, _ in done)}
    counts = {
        "indexed_rows": sum(plan.add_rows for _, _, plan in done),
        "merged_segments": sum(len(plan.merge) + len(plan.rewrite) for _, _, plan in done),
        "dropped_segments": sum(len(plan.drop) for _, _, plan in done),
        "retrained_indexes": sum(plan.retrain for _, _, plan in done),
    }
    return summary | {name: count for name, count in counts.items() if count}
