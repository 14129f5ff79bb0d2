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
