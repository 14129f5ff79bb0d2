"""Find rows by primary key, and keep keys unique: through key segments where a fragment has one, else by its columns."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.errors import AlreadyExistsError, InvalidInputError
from vectorlake.metadata.fragment import FieldBounds, Fragment
from vectorlake.metadata.literals import literal_from_json
from vectorlake.metadata.manifest import Manifest
from vectorlake.metadata.snapshot import PRIMARY_KEY, Snapshot, is_staged
from vectorlake.plan.key_ranges import KeyRanges
from vectorlake.plan.keys import SEGMENT_ROWS, KeyHashes, equal_pairs, hash_keys
from vectorlake.schema import Field, Schema
from vectorlake.table.differ import difference
from vectorlake.table.follow import same
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.scan import default_threads, ordered_map
from vectorlake.table.view import View

_MORSEL: Final = 131_072
_SHOWN: Final = 5
_VERIFIED: Final = 1 << 20
_BLOCK: Final = 1 << 24
"""Keys of new rows that are looked for at a time: 16 bytes each, beside the eight that all of them take."""


def key_fields(schema: Schema, primary_key: Sequence[int]) -> list[Field]:
    """The columns of a primary key, in its order."""
    by_id = {field.id: field for field in schema.fields}
    return [by_id[field_id] for field_id in primary_key]


def enforced(snapshot: Snapshot) -> bool:
    """Whether a table's primary key is kept unique; tables of release 0.1.0 only name one."""
    return bool(snapshot.primary_key) and PRIMARY_KEY in snapshot.required_features


class Keys(Protocol):
    """Keys to look for: their hashes in memory, their values where they are needed."""

    @property
    def hashes(self) -> np.ndarray:
        """One uint64 a key."""
        ...

    def take(self, rows: np.ndarray) -> list[pa.Array]:
        """The key columns of some keys, by index."""
        ...

    def among(self, column: int, low: pa.Array, high: pa.Array) -> np.ndarray:
        """For each range of values of a key column, whether any key may lie in it (null bounds: it may)."""
        ...


class GivenKeys:
    """Keys that lie in memory as the key columns of a table."""

    def __init__(self, columns: Sequence[pa.Array | pa.ChunkedArray]) -> None:
        self._columns = [
            column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column for column in columns
        ]
        self._columns = [
            pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
            for column in self._columns
        ]
        self.hashes = hash_keys(self._columns)
        self._ranges: dict[int, KeyRanges] = {}

    def take(self, rows: np.ndarray) -> list[pa.Array]:
        chosen = pa.array(rows)
        return [column.take(chosen) for column in self._columns]

    def among(self, column: int, low: pa.Array, high: pa.Array) -> np.ndarray:
        if column not in self._ranges:
            self._ranges[column] = KeyRanges(self._columns[column])
        return self._ranges[column].meets(low, high)


