"""Rows that a source rewrote into new files: find them again, and carry over their row ids and the columns added here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
from pyroaring import BitMap64

from vectorlake.errors import CorruptDataError
from vectorlake.extend import (
    ROW_ID,
    ROW_ID_FIELD_ID,
    DataFile,
    Field,
    FieldBounds,
    Fragment,
    FragmentReader,
    ScalarType,
    View,
    literal_from_json,
    random_id,
    to_bitmap,
    write_fragments,
)
from vectorlake_iceberg._match import distinct, fingerprints, pair

ROW_ID_FIELD: Final = Field(ROW_ID_FIELD_ID, ROW_ID, ScalarType("int64"))
_SEQUENCE_FIELD: Final = Field(2_147_483_539, "_last_updated_sequence_number", ScalarType("int64"))
"""Row lineage's second column (Iceberg specification, "Reserved Field IDs")."""
_READ_ROWS: Final = 65_536
_WRITE_ROWS: Final = 8_192


class Updated(StrEnum):
    """What becomes of the columns added here in a row that the source changed but that is known to be the same row."""

    CLEAR = "clear"
    """They become null (or their default), so that a backfill computes them from the new values."""
    KEEP = "keep"


class Lost(StrEnum):
    """What to do if the source has removed the old files, so that the rewritten rows can't be found again."""

    REFUSE = "refuse"
    RENEW = "renew"
    """Take the rows of the new files as new rows, with new row ids and without values in the columns added here."""


@dataclass(frozen=True)
class Old:
    """A fragment whose file left the source."""

    fragment: Fragment
    deleted: BitMap64
    """Positions that the source had deleted."""
    first_row_id: int | None
    sequence: int = 0


@dataclass(frozen=True)
class New:
    """A fragment over a file that the source added."""

    fragment: Fragment
    deleted: BitMap64
    first_row_id: int | None
    sequence: int


@dataclass(frozen=True)
class Carried:
    """What the survivors of one new fragment bring along."""

    files: tuple[DataFile, ...] = ()
    bounds: Mapping[int, FieldBounds] = field(default_factory=dict)
    deleted: BitMap64 = field(default_factory=BitMap64)
    """Positions of rows that were deleted here, and stay so."""
    sequence: int = 0
    """Of the source's file: the highest of the files whose rows it holds unchanged; 0 if it holds anything new."""
    kept: int = 0
    updated: int = 0


@dataclass(frozen=True)
class _Rows:
    """Rows of several fragments, one after the other."""

    fragment: np.ndarray
    """Which fragment each row belongs to."""
    position: np.ndarray
    keys: np.ndarray
    content: np.ndarray
    """Equal where a row's source values are equal; empty if `changed` tells."""
    changed: np.ndarray
    """Whether the source changed the row since the last sync, as far as the source itself tells."""

    def select(self, at: np.ndarray) -> _Rows:
        return _Rows(*(array[at] if len(array) else array for array in self._arrays()))

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.fragment, self.position, self.keys, self.content, self.changed


@dataclass(frozen=True)
class Matching:
    """How rows are told apart: the source's fields to compare, those that identify a row, and its lineage."""

    fields: tuple[Field, ...]
    identifiers: tuple[Field, ...]
    synced_sequence: int
    """The source's sequence number at the last sync."""
    lineage: bool


