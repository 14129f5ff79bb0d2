"""Compute a column over a table: a function over batches of its rows, written as files of that column alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from vectorlake.errors import InvalidInputError
from vectorlake.expr import Expr, parse_expression
from vectorlake.ids import NewId
from vectorlake.metadata.fragment import DataFile, Fragment, Layout
from vectorlake.plan import evolution
from vectorlake.plan.commit import FragmentUpdate
from vectorlake.plan.layout import column_groups
from vectorlake.plan.scan import COMPUTED
from vectorlake.schema import Field, describe
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.ingest import conform
from vectorlake.table.view import View, to_output
from vectorlake.table.writer import ColumnGroupWriter, unsupported

BatchFunction: TypeAlias = Callable[[pa.RecordBatch], Any]
"""Takes a batch of input columns, returns as many values: an Arrow or numpy array (rank 2 for vectors) or a list."""

Progress: TypeAlias = Callable[[int, int], None]
"""Told rows done and rows in all, now and then."""

BATCH_ROWS: Final = 8192


class Rows(StrEnum):
    """For which rows a column is computed."""

    ALL = "all"
    MISSING = "missing"


@dataclass(frozen=True)
class ColumnTask:
    """What to compute: `function` over `inputs` gives the values of `field`."""

    field: Field
    function: BatchFunction
    inputs: tuple[Field, ...]
    rows: Rows = Rows.ALL
    batch_rows: int = BATCH_ROWS


def as_function(view: View, definition: BatchFunction | str) -> tuple[BatchFunction, list[str] | None]:
    """A function over batches from a function or an SQL expression, with the columns it reads where they are known."""
    if callable(definition):
        return definition, None
    if not isinstance(definition, str):
        raise InvalidInputError(
            f"a column is computed by a function or an SQL expression, not by {definition!r}"
        )
    fields = [*view.snapshot.schema.fields, *COMPUTED.values()]
    expression: Expr = parse_expression(definition, pa.schema([field.to_storage() for field in fields]))
    return expression.evaluate, sorted(expression.columns())


def new_column_task(
    view: View,
    name: str,
    kind: pa.DataType | pa.Field,
    function: BatchFunction,
    *,
    inputs: Sequence[str] | None = None,
    default: object = None,
    nullable: bool = True,
    batch_rows: int = BATCH_ROWS,
) -> ColumnTask:
    """What it takes to compute a column that the view does not have.

    Raises:
        AlreadyExistsError: it has one of that name.
        NotFoundError: an unknown input.
    """
    base = view.snapshot
    grown, _ = evolution.add_field(base.schema, name, kind, next_id=base.next_field_id, default=default)
    field = grown.field(name)
    sources = tuple(view.select(None if inputs is None else list(inputs)))
    if not nullable:
        field = msgspec.structs.replace(field, nullable=False)
    return ColumnTask(field, function, sources, batch_rows=batch_rows)


def existing_column_task(
    view: View,
    name: str,
    function: BatchFunction,
    *,
    inputs: Sequence[str] | None = None,
    rows: str | Rows = Rows.MISSING,
    batch_rows: int = BATCH_ROWS,
) -> ColumnTask:
    """What it takes to compute a column of the view, from all other columns if no inputs are named.

    Raises:
        NotFoundError: an unknown column or input.
        InvalidInputError: `rows` is neither.
    """
    field = view.snapshot.schema.field(name)
    sources = tuple(
        source
        for source in view.select(None if inputs is None else list(inputs))
        if inputs is not None or source.id != field.id
    )
    try:
        which = Rows(rows)
    except ValueError as e:
        raise InvalidInputError(f"rows must be 'missing' or 'all', not {rows!r}") from e
    return ColumnTask(field, function, sources, which, batch_rows)


def needing(view: View, task: ColumnTask) -> list[Fragment]:
    """The fragments of the view for whose rows the column is to be computed."""
    return [fragment for fragment in view.fragments() if _needed(fragment, task)]


def compute(
    view: View, task: ColumnTask, *, new_id: NewId, progress: Progress | None = None
) -> list[FragmentUpdate]:
    """Write the column's files, one a fragment that needs it; nothing refers to them before a commit.

    Raises:
        InvalidInputError: the function returned another number of values than it was given rows, or values that do
            not fit; names the column and the row ids.
    """
    return compute_fragments(
        view,
        needing(view, task),
        task,
        new_id=new_id,
        progress=progress,
    )


def compute_fragments(
    view: View,
    fragments: Sequence[Fragment],
    task: ColumnTask,
    *,
    new_id: NewId,
    progress: Progress | None = None,
) -> list[FragmentUpdate]:
    """Write the column's files for some fragments of the view; as `compute`."""
    total = sum(fragment.row_count for fragment in fragments)
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        if progress:
            progress(done, total)

    if progress:
        progress(0, total)
    updates: list[FragmentUpdate] = []
    for fragment in fragments:
        reader = view.reader(fragment)
        updates.append(write_column(view, reader, task, _columns(reader, task, advance), new_id=new_id))
    view.store.sync_folders([file.path for update in updates for file in update.files])
    return updates


def _needed(fragment: Fragment, task: ColumnTask) -> bool:
    if task.rows is Rows.ALL or fragment.file_of(task.field.id) is None:
        return True
    known = fragment.bounds.get(task.field.id)
    return known is None or known.null_count is None or known.null_count > 0


