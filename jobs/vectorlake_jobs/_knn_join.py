"""KNN join: the nearest rows of a table for each row of another one or of files, as a new table or as a list column."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pyarrow as pa

import vectorlake as vl
from vectorlake.errors import InvalidInputError
from vectorlake.extend import ColumnWork, Store, TableRef
from vectorlake.jobs import Done, Job, JobRun, Plan, Stage, Task, TaskResult, Work
from vectorlake_jobs._arrays import plain_array, plain_type, vector_size
from vectorlake_jobs._columns import ColumnJob
from vectorlake_jobs._neighbors import FOUND, Search
from vectorlake_jobs._queries import QUERY, AnyQueries, FileQueries, TableQueries, vector_column
from vectorlake_jobs._start import RunOptions, start
from vectorlake_jobs._tables import (
    NewTable,
    files_of,
    identity,
    pinned,
    staged_from_json,
    staged_json,
)

TASK_ROWS = 65_536
"""Query rows of a task, unless it's told otherwise."""


@dataclass(frozen=True)
class KnnJoin(Job):
    """A KNN join into a new table.

    Attributes:
        queries: whose neighbours; None for the table's own rows (a self-join).
        table: among whose rows.
        search: what is asked for each.
        query_column: the column of vectors of the queries.
        query_columns: further columns of the queries, to be carried along.
        into: the table to create.
        task_rows: query rows of a task.
    """

    queries: AnyQueries | None
    table: TableRef
    search: Search
    query_column: str
    query_columns: tuple[str, ...]
    into: NewTable
    task_rows: int = TASK_ROWS

    @property
    def name(self) -> str:
        return "knn-join"

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {
            "queries": None if self.queries is None else self.queries.identity,
            "table": identity(self.table),
            "search": self.search.parameters,
            "query_column": self.query_column,
            "query_columns": list(self.query_columns),
            "into": self.into.identity,
            "task_rows": self.task_rows,
        }

    def home(self) -> Store:
        return self.into.home()

    def plan(self) -> Plan:
        self.into.check_free()
        source = self._source()
        sources = {"table": self.table.version}
        if source.version is not None:
            sources["queries"] = source.version
        self._schema(self.table.open(), source.schema)  # refuses what can't be before anything runs
        return Plan(sources, Stage("join", source.tasks(self._read_columns(), self.task_rows)))

    def run(self, task: Task, work: Work) -> TaskResult:
        source = self._source()
        table = pinned(self.table, work.sources["table"]).open()
        schema = self._schema(table, source.schema)
        staged = self.into.stage(schema, self._joined(task, work, table, schema), work)
        return TaskResult({"staged": staged_json(staged)}, files_of(staged))

    def commit(self, done: Done) -> Mapping[str, Any]:
        table = pinned(self.table, done.sources["table"]).open()
        staged = [staged_from_json(value["staged"]) for value in done.values]
        schema = self._schema(table, self._source().schema)
        made = self.into.create(schema, staged, done.job_id, {"joined_version": table.version})
        return {"table": made.name, "version": 1, "rows": sum(part.rows for part in staged)}

    def _source(self) -> AnyQueries:
        return TableQueries(self.table) if self.queries is None else self.queries

    def _read_columns(self) -> list[str]:
        return [self.query_column, *(name for name in self.query_columns if name != self.query_column)]

    def _joined(self, task: Task, work: Work, table: vl.Table, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        source, columns = self._source(), self._read_columns()
        sources = {"queries": work.sources.get("queries", work.sources["table"])}
        dimension = _size_of(source.schema.field(self.query_column).type)
        rows = self.search.batch_rows(dimension, work.memory)
        for batch in source.read(task, columns, sources, rows=rows):
            ids = batch.column(0).to_numpy()
            own = ids if self.queries is None else None
            vectors = batch.column(1)
            found = self.search.of(table, vectors, own=own, threads=work.threads)
            at = found.column(QUERY)
            carried = [batch.column(name).take(at.combine_chunks()) for name in self.query_columns]
            answers = [found.column(name) for name in found.column_names[1:]]
            numbers = pa.array(ids[at.to_numpy()])
            joined = pa.Table.from_arrays([numbers, *carried, *answers], schema=schema)
            yield from joined.combine_chunks().to_batches()

    def _schema(self, table: vl.Table, queries: pa.Schema) -> pa.Schema:
        """Of the result: the query, what it carries along, then the answer as `knn` gives it."""
        empty = self.search.of(table, _no_vectors(table, self.search.column), own=None, threads=1).schema
        fields = [empty.field(0)]
        for name in self.query_columns:
            if name not in queries.names:
                raise InvalidInputError(f"the queries have no column {name!r}")
            if name in FOUND:
                raise InvalidInputError(
                    f"a column of the queries is called {name!r}, as one of the result is: rename it first"
                )
            fields.append(queries.field(name).with_nullable(True).remove_metadata())
        taken = set(self.query_columns)
        for position in range(1, len(empty)):
            field = empty.field(position)
            fields.append(field.with_name(f"{field.name}_right") if field.name in taken else field)
        return pa.schema([field.remove_metadata() for field in fields])


@dataclass(frozen=True)
class Neighbors:
    """The list of neighbours of each row of a batch: the function by which a list column is computed."""

    table: TableRef
    search: Search
    query_column: str
    own: bool
    threads: int

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        table = self.table.open()
        vectors = batch.column(self.query_column)
        own = batch.column("_row_id").to_numpy() if self.own else None
        found = self.search.of(table, vectors, own=own, threads=self.threads)
        counts = np.bincount(found.column(QUERY).to_numpy(), minlength=batch.num_rows)
        offsets = np.zeros(batch.num_rows + 1, np.int32)
        np.cumsum(counts, out=offsets[1:])
        items = found.select(["row_id", "distance", *found.column_names[4:]]).combine_chunks()
        kind = list_type(items.schema).value_type
        values = pa.StructArray.from_arrays(
            [plain_array(items.column(name)) for name in items.column_names], fields=list(kind)
        )
        return pa.ListArray.from_arrays(pa.array(offsets), values, mask=vectors.is_null())


@dataclass(frozen=True)
class KnnColumn(ColumnJob):
    """A KNN join into a list column of the query table.

    Attributes:
        queries: the table that gets the column; None for `table` itself (a self-join).
        table: among whose rows neighbours are looked for.
        list_column: the column; filled anew if it's there.
    """

    queries: TableRef | None
    table: TableRef
    search: Search
    query_column: str
    list_column: str
    rows_of_task: int = TASK_ROWS

    @property
    def column(self) -> str:
        return self.list_column

    @property
    def name(self) -> str:
        return "knn-join"

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {
            "queries": None if self.queries is None else identity(self.queries),
            "table": identity(self.table),
            "search": self.search.parameters,
            "query_column": self.query_column,
            "as_column": self.list_column,
            "task_rows": self.rows_of_task,
        }

    @property
    def task_rows(self) -> int:
        return self.rows_of_task

    def written(self) -> TableRef:
        return self.table if self.queries is None else self.queries

    def sources(self) -> dict[str, int]:
        return {"written": self.written().version, "table": self.table.version}

    def row_bytes(self) -> int:
        return 4 * _size_of(self.written().open().schema.field(self.query_column).type)

    def function(self, sources: Mapping[str, int], threads: int) -> Neighbors:
        table = pinned(self.table, sources["table"])
        return Neighbors(table, self.search, self.query_column, self.queries is None, threads)

    def work(self, sources: Mapping[str, int], memory: int) -> ColumnWork:
        written = pinned(self.written(), sources["written"])
        target = pinned(self.table, sources["table"]).open()
        schema = written.open().schema
        empty = self.search.of(target, _no_vectors(target, self.search.column), own=None, threads=1)
        items = empty.select(["row_id", "distance", *empty.column_names[4:]])
        there = self.column in schema.names
        inputs = (self.query_column, "_row_id") if self.queries is None else (self.query_column,)
        return ColumnWork(
            written,
            self.column,
            type=None if there else list_type(items.schema),
            inputs=inputs,
            rows="all",
            batch_rows=self.search.batch_rows(_size_of(schema.field(self.query_column).type), memory),
        )


def list_type(items: pa.Schema) -> pa.DataType:
    """The type of a list column of neighbours."""
    return pa.list_(pa.struct([pa.field(field.name, plain_type(field.type)) for field in items]))


def _size_of(kind: pa.DataType) -> int:
    """How many numbers a query vector has, or for lists a guess, by which the size of batches is chosen."""
    return vector_size(kind) or 1024


def _no_vectors(table: vl.Table, column: str | None) -> pa.Array:
    name = vector_column(table.schema, column, f"table {table.name!r}")
    return pa.array([None], pa.list_(pa.float32(), _size_of(table.schema.field(name).type)))


def knn_join(
    queries: vl.Table | str | os.PathLike[str] | None,
    table: vl.Table,
    *,
    into: str | None = None,
    lake: vl.Lake | None = None,
    as_column: str | None = None,
    query_column: str | None = None,
    query_columns: Sequence[str] = (),
    k: int | None = 10,
    column: str | None = None,
    metric: str | None = None,
    filter: str | None = None,
    columns: Sequence[str] = (),
    mode: str | None = None,
    index: str | None = None,
    nprobe: int | None = None,
    ef: int | None = None,
    target_recall: float | None = None,
    pool: int | None = None,
    max_distance: float | None = None,
    task_rows: int = TASK_ROWS,
    **options: Unpack[RunOptions],
) -> JobRun | Plan:
    """Find the `k` nearest rows of a table for each of many queries, in tasks that resume; neither side need fit memory.

    Args:
        queries: a table, or a Parquet or Arrow file or folder of them; None for the table's own rows, each of which then
            finds its nearest other rows.
        table: among whose rows neighbours are looked for, at the version of this handle.
        into: creates a table of this name in `lake`, with a row for each pair: `query` (the query's row id, or its number
            in the files), `query_columns`, `rank`, `row_id`, `distance`, `columns`.
        lake: see there.
        as_column: instead, a column of the query table: for each row a list of structs of `row_id`, `distance`, `columns`;
            null where there is no vector. Rows that others append meanwhile get none.
        query_column: the column of vectors of the queries; may be left out if there is one only.
        query_columns: further columns of the queries for the new table.
        k: and the arguments after it: as for `Table.knn`.
        task_rows: query rows of a task. An exact search reads the table once for each task.
        options: of the run (`vectorlake.jobs.run_job`), and `dry_run`.

    Returns:
        What was done, or with `dry_run` the plan.

    Raises:
        InvalidInputError: whatever can't be; nothing was written.
        AlreadyExistsError: there is a table of that name.
        ConflictError: a file of queries was changed meanwhile.
    """
    if (into is None) == (as_column is None):
        raise InvalidInputError(
            "say where the result goes: into= a new table, or as_column= of the query table"
        )
    search = Search(
        k, column, metric, filter, tuple(columns), mode, index, nprobe, ef, target_recall, pool, max_distance
    )
    source = _queries(queries)
    given = table.schema if source is None else source.schema
    what = f"table {table.name!r}" if source is None else "the queries"
    named = vector_column(given, column if source is None and query_column is None else query_column, what)
    job: Job
    if into is not None:
        if lake is None:
            raise InvalidInputError("say in which lake the new table is to be: lake=")
        job = KnnJoin(
            source, table.ref, search, named, tuple(query_columns), NewTable.of(lake, into), task_rows
        )
    else:
        assert as_column is not None
        if isinstance(source, FileQueries):
            raise InvalidInputError(
                "files get no column: the queries must be a table, or the result go into= one"
            )
        if query_columns:
            raise InvalidInputError("query_columns are for a new table: the query table has them already")
        job = KnnColumn(
            None if source is None else source.table, table.ref, search, named, as_column, task_rows
        )
    return start(job, **options)


def _queries(queries: vl.Table | str | os.PathLike[str] | None) -> AnyQueries | None:
    if queries is None:
        return None
    if isinstance(queries, vl.Table):
        return TableQueries(queries.ref)
    return FileQueries(os.path.abspath(queries))