def carry(
    view: View,
    old: Sequence[Old],
    new: Sequence[New],
    own: Sequence[Field],
    matching: Matching,
    *,
    updated: Updated,
    lost: Lost,
) -> list[Carried]:
    """Match the rows of new fragments to those of old ones, and write what they bring along; one result a new fragment.

    Rows are matched by the source's row lineage, else by its identifier fields, else by all their values (as a multiset).
    Reads the source's columns of these fragments only; memory is some 50 bytes a row and a batch.

    Raises:
        CorruptDataError: an old file is gone, and with it what would tell its rows again (unless `lost` says otherwise, or
            nothing was added here that could be lost).
    """
    if not old or not new:
        return [Carried() for _ in new]
    was, own_deleted = _old_rows(view, old, matching, lost if own else Lost.RENEW)
    now = _new_rows(view, new, matching)
    if (
        matching.identifiers
        and not matching.lineage
        and not (distinct(was.keys[~own_deleted]) and distinct(now.keys))
    ):
        was, now = replace(was, keys=was.content), replace(now, keys=now.content)
    # Live rows come first: of equal rows, those deleted here are given away last.
    order = np.argsort(own_deleted, kind="stable")
    was, own_deleted = was.select(order), own_deleted[order]
    found = pair(was.keys, now.keys)
    carried: list[Carried] = []
    for index, one in enumerate(new):
        rows = np.flatnonzero(now.fragment == index)
        carried.append(
            _carried(view, old, one, was, own_deleted, now.select(rows), found[rows], own, updated)
        )
    return carried


# --- keys ----------------------------------------------------------------------------------------------------------


def _old_rows(view: View, old: Sequence[Old], matching: Matching, lost: Lost) -> tuple[_Rows, np.ndarray]:
    """The rows that the source had, and which of them were deleted here; without those of files that are gone."""
    words = 1 if matching.lineage else 2
    parts = [_keyed_rows(np.empty(0, np.int64), 0, np.empty((0, words), np.uint64))]
    deleted_here = [np.empty(0, bool)]
    for index, one in enumerate(old):
        reader = view.reader(one.fragment)
        positions = _without(one.fragment.row_count, one.deleted)
        try:
            rows = _keyed(view, one.fragment, one.first_row_id, one.sequence, index, positions, matching)
        except CorruptDataError as e:
            if lost is Lost.RENEW:
                continue
            raise CorruptDataError(
                f"the source replaced files and removed the old ones, so the rows that it kept can't be found again ({e}). "
                "Restore the files and sync again, or sync with lost='renew' to take such rows as new ones: they get "
                "new row ids and lose the values of the columns added here"
            ) from e
        parts.append(rows)
        deleted_here.append(np.isin(positions, reader.deleted))
    return _stacked(parts), np.concatenate(deleted_here)


def _new_rows(view: View, new: Sequence[New], matching: Matching) -> _Rows:
    return _stacked(
        [
            _keyed(
                view,
                one.fragment,
                one.first_row_id,
                one.sequence,
                index,
                _without(one.fragment.row_count, one.deleted),
                matching,
            )
            for index, one in enumerate(new)
        ]
    )


def _without(rows: int, deleted: BitMap64) -> np.ndarray:
    keep = np.ones(rows, bool)
    keep[np.fromiter(deleted, np.int64, len(deleted))] = False
    return np.flatnonzero(keep)


def _keyed(
    view: View,
    fragment: Fragment,
    first_row_id: int | None,
    sequence: int,
    index: int,
    positions: np.ndarray,
    matching: Matching,
) -> _Rows:
    if matching.lineage:
        ids, updated = _lineage(view, fragment, first_row_id or 0, sequence)
        changed = updated[positions] > matching.synced_sequence
        return _keyed_rows(positions, index, ids[positions].astype(np.uint64)[:, None], changed=changed)
    content, keys = _fingerprints(view, fragment, matching)
    content = content[positions]
    return _keyed_rows(positions, index, content if keys is None else keys[positions], content=content)


def _keyed_rows(
    positions: np.ndarray,
    fragment: int,
    keys: np.ndarray,
    *,
    content: np.ndarray | None = None,
    changed: np.ndarray | None = None,
) -> _Rows:
    count = len(positions)
    return _Rows(
        np.full(count, fragment),
        positions,
        keys,
        np.empty((0, 2), np.uint64) if content is None else content,
        np.zeros(count, bool) if changed is None else changed,
    )


