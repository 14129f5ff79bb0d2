"""Write a Ray dataset into a table: staged by Ray's workers, committed once by the driver, or taken back whole."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import pyarrow as pa
import ray
from ray.data import Dataset
from ray.data.block import Block, BlockAccessor
from ray.data.datasource import Datasink, WriteResult
from ray.exceptions import RayTaskError

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
from vectorlake_ray._read import check_shared
from vectorlake_ray._register import Register
from vectorlake_ray._types import created_schema, stored_table

ROWS: Final = 131_072
"""Rows that a task stages at least: Ray's blocks may be of any size, and what a task stages becomes files."""

_ADVICE: Final = "\nFailed to "
"""Begins what Ray appends to messages."""

T = TypeVar("T")


class TableDatasink(Datasink[bytes | None]):
    """What Ray writes rows into. Tasks stage them; one commit makes all of them visible."""

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self._register: Any = None
        self._committing = False

    def get_name(self) -> str:
        return "Vectorlake"

    @property
    def min_rows_per_write(self) -> int | None:
        return ROWS

    def on_write_start(self, schema: pa.Schema | None = None) -> None:
        """On the driver, before the first task."""
        self._register = ray.remote(num_cpus=0)(Register).remote()

    def write(self, blocks: Iterable[Block], ctx: Any) -> bytes | None:
        """On a worker: the rows become files, of which the register knows before Ray does."""
        tables = [BlockAccessor.for_block(block).to_arrow() for block in blocks]
        rows = stored_table([table for table in tables if table.num_rows] or tables[:1])
        if not rows.num_rows:
            return None
        staged = self.destination.stage(rows)
        noted = False
        try:
            noted = self._noted(staged)
        finally:  # Ray may cancel the task just here
            if not noted:
                self.destination.discard([staged])
        return staged.to_bytes()

    def _noted(self, staged: StagedRows) -> bool:
        try:
            return bool(ray.get(self._register.add.remote(staged.to_bytes())))
        except ray.exceptions.RayError:
            return False  # the driver is gone, and nobody will commit

    def on_write_complete(self, write_result: WriteResult[bytes | None]) -> None:
        """On the driver, after the last task."""
        kept = [part for part in write_result.write_returns if part is not None]
        known = self._closed()
        self._committing = True
        self.destination.commit([StagedRows.from_bytes(part) for part in kept])
        # Of a task that Ray ran again, only the last run's result counts.
        self._discard([part for part in known if part not in set(kept)])

    def on_write_failed(self, error: Exception) -> None:
        """On the driver, after an error: what tasks have staged is removed."""
        if not self._committing:
            self._discard(self._closed())

    def _closed(self) -> list[bytes]:
        """What was staged. Without a single block Ray starts no write, and there is no register."""
        if self._register is None:
            return []
        staged: list[bytes] = ray.get(self._register.close.remote())
        return staged

    def _discard(self, parts: Sequence[bytes]) -> None:
        self.destination.discard([StagedRows.from_bytes(part) for part in parts])


def write(
    ds: Dataset,
    table: TableLike,
    mode: str | StageMode = StageMode.APPEND,
    *,
    storage_options: Mapping[str, str] | None = None,
    **write_args: Any,
) -> Table:
    """Write a Ray dataset into a table, in one atomic commit; its rows never pass through the driver.

    Args:
        ds: its columns are matched by name. Tensors (2-D numpy batches) and lists of the right length become vectors.
        table: a table, or the URI of its folder.
        mode: `"append"`, `"overwrite"` (replace all rows) or `"upsert"` (by primary key).
        storage_options: of a URI.
        write_args: what else `Dataset.write_datasink` takes: `concurrency`, `ray_remote_args`.

    Returns:
        The table, at the version written.

    Raises:
        InvalidInputError: an unknown mode, columns or values that don't fit, a primary key that is null or twice there.
        AlreadyExistsError: appended rows have primary keys that the table has.
        Exception: what Ray raises when the dataset can't be executed. Nothing is committed then, and what tasks have
            written is removed; what a worker that died has left is an orphan for `collect_orphans`.
    """
    handle = given_table(table, storage_options=storage_options)
    check_shared(handle.uri)
    handle.transaction()  # refuses a handle that can't be written to, before any work is done
    sink = TableDatasink(IntoTable(handle.ref, StageMode.parse(mode)))
    run_plainly(lambda: ds.write_datasink(sink, **write_args))
    return handle.refresh()


def create_table(
    ds: Dataset,
    lake: Lake,
    name: str,
    *,
    types: Mapping[str, pa.DataType] | None = None,
    primary_key: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
    **write_args: Any,
) -> Table:
    """Create a table from a Ray dataset. It appears with all of its rows, in one commit, or not at all.

    Args:
        ds: tensors become vectors.
        lake: where.
        name: the table, `ns.items`.
        types: of columns that are to have another type, such as `{"vec": vectorlake.vector(384)}` for lists.
        primary_key: as for `Lake.create_table`.
        properties: likewise.
        write_args: as for `write`.

    Returns:
        The table, with the rows.

    Raises:
        AlreadyExistsError: there is a table of that name.
        InvalidInputError: columns and values that no table can hold, or a dataset without rows and columns.
    """
    check_shared(lake.uri)
    schema = created_schema(_arrow_schema(ds), types or {})
    sink = TableDatasink(
        IntoNewTable.plan(lake, name, schema, primary_key=primary_key, properties=properties)
    )
    run_plainly(lambda: ds.write_datasink(sink, **write_args))
    return lake.table(name)


def _arrow_schema(ds: Dataset) -> pa.Schema:
    """The columns of a dataset; runs its first rows where Ray can't tell without.

    What a datasink is told when a write starts is of no use: those are the columns before the steps that Ray fuses with it.

    Raises:
        InvalidInputError: it has neither rows nor columns.
    """
    schema = run_plainly(ds.schema)
    if schema is None:
        raise InvalidInputError("the dataset has neither rows nor columns: create the table from a schema")
    base = schema.base_schema
    if isinstance(base, pa.Schema):
        return base
    batch: pa.Table = run_plainly(lambda: ds.take_batch(1, batch_format="pyarrow"))
    return batch.schema


def run_plainly(run: Callable[[], T]) -> T:
    """Run something on Ray; what vectorlake says on a worker is raised as it is, without what Ray says around it.

    A dataset that failed gives back the cores of its actors, even where the error is kept.
    """
    try:
        return run()
    except RayTaskError as e:
        _let_go(e)
        cause = e.cause
        if not isinstance(cause, VectorlakeError):
            raise
        cause.args = (str(cause).partition(_ADVICE)[0],)
        raise cause from None


def _let_go(error: BaseException) -> None:
    """Cut off the frames that an error passed through, and the errors before it: variables there hold the handles of actors,
    which live, and keep their cores, as long as anybody holds these. Ray's own cycles hold them too."""
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        one = chain.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            chain += [one.__context__, one.__cause__]
    gc.collect()
