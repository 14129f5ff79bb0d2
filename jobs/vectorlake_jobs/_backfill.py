"""Backfill: a column computed by a function or a stateful class over the rows that lack it, as a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Unpack

import pyarrow as pa

import vectorlake as vl
from vectorlake.errors import InvalidInputError
from vectorlake.extend import ColumnWork, TableRef
from vectorlake.jobs import JobRun, Plan
from vectorlake_jobs._columns import ColumnJob
from vectorlake_jobs._functions import Function
from vectorlake_jobs._start import RunOptions, start
from vectorlake_jobs._tables import identity, pinned

TASK_ROWS: Final = 32_768
BATCH_ROWS: Final = 1024


@dataclass(frozen=True)
class Backfill(ColumnJob):
    """A backfill of one column.

    Attributes:
        table: the table.
        named: the column.
        definition: computes it; SQL as text.
        type: of a column to be added; None for one that is there.
        inputs: what the function is given; None for all others.
        rows: `missing` or `all`.
        batch_rows: rows a call.
        rows_of_task: rows of a task.
    """

    table: TableRef
    named: str
    definition: Function | str
    type: pa.DataType | None
    inputs: tuple[str, ...] | None
    rows: str
    batch_rows: int
    rows_of_task: int

    @property
    def name(self) -> str:
        return "backfill"

    @property
    def parameters(self) -> Mapping[str, Any]:
        computed = self.definition if isinstance(self.definition, str) else self.definition.identity
        return {
            "table": identity(self.table),
            "column": self.named,
            "function": computed,
            "type": None if self.type is None else str(self.type),
            "inputs": None if self.inputs is None else list(self.inputs),
            "rows": self.rows,
            "batch_rows": self.batch_rows,
            "task_rows": self.rows_of_task,
        }

    @property
    def column(self) -> str:
        return self.named

    @property
    def task_rows(self) -> int:
        return self.rows_of_task

    def written(self) -> TableRef:
        return self.table

    def work(self, sources: Mapping[str, int], memory: int) -> ColumnWork:
        return ColumnWork(
            pinned(self.table, sources["written"]),
            self.named,
            type=self.type,
            inputs=self.inputs,
            rows=self.rows,
            batch_rows=self.batch_rows,
        )

    def function(self, sources: Mapping[str, int], threads: int) -> Callable[[pa.RecordBatch], Any] | str:
        return self.definition

    def summary(self) -> Mapping[str, str]:
        if isinstance(self.definition, str):
            return {"function": self.definition}
        return {"function": self.definition.name, "function_hash": self.definition.hash}

    def row_bytes(self) -> int:
        table = self.table.open()
        splits = table.scan(columns=None if self.inputs is None else list(self.inputs)).splits()
        rows = sum(split.rows for split in splits)
        return sum(split.nbytes() for split in splits) // max(rows, 1)


def backfill(
    table: vl.Table,
    column: str,
    function: str | Callable[..., Any] | None = None,
    *,
    sql: str | None = None,
    type: pa.DataType | None = None,
    inputs: Sequence[str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    rows: str = "missing",
    batch_size: int = BATCH_ROWS,
    task_rows: int = TASK_ROWS,
    **options: Unpack[RunOptions],
) -> JobRun | Plan:
    """Compute a column by a function, in tasks that resume, and commit it at once.

    Rows that others append meanwhile are left for the next backfill; rows that others move (by a compaction) or delete take
    their values along or need none; where others change what the function read, it is called again. The snapshot's summary
    names the function and a hash of its source.

    Args:
        table: the version of this handle is computed.
        column: to be filled in; it is added if it's not there, and then needs a `type`.
        function: an import path (`"module:name"`, `"file.py:name"`), a function, or a class. It is called with record
            batches of `inputs`, and returns as many values (an Arrow or numpy array, of rank 2 for vectors, or a list). A
            class is made once for each worker, with `arguments`, and its instance called: there is room for a model.
        sql: instead, an SQL expression.
        type: of a column that is not there.
        inputs: the columns that the function is given; all others by default.
        arguments: of a class, as JSON.
        rows: `"missing"`: those where the column is null, or `"all"`.
        batch_size: rows a call.
        task_rows: rows of a task, which is what is lost when a worker dies.
        options: of the run (`vectorlake.jobs.run_job`; `workers` says how many instances there are), and `dry_run`.

    Returns:
        What was done, or with `dry_run` the plan.

    Raises:
        InvalidInputError: the function returned the wrong number or type of values (names the row ids), can't be sent to
            workers, or was edited since the job was begun.
        NotFoundError: no such column, input or function.
    """
    if (function is None) == (sql is None):
        raise InvalidInputError("say how to compute the column: by a function or sql=")
    for name, value in (("batch_size", batch_size), ("task_rows", task_rows)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidInputError(f"{name} must be a positive integer, not {value!r}")
    definition = sql if function is None else Function.of(function, arguments)
    assert definition is not None
    there = column in table.schema.names
    if not there and type is None:
        raise InvalidInputError(f"there is no column {column!r}: give its type, and it is added")
    job = Backfill(
        table.ref,
        column,
        definition,
        None if there else type,
        None if inputs is None else tuple(inputs),
        rows,
        batch_size,
        task_rows,
    )
    return start(job, **options)
