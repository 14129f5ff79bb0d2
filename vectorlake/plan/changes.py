"""Which rows changed between two versions: matching rows by row id, and comparing their values. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.metadata.fragment import Fragment
from vectorlake.schema import ROW_ID_FIELD_ID, storage_array

_EVERY_ID: Final = (0, np.iinfo(np.int64).max)
_FLOAT_BITS: Final = {pa.float16(): pa.int16(), pa.float32(): pa.int32(), pa.float64(): pa.int64()}


class ChangeType(StrEnum):
    """What happened to a row."""

    INSERT = "insert"
    DELETE = "delete"
    BEFORE = "update_preimage"
    """The row as it was before an update."""
    AFTER = "update_postimage"
    """The row as the update left it."""


class By(StrEnum):
    """What changes are told relative to."""

    COMMIT = "commit"
    """Each version in turn: a row that changed twice is told twice."""
    NET = "net"
    """The two ends only: what was done and undone in between is not told."""


def id_ranges(fragment: Fragment) -> list[tuple[int, int]]:
    """Ranges, ends included, that hold all row ids of a fragment; they may hold others."""
    first = fragment.first_row_id or 0
    implied = (first, first + fragment.row_count - 1)
    if fragment.file_of(ROW_ID_FIELD_ID) is None:
        return [implied]
    known = fragment.bounds.get(ROW_ID_FIELD_ID)
    if known is None or known.min is None or known.max is None:
        return [_EVERY_ID]
    explicit = (int(known.min.as_py()), int(known.max.as_py()))
    return [explicit] if known.null_count == 0 else [explicit, implied]


def may_share_ids(mine: Sequence[Fragment], theirs: Sequence[Fragment]) -> np.ndarray:
    """Which of some fragments may hold row ids that any of the others holds: a boolean each."""
    if not mine or not theirs:
        return np.zeros(len(mine), bool)
    ranges = np.array([found for fragment in theirs for found in id_ranges(fragment)], np.int64)
    ranges = ranges[np.argsort(ranges[:, 0], kind="stable")]
    reach = np.maximum.accumulate(ranges[:, 1])
    owners, own = [], []
    for index, fragment in enumerate(mine):
        for found in id_ranges(fragment):
            owners.append(index)
            own.append(found)
    low, high = np.array(own, np.int64).T
    before = np.searchsorted(ranges[:, 0], high, side="right")
    meets = (before > 0) & (reach[np.maximum(before - 1, 0)] >= low)
    shared = np.zeros(len(mine), bool)
    shared[np.array(owners)[meets]] = True
    return shared


class RowIndex:
    """Rows of several sources by row id: 21 bytes a row."""

    def __init__(self, ids: Sequence[np.ndarray], positions: Sequence[np.ndarray]) -> None:
        together = np.concatenate([np.empty(0, np.int64), *ids])
        order = np.argsort(together, kind="stable")
        self._ids = together[order]
        sources = np.repeat(np.arange(len(ids), dtype=np.int32), [len(part) for part in ids])
        self.sources = sources[order]
        self.positions = np.concatenate([np.empty(0, np.int64), *positions])[order]
        self._found = np.zeros(len(order), bool)

    def find(self, ids: np.ndarray) -> np.ndarray:
        """The slot of each row id, -1 where there is none."""
        if not len(self._ids):
            return np.full(len(ids), -1, np.int64)
        slots = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return np.where(self._ids[slots] == ids, slots, -1)

    def mark(self, ids: np.ndarray) -> None:
        """Remember these rows as found on the other side."""
        slots = self.find(ids)
        self._found[slots[slots >= 0]] = True

    def unmarked(self) -> Iterator[tuple[int, np.ndarray]]:
        """Source by source, the positions of the rows that were not marked, ascending."""
        slots = np.flatnonzero(~self._found)
        slots = slots[np.lexsort((self.positions[slots], self.sources[slots]))]
        sources, starts = np.unique(self.sources[slots], return_index=True)
        for source, part in zip(sources.tolist(), np.split(slots, starts[1:]), strict=False):
            yield source, self.positions[part]


def differing(before: pa.Array, after: pa.Array) -> np.ndarray:
    """Where two arrays of one type and length differ: a boolean a row.

    A null differs from every value and from no null. Floats are compared by their bits, so a NaN equals itself, and the
    two zeros differ.
    """
    before, after = storage_array(before), storage_array(after)
    one, other = _valid(before), _valid(after)
    both = one & other
    return np.asarray((one != other) | (both & _values_differ(before, after, both)))


def _values_differ(before: pa.Array, after: pa.Array, both: np.ndarray) -> np.ndarray:
    kind = before.type
    if pa.types.is_struct(kind):
        different = np.zeros(len(before), bool)
        for index in range(kind.num_fields):
            different |= differing(before.field(index), after.field(index))
        return different
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        children = (side.values.slice(side.offset * size, len(side) * size) for side in (before, after))
        inside = differing(*children).reshape(len(before), max(size, 1))
        return np.asarray(inside.any(axis=1)) if size else np.zeros_like(both)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        return _lists_differ(before, after, both)
    if bits := _FLOAT_BITS.get(kind):
        before, after = before.view(bits), after.view(bits)
    elif pa.types.is_duration(kind):
        before, after = before.view(pa.int64()), after.view(pa.int64())
    return np.asarray(pc.fill_null(pc.not_equal(before, after), False).to_numpy(zero_copy_only=False))


def _lists_differ(before: pa.Array, after: pa.Array, both: np.ndarray) -> np.ndarray:
    starts, lengths = _spans(before)
    other_starts, other_lengths = _spans(after)
    different = np.asarray(lengths != other_lengths)
    rows = np.flatnonzero(both & ~different)
    counts = lengths[rows]
    if not counts.sum():
        return different
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    one, other = (
        _elements(side, np.repeat(begin[rows], counts) + within)
        for side, begin in ((before, starts), (after, other_starts))
    )
    owners = np.repeat(rows, counts)
    different[owners[differing(one, other)]] = True
    return different


def _spans(lists: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Where each list's elements begin, and how many they are."""
    offsets = np.asarray(lists.offsets.to_numpy(zero_copy_only=False), np.int64)
    return offsets[:-1], np.diff(offsets)


def _elements(lists: pa.Array, indices: np.ndarray) -> pa.Array:
    taken = pa.array(indices)
    if pa.types.is_map(lists.type):
        parts = [lists.keys.take(taken), lists.items.take(taken)]
        return pa.StructArray.from_arrays(parts, names=["key", "value"])
    return lists.values.take(taken)


def _valid(array: pa.Array) -> np.ndarray:
    if not array.null_count:
        return np.ones(len(array), bool)
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False))