class WrittenKeys:
    """The keys of fragments that were just written: hashes in memory, values read back where hashes meet."""

    def __init__(
        self,
        readers: Sequence[FragmentReader],
        fields: Sequence[Field],
        hashes: np.ndarray,
        rows: np.ndarray | None,
    ) -> None:
        """`hashes` are those of the physical rows `rows`, counted through all fragments (None: all of them)."""
        self._readers = readers
        self._fields = fields
        self.hashes = hashes
        self._rows = rows
        self._starts = np.cumsum([0, *(reader.fragment.row_count for reader in readers)])

    def blocks(self, most: int) -> Iterator[WrittenKeys]:
        """The same keys in parts, so that looking for all of them takes little memory beyond their hashes."""
        if len(self.hashes) <= most:
            yield self
            return
        for start in range(0, len(self.hashes), most):
            hashes = self.hashes[start : start + most]
            rows = (
                np.arange(start, start + len(hashes))
                if self._rows is None
                else self._rows[start : start + most]
            )
            yield WrittenKeys(self._readers, self._fields, hashes, rows)

    def take(self, rows: np.ndarray) -> list[pa.Array]:
        wanted = rows if self._rows is None else self._rows[rows]
        fragments = np.searchsorted(self._starts, wanted, "right") - 1
        order = np.argsort(fragments, kind="stable")
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        parts: list[list[pa.Array]] = [[] for _ in self._fields]
        for index in np.unique(fragments):
            inside = wanted[order][fragments[order] == index] - self._starts[index]
            batch = self._readers[index].take(list(self._fields), inside)
            for column, part in enumerate(parts):
                part.append(batch.column(column))
        if not len(rows):
            return [pa.nulls(0, field.to_storage().type) for field in self._fields]
        return [pa.concat_arrays(part).take(pa.array(back)) for part in parts]

    def among(self, column: int, low: pa.Array, high: pa.Array) -> np.ndarray:
        result = np.zeros(len(low), bool)
        for reader in self._readers:
            mine = reader.fragment.bounds.get(self._fields[column].id, FieldBounds())
            if mine.min is None or mine.max is None:
                return np.ones(len(low), bool)
            kind = mine.min.type
            try:
                below, above = low.cast(kind), high.cast(kind)
            except pa.ArrowInvalid:
                return np.ones(len(low), bool)  # the column was widened since the rows were written
            reach = pc.and_(pc.less_equal(below, mine.max), pc.greater_equal(above, mine.min))
            result |= pc.fill_null(reach, True).to_numpy(zero_copy_only=False)
        return result


@dataclass(frozen=True)
class KeyMatches:
    """Live rows of one fragment that have some of the keys looked for."""

    reader: FragmentReader
    positions: np.ndarray
    """int64"""
    rows: np.ndarray
    """Which of the keys, for each position (int64)."""

    @property
    def fragment_id(self) -> int:
        return self.reader.fragment.id


def find_keys(
    view: View,
    keys: Keys,
    *,
    fragments: Iterable[Fragment] | None = None,
    fields: Sequence[Field] | None = None,
) -> Iterator[KeyMatches]:
    """Live rows of a view that have any of some keys, fragment by fragment.

    Args:
        view: the snapshot to look in.
        keys: distinct, without nulls, in the order of `fields`.
        fragments: only these of the view's; all by default, pruned by the bounds of their key columns.
        fields: the columns that keys are made of; by default those of the table's primary key.

    Memory is bounded by the keys and one fragment's matches. Where hashes meet, the values are compared.
    """
    wanted = list(fields or key_fields(view.snapshot.schema, view.snapshot.primary_key))
    order = np.argsort(keys.hashes)
    needles = keys.hashes[order]
    if not len(needles):
        return
    segmented = [field.id for field in wanted] == list(view.snapshot.primary_key)

    def look(fragment: Fragment) -> KeyMatches | None:
        reader = view.reader(fragment)
        positions, which = _probe(view, reader, needles, wanted, segmented=segmented)
        if len(reader.deleted) and len(positions):
            live = ~np.isin(positions, reader.deleted)
            positions, which = positions[live], which[live]
        if not len(positions):
            return None
        rows = order[which]
        equal = np.ones(len(positions), bool)
        held = reader.take(wanted, positions)
        for index, column in enumerate(keys.take(rows)):
            mine = held.column(index)
            given = column if column.type == mine.type else column.cast(mine.type)
            equal &= pc.fill_null(pc.equal(mine, given), False).to_numpy(zero_copy_only=False)
        return KeyMatches(reader, positions[equal], rows[equal]) if equal.any() else None

    if fragments is None:
        candidates = _candidates(view, keys, wanted)
    else:
        candidates = (fragment for fragment in fragments if _fragment_may_hold(fragment, keys, wanted))
    for found in ordered_map(look, candidates, threads=default_threads(view.store)):
        if found is not None:
            yield found


def _candidates(view: View, keys: Keys, fields: Sequence[Field]) -> Iterator[Fragment]:
    """The fragments whose bounds leave room for any of the keys."""
    for ref in view.snapshot.manifests:
        if not _manifest_may_hold(view, ref.bounds, keys, fields):
            continue
        manifest = view.log.manifest(ref)
        indices = np.flatnonzero(_may_hold(manifest, keys, fields))
        for start in range(0, len(indices), 4096):
            yield from manifest.fragments(indices[start : start + 4096])


