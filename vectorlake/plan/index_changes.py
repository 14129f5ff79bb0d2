"""What becomes of a table's indexes: names, sets of them, and what keeps one in shape. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vectorlake.errors import AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError
from vectorlake.metadata.index import Index
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.schema import Schema, describe, did_you_mean, listing

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
SEGMENT_ROWS: Final = 4_000_000
"""Rows of a segment at most, by default."""
SMALL_ROWS: Final = 4096
"""Segments of up to so many rows are merged, however few the smaller ones hold."""
DEAD_SHARE: Final = 0.2
GROWTH: Final = 4.0


def index_named(snapshot: Snapshot, name: str) -> Index:
    """The index of that name.

    Raises:
        NotFoundError: there is none; lists those that exist.
    """
    for index in snapshot.indexes:
        if index.name == name:
            return index
    names = [index.name for index in snapshot.indexes]
    raise NotFoundError(f"no index {name!r}{did_you_mean(name, names)}; the indexes are {listing(names)}")


def new_name(snapshot: Snapshot, name: str | None, column: str, kind: str) -> str:
    """The name of a new index: the one asked for, or one made of its column and kind.

    Raises:
        AlreadyExistsError: it is taken.
        InvalidInputError: it is no name.
    """
    taken = names_taken(snapshot)
    if name is None:
        plain = re.sub(r"[^A-Za-z0-9_-]", "_", f"{column}_{kind}")
        numbered = (plain if number == 1 else f"{plain}_{number}" for number in range(1, len(taken) + 2))
        return next(made for made in numbered if made not in taken)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"an index's name is made of letters, digits, '_', '.' and '-' (at most 128), not {name!r}"
        )
    if name in taken:
        raise AlreadyExistsError(
            f"there is an index {name!r} already: choose another name, or rebuild or drop that one"
        )
    return name


def names_taken(snapshot: Snapshot) -> frozenset[str]:
    """The names of all indexes, of those too whose shape this release does not know."""
    others = {str(entry.get("name")) for entry in snapshot.other_indexes if isinstance(entry, dict)}
    return frozenset(others | {index.name for index in snapshot.indexes})


def with_index(indexes: Sequence[Index], index: Index) -> tuple[Index, ...]:
    """All indexes with one put in the place of that of its name, or added."""
    if any(one.name == index.name for one in indexes):
        return tuple(index if one.name == index.name else one for one in indexes)
    return (*indexes, index)


def without_index(indexes: Sequence[Index], name: str) -> tuple[Index, ...]:
    """All indexes but one."""
    return tuple(one for one in indexes if one.name != name)


def check_same(before: Index, head: Snapshot, doing: str) -> Index:
    """The head's index, if nobody has changed it since `before` was read (a compaction may have moved its rows).

    Raises:
        ConflictError: it is gone, was made anew, or has other segments.
    """
    now = next((index for index in head.indexes if index.name == before.name), None)
    if now is None:
        raise ConflictError(
            f"another writer dropped index {before.name!r} while it was to be {doing}; nothing was committed"
        )
    ids = [segment.id for segment in before.segments]
    if ids and now.model_id == before.model_id and not now.segments:
        raise ConflictError(
            f"another writer has emptied index {before.name!r} (an overwrite of the table does) while it was to be "
            f"{doing}; nothing was committed: refresh the table and call again"
        )
    if now.model_id != before.model_id or [segment.id for segment in now.segments] != ids:
        raise ConflictError(
            f"another writer has changed index {before.name!r} while it was to be {doing}; nothing was committed: "
            "refresh the table and call again"
        )
    return now


def check_column(index: Index, base: Snapshot, head: Snapshot) -> None:
    """Refuse an index whose column another writer has dropped or given another type.

    Raises:
        ConflictError: says which.
    """
    before = {field.id: field for field in base.schema.fields}.get(index.field_id)
    now = {field.id: field for field in head.schema.fields}.get(index.field_id)
    if before is None or now is None or now.type != before.type:
        what = "dropped" if now is None else "given another type"
        raise ConflictError(
            f"the column of index {index.name!r} was {what} by another writer meanwhile; nothing was committed: refresh "
            "the table"
        )


def check_retyped(head: Snapshot, schema: Schema) -> None:
    """Refuse to give an indexed column another type: the index holds its values as they were.

    Raises:
        InvalidInputError: names the index.
    """
    now = {field.id: field for field in schema.fields}
    for index in head.indexes:
        before = next((field for field in head.schema.fields if field.id == index.field_id), None)
        after = now.get(index.field_id)
        if before is not None and after is not None and before.type != after.type:
            raise InvalidInputError(
                f"column {before.name!r} has index {index.name!r}, which holds its values as "
                f"{describe(before.type)}: drop the index first, and create it again afterwards"
            )


# --- optimizing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SegmentFacts:
    """What is to be known of a segment to decide what becomes of it.

    Attributes:
        live: rows that it is needed for.
        dead: rows that it holds for nothing.
        damaged: it can't be read.
    """

    id: str
    live: int
    dead: int
    damaged: bool = False


@dataclass(frozen=True)
class Shape:
    """How an index is kept.

    Attributes:
        segment_rows: segments are merged up to so many rows.
        dead_share: a segment of which more than this share is dead is written anew.
        growth: the model is trained anew when the table has so many times the rows that it was trained for; 0: never.
        min_rows: rows that no segment covers are left to be scanned while there are fewer.
    """

    segment_rows: int = SEGMENT_ROWS
    dead_share: float = DEAD_SHARE
    growth: float = GROWTH
    min_rows: int = 1


@dataclass(frozen=True)
class OptimizePlan:
    """What is to be done to an index, and why. False if nothing.

    Attributes:
        retrain: train a new model and build everything anew.
        add_rows: rows that get into a new segment.
        merge: ids of segments that become one, together with the rows added if `merge_added`.
        rewrite: ids of segments that are written anew, each without its dead rows.
        drop: ids of segments that go: damaged, or of no use.
    """

    index: str
    retrain: bool = False
    add_rows: int = 0
    merge: tuple[str, ...] = ()
    merge_added: bool = False
    rewrite: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.retrain or bool(self.add_rows or self.merge or self.rewrite or self.drop)

    def __str__(self) -> str:
        return f"{self.index}: {'; '.join(self.reasons) or 'nothing to do'}"


def plan_optimize(
    index: Index,
    segments: Sequence[SegmentFacts],
    *,
    uncovered: int,
    rows: int,
    model_fault: str | None,
    shape: Shape,
) -> OptimizePlan:
    """Decide what an index needs: a new model, a segment for rows that none covers, fewer segments, no dead rows.

    Segments are merged so that each is more than the sum of all smaller ones: their number grows with the logarithm of
    the table, and each row is written so often.

    Args:
        uncovered: live rows that no segment covers.
        rows: live rows of the table.
        model_fault: why the model can't be read, if so.
    """
    if model_fault is not None:
        return OptimizePlan(index.name, retrain=True, add_rows=rows, reasons=(f"build anew: {model_fault}",))
    if shape.growth and index.trained_rows and rows >= shape.growth * index.trained_rows:
        why = f"train anew: {rows:,} rows, {index.trained_rows:,} when it was trained"
        return OptimizePlan(index.name, retrain=True, add_rows=rows, reasons=(why,))
    reasons: list[str] = []
    drop = tuple(one.id for one in segments if one.damaged or not one.live)
    if drop:
        reasons.append(f"drop {_count(len(drop), 'segment')} that can't be read or hold no live rows")
    adding = uncovered if uncovered >= shape.min_rows else 0
    if adding:
        reasons.append(f"add {adding:,} rows that no segment covers")
    kept = [one for one in segments if one.id not in drop]
    merge, with_added = _together(kept, adding, shape.segment_rows)
    if merge:
        reasons.append(f"merge {_count(len(merge) + with_added, 'segment')} into one")
    stale = [
        one for one in kept if one.id not in merge and one.dead > shape.dead_share * (one.live + one.dead)
    ]
    if stale:
        dead = sum(one.dead for one in stale)
        reasons.append(f"write {_count(len(stale), 'segment')} anew without {dead:,} dead rows")
    return OptimizePlan(
        index.name,
        add_rows=adding,
        merge=merge,
        merge_added=with_added,
        rewrite=tuple(one.id for one in stale),
        drop=drop,
        reasons=tuple(reasons),
    )


_ADDED: Final = ""


def _together(kept: Sequence[SegmentFacts], adding: int, most: int) -> tuple[tuple[str, ...], bool]:
    """The small segments that are merged, and whether the rows added are among them."""
    sizes = [(one.live, one.id) for one in kept]
    if adding:
        sizes.append((adding, _ADDED))
    chosen: list[str] = []
    total = 0
    for size, name in sorted(sizes):
        if total + size > most:
            break
        if chosen and size > max(total, SMALL_ROWS):
            if len(chosen) > 1:
                break
            chosen, total = [], 0
        chosen.append(name)
        total += size
    if len(chosen) < 2:
        return (), False
    return tuple(name for name in chosen if name != _ADDED), _ADDED in chosen


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
