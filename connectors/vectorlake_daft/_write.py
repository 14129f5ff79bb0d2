"""Write a Daft frame into a table: staged by Daft's workers, committed once by the one that started them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from threading import Condition
from typing import Final

import pyarrow as pa
from daft import DataFrame
from daft.io.sink import DataSink, WriteResult
from daft.recordbatch.micropartition import MicroPartition
from daft.schema import Schema

from vectorlake import InvalidInputError, Lake, Table, VectorlakeError
from vectorlake.extend import (
    Destination,
    IntoNewTable,
    IntoTable,
    StagedRows,
    StageMode,
    TableLike,
    given_table,
)
from vectorlake_daft._types import created_schema, stored_table

ROWS: Final = 131_072
"""Rows that are staged at a time: Daft's own pieces may be of any size, and each that is staged becomes files."""

_RESULT: Final = pa.schema([("version", pa.int64()), ("rows", pa.int64())])


class Staging:
    """What this process has staged and is not being committed: Daft tells nobody when it gives up, and then lets
    threads of it finish what they are at."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._staged: list[StagedRows] = []
        self._running = 0
        self._given_up = False
        self._changed = Condition()

    def __reduce__(self) -> tuple[type[Staging], tuple[Destination]]:
        return Staging, (self._destination,)

    def stage(self, rows: pa.Table) -> StagedRows:
        """Stage some rows, unless the write was given up."""
        with self._changed:
            if self._given_up:
                raise CancelledError("the write was given up")
            self._running += 1
        try:
            staged = self._destination.stage(rows)
            self._staged.append(staged)
            return staged
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def keep(self) -> None:
        """Leave what was staged to a commit, which may have taken place even when it fails."""
        self._staged.clear()

    def give_up(self) -> None:
        """Stage nothing more, and remove what was staged, when the threads that are at it have finished."""
        with self._changed:
            self._given_up = True
            self._changed.wait_for(lambda: not self._running)
        self._destination.discard(self._staged)


class TableSink(DataSink[StagedRows]):
    """What Daft writes rows into."""

    def __init__(self, destination: Destination, name: str) -> None:
        self.destination = destination
        self.table_name = name
        self.staging = Staging(destination)

    def name(self) -> str:
        return f"vectorlake {self.table_name}"

    def schema(self) -> Schema:
        return Schema.from_pyarrow_schema(_RESULT)

    def write(self, micropartitions: Iterator[MicroPartition]) -> Iterator[WriteResult[StagedRows]]:
        for part in micropartitions:
            if not len(part):
                continue
            staged = self.staging.stage(stored_table(part.to_arrow()))
            yield WriteResult(staged, bytes_written=staged.nbytes, rows_written=staged.rows)

    def finalize(self, write_results: list[WriteResult[StagedRows]]) -> MicroPartition:
        parts = [result.result for result in write_results]
        self.staging.keep()
        table = self.destination.commit(parts)
        rows = sum(part.rows for part in parts)
        return MicroPartition.from_arrow(pa.table([[table.version], [rows]], schema=_RESULT))


def write(
    df: DataFrame,
    table: TableLike,
    mode: str | StageMode = StageMode.APPEND,
    *,
    storage_options: Mapping[str, str] | None = None,
) -> Table:
    """Write a Daft frame into a table, in one atomic commit; its rows are never all in memory.

    Args:
        df: its columns are matched by name. Embeddings, tensors and lists of the right length become vectors.
        table: a table, or the URI of its folder.
        mode: `"append"`, `"overwrite"` (replace all rows) or `"upsert"` (by primary key).
        storage_options: of a URI.

    Returns:
        The table, at the version written.

    Raises:
        InvalidInputError: an unknown mode, columns or values that don't fit, a primary key that is null or twice there.
        AlreadyExistsError: appended rows have primary keys that the table has.
        Exception: what Daft raises when the frame can't be computed. Nothing is committed then, and what this process
            has written is removed; what others have is an orphan for `collect_orphans`.
    """
    chosen = StageMode.parse(mode)
    handle = given_table(table, storage_options=storage_options)
    handle.transaction()  # refuses a handle that can't be written to, before any work is done
    _check_names(df, handle)
    _run(df, TableSink(IntoTable(handle.ref, chosen), handle.name))
    return handle.refresh()


def create_table(
    df: DataFrame,
    lake: Lake,
    name: str,
    *,
    types: Mapping[str, pa.DataType] | None = None,
    primary_key: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
) -> Table:
    """Create a table from a Daft frame. It appears with all of its rows, in one commit, or not at all.

    Args:
        df: embeddings and tensors of a fixed shape become vectors.
        lake: where.
        name: the table, `ns.items`.
        types: of columns that are to have another type, such as `{"vec": vectorlake.vector(384)}` for lists.
        primary_key: as for `Lake.create_table`.
        properties: likewise.

    Returns:
        The table, with the rows.

    Raises:
        AlreadyExistsError: there is a table of that name.
        InvalidInputError: columns and values that no table can hold, or `types` for columns that aren't there.
    """
    wanted = dict(types or {})
    schema = created_schema(df.schema().to_pyarrow_schema(), wanted)
    for column in wanted:
        if column not in schema.names:
            raise InvalidInputError(f"types names column {column!r}, which the frame does not have")
    new = IntoNewTable.plan(lake, name, schema, primary_key=primary_key, properties=properties)
    _run(df, TableSink(new, name))
    return lake.table(name)


def _run(df: DataFrame, sink: TableSink) -> None:
    """Compute a frame into a sink; what vectorlake says on a worker is raised as it is."""
    try:
        df.into_batches(ROWS).write_sink(sink)
    except BaseException as e:
        sink.staging.give_up()
        cause = e.__cause__
        if isinstance(cause, VectorlakeError):
            raise cause from None
        raise


def _check_names(df: DataFrame, table: Table) -> None:
    """Refuse columns that the table does not have before anything is computed; types are checked as rows come."""
    known = table.schema.names
    unknown = [name for name in df.column_names if name not in known]
    if unknown:
        raise InvalidInputError(
            f"the table has no column {unknown[0]!r}; its columns are {', '.join(known)}. Leave it out (exclude), or add "
            "it with add_column"
        )