def _manifest_may_hold(view: View, bounds: object, keys: Keys, fields: Sequence[Field]) -> bool:
    assert isinstance(bounds, dict)
    for index, field in enumerate(fields):
        known = bounds.get(str(field.id))
        if known is None:
            continue
        kind = field.to_storage().type
        try:
            low, high = (pa.array([literal_from_json(value, kind)], kind) for value in known)
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError):
            continue  # bounds from before a widening may not decode as the new type: unknown then
        if not keys.among(index, low, high)[0]:
            return False
    return True


def _may_hold(manifest: Manifest, keys: Keys, fields: Sequence[Field]) -> np.ndarray:
    may = np.ones(len(manifest), bool)
    for index, field in enumerate(fields):
        low, high = manifest.bound("min", field.id), manifest.bound("max", field.id)
        if low is not None and high is not None:
            may &= keys.among(index, _one(low), _one(high))
    return may


def _fragment_may_hold(fragment: Fragment, keys: Keys, fields: Sequence[Field]) -> bool:
    for index, field in enumerate(fields):
        known = fragment.bounds.get(field.id, FieldBounds())
        if known.min is not None and known.max is not None:
            low, high = pa.repeat(known.min, 1), pa.repeat(known.max, 1)
            if not keys.among(index, low, high)[0]:
                return False
    return True


def _one(column: pa.ChunkedArray) -> pa.Array:
    joined = column.combine_chunks()
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined


