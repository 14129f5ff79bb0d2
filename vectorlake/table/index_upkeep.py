"""What commits that are not about indexes do to them: rows are moved, columns go, branches are taken over."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from vectorlake.metadata.index import Index, IndexSegment
from vectorlake.metadata.snapshot import Snapshot, is_staged
from vectorlake.plan.commit import Delta
from vectorlake.table.commit import Build
from vectorlake.table.coverage import coverage
from vectorlake.table.view import View


def keeping_covered(build: Build, view: Callable[[Snapshot], View]) -> Build:
    """A change that moves rows without changing values, such that rows that segments cover stay covered.

    Rows that are moved take their versions along, each that of its last change in any column: where another column is
    newer than a segment, the segment would no longer cover them. So segments none of whose rows has another value by now
    are said to hold the values of the version before the move, which they do.
    """

    def change(head: Snapshot) -> Delta | None:
        delta = build(head)
        if delta is None or not head.indexes or is_staged(head):
            return delta
        return msgspec.structs.replace(delta, indexes=as_of(view(head)))

    return change


def as_of(view: View) -> tuple[Index, ...]:
    """A snapshot's indexes, with the segments that hold its own values, and none older, said to be of its version."""
    return tuple(_as_of(view, index) for index in view.snapshot.indexes)


def _as_of(view: View, index: Index) -> Index:
    version = view.snapshot.version

    def raised(segment: IndexSegment, *, true: bool) -> IndexSegment:
        return msgspec.structs.replace(segment, version=version) if true else segment

    states = coverage(view, index).states
    segments = tuple(raised(s.segment, true=s.fault is None and not s.stale) for s in states)
    return msgspec.structs.replace(index, segments=segments)


def forwarded(tip: View, *, fork: int, version: int) -> tuple[Index, ...]:
    """What a branch's indexes become when the main line takes the branch over as one version.

    Values written on the branch, at whichever of its versions, count as the main line's new version there. A segment from
    before the branch began stays as it is. One built on the branch holds values of the new version if none of its rows
    was given another value on the branch since; else it can't be told apart which are which, and it goes.

    Args:
        fork: the version at which the branch begins.
        version: the main line's new one.
    """
    return tuple(_forwarded(tip, index, fork, version) for index in tip.snapshot.indexes)


def _forwarded(tip: View, index: Index, fork: int, version: int) -> Index:
    if all(segment.version <= fork for segment in index.segments):
        return index
    kept: list[IndexSegment] = []
    for state in coverage(tip, index).states:
        if state.segment.version <= fork:
            kept.append(state.segment)
        elif state.fault is None and not state.stale:
            kept.append(msgspec.structs.replace(state.segment, version=version))
    return msgspec.structs.replace(index, segments=tuple(kept))
