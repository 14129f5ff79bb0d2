"""Compute a column in parts, a fragment each, in other processes; one of them commits all parts as one version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from vectorlake.errors import InvalidInputError, NotFoundError
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
    range_values,
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
        return self._written(view, fragment_id, self._task(view, function), progress)

    def values(
        self, fragment_id: int, start: int, stop: int, function: BatchFunction | str
    ) -> Iterator[pa.Array]:
        """The values for those of a fragment's physical rows that need one, in order: a part of the work of `run`.

        Writes nothing; arguments and errors as for `run`. For functions so slow that a fragment is too much to lose.
        """
        view = self.table.open().view
        reader = view.reader(self._fragment(view, fragment_id))
        return range_values(reader, self._task(view, function), start, stop)

    def write(self, fragment_id: int, values: Iterable[pa.Array]) -> bytes:
        """What `run` does, with values that were computed before: what `values` gave for all of the fragment, in order.

        Raises:
            InvalidInputError: fewer or more values than rows that need one.
        """
        view = self.table.open().view
        replay = _Replay(iter(values))
        task = replace(self._task(view, replay), inputs=())
        part = self._written(view, fragment_id, task, None)
        replay.check_used_up()
        return part

    def _written(self, view: View, fragment_id: int, task: ColumnTask, progress: Progress | None) -> bytes:
        fragment = self._fragment(view, fragment_id)
        (update,) = compute_fragments(
            view, [fragment], task, new_id=view.files.context.new_id, progress=progress
        )
        written = Fragment(
            row_count=fragment.row_count, files=update.files, id=update.fragment_id, bounds=update.bounds
        )
        return encode_fragments([written])

    def _fragment(self, view: View, fragment_id: int) -> Fragment:
        found = find_fragments(view.log, view.snapshot, {fragment_id})
        if fragment_id not in found:
            raise NotFoundError(
                f"version {self.table.version} of {self.table.uri} has no fragment {fragment_id}"
            )
        return found[fragment_id]

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


class _Replay:
    """Stands for the function where its values are there already: gives as many as it is asked for rows."""

    def __init__(self, values: Iterator[pa.Array]) -> None:
        self._values = values
        self._rest: list[pa.Array] = []

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        taken: list[pa.Array] = []
        left = batch.num_rows
        while left:
            array = self._rest.pop() if self._rest else next(self._values, None)
            if array is None:
                raise InvalidInputError("there are fewer values than rows that need one")
            taken.append(array.slice(0, left))
            if len(array) > left:
                self._rest.append(array.slice(left))
            left -= len(taken[-1])
        return pa.concat_arrays(taken)

    def check_used_up(self) -> None:
        if self._rest or any(len(array) for array in self._values):
            raise InvalidInputError("there are more values than rows that need one")


def _never(batch: pa.RecordBatch) -> pa.Array:
    raise AssertionError("planning computes nothing")
