"""A computed column as a change to whatever head there is: its values follow the rows that others have moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vectorlake.errors import ConflictError
from vectorlake.ids import NewId
from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.snapshot import Snapshot, is_staged
from vectorlake.plan.commit import FragmentUpdate, updated_fragment
from vectorlake.schema import Field
from vectorlake.table.columns import (
    ColumnTask,
    Progress,
    compute,
    compute_fragments,
    scattered,
    stored_field,
    with_field,
    write_column,
)
from vectorlake.table.differ import difference
from vectorlake.table.follow import replaced_fields, same
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.view import View


@dataclass(frozen=True)
class ColumnOnHead:
    """The column's files for the fragments of some head."""

    updates: tuple[FragmentUpdate, ...]
    complete: bool
    """Every row that the head has has a value; others may have added or changed rows meanwhile."""


class ColumnChange:
    """The values of one column for the rows of one version, computed once and then fitted to newer heads.

    - A fragment in which others replaced the column or what it is computed from is computed again.
    - Rows that a compaction moved take their values along, by row id.
    - Rows that others changed or added get none: what was computed from their older values would be stale.
    """

    def __init__(
        self, view: View, task: ColumnTask, updates: Sequence[FragmentUpdate], *, new_id: NewId
    ) -> None:
        """`updates` hold the values for the rows of `view`, as `compute` or several workers wrote them."""
        self._view = view
        self._task = task
        self._new_id = new_id
        self.updates = tuple(updates)

    @classmethod
    def computed(
        cls, view: View, task: ColumnTask, *, new_id: NewId, progress: Progress | None = None
    ) -> ColumnChange:
        """The change, computed here and now."""
        return cls(view, task, compute(view, task, new_id=new_id, progress=progress), new_id=new_id)

    @property
    def field(self) -> Field:
        """The column."""
        return self._task.field

    def on(self, head: Snapshot, field: Field) -> ColumnOnHead:
        """The files for `head`, in which the column is `field` (another id may have been given to a new column).

        Raises:
            ConflictError: the values were computed inside a transaction, from rows that are not final.
        """
        base, task = self._view.snapshot, self._task
        if same(base, head):
            return ColumnOnHead(self._named(self.updates, field), complete=True)
        if is_staged(base):
            raise ConflictError(
                f"others have committed since column {field.name!r} was computed in this transaction; nothing was "
                "committed: refresh the table and run the transaction again"
            )
        between = difference(self._view.log, base, head)
        changed = {before.id: (before, after) for before, after in between.changed}
        removed = {fragment.id: fragment for fragment in between.removed}
        existing = any(known.id == task.field.id for known in base.schema.fields)
        relied = {source.id for source in task.inputs} | ({task.field.id} if existing else set())
        kept: list[FragmentUpdate] = []
        again: list[Fragment] = []
        moved: list[tuple[Fragment, FragmentUpdate]] = []
        for update in self.updates:
            if update.fragment_id in removed:
                moved.append((removed[update.fragment_id], update))
            elif update.fragment_id in changed and relied & replaced_fields(*changed[update.fragment_id]):
                again.append(changed[update.fragment_id][1])
            else:
                kept.append(update)
        view = View(head, self._view.log, self._view.files)
        kept += compute_fragments(view, again, task, new_id=self._new_id)
        values = _MovedValues(self._view, moved, task, new_id=self._new_id) if moved else None
        complete = True
        for fragment in between.added:
            # An old fragment that is back was restored, with other values than those that were computed from.
            moves = values if fragment.id >= base.next_fragment_id else None
            found = moves.update(view, fragment, existing=existing) if moves else None
            complete &= found is not None and found[1]
            kept += [found[0]] if found else []
        view.store.sync_folders([file.path for update in kept for file in update.files])
        return ColumnOnHead(self._named(kept, field), complete)

    def _named(self, updates: Sequence[FragmentUpdate], field: Field) -> tuple[FragmentUpdate, ...]:
        if field.id == self._task.field.id:
            return tuple(updates)
        return tuple(with_field(update, field, self._task.field.id) for update in updates)


class _MovedValues:
    """The computed values of rows whose fragments are gone, by row id."""

    def __init__(
        self,
        view: View,
        moved: Sequence[tuple[Fragment, FragmentUpdate]],
        task: ColumnTask,
        *,
        new_id: NewId,
    ) -> None:
        self._task = task
        self._new_id = new_id
        self._field = stored_field(task.field)
        self._since = view.snapshot.version
        self._readers: list[FragmentReader] = [
            view.reader(updated_fragment(fragment, update, self._since + 1)) for fragment, update in moved
        ]
        # Without deleted rows: an updated row's id is still at its old place too.
        live = [reader.all_live() for reader in self._readers]
        ids = [reader.row_ids_at(at) for reader, at in zip(self._readers, live, strict=True)]
        lengths = [len(part) for part in ids]
        together = np.concatenate(ids)
        order = np.argsort(together, kind="stable")
        self._ids = together[order]
        self._source = np.repeat(np.arange(len(ids), dtype=np.int32), lengths)[order]
        self._position = np.concatenate(live)[order]

    def update(self, view: View, fragment: Fragment, *, existing: bool) -> tuple[FragmentUpdate, bool] | None:
        """A file of the column for a fragment of `view`, and whether all of its live rows have values; None if none has.

        With `existing` the fragment's own values stay where there are none here.
        """
        reader, step = view.reader(fragment), self._task.batch_rows
        rows = reader.fragment.row_count
        slots, hit = self._find(reader.row_ids(0, rows))
        at = np.flatnonzero(hit)
        hit[at] = reader.versions_at(at) <= self._since
        live = np.ones(rows, bool)
        live[reader.deleted] = False
        if not (hit & live).any():
            return None

        def batches() -> Iterator[pa.Array]:
            for start in range(0, rows, step):
                stop = min(start + step, rows)
                here = np.flatnonzero(hit[start:stop])
                present = None
                if existing:
                    present = reader.read([self._field], start, stop).column(0)
                if not len(here):
                    yield (
                        pa.nulls(stop - start, self._field.to_storage().type) if present is None else present
                    )
                    continue
                yield scattered(self._gather(slots[start + here]), here, stop - start, present)

        return write_column(view, reader, self._task, batches(), new_id=self._new_id), bool(hit[live].all())

    def _find(self, row_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slots = np.minimum(np.searchsorted(self._ids, row_ids), len(self._ids) - 1)
        return slots, self._ids[slots] == row_ids

    def _gather(self, slots: np.ndarray) -> pa.Array:
        sources, positions = self._source[slots], self._position[slots]
        order = np.argsort(sources, kind="stable")
        parts: list[pa.Array] = []
        for source in np.unique(sources):
            chosen = positions[order][sources[order] == source]
            parts.append(self._readers[source].take([self._field], chosen).column(0))
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return pa.concat_arrays(parts).take(pa.array(back))
