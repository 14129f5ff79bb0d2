"""Whether a change still holds when others have committed in between: a pure function over what both sides did.

The matrix of operations in the format specification ("Conflicts") follows from these few rules, which look at what
was touched (rows, values, columns, properties) and not at which operation touched it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from pyroaring import BitMap64

from vectorlake.errors import ConflictError
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.diff import Difference
from vectorlake.schema import Field, Schema

LAYOUT_ONLY: Final = frozenset({"compact", "cluster", "rewrite-manifests"})
"""Operations that move rows or metadata about and change no row's values."""
CLEARING: Final = frozenset({"overwrite", "restore"})
"""Operations that replace all rows, whatever they are."""


class Action(IntEnum):
    """What a change has to do before it can be applied to a newer head; each includes those before it."""

    APPLY = 0
    """Nothing: the two don't meet."""
    CHECK_KEYS = 1
    """Both add rows under a primary key: look whether any key is now there."""
    FOLLOW = 2
    """Find its rows by row id where they have been moved to."""
    REEVALUATE = 3
    """Others changed rows or values that it changes too: decide again what to do, on the head."""
    CONFLICT = 4
    """It can't be applied."""


@dataclass(frozen=True)
class Verdict:
    """An action, and for a `CONFLICT` or `REEVALUATE` what the two sides met in."""

    action: Action
    reason: str = ""


@dataclass(frozen=True)
class Effects:
    """What one or several commits did to a table, relative to the version they began with."""

    adds_rows: bool = False
    adds_keys: bool = False
    """Adds rows to a table whose primary key is enforced."""
    taken: Mapping[int, BitMap64] = field(default_factory=dict)
    """Fragment id → positions of rows that were deleted, or replaced by newer images elsewhere."""
    removed: frozenset[int] = frozenset()
    """Fragments that are gone with all their rows, or whose rows were all moved (`moves`)."""
    written: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Fragment id → fields whose values were replaced in place."""
    moves: bool = False
    """Rows that left their fragments live on elsewhere, unchanged and under their row ids."""
    copies: bool = False
    """Images of the rows taken were written, holding values that were read before."""
    clears: bool = False
    """All rows were replaced, whatever they were."""
    names: frozenset[str] = frozenset()
    """Column names that came into use."""
    dropped: frozenset[int] = frozenset()
    redefined: frozenset[int] = frozenset()
    """Fields that were renamed or got another type, nullability or default."""
    properties: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def touches_rows(self) -> bool:
        """Whether rows that were there before were changed."""
        return bool(self.taken or self.removed or self.written)


def verdict(mine: Effects, theirs: Effects) -> Verdict:
    """What `mine`, prepared on an older version, must do to be applied after `theirs`, which is committed."""
    verdicts = [_schema(mine, theirs), _properties(mine, theirs)]
    if not mine.clears:
        verdicts.append(_rows(mine, theirs))
    if mine.adds_keys and (theirs.adds_keys or theirs.clears):
        verdicts.append(Verdict(Action.CHECK_KEYS))
    return max(verdicts, key=lambda found: found.action)


def _schema(mine: Effects, theirs: Effects) -> Verdict:
    if names := mine.names & theirs.names:
        return Verdict(Action.CONFLICT, f"the column name {min(names)!r} was taken")
    used = mine.redefined | frozenset[int]().union(*mine.written.values())
    if used & theirs.dropped:
        return Verdict(Action.CONFLICT, "a column that it changes was dropped")
    if (mine.redefined | mine.dropped) & (theirs.redefined | theirs.dropped):
        return Verdict(Action.CONFLICT, "the same column was dropped or redefined")
    return Verdict(Action.APPLY)


def _properties(mine: Effects, theirs: Effects) -> Verdict:
    for key in mine.properties.keys() & theirs.properties.keys():
        if mine.properties[key] != theirs.properties[key]:
            return Verdict(Action.CONFLICT, f"the property {key!r} was set to {theirs.properties[key]!r}")
    return Verdict(Action.APPLY)


def _rows(mine: Effects, theirs: Effects) -> Verdict:
    if not mine.touches_rows:
        return Verdict(Action.APPLY)
    if theirs.clears:
        return Verdict(Action.CONFLICT, "all rows were replaced")
    action, reason = Action.APPLY, ""
    touched = mine.taken.keys() | mine.removed | mine.written.keys()
    if touched & theirs.removed:
        if not theirs.moves:
            return Verdict(Action.REEVALUATE, "fragments with its rows were removed")
        action = Action.FOLLOW
    for fragment in touched:
        if mine.written.get(fragment, frozenset()) & theirs.written.get(fragment, frozenset()):
            return Verdict(Action.REEVALUATE, "values of the same column were replaced in the same fragment")
        if fragment in theirs.written and (mine.copies or mine.moves) and fragment not in mine.written:
            return Verdict(Action.REEVALUATE, "values of rows that it copied were replaced")
        if fragment in theirs.taken and fragment in mine.removed:
            if not mine.moves:
                return Verdict(
                    Action.REEVALUATE, "rows of a fragment that it removes were changed or deleted"
                )
            action = Action.FOLLOW
        elif mine.taken.get(fragment, BitMap64()) & theirs.taken.get(fragment, BitMap64()):
            return Verdict(Action.REEVALUATE, "the same rows were changed or deleted")
    return Verdict(action, reason)


def effects(
    base: Snapshot,
    after: Snapshot,
    between: Difference,
    *,
    operations: frozenset[str],
    taken: Mapping[int, BitMap64],
    written: Mapping[int, frozenset[int]],
) -> Effects:
    """What led from one snapshot to another, by the difference of their fragments and the names of the operations.

    `taken` and `written` are what changed in the fragments that both have: rows deleted, fields with new files.
    """
    return Effects(
        adds_rows=bool(between.added),
        adds_keys=bool(between.added and after.primary_key) and not operations <= LAYOUT_ONLY,
        taken={fragment: rows for fragment, rows in taken.items() if rows},
        removed=frozenset(fragment.id for fragment in between.removed),
        written={fragment: fields for fragment, fields in written.items() if fields},
        moves=bool(between.removed) and operations <= LAYOUT_ONLY,
        copies=not operations <= {"delete"},
        clears=bool(operations & CLEARING),
        names=_names(after.schema) - _names(base.schema),
        dropped=frozenset(_by_id(base.schema).keys() - _by_id(after.schema).keys()),
        redefined=frozenset(
            number
            for number, kept in _by_id(after.schema).items()
            if _by_id(base.schema).get(number, kept) != kept
        ),
        properties={
            key: after.properties.get(key)
            for key in base.properties.keys() | after.properties.keys()
            if base.properties.get(key) != after.properties.get(key)
        },
    )


def metadata_effects(base: Snapshot, after: Snapshot) -> Effects:
    """What differs between two snapshots in columns and properties alone."""
    return effects(base, after, Difference(), operations=frozenset(), taken={}, written={})


def check_metadata(mine: Effects, base: Snapshot, head: Snapshot) -> None:
    """Refuse a change of columns or properties that meets another one committed since `base`.

    Raises:
        ConflictError: says in what they meet.
    """
    found = verdict(mine, metadata_effects(base, head))
    if found.action is Action.CONFLICT:
        raise ConflictError(
            f"another writer has committed since version {base.version}: {found.reason}; nothing was written: refresh "
            "the table and retry"
        )


def _names(schema: Schema) -> frozenset[str]:
    return frozenset(schema.names)


def _by_id(schema: Schema) -> dict[int, Field]:
    return {known.id: known for known in schema.fields}
