"""Follow rows to a newer version: where compactions have moved them, and whether others deleted or changed them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from pyroaring import BitMap64

from vectorlake.metadata.deletion import to_bitmap, to_positions
from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.snapshot import Snapshot, is_staged
from vectorlake.table.differ import difference
from vectorlake.table.locate import locate
from vectorlake.table.view import View


@dataclass(frozen=True)
class Followed:
    """Where some rows of an older version are in a newer one, and what others did to them in between."""

    positions: Mapping[int, BitMap64] = field(default_factory=dict)
    """Fragment id in the newer version → positions; rows that were deleted are left out."""
    gone: bool = False
    """Some of the rows were deleted."""
    changed: bool = False
    """Some of the rows have newer values elsewhere: what was decided from the older ones must be decided again."""
    written: frozenset[int] = frozenset()
    """Fields whose values were replaced in place in fragments that hold any of the rows."""


def follow(view: View, head: Snapshot, positions: Mapping[int, BitMap64]) -> Followed:
    """Find live rows of `view` (fragment id → positions) in `head`, a snapshot of the same table that is not older.

    Rows of fragments that are still there are at their old positions. The others are looked up by row id, and count as
    changed if their version is newer than `view`. Rows seen by a transaction alone (`is_staged`) can't be followed to
    another snapshot, since their ids are not final: all of them count as changed.
    """
    base = view.snapshot
    if same(base, head):
        return Followed(dict(positions))
    if is_staged(base):
        return Followed(changed=True)
    between = difference(view.log, base, head)
    removed = {fragment.id: fragment for fragment in between.removed}
    changed = {before.id: (before, after) for before, after in between.changed}
    kept: dict[int, BitMap64] = {}
    moved: list[np.ndarray] = [np.empty(0, np.int64)]
    written: set[int] = set()
    for fragment_id, rows in positions.items():
        if fragment_id in removed:
            moved.append(view.reader(removed[fragment_id]).row_ids_at(to_positions(rows)))
            continue
        if fragment_id in changed:
            before, after = changed[fragment_id]
            written |= replaced_fields(before, after)
            taken = rows & newly_deleted(view, before, after)
            if taken:
                moved.append(view.reader(before).row_ids_at(to_positions(taken)))
                rows = rows - taken
        if rows:
            kept[fragment_id] = rows
    wanted = np.concatenate(moved)
    found, newer = 0, False
    for located in locate(View(head, view.log, view.files), wanted) if len(wanted) else ():
        found += len(located.positions)
        there = located.reader.fragment.id
        # A move makes new fragments; an old one that is back with such a row was restored, with older values.
        newer |= there < base.next_fragment_id
        newer |= bool((located.reader.versions_at(located.positions) > base.version).any())
        kept[there] = kept.get(there, BitMap64()) | to_bitmap(located.positions)
    return Followed(kept, gone=found < len(wanted), changed=newer, written=frozenset(written))


def same(one: Snapshot, other: Snapshot) -> bool:
    """Whether two snapshots are one and the same."""
    return one.version == other.version and one.commit_id == other.commit_id


def newly_deleted(view: View, before: Fragment, after: Fragment) -> BitMap64:
    """Positions of a fragment's rows that were deleted between two of its states."""
    if after.deletes is None or after.deletes == before.deletes:
        return BitMap64()
    earlier = view.load_deletes(before.deletes) if before.deletes else BitMap64()
    return view.load_deletes(after.deletes) - earlier


def replaced_fields(before: Fragment, after: Fragment) -> frozenset[int]:
    """The fields that other files hold in a fragment's later state; a restore may also bring an earlier file back."""
    held, holds = _holders(before), _holders(after)
    return frozenset(field for field in held.keys() | holds.keys() if held.get(field) != holds.get(field))


def _holders(fragment: Fragment) -> dict[int, str]:
    by_age = sorted(fragment.files, key=lambda file: file.sequence)
    return {field: file.path for file in by_age for field in file.field_ids}