def _stacked(parts: Sequence[_Rows]) -> _Rows:
    columns = zip(*(part._arrays() for part in parts), strict=True)
    return _Rows(*(np.concatenate(column) for column in columns))


def _lineage(
    view: View, fragment: Fragment, first_row_id: int, sequence: int
) -> tuple[np.ndarray, np.ndarray]:
    """Iceberg's row ids of a fragment's rows, and the sequence numbers at which they were last changed."""
    fields = (ROW_ID_FIELD, _SEQUENCE_FIELD)
    (source,) = (file for file in fragment.files if file.foreign)
    layout = msgspec.structs.replace(source.layout, fields=(*source.layout.fields, *fields))
    whole = Fragment(fragment.row_count, (msgspec.structs.replace(source, layout=layout),))
    batch = view.reader(whole).read(fields, 0, fragment.row_count)
    implied = np.arange(first_row_id, first_row_id + fragment.row_count)
    return _filled(batch.column(0), implied), _filled(batch.column(1), np.full(fragment.row_count, sequence))


def _filled(column: pa.Array, instead: np.ndarray) -> np.ndarray:
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    return np.where(valid, column.fill_null(0).to_numpy(zero_copy_only=False), instead)


def _fingerprints(view: View, fragment: Fragment, matching: Matching) -> tuple[np.ndarray, np.ndarray | None]:
    """A hash of the source's values of each physical row, and one of its identifier fields if it has any."""
    reader = view.reader(fragment)
    content: list[np.ndarray] = [np.empty((0, 2), np.uint64)]
    keys: list[np.ndarray] = [np.empty((0, 2), np.uint64)]
    at = [matching.fields.index(identifier) for identifier in matching.identifiers]
    for start in range(0, fragment.row_count, _READ_ROWS):
        batch = reader.read(matching.fields, start, min(start + _READ_ROWS, fragment.row_count))
        content.append(fingerprints(batch))
        if at:
            keys.append(fingerprints(batch.select(at)))
    return np.concatenate(content), np.concatenate(keys) if at else None


# --- what survivors bring along ------------------------------------------------------------------------------------


def _carried(
    view: View,
    old: Sequence[Old],
    new: New,
    was: _Rows,
    own_deleted: np.ndarray,
    now: _Rows,
    found: np.ndarray,
    own: Sequence[Field],
    updated: Updated,
) -> Carried:
    matched = found >= 0
    if not matched.any():
        return Carried()
    gone = np.zeros(len(found), bool)
    gone[matched] = own_deleted[found[matched]]
    alive = matched & ~gone
    changed = now.changed.copy()
    if len(now.content):
        changed[matched] = (now.content[matched] != was.content[found[matched]]).any(axis=1)
    changed &= alive
    # Where each physical row of the new fragment comes from: an old fragment's position, or nothing.
    rows = new.fragment.row_count
    origin = _Origin(np.full(rows, -1), np.zeros(rows, np.int64))
    origin.fragment[now.position[alive]] = was.fragment[found[alive]]
    origin.position[now.position[alive]] = was.position[found[alive]]
    valued = origin
    if updated is Updated.CLEAR and changed.any():
        valued = _Origin(origin.fragment.copy(), origin.position)
        valued.fragment[now.position[changed]] = -1
    sources = sorted(set(origin.fragment[origin.fragment >= 0].tolist()))
    held = [one for one in own if any(old[i].fragment.file_of(one.id) is not None for i in sources)]
    unchanged = bool(matched.all()) and not changed.any()
    sequence = max(_source_sequence(old[i].fragment) for i in sources) if unchanged and sources else 0
    files, bounds = _write(view, old, origin, [ROW_ID_FIELD])
    # Row ids are no values: they make no row newer than its values are.
    files = tuple(msgspec.structs.replace(file, sequence=sequence) for file in files)
    if held:
        written, known = _write(view, old, valued, held)
        if valued is origin:
            written = tuple(_with_sequence(file, old, sources) for file in written)
        files, bounds = (*files, *written), {**bounds, **known}
    return Carried(
        files,
        bounds,
        to_bitmap(now.position[gone]),
        sequence,
        kept=int(alive.sum()),
        updated=int(changed.sum()),
    )