def _probe(
    view: View, reader: FragmentReader, needles: np.ndarray, fields: Sequence[Field], *, segmented: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Positions whose key has the hash of one of some ascending needles, and which needle."""
    if segmented and reader.fragment.keys is not None:
        return view.files.keys.find(reader.fragment.keys, needles)
    identity = _identity(reader.fragment, fields)
    if identity is not None:
        return view.files.keys.kept(identity, lambda: hashes_of(reader, fields)).find(needles)
    positions, which = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, reader.fragment.row_count, _MORSEL):
        stop = min(start + _MORSEL, reader.fragment.row_count)
        valid, hashes = _hashed(reader.read(list(fields), start, stop))
        needle, rows = equal_pairs(needles, hashes)
        positions.append(valid[rows] + start)
        which.append(needle)
    return np.concatenate(positions), np.concatenate(which)


def _identity(fragment: Fragment, fields: Sequence[Field]) -> Hashable | None:
    """What tells the hashes of a small fragment's keys from all others'; None if they aren't worth keeping.

    Without them, a writer of few rows at a time would read all small fragments again for each of its appends. The table's
    own files never change, and neither does the hash of a value.
    """
    ids = tuple(field.id for field in fields)
    files = [file for file in fragment.files if not file.field_ids.isdisjoint(ids)]
    if fragment.row_count > SEGMENT_ROWS or any(file.foreign for file in files):
        return None
    if not frozenset(ids) <= frozenset().union(*(file.field_ids for file in files)):
        return None  # a default, or a constant of the fragment
    return ids, tuple((file.path, file.row_start, file.row_stop) for file in files)


def hashes_of(reader: FragmentReader, fields: Sequence[Field]) -> KeyHashes:
    """The hashes of some columns of all rows of a fragment without nulls in them, from the columns themselves."""
    parts, rows = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for start in range(0, reader.fragment.row_count, _MORSEL):
        stop = min(start + _MORSEL, reader.fragment.row_count)
        valid, hashes = _hashed(reader.read(list(fields), start, stop))
        parts.append(hashes)
        rows.append(valid + start)
    keys = KeyHashes.of(np.concatenate(parts))
    return KeyHashes(keys.hashes, np.concatenate(rows)[keys.positions].astype(np.uint32))


def _hashed(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """Which rows have no null in their key, and the hashes of those."""
    valid = _without_nulls(batch)
    whole = len(valid) == batch.num_rows
    columns = batch.columns if whole else [column.take(pa.array(valid)) for column in batch.columns]
    return valid, hash_keys(columns)


def _without_nulls(batch: pa.RecordBatch) -> np.ndarray:
    valid = np.ones(batch.num_rows, bool)
    for column in batch.columns:
        if column.null_count:
            valid &= column.is_valid().to_numpy(zero_copy_only=False)
    return np.flatnonzero(valid)


class KeyGuard:
    """Keeps the keys of rows that are being written unique: among themselves, and against the table's live rows."""

    def __init__(
        self,
        readers: Sequence[FragmentReader],
        fields: Sequence[Field],
        hashes: np.ndarray,
        *,
        rows: np.ndarray | None = None,
    ) -> None:
        """The fragments of `readers` were written by this operation; `hashes` are those of the keys of their physical
        rows `rows` (counted through all of them; None: all rows) that are to be new in the table."""
        self._keys = WrittenKeys(readers, fields, hashes, rows)
        self._fields = fields
        self._checked: Snapshot | None = None

    @classmethod
    def of(cls, readers: Sequence[FragmentReader], fields: Sequence[Field]) -> Self:
        """A guard of all rows of fragments that others wrote: their keys are read once, and hashed."""
        parts = [np.empty(0, np.uint64)]
        for reader in readers:
            for start in range(0, reader.fragment.row_count, _MORSEL):
                stop = min(start + _MORSEL, reader.fragment.row_count)
                parts.append(hash_keys(reader.read(list(fields), start, stop).columns))
        return cls(readers, fields, np.concatenate(parts))

    def check_distinct(self) -> None:
        """Refuse keys that occur twice among the rows.

        Raises:
            InvalidInputError: names some.
        """
        ordered = np.sort(self._keys.hashes)
        again = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        del ordered
        for start in range(0, len(again), _VERIFIED):
            suspects = equal_pairs(again[start : start + _VERIFIED], self._keys.hashes)[1]
            # A key that is there millions of times shows in its first rows; else hashes meet too rarely to fill memory.
            self._check_values(suspects[:_VERIFIED])
            if len(suspects) > _VERIFIED:
                self._check_values(suspects)

    def _check_values(self, rows: np.ndarray) -> None:
        """Refuse rows, given in ascending order, that have equal keys."""
        columns = self._keys.take(rows)
        names = [f"k{index}" for index in range(len(columns))]
        table = pa.table([*columns, pa.array(rows)], names=[*names, "row"])
        counted = table.group_by(names).aggregate([("row", "min"), ("row", "max")])
        double = counted.filter(pc.not_equal(counted["row_min"], counted["row_max"])).sort_by("row_min")
        if double.num_rows:
            shown = self._shown([double[name] for name in names], double.num_rows)
            first, other = double["row_min"][0].as_py(), double["row_max"][0].as_py()
            raise InvalidInputError(
                f"{double.num_rows:,} primary keys occur more than once in the data: {shown}; the first one in the rows "
                f"{first:,} and {other:,}, counted from 0; nothing was written: keep one row of each"
            )

    def check(self, view: View) -> None:
        """Refuse keys that a live row of a head has. Only what is new since the last check is looked at.

        Raises:
            AlreadyExistsError: names some.
        """
        head = view.snapshot
        fragments: list[Fragment] | None = None
        last = self._checked
        if last is not None and not is_staged(last):
            if same(last, head):
                return
            between = difference(view.log, last, head)
            fragments = [*between.added, *(after for _, after in between.changed)]
        for keys in self._keys.blocks(_BLOCK):
            for found in find_keys(view, keys, fragments=fragments):
                shown = self._shown(keys.take(found.rows[:_SHOWN]), len(found.rows))
                raise AlreadyExistsError(
                    f"rows with these primary keys are in the table already: {shown}; nothing was written: use upsert to "
                    "replace them, or insert to leave them as they are"
                )
        self._checked = head

    def _shown(self, columns: Sequence[pa.Array], count: int) -> str:
        names = [field.name for field in self._fields]
        values = zip(*(column[:_SHOWN].to_pylist() for column in columns), strict=True)
        keys = ["(" + ", ".join(map("{}={!r:.80}".format, names, key)) + ")" for key in values]
        return ", ".join(keys) + (" …" if count > _SHOWN else "")
