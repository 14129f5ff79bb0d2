"""Which rows of a snapshot an index covers: a row's id is in a segment and its value is not newer than that. Pure.

The rule is the format specification's ("Indexes"): by row id, so that rows may move, and by the version of the indexed
column's value, so that other columns may change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NOWHERE = -1


@dataclass(frozen=True)
class Extent:
    """One fragment as coverage sees it.

    Attributes:
        rows: physical rows, deleted ones included.
        first_row_id: of the first row, where ids are implied by positions.
        row_ids: int64 [rows] where the fragment holds them; None where they are implied.
        deleted: positions of deleted rows, ascending.
        version: at which the column's values were written; None if no file holds the column.
        versions: int64 [rows], each row's own version, where the rows were moved with it; None where `version` counts.
        empty: no file holds the column, and it reads as null: there is nothing to search.
    """

    rows: int
    first_row_id: int
    row_ids: npt.NDArray[np.int64] | None
    deleted: npt.NDArray[np.int64]
    version: int | None
    versions: npt.NDArray[np.int64] | None = None
    empty: bool = False


@dataclass(frozen=True)
class Held:
    """What a segment says that it holds.

    Attributes:
        row_ids: int64 [slots], negative where a slot is empty; an id may have several slots.
        skipped: int64, ids of rows that it knows but has no slot for: their vector is null or can match nothing.
        version: whose values it holds.
    """

    row_ids: npt.NDArray[np.int64]
    skipped: npt.NDArray[np.int64]
    version: int


@dataclass(frozen=True)
class Placed:
    """Where a segment's slots are in a snapshot.

    Attributes:
        live: bool [slots], whether the slot's row is there with the value that was indexed, and no newer segment has it.
        fragment: int32 [slots], index of the extent, -1 where not live.
        position: int64 [slots], physical position in that fragment, -1 where not live.
        skipped: bool [skipped], the same of the rows without a slot.
        stale: rows (slots) that are there with a newer value, or are left to a newer segment.
    """

    live: npt.NDArray[np.bool_]
    fragment: npt.NDArray[np.int32]
    position: npt.NDArray[np.int64]
    skipped: npt.NDArray[np.bool_]
    stale: int


class RowMap:
    """The live rows of a snapshot by row id; rows are numbered through all fragments (*flat* positions)."""

    def __init__(self, extents: Sequence[Extent]) -> None:
        self._extents = extents
        rows = np.array([extent.rows for extent in extents], np.int64)
        self.offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(rows)])
        """Flat position of each fragment's first row, and the end."""
        self._alive = self._alive_rows()
        implied = [i for i, extent in enumerate(extents) if extent.row_ids is None]
        first = np.array([extents[i].first_row_id for i in implied], np.int64)
        order = np.argsort(first, kind="stable")
        self._first = first[order]
        self._implied = np.array(implied, np.int64)[order]
        self._explicit = self._explicit_rows()

    @property
    def rows(self) -> int:
        """Physical rows."""
        return int(self.offsets[-1])

    def alive(self, start: int, stop: int) -> npt.NDArray[np.bool_] | None:
        """Which flat positions in a range are not deleted; None for all."""
        return None if self._alive is None else self._alive[start:stop]

    def locate(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The flat position of the live row with each id, `NOWHERE` if there is none."""
        found = np.full(len(ids), NOWHERE, np.int64)
        if len(self._first):
            if len(self._first) == 1:
                at = np.zeros(1, np.int64)
            else:
                at = np.maximum(np.searchsorted(self._first, ids, "right") - 1, 0)
            fragment = self._implied[at]
            position = ids - self._first[at]
            hit = (position >= 0) & (position < (self.offsets[fragment + 1] - self.offsets[fragment]))
            np.copyto(found, self.offsets[fragment] + position, where=hit)
            if self._alive is not None:
                found[~self._alive[found] | (found < 0)] = NOWHERE
        held, flat = self._explicit
        if len(held):
            at = np.minimum(np.searchsorted(held, ids), len(held) - 1)
            hit = held[at] == ids
            found[hit] = flat[at[hit]]
        return found

    def fragment_of(self, flat: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """The index of the fragment of each flat position."""
        if len(self._extents) == 1:
            return np.zeros(len(flat), np.int32)
        return (np.searchsorted(self.offsets, flat, "right") - 1).astype(np.int32)

    def not_newer(
        self, flat: npt.NDArray[np.int64], fragment: npt.NDArray[np.int32], version: int
    ) -> npt.NDArray[np.bool_]:
        """Whether the values at some flat positions are of `version` or before."""
        old = np.array([e.version is not None and e.version <= version for e in self._extents], bool)
        if old.all():
            return np.ones(len(flat), bool)
        ok = old[fragment]
        for index, extent in enumerate(self._extents):
            if not old[index] and extent.versions is not None:
                here = np.flatnonzero(fragment == index)
                ok[here] = extent.versions[flat[here] - self.offsets[index]] <= version
        return ok

    def _alive_rows(self) -> npt.NDArray[np.bool_] | None:
        if not any(len(extent.deleted) for extent in self._extents):
            return None
        alive = np.ones(int(self.offsets[-1]), bool)
        for start, extent in zip(self.offsets.tolist(), self._extents, strict=False):
            alive[start + extent.deleted] = False
        return alive

    def _explicit_rows(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        ids: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
        flat: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
        for start, extent in zip(self.offsets.tolist(), self._extents, strict=False):
            if extent.row_ids is None:
                continue
            live = self.alive(start, start + extent.rows)
            at = np.arange(extent.rows) if live is None else np.flatnonzero(live)
            ids.append(extent.row_ids[at])
            flat.append(at + start)
        every, places = np.concatenate(ids), np.concatenate(flat)
        if (every[1:] < every[:-1]).any():
            order = np.argsort(every, kind="stable")
            return every[order], places[order]
        return every, places


def place(rows: RowMap, segments: Sequence[Held]) -> tuple[list[Placed], npt.NDArray[np.bool_]]:
    """Where the slots of each segment are, and bool [flat positions]: which rows some segment covers.

    A row that several segments hold is left to the newest one.
    """
    covered = np.zeros(rows.rows, bool)
    placed: dict[int, Placed] = {}
    order = sorted(range(len(segments)), key=lambda i: (segments[i].version, i), reverse=True)
    for index in order:
        held = segments[index]
        flat, fragment, live, stale = _held_rows(rows, held.row_ids, held.version, covered)
        nothing, _, skipped, replaced = _held_rows(rows, held.skipped, held.version, covered)
        covered[flat[live]] = True
        covered[nothing[skipped]] = True
        position = flat - rows.offsets[fragment]
        if not live.all():
            fragment[~live] = NOWHERE
            position[~live] = NOWHERE
        placed[index] = Placed(live, fragment, position, skipped, stale + replaced)
    return [placed[index] for index in range(len(segments))], covered


def _held_rows(
    rows: RowMap, ids: npt.NDArray[np.int64], version: int, covered: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.bool_], int]:
    flat = rows.locate(ids)
    there = flat >= 0
    if not len(flat) or not rows.rows:
        return flat, np.zeros(len(flat), np.int32), np.zeros(len(flat), bool), 0
    fragment = rows.fragment_of(np.maximum(flat, 0))
    live = there & rows.not_newer(flat, fragment, version) & ~covered[flat]
    return flat, fragment, live, int(there.sum() - live.sum())


def uncovered(
    rows: RowMap, extents: Sequence[Extent], covered: npt.NDArray[np.bool_]
) -> list[tuple[int, npt.NDArray[np.int64]]]:
    """(index of the extent, positions of its live rows that no segment covers), where there are any to be searched."""
    found: list[tuple[int, npt.NDArray[np.int64]]] = []
    for index, extent in enumerate(extents):
        if extent.empty:
            continue
        start, stop = int(rows.offsets[index]), int(rows.offsets[index + 1])
        left = ~covered[start:stop]
        alive = rows.alive(start, stop)
        positions = np.flatnonzero(left if alive is None else left & alive)
        if len(positions):
            found.append((index, positions.astype(np.int64)))
    return found
