"""How a change becomes the next snapshot, as pure functions over values: apply it to the head, or say why not.

A writer describes what it did as a `Delta`. If another writer committed in between, the same delta is applied to the
newer head: fragments are found by id, and a fragment's physical rows never change under one id, so positions stay
valid (format specification, "Commit").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from vectorlake.errors import ConflictError
from vectorlake.metadata.fragment import (
    BallSegment,
    DataFile,
    DeletionVector,
    FieldBounds,
    Fragment,
    KeySegment,
)
from vectorlake.metadata.index import Index
from vectorlake.metadata.manifest import Manifest
from vectorlake.metadata.snapshot import ManifestRef, Snapshot
from vectorlake.schema import Schema

TIER_FACTOR: Final = 8
"""How many manifests of one size class are merged into one of the next."""
MANIFEST_FRAGMENTS: Final = 32_768
"""A manifest of this many fragments is not merged further."""


class FragmentUpdate(msgspec.Struct, frozen=True):
    """What happened to the rows or columns of a fragment that stays."""

    fragment_id: int
    deletes: DeletionVector | None = None
    """The fragment's whole new deletion vector; None leaves it."""
    files: tuple[DataFile, ...] = ()
    """New column files for the fragment's rows."""
    bounds: Mapping[int, FieldBounds] = {}
    keys: KeySegment | None = None
    """A new key segment; None leaves it."""
    balls: tuple[BallSegment, ...] = ()
    """Of the new files; those of columns that get none stay."""
    lost: frozenset[str] = frozenset()
    """Paths of files that are no more: their columns read as if they had never been written, balls as if there were none."""


class Delta(msgspec.Struct, frozen=True):
    """What one commit changes, relative to whatever head it is applied to."""

    operation: str
    added: tuple[Fragment, ...] = ()
    removed: frozenset[int] = frozenset()
    removes_all: bool = False
    """Every fragment of the head goes (overwrite)."""
    updates: tuple[FragmentUpdate, ...] = ()
    schema: Schema | None = None
    next_field_id: int | None = None
    properties: Mapping[str, str | None] = {}
    """Properties to set, or with None to remove."""
    manifests: tuple[ManifestRef, ...] | None = None
    """Take these manifests as they are instead of the head's (restore)."""
    indexes: tuple[Index, ...] | None = None
    """All indexes from now on; None leaves the head's."""
    summary: Mapping[str, Any] = {}


def touched(refs: Sequence[ManifestRef], fragment_ids: Sequence[int]) -> list[ManifestRef]:
    """The manifests that may hold any of some fragments."""
    ids = np.unique(np.asarray(fragment_ids, np.int64))
    low = np.searchsorted(ids, [ref.min_fragment_id for ref in refs], "left")
    high = np.searchsorted(ids, [ref.max_fragment_id for ref in refs], "right")
    return [ref for ref, first, last in zip(refs, low, high, strict=True) if first < last]


def updated_fragment(fragment: Fragment, update: FragmentUpdate, version: int) -> Fragment:
    """A fragment after an update committed as `version`: replaced columns leave their files' layouts, or the files go."""
    replaced = frozenset[int]().union(*(file.field_ids for file in update.files))
    kept = tuple(
        without_fields(file, replaced)
        for file in fragment.files
        if not file.field_ids <= replaced and file.path not in update.lost
    )
    gone = frozenset[int]().union(*(file.field_ids for file in fragment.files if file.path in update.lost))
    return msgspec.structs.replace(
        fragment,
        files=(*kept, *(msgspec.structs.replace(file, sequence=version) for file in update.files)),
        deletes=update.deletes or fragment.deletes,
        bounds={
            **{k: v for k, v in fragment.bounds.items() if k not in replaced | gone},
            **update.bounds,
        },
        keys=update.keys or fragment.keys,
        balls=(
            *(
                one
                for one in fragment.balls
                if one.field_id not in replaced | gone and one.path not in update.lost
            ),
            *update.balls,
        ),
    )


def without_fields(file: DataFile, field_ids: frozenset[int]) -> DataFile:
    """A file whose layout no longer names some columns, so that each column has one file."""
    if not file.field_ids & field_ids:
        return file
    fields = tuple(field for field in file.layout.fields if field.id not in field_ids)
    return msgspec.structs.replace(file, layout=msgspec.structs.replace(file.layout, fields=fields))


def numbered(added: Sequence[Fragment], head: Snapshot, version: int) -> tuple[list[Fragment], int, int]:
    """New fragments with their ids, row ids and sequences, and the next fragment and row id."""
    fragments: list[Fragment] = []
    next_fragment, next_row = head.next_fragment_id, head.next_row_id
    for fragment in added:
        files = tuple(
            file if file.sequence else msgspec.structs.replace(file, sequence=version)
            for file in fragment.files
        )
        fragments.append(
            msgspec.structs.replace(fragment, id=next_fragment, first_row_id=next_row, files=files)
        )
        next_fragment += 1
        next_row += fragment.row_count
    return fragments, next_fragment, next_row


def apply_updates(manifest: Manifest, delta: Delta, version: int) -> tuple[Manifest, frozenset[int]]:
    """A manifest after the delta's removals and updates, and the ids of the fragments it found."""
    wanted = {update.fragment_id: update for update in delta.updates}
    ids = manifest.fragment_ids
    indices = np.flatnonzero(np.isin(ids, np.fromiter(wanted, np.int64, len(wanted))))
    current = manifest.fragments(indices) if len(indices) else []
    updated = [updated_fragment(fragment, wanted[fragment.id], version) for fragment in current]
    gone = ids[np.isin(ids, np.fromiter(delta.removed, np.int64, len(delta.removed)))]
    found = frozenset(fragment.id for fragment in current) | frozenset(gone.tolist())
    if not found:
        return manifest, found
    return manifest.replace(removed=delta.removed & found, updated=updated), found


