"""Delete rows by filter: find their positions, write deletion vectors, and follow the fragments to a newer head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from pyroaring import BitMap64

from vectorlake.errors import ConflictError
from vectorlake.expr import Expr
from vectorlake.ids import NewId
from vectorlake.metadata.deletion import encode_deletes, to_bitmap
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.commit import Delta, FragmentUpdate
from vectorlake.plan.scan import fields_by_name
from vectorlake.table.follow import Followed, follow
from vectorlake.table.scan import MORSEL_ROWS
from vectorlake.table.view import View, find_fragments

FOLDER: Final = "deletes"


def matching_positions(view: View, predicate: Expr | None) -> dict[int, BitMap64]:
    """Fragment id → positions of live rows for which the predicate is true (of all live rows without one)."""
    fields = fields_by_name(view.snapshot.schema)
    found: dict[int, BitMap64] = {}
    for reader in view.readers(predicate):
        positions: list[np.ndarray] = []
        whole = [(0, reader.fragment.row_count)]
        for low, high in whole if predicate is None else reader.prune(predicate, fields):
            for start in range(low, high, MORSEL_ROWS):
                stop = min(start + MORSEL_ROWS, high)
                matched, _ = view.matches(reader, predicate, start, stop)
                positions.append(np.arange(start, stop) if matched is None else matched)
        together = np.concatenate(positions) if positions else np.empty(0, np.int64)
        if len(together):
            found[reader.fragment.id] = to_bitmap(together)
    return found


@dataclass(frozen=True)
class Deletions:
    """What deleting some rows of a snapshot changes in its fragments."""

    updates: tuple[FragmentUpdate, ...]
    removed: frozenset[int]
    """Fragments of which no row is left."""
    rows: int
    """Rows deleted that were live."""


def deletions(view: View, positions: Mapping[int, BitMap64], *, new_id: NewId) -> Deletions:
    """Write the deletion vectors that take these rows out of the view's snapshot, beside those that it has already.

    Raises:
        ConflictError: the snapshot lacks a fragment.
    """
    current = find_fragments(view.log, view.snapshot, set(positions))
    if missing := set(positions) - set(current):
        raise ConflictError(
            f"{len(missing)} of the fragments with rows to delete were rewritten by another writer in the meantime; "
            "nothing was deleted: read the table again and retry"
        )
    unions: dict[int, BitMap64] = {}
    gone: set[int] = set()
    deleted = 0
    for fragment_id, bitmap in positions.items():
        fragment = current[fragment_id]
        before = view.load_deletes(fragment.deletes) if fragment.deletes else BitMap64()
        union = before | bitmap
        deleted += len(union) - len(before)
        # A fragment over a foreign file stays even when empty: a sync with its source must know that its rows were deleted.
        if len(union) == fragment.row_count and not any(file.foreign for file in fragment.files):
            gone.add(fragment_id)
        elif len(union) > len(before):
            unions[fragment_id] = union
    path = f"{FOLDER}/{new_id()}.dv"
    data, vectors = encode_deletes(path, unions.values())
    if data:
        view.store.put(path, data)  # the name is ours alone
    updates = tuple(
        FragmentUpdate(fragment_id, deletes=vector)
        for fragment_id, vector in zip(unions, vectors, strict=True)
    )
    return Deletions(updates, frozenset(gone), deleted)


class Delete:
    """The deletion of the rows of one version for which a predicate is true, relative to whatever head there is."""

    def __init__(self, view: View, predicate: Expr, *, new_id: NewId) -> None:
        self._view = view
        self._predicate = predicate
        self._new_id = new_id
        self.positions = matching_positions(view, predicate)

    def __call__(self, head: Snapshot) -> Delta:
        """The change to `head`: rows that were moved are followed, rows that others deleted are done with, and if
        others changed any of them, or replaced what the predicate asks of, the predicate is asked again."""
        view = View(head, self._view.log, self._view.files)
        followed = follow(self._view, head, self.positions)
        names = self._predicate.columns()
        asked = {known.id for known in self._view.snapshot.schema.fields if known.name in names}
        if followed.changed or followed.written & asked:
            self._view = view
            self.positions = matching_positions(view, self._predicate)
            followed = Followed(self.positions)
        found = deletions(view, followed.positions, new_id=self._new_id)
        return Delta(
            "delete", updates=found.updates, removed=found.removed, summary={"deleted_rows": found.rows}
        )
