"""Tables as Ray Data datasources: pinned when they are read, with projections, filters and limits pushed down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from ray.data import Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.data.expressions import Expr

from vectorlake import InvalidInputError, NotFoundError, Scan, Table, UnsupportedError
from vectorlake.extend import MetadataTable, Split, TableLike, Version, inspect, pinned_table

_LEAST_ROWS: Final = 8_192
_MOST_ROWS: Final = 1_048_576
_STUB: Final = pa.schema([("__vl_stub", pa.null())])
"""What a block without columns is given: Ray counts the rows of a block by its columns."""


def pinned(
    table: TableLike, version: Version | None = None, *, storage_options: Mapping[str, str] | None = None
) -> Table:
    """`pinned_table`, of a table that workers can open.

    Raises:
        UnsupportedError: the table is in the memory of this process, which Ray's workers can't see.
    """
    at = pinned_table(table, version, storage_options=storage_options)
    check_shared(at.uri)
    return at


def check_shared(uri: str) -> None:
    """Refuse a table or lake that workers can't open."""
    if uri.startswith("memory:"):
        raise UnsupportedError(
            f"{uri} is in the memory of this process, and Ray works in others: put the lake in a folder or an "
            "object store that all workers reach"
        )


def read(
    table: TableLike,
    columns: Sequence[str] | None = None,
    filter: str | pc.Expression | None = None,
    *,
    version: Version | None = None,
    with_row_id: bool = False,
    storage_options: Mapping[str, str] | None = None,
    **read_args: Any,
) -> Dataset:
    """A table as a Ray dataset, pinned to one version; what Ray needs of it is read when the dataset is executed.

    Args:
        table: a table, or the URI of its folder.
        columns: names, in the order wanted; all by default. `_row_id` and `_last_updated_version` may be named.
        filter: an SQL condition or a pyarrow expression, applied before Ray's own `filter(expr=…)`, which is pushed down
            too.
        version: a version number, tag, branch or time; by default the handle's own, of a URI the newest.
        with_row_id: add the column `_row_id` at the end.
        storage_options: of a URI.
        read_args: what else `ray.data.read_datasource` takes: `concurrency`, `override_num_blocks`, `num_cpus`, ….

    Raises:
        NotFoundError: no such table, version or column.
        InvalidInputError: a filter that does not parse or fit.
        UnsupportedError: a table in memory.
    """
    at = pinned(table, version, storage_options=storage_options)
    source = TableDatasource(at, columns, filter, with_row_id=with_row_id)
    dataset: Dataset = ray.data.read_datasource(source, **read_args)
    return dataset


def read_metadata(
    table: TableLike,
    what: str,
    *,
    version: Version | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> Dataset:
    """One of a table's metadata tables as a Ray dataset: `"snapshots"`, `"files"`, `"fragments"` or `"refs"`.

    Raises:
        NotFoundError: another name.
    """
    kind = MetadataTable.parse(what)
    view = pinned(table, version, storage_options=storage_options).view
    return ray.data.from_arrow(pa.Table.from_batches(inspect(view, kind), schema=kind.schema))


class TableDatasource(Datasource):
    """What Ray asks for the rows of a table at a version. Extension types show as what they are stored as."""

    def __init__(
        self,
        table: Table,
        columns: Sequence[str] | None = None,
        filter: str | pc.Expression | None = None,
        *,
        with_row_id: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._projection_map: dict[str, str] | None = None  # Ray's base class reads it, but does not set it
        self._table = table
        self._columns = None if columns is None else list(columns)
        self._filter = filter
        self._with_row_id = with_row_id
        self._all()  # says at once what is wrong with the arguments

    def get_name(self) -> str:
        return f"Vectorlake[{self._table.name}@{self._table.version}]"

    def supports_projection_pushdown(self) -> bool:
        return True

    def supports_predicate_pushdown(self) -> bool:
        return True

    def apply_predicate(self, predicate_expr: Expr) -> Datasource:
        """Take a filter over, or leave it to Ray (which is to return oneself): Ray does not apply it again."""
        narrowed = super().apply_predicate(predicate_expr)
        assert isinstance(narrowed, TableDatasource)
        try:
            narrowed._scan()
        except (InvalidInputError, NotFoundError, UnsupportedError):
            return self
        return narrowed

    def estimate_inmemory_data_size(self) -> int | None:
        return sum(split.nbytes() for split in self._scan().splits(_MOST_ROWS))

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """As many tasks as are asked for, if there are rows for them. Ray calls this often: no data file is opened."""
        scan = self._scan()
        schema = pa.schema([field.to_storage() for field in scan.fields]) if scan.fields else _STUB
        rows = scan.view.snapshot.num_rows
        physical = sum(split.rows for split in scan.splits(_MOST_ROWS))
        if parallelism > 1:
            splits = scan.splits(min(max(_LEAST_ROWS, -(-physical // parallelism)), _MOST_ROWS))
        else:
            splits = scan.splits(max(physical, 1))
        if not splits:
            return [_empty(schema)]
        exact = scan.predicate is None
        local = scan.view.store.local_path("") is not None
        tasks = []
        for split in splits:
            # Ray takes the number for the truth, and counts no further.
            count = rows if len(splits) == 1 else split.rows if rows == physical else None
            metadata = BlockMetadata(
                num_rows=count if exact else None,
                size_bytes=split.nbytes(),
                input_files=None,
                exec_stats=None,
            )
            run = partial(read_split, split, schema, limit=per_task_row_limit, threads=1 if local else None)
            tasks.append(ReadTask(run, metadata, schema=schema, per_task_row_limit=per_task_row_limit))
        return tasks

    def _all(self) -> Scan:
        return self._table.scan(self._columns, self._filter, with_row_id=self._with_row_id)

    def _scan(self) -> Scan:
        """The rows and columns that Ray asked for so far."""
        condition = None if self._predicate_expr is None else self._predicate_expr.to_pyarrow()
        asked = self._get_data_columns()
        scan = self._all()
        # The projection may leave out what the filter needs, so the filter goes first.
        narrowed = scan.to_dataset().scanner([field.name for field in scan.fields], condition).scan
        return narrowed if asked is None else narrowed.to_dataset().scanner(asked).scan


def read_split(
    split: Split, schema: pa.Schema, *, limit: int | None, threads: int | None
) -> Iterator[pa.Table]:
    """The blocks of a read task; on a worker."""
    scan = split.scan().replace(limit=limit, threads=threads)
    read = False
    for batch in scan.to_dataset().to_batches():
        read = True
        if schema is _STUB or schema.equals(_STUB):
            yield pa.table([pa.nulls(batch.num_rows)], schema=_STUB)
        else:
            yield pa.Table.from_batches([batch.cast(schema)])
    if not read:
        yield schema.empty_table()


def _empty(schema: pa.Schema) -> ReadTask:
    """The only task where there are no rows, so that the columns are known all the same."""
    metadata = BlockMetadata(num_rows=0, size_bytes=0, input_files=None, exec_stats=None)
    return ReadTask(lambda: [schema.empty_table()], metadata, schema=schema)