def check_found(delta: Delta, found: frozenset[int]) -> None:
    """Refuse a delta whose fragments another writer has replaced.

    Raises:
        ConflictError: names how many fragments are gone.
    """
    missing = ({update.fragment_id for update in delta.updates} | delta.removed) - found
    if missing:
        raise ConflictError(
            f"{len(missing)} of the fragments that this {delta.operation} relies on were removed by another writer "
            "in the meantime; nothing was written: read the table again and retry"
        )


def without_stale_bounds(refs: Sequence[ManifestRef], old: Schema, new: Schema) -> list[ManifestRef]:
    """Manifest references without the bounds of columns whose type changes: literals are read by the schema's type."""
    before = {field.id: field.type for field in old.fields}
    changed = {str(field.id) for field in new.fields if before.get(field.id, field.type) != field.type}
    if not changed:
        return list(refs)
    return [
        msgspec.structs.replace(
            ref, bounds={key: known for key, known in ref.bounds.items() if key not in changed}
        )
        for ref in refs
    ]


def check_required(added: Sequence[Fragment], schema: Schema) -> None:
    """Refuse fragments that lack a column which by now must not be null and has no default.

    Raises:
        ConflictError: names the column.
    """
    for field in schema.fields:
        if field.nullable or field.default is not None:
            continue
        if any(
            fragment.file_of(field.id) is None and field.id not in fragment.constants for fragment in added
        ):
            raise ConflictError(
                f"another writer added the non-null column {field.name!r} in the meantime, of which these rows have no "
                "value; nothing was written: refresh the table and retry with it"
            )


def merge_plan(refs: Sequence[ManifestRef]) -> tuple[list[ManifestRef], list[ManifestRef]]:
    """Which manifests stay as they are, and which to merge into one (size-tiered, so a commit's cost is amortised)."""
    tiers: dict[int, list[ManifestRef]] = {}
    for ref in refs:
        if ref.fragments < MANIFEST_FRAGMENTS:
            tiers.setdefault(_tier(ref.fragments), []).append(ref)
    merged: list[ManifestRef] = []
    for tier in sorted(tiers):
        total = sum(ref.fragments for ref in merged)
        if merged and _tier(total) == tier and len(tiers[tier]) + 1 >= TIER_FACTOR:
            merged += tiers[tier]
        elif not merged and len(tiers[tier]) >= TIER_FACTOR:
            merged = list(tiers[tier])
    gone = {ref.path for ref in merged}
    return [ref for ref in refs if ref.path not in gone], merged


def _tier(fragments: int) -> int:
    tier = 0
    while fragments >= TIER_FACTOR:
        fragments //= TIER_FACTOR
        tier += 1
    return tier


def counts(head: Snapshot, delta: Delta) -> dict[str, Any]:
    """How many fragments and files a commit adds, changes and removes: what every operation's summary tells, unless 0."""
    files = [file for added in delta.added for file in added.files]
    files += [file for update in delta.updates for file in update.files]
    sizes = {file.path: file.size for file in files}
    found = {
        "added_fragments": len(delta.added),
        "changed_fragments": len(delta.updates),
        "removed_fragments": head.num_fragments if delta.removes_all else len(delta.removed),
        "added_files": len(sizes),
        "added_bytes": sum(sizes.values()),
    }
    return {name: count for name, count in found.items() if count}


def next_snapshot(
    head: Snapshot,
    delta: Delta,
    *,
    commit_id: str,
    now_ms: int,
    manifests: tuple[ManifestRef, ...],
    next_fragment_id: int,
    next_row_id: int,
) -> Snapshot:
    """The snapshot that follows `head`. Its time is always later than the head's, whatever the clocks say."""
    properties = dict(head.properties)
    for key, value in delta.properties.items():
        if value is None:
            properties.pop(key, None)
        else:
            properties[key] = value
    indexes, dropped = _indexes_after(head, delta)
    return msgspec.structs.replace(
        head,
        version=head.version + 1,
        parent=head.version,
        commit_id=commit_id,
        timestamp_ms=max(now_ms, head.timestamp_ms + 1),
        operation=delta.operation,
        summary=counts(head, delta) | ({"dropped_indexes": dropped} if dropped else {}) | dict(delta.summary),
        schema=delta.schema or head.schema,
        next_field_id=max(delta.next_field_id or 0, head.next_field_id),
        properties=properties,
        manifests=manifests,
        indexes=indexes,
        next_fragment_id=next_fragment_id,
        next_row_id=next_row_id,
    )


def _indexes_after(head: Snapshot, delta: Delta) -> tuple[tuple[Index, ...], int]:
    """The indexes after a change, and how many went with their columns; of segments none stays when all rows go."""
    if delta.indexes is not None:
        return delta.indexes, 0
    indexes = head.indexes
    if delta.removes_all:
        indexes = tuple(msgspec.structs.replace(index, segments=()) for index in indexes)
    if delta.schema is None:
        return indexes, 0
    there = {field.id for field in delta.schema.fields}
    kept = tuple(index for index in indexes if index.field_id in there)
    return kept, len(indexes) - len(kept)