def _source_sequence(fragment: Fragment) -> int:
    return max(file.sequence for file in fragment.files if file.foreign)


def _with_sequence(file: DataFile, old: Sequence[Old], sources: Sequence[int]) -> DataFile:
    """A file with the highest sequence of the files whose values it carries."""
    holders = [old[i].fragment.file_of(field_id) for i in sources for field_id in file.field_ids]
    return msgspec.structs.replace(
        file, sequence=max(holder.sequence for holder in holders if holder is not None)
    )


@dataclass(frozen=True)
class _Origin:
    """For each row of a new fragment: which old fragment it comes from (-1 for none), and its position there."""

    fragment: np.ndarray
    position: np.ndarray


def _write(
    view: View, old: Sequence[Old], origin: _Origin, fields: Sequence[Field]
) -> tuple[tuple[DataFile, ...], Mapping[int, FieldBounds]]:
    """Files of some columns for all rows of a new fragment, in its order."""
    rows = len(origin.fragment)
    # Rows without an origin hold null (or a default), whatever the table says of the column.
    stored = [msgspec.structs.replace(one, nullable=True) for one in fields]
    whole = {"write.fragment-rows": str(rows), "write.fragment-bytes": str(1 << 62)}
    batches = (
        _batch(
            view,
            old,
            _Origin(
                origin.fragment[start : start + _WRITE_ROWS], origin.position[start : start + _WRITE_ROWS]
            ),
            stored,
        )
        for start in range(0, rows, _WRITE_ROWS)
    )
    (written,) = write_fragments(
        view.store, batches, stored, properties={**view.snapshot.properties, **whole}, new_id=random_id
    )
    return written.files, written.bounds


def _batch(view: View, old: Sequence[Old], origin: _Origin, fields: Sequence[Field]) -> pa.RecordBatch:
    schema = pa.schema([one.to_storage() for one in fields])
    parts: list[pa.RecordBatch] = [_defaults(fields, schema)]
    source = np.zeros(len(origin.fragment), np.int64)
    offset = 1
    for index, rows in _by_fragment(origin):
        parts.append(_values(view.reader(old[index].fragment), fields, origin.position[rows], schema))
        source[rows] = offset + np.arange(len(rows))
        offset += len(rows)
    return pa.concat_batches(parts).take(pa.array(source))


def _by_fragment(origin: _Origin) -> Iterator[tuple[int, np.ndarray]]:
    for index in np.unique(origin.fragment).tolist():
        if index >= 0:
            yield index, np.flatnonzero(origin.fragment == index)


def _values(
    reader: FragmentReader, fields: Sequence[Field], positions: np.ndarray, schema: pa.Schema
) -> pa.RecordBatch:
    if fields[0].id == ROW_ID_FIELD_ID:
        return pa.RecordBatch.from_arrays([pa.array(reader.row_ids_at(positions), pa.int64())], schema=schema)
    return pa.RecordBatch.from_arrays(reader.take(fields, positions).columns, schema=schema)


def _defaults(fields: Sequence[Field], schema: pa.Schema) -> pa.RecordBatch:
    """One row of the columns' defaults."""
    values = [_default(one, kind.type) for one, kind in zip(fields, schema, strict=True)]
    return pa.RecordBatch.from_arrays(values, schema=schema)


def _default(one: Field, kind: pa.DataType) -> pa.Array:
    if one.default is None:
        return pa.nulls(1, kind)
    scalar = literal_from_json(one.default, kind)
    return pa.array([scalar.as_py()], kind) if pa.types.is_nested(kind) else pa.repeat(scalar, 1)