def write_column(
    view: View, reader: FragmentReader, task: ColumnTask, columns: Iterable[pa.Array], *, new_id: NewId
) -> FragmentUpdate:
    """One file with the column's values for all physical rows of a fragment, given in batches."""
    stored = stored_field(task.field)
    schema = pa.schema([stored.to_storage()])
    (group,) = column_groups([stored], view.snapshot.properties, unsupported)
    writer = ColumnGroupWriter(view.store, group, new_id=new_id)
    try:
        for column in columns:
            writer.write(pa.RecordBatch.from_arrays([column], schema=schema))
        file, bounds = writer.close()
    except BaseException as e:
        writer.abort(e)
        raise
    return FragmentUpdate(reader.fragment.id, files=(file,), bounds=bounds)


def stored_field(field: Field) -> Field:
    """The field as its file holds it: deleted rows have null there, whatever the table says."""
    return msgspec.structs.replace(field, nullable=True)


def range_values(reader: FragmentReader, task: ColumnTask, start: int, stop: int) -> Iterator[pa.Array]:
    """The values for those of some physical rows that need one, in their order, batch by batch; writes nothing.

    Raises:
        InvalidInputError: as `compute`.
    """
    for low in range(start, stop, task.batch_rows):
        positions, _ = _needing_value(reader, task, low, min(low + task.batch_rows, stop))
        if len(positions):
            yield _values(reader, task, stored_field(task.field), positions)


def _needing_value(
    reader: FragmentReader, task: ColumnTask, start: int, stop: int
) -> tuple[np.ndarray, pa.Array | None]:
    """The positions for which values are computed, and what the column holds there now, if that counts."""
    live = reader.live(start, stop)
    positions = np.arange(start, stop) if live is None else live
    if task.rows is not Rows.MISSING or reader.fragment.file_of(task.field.id) is None:
        return positions, None
    present = reader.read([stored_field(task.field)], start, stop).column(0)
    missing = present.is_null().to_numpy(zero_copy_only=False)
    return positions[missing[positions - start]], present


def _columns(reader: FragmentReader, task: ColumnTask, advance: Callable[[int], None]) -> Iterator[pa.Array]:
    stored = stored_field(task.field)
    kind = stored.to_storage().type
    for start in range(0, reader.fragment.row_count, task.batch_rows):
        stop = min(start + task.batch_rows, reader.fragment.row_count)
        positions, present = _needing_value(reader, task, start, stop)
        column = _values(reader, task, stored, positions) if len(positions) else pa.nulls(0, kind)
        if len(positions) < stop - start:
            column = scattered(column, positions - start, stop - start, present)
        yield column
        advance(stop - start)


def _values(reader: FragmentReader, task: ColumnTask, stored: Field, positions: np.ndarray) -> pa.Array:
    """The function's values for some rows, checked."""
    fields = list(task.inputs)
    first, last = int(positions[0]), int(positions[-1])
    contiguous = len(positions) == last - first + 1
    inputs = reader.read(fields, first, last + 1) if contiguous else reader.take(fields, positions)
    where = f"computing column {task.field.name!r} for row ids {_span(reader.row_ids_at(positions))}"
    try:
        returned = task.function(to_output(inputs, fields))
    except Exception as e:
        e.add_note(where)
        raise
    array = as_array(returned, task.field, where)
    if len(array) != len(positions):
        raise InvalidInputError(
            f"{where}: the function was given {len(positions)} rows and returned {len(array)} values"
        )
    try:
        conformed = conform(pa.RecordBatch.from_arrays([array], names=[task.field.name]), [task.field])
    except InvalidInputError as e:
        raise InvalidInputError(f"{where}: {e}") from e
    return conformed.column(0).cast(stored.to_storage().type)


def _span(row_ids: np.ndarray) -> str:
    return f"{row_ids.min()} to {row_ids.max()}"


def as_array(values: Any, field: Field, where: str) -> pa.Array:
    """What a function returned, as one Arrow array.

    Raises:
        InvalidInputError: it can't be read as the column's type.
    """
    if isinstance(values, pa.ChunkedArray):
        return pa.concat_arrays(values.chunks) if values.num_chunks else pa.nulls(0, values.type)
    if isinstance(values, pa.Array):
        return values
    if isinstance(values, pa.RecordBatch | pa.Table) and values.num_columns == 1:
        return as_array(values.column(0), field, where)
    try:
        if isinstance(values, np.ndarray) and values.ndim == 2:
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        if isinstance(values, np.ndarray):
            return pa.array(values)
        return pa.array(values, type=field.to_storage().type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError) as e:
        kind = describe(field.type, field.logical)
        raise InvalidInputError(
            f"{where}: the function returned {type(values).__name__}, which is no {kind}: {e}"
        ) from e


def scattered(values: pa.Array, at: np.ndarray, length: int, present: pa.Array | None) -> pa.Array:
    """`values` at some positions of an array of `length`; elsewhere what is present, or null."""
    base = pa.nulls(length, values.type) if present is None else present
    indices = np.arange(length)
    indices[at] = length + np.arange(len(at))
    return pa.concat_arrays([base, values]).take(pa.array(indices))


def with_field(update: FragmentUpdate, field: Field, old_id: int) -> FragmentUpdate:
    """An update whose files hold `field`, after a newer head has given the column another id."""
    files: Sequence[DataFile] = [
        msgspec.structs.replace(file, layout=Layout((field,))) for file in update.files
    ]
    bounds = {
        field.id if field_id == old_id else field_id: known for field_id, known in update.bounds.items()
    }
    return FragmentUpdate(update.fragment_id, update.deletes, tuple(files), bounds)
