"""A change of rows as a commit that fits whatever head there is: prepared on a snapshot, and again if others meet it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from pyroaring import BitMap64

from vectorlake.errors import ConflictError, InvalidInputError, NotFoundError
from vectorlake.ids import NewId
from vectorlake.metadata.deletion import to_bitmap
from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.commit import Delta, FragmentUpdate
from vectorlake.plan.merge import Mode, choose
from vectorlake.schema import Field
from vectorlake.table.deletes import deletions
from vectorlake.table.follow import Followed, follow, same
from vectorlake.table.images import Hits, Values, cost_of, write_in_place
from vectorlake.table.view import View
from vectorlake.table.writer import discard


@dataclass(frozen=True)
class Prepared:
    """What a change of rows does to one snapshot; its files are written, and nobody refers to them."""

    view: View
    taken: Mapping[int, BitMap64] = field(default_factory=dict)
    """Rows that are deleted, because they go or because a new image replaces them."""
    added: tuple[Fragment, ...] = ()
    files: tuple[FragmentUpdate, ...] = ()
    """Columns written in place."""
    read: frozenset[int] = frozenset()
    """Fields whose old values were read or copied: values that others write there in the meantime are missed."""
    hit: Mapping[int, BitMap64] = field(default_factory=dict)
    """Rows whose columns were written in place."""
    seen: Mapping[int, BitMap64] = field(default_factory=dict)
    """Rows that stay as they are because they are there (insert-if-absent)."""
    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not (self.taken or self.added or self.files)


class Operation(Protocol):
    """What to do, by a rule that can be evaluated on any snapshot."""

    @property
    def name(self) -> str: ...

    def prepare(self, view: View) -> Prepared:
        """Decide on a snapshot, and write the files."""
        ...

    def holds(self, prepared: Prepared, head: View) -> bool:
        """Whether what was decided is still right on a newer head, apart from the rows taken (those are looked after)."""
        ...


class RowChange:
    """An operation as a `Build` for the commit loop; None if it has nothing to do."""

    def __init__(
        self, operation: Operation, view: View, *, new_id: NewId, prepared: Prepared | None = None
    ) -> None:
        """`view` is any of the table; without `prepared` the operation is evaluated on the head."""
        self._operation = operation
        self._view = view
        self._new_id = new_id
        self._prepared = prepared

    def __call__(self, head: Snapshot) -> Delta | None:
        prepared, positions = self._on(head)
        if prepared.empty:
            return None
        view = View(head, prepared.view.log, prepared.view.files)
        found = deletions(view, positions, new_id=self._new_id)
        return Delta(
            self._operation.name,
            added=prepared.added,
            updates=combined(found.updates, prepared.files),
            removed=found.removed,
            summary=prepared.summary,
        )

    def _on(self, head: Snapshot) -> tuple[Prepared, Mapping[int, BitMap64]]:
        """What is prepared, and where the rows taken are in the head; prepared for it if nothing is that fits."""
        known, view = self._prepared, View(head, self._view.log, self._view.files)
        if known is None:
            first = self._operation.prepare if same(self._view.snapshot, head) else self._again
            known = self._prepared = first(view)
        if same(known.view.snapshot, head):
            return known, known.taken
        fitted = self._fitted(known, view)
        if fitted is not None:
            return known, fitted
        discard(view.store, known.added)
        known = self._prepared = self._again(view)
        return known, known.taken

    def _again(self, view: View) -> Prepared:
        try:
            return self._operation.prepare(view)
        except (NotFoundError, InvalidInputError) as e:
            raise ConflictError(
                f"another writer has changed the table such that this {self._operation.name} no longer fits: {e}; "
                "nothing was written: refresh the table and retry"
            ) from e

    def _fitted(self, prepared: Prepared, head: View) -> Mapping[int, BitMap64] | None:
        """The rows taken, where they are in the head; None if the change has to be prepared again."""
        if prepared.empty or head.snapshot.schema != prepared.view.snapshot.schema:
            return None
        seen = follow(prepared.view, head.snapshot, prepared.seen) if prepared.seen else Followed()
        if seen.changed or seen.gone:
            return None
        touched = {**prepared.taken}
        for fragment, rows in prepared.hit.items():
            touched[fragment] = touched.get(fragment, BitMap64()) | rows
        followed = follow(prepared.view, head.snapshot, touched)
        if followed.changed or followed.gone or followed.written & prepared.read:
            return None
        if prepared.hit and dict(followed.positions) != touched:
            return None
        if not self._operation.holds(prepared, head):
            return None
        return prepared.taken if prepared.hit else followed.positions


def combined(
    deletes: Sequence[FragmentUpdate], files: Sequence[FragmentUpdate]
) -> tuple[FragmentUpdate, ...]:
    """One update a fragment, of its deletes and its files."""
    by_id = {update.fragment_id: update for update in files}
    merged = []
    for update in deletes:
        other = by_id.pop(update.fragment_id, None)
        merged.append(
            update
            if other is None
            else FragmentUpdate(update.fragment_id, update.deletes, other.files, other.bounds)
        )
    return (*merged, *by_id.values())


def in_place(
    view: View, hits: Sequence[Hits], fields: Sequence[Field], values: Values, *, mode: Mode, new_id: NewId
) -> tuple[FragmentUpdate, ...] | None:
    """The columns' new files, if writing them in place is asked for or cheaper; else None."""
    if not hits or not fields or choose(mode, cost_of(view, hits, fields)) is not Mode.COLUMNS:
        return None
    return tuple(write_in_place(view, hit, fields, values, new_id=new_id) for hit in hits)


def positions_of(hits: Sequence[Hits]) -> dict[int, BitMap64]:
    """Fragment id → positions hit."""
    found: dict[int, BitMap64] = {}
    for hit in hits:
        if len(hit.positions):
            fragment = hit.reader.fragment.id
            found[fragment] = found.get(fragment, BitMap64()) | to_bitmap(np.asarray(hit.positions))
    return found
