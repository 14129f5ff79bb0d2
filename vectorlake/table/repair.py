"""Mend what `verify` finds: rebuild what can be rebuilt, and give up what is lost only where that is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import numpy as np

from vectorlake.errors import ConflictError
from vectorlake.ids import NewId
from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.index import Index
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.commit import Delta, FragmentUpdate
from vectorlake.table.key_segments import write_segment
from vectorlake.table.keys import hashes_of, key_fields
from vectorlake.table.verify import Finding, Part, verify
from vectorlake.table.view import View, find_fragments


class Remedy(StrEnum):
    """What can be done about a finding."""

    REBUILD_KEYS = "rebuild-keys"
    """Write the key segment anew from the columns. Nothing is lost."""
    LOSE_VALUES = "lose-values"
    """Give up the columns that a lost file held: they read as their default or null."""
    LOSE_ROWS = "lose-rows"
    """Give up the rows of a fragment of which a column that can't be null is lost."""
    DROP_BALLS = "drop-balls"
    """Forget a fragment's bounding balls. Nothing is lost: exact searches look at all of its rows."""
    DROP_SEGMENT = "drop-segment"
    """Take the segment out of its index. Nothing is lost: its rows are scanned until `optimize_indexes` takes them in."""
    REBUILD_INDEX = "rebuild-index"
    """Nothing here: `rebuild_index` or `optimize_indexes` makes the index anew from the table."""
    NONE = "none"
    """Nothing: restore the file from a copy, or the table to an earlier version."""


@dataclass(frozen=True)
class Repair:
    """One finding, what can be done about it, and what is lost thereby."""

    finding: Finding
    remedy: Remedy
    rows: int = 0
    """Rows that lose values, or are lost."""
    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        lost = ""
        if self.remedy is Remedy.LOSE_VALUES:
            lost = f" ({', '.join(self.columns)} of {self.rows:,} rows)"
        elif self.remedy is Remedy.LOSE_ROWS:
            lost = f" ({self.rows:,} rows)"
        return f"{self.finding.path}: {self.finding.problem}: {self.remedy}{lost}"


def plan_repairs(view: View) -> list[Repair]:
    """What can be done about each finding in a version."""
    findings = list(verify(view))
    wanted = {finding.fragment_id for finding in findings if finding.fragment_id is not None}
    fragments = find_fragments(view.log, view.snapshot, wanted) if wanted else {}
    return [_remedy(view, finding, fragments) for finding in findings]


def _remedy(view: View, finding: Finding, fragments: dict[int, Fragment]) -> Repair:
    if finding.part is Part.INDEX:
        return Repair(finding, Remedy.DROP_SEGMENT)
    if finding.part is Part.INDEX_MODEL:
        return Repair(finding, Remedy.REBUILD_INDEX)
    fragment = fragments.get(-1 if finding.fragment_id is None else finding.fragment_id)
    if fragment is None:
        return Repair(finding, Remedy.NONE)
    if finding.part is Part.KEYS:
        return Repair(finding, Remedy.REBUILD_KEYS)
    if finding.part is Part.BALLS:
        return Repair(finding, Remedy.DROP_BALLS)
    held = next((file.field_ids for file in fragment.files if file.path == finding.path), None)
    if finding.part is not Part.DATA or held is None:
        return Repair(finding, Remedy.NONE)
    known = {field.id: field for field in view.snapshot.schema.fields}
    lost = [known[number] for number in held if number in known]
    names = tuple(field.name for field in lost)
    # Row ids or versions of moved rows lie in such a file too: without them the rows are others.
    fatal = any(not field.nullable and field.default is None for field in lost) or held - known.keys()
    remedy = Remedy.LOSE_ROWS if fatal else Remedy.LOSE_VALUES
    return Repair(finding, remedy, fragment.live_rows, names)


class Repairing:
    """The repairs that are allowed, as a change to the version for which they were planned."""

    def __init__(self, view: View, repairs: Sequence[Repair], *, new_id: NewId) -> None:
        self._view = view
        self._repairs = repairs
        self._new_id = new_id

    def __call__(self, head: Snapshot) -> Delta | None:
        if head.version != self._view.snapshot.version:
            raise ConflictError(
                "another writer has committed since the table was verified; nothing was repaired: repair again"
            )
        removed = {
            repair.finding.fragment_id
            for repair in self._repairs
            if repair.remedy is Remedy.LOSE_ROWS and repair.finding.fragment_id is not None
        }
        updates: dict[int, FragmentUpdate] = {}
        for repair in self._repairs:
            number = repair.finding.fragment_id
            if number is None or number in removed:
                continue
            update = updates.get(number, FragmentUpdate(number))
            if repair.remedy in (Remedy.LOSE_VALUES, Remedy.DROP_BALLS):
                lost = update.lost | {repair.finding.path}
                updates[number] = FragmentUpdate(number, keys=update.keys, lost=lost)
            elif repair.remedy is Remedy.REBUILD_KEYS:
                updates[number] = self._keys(number, update)
        indexes, dropped = self._without_segments(head)
        if not (removed or updates or dropped):
            return None
        lost_rows = sum(
            {
                r.finding.fragment_id: r.rows for r in self._repairs if r.finding.fragment_id in removed
            }.values()
        )
        summary = {"repairs": len(self._repairs), **({"deleted_rows": lost_rows} if lost_rows else {})}
        if dropped:
            summary["dropped_segments"] = dropped
        return Delta(
            "repair",
            removed=frozenset(removed),
            updates=tuple(updates.values()),
            indexes=indexes if dropped else None,
            summary=summary,
        )

    def _without_segments(self, head: Snapshot) -> tuple[tuple[Index, ...], int]:
        """The indexes without their damaged segments, and how many these were."""
        gone = {r.finding.path for r in self._repairs if r.remedy is Remedy.DROP_SEGMENT}
        kept = [
            msgspec.structs.replace(
                index, segments=tuple(one for one in index.segments if one.file.path not in gone)
            )
            for index in head.indexes
        ]
        before = sum(len(index.segments) for index in head.indexes)
        return tuple(kept), before - sum(len(index.segments) for index in kept)

    def _keys(self, number: int, update: FragmentUpdate) -> FragmentUpdate:
        view = self._view
        fragment = find_fragments(view.log, view.snapshot, {number})[number]
        fields = key_fields(view.snapshot.schema, view.snapshot.primary_key)
        keys = hashes_of(view.reader(fragment), fields)
        hashes = keys.hashes[np.argsort(keys.positions)]
        segment = write_segment(view.store, hashes, new_id=self._new_id)
        view.store.sync_folders([segment.path])
        return FragmentUpdate(number, keys=segment, lost=update.lost)
