"""Compute a column in parts, a fragment each, in other processes; one of them commits all parts as one version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from vectorlake.errors import NotFoundError
from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.commit import FragmentUpdate
from vectorlake.table.column_change import ColumnChange
from vectorlake.table.columns import (
    BATCH_ROWS,
    BatchFunction,
    ColumnTask,
    Progress,
    Rows,
    as_function,
    compute_fragments,
    existing_column_task,
    needing,
    new_column_task,
)
from vectorlake.table.ref import TableRef
from vectorlake.table.staging import decode_fragments, encode_fragments
from vectorlake.table.view import View, find_fragments

if TYPE_CHECKING:
    from vectorlake.table.table import Table


@dataclass(frozen=True)
class ColumnWork:
    """The computation of one column over one version of a table. Picklable; the function goes beside it.

    `fragments()` says what there is to do, `run` does a part of it anywhere, `commit` makes the parts one version.
    Until then the table is as it was. Parts that are never committed are orphans, which `collect_orphans` removes.

    Attributes:
        table: the pinned version whose rows are computed.
        name: the column.
        type: of a column that is to be added; None for one that is there.
        inputs: the columns that the function is given; all (other) ones by default, or those that an SQL expression names.
        rows: of a column that is there: those where it is null, or all.
        batch_rows: rows a call of the function.
    """

    table: TableRef
    name: str
    type: pa.DataType | None = None
    inputs: tuple[str, ...] | None = None
    rows: str = Rows.MISSING
    batch_rows: int = BATCH_ROWS

    def fragments(self) -> list[tuple[int, int]]:
        """The fragments that have work, as (fragment id, physical rows).

        Raises:
            AlreadyExistsError: the column to be added is there.
            NotFoundError: the column to be filled in is not there, or an input.
        """
        view = self.table.open().view
        return [(fragment.id, fragment.row_count) for fragment in needing(view, self._task(view, _never))]

    def run(
        self, fragment_id: int, function: BatchFunction | str, *, progress: Progress | None = None
    ) -> bytes:
        """Compute the column for one fragment: writes one file, and returns what `commit` needs to know of it.

        Args:
            fragment_id: one of `fragments()`.
            function: over record batches of the inputs, or an SQL expression; as for `Table.add_column`.
            progress: called with (rows done, rows in all).

        Raises:
            NotFoundError: the version has no such fragment.
            InvalidInputError: the function returned the wrong number or type of values; names the row ids.
        """
        view = self.table.open().view
        found = find_fragments(view.log, view.snapshot, {fragment_id})
        if fragment_id not in found:
            raise NotFoundError(
                f"version {self.table.version} of {self.table.uri} has no fragment {fragment_id}"
            )
        task = self._task(view, function)
        (update,) = compute_fragments(
            view, [found[fragment_id]], task, new_id=view.files.context.new_id, progress=progress
        )
        rows = found[fragment_id].row_count
        return encode_fragments(
            [Fragment(row_count=rows, files=update.files, id=update.fragment_id, bounds=update.bounds)]
        )

    def commit(self, table: Table, parts: Iterable[bytes], function: BatchFunction | str) -> Snapshot:
        """Commit the parts as one version, fitted to what others have committed since.

        Args:
            table: a handle that can be written to; it moves to the new version.
            parts: what `run` returned. Rows of fragments without a part get no value.
            function: computes anew what others have changed the inputs of meanwhile.

        Returns:
            The snapshot committed; the pinned one if there are no parts.

        Raises:
            AlreadyExistsError: another writer added a column of that name.
            ConflictError: another writer changed the column's definition.
        """
        view = self.table.open().view
        updates = [
            FragmentUpdate(fragment.id, files=fragment.files, bounds=fragment.bounds)
            for part in parts
            for fragment in decode_fragments(part)
        ]
        task = self._task(view, function)
        change = ColumnChange(view, task, updates, new_id=view.files.context.new_id)
        if self.type is None:
            return table._commit_backfill(change)
        return table._commit_new_column(change, self.type, default=None, nullable=True)

    def _task(self, view: View, definition: BatchFunction | str) -> ColumnTask:
        function, used = as_function(view, definition)
        inputs: Sequence[str] | None = used if used is not None else self.inputs
        if self.type is None:
            return existing_column_task(
                view, self.name, function, inputs=inputs, rows=self.rows, batch_rows=self.batch_rows
            )
        return new_column_task(
            view, self.name, self.type, function, inputs=inputs, batch_rows=self.batch_rows
        )


def _never(batch: pa.RecordBatch) -> pa.Array:
    raise AssertionError("planning computes nothing")
