"""Deduplication: groups of duplicate rows as a column, or a new table that keeps one row of each group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Unpack

import numpy as np
import pyarrow as pa

import vectorlake as vl
from vectorlake.errors import InvalidInputError
from vectorlake.extend import ROW_ID, ColumnWork, Store, TableRef
from vectorlake.jobs import Done, Job, JobRun, Plan, Stage, Task, TaskResult, Work, commit_once
from vectorlake_jobs._arrays import load, save
from vectorlake_jobs._columns import column_parts, column_result
from vectorlake_jobs._duplicates import EqualKeys, Likeness, NearVectors, SimilarTexts, check_likeness
from vectorlake_jobs._fit import TASK_ROWS
from vectorlake_jobs._forest import Ids, components
from vectorlake_jobs._queries import vector_column
from vectorlake_jobs._start import RunOptions, start
from vectorlake_jobs._tables import (
    NewTable,
    files_of,
    identity,
    pinned,
    split_of,
    split_tasks,
    staged_from_json,
    staged_json,
)

_FIND: Final = "find"
_WRITE: Final = "write"
_GROUPS: Final = "groups.npz"


@dataclass(frozen=True)
class Dedup(Job):
    """Find duplicates in two stages: pairs, then what is written of their groups.

    Attributes:
        table: whose rows.
        likeness: which are duplicates.
        as_column: the column of groups; or
        into: the table of the rows that are kept.
        task_rows: rows of a task.
    """

    table: TableRef
    likeness: Likeness
    as_column: str | None
    into: NewTable | None
    task_rows: int

    @property
    def name(self) -> str:
        return "dedup"

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {
            "table": identity(self.table),
            **self.likeness.parameters,
            "as_column": self.as_column,
            "into": None if self.into is None else self.into.identity,
            "task_rows": self.task_rows,
        }

    def home(self) -> Store:
        return self.table.open().store if self.into is None else self.into.home()

    def plan(self) -> Plan:
        if self.into is not None:
            self.into.check_free()
        table = self.table.open()
        check_likeness(table, self.likeness)
        tasks = split_tasks(table.scan([ROW_ID, *self.likeness.columns]).splits(self.task_rows))
        return Plan({"table": self.table.version}, Stage(_FIND, tasks))

    def run(self, task: Task, work: Work) -> TaskResult:
        table = pinned(self.table, work.sources["table"])
        if work.stage.name == _FIND:
            return TaskResult({"found": self.likeness.find(task, table, work)})
        groups = load(work.scratch, _GROUPS)
        if self.into is None:
            part = self._column(work.sources).run(int(task.id), Groups(groups["ids"], groups["groups"]))
            return column_result(part)
        dropped = groups["ids"][groups["ids"] != groups["groups"]]
        schema = table.open().schema
        staged = self.into.stage(schema, _kept(task, table, schema, dropped), work)
        return TaskResult({"staged": staged_json(staged)}, files_of(staged))

    def next_stage(self, done: Done) -> Stage | None:
        if done.stages[-1].stage.name == _WRITE:
            return None
        table = pinned(self.table, done.sources["table"])
        pairs = self.likeness.link([value["found"] for value in done.values], table, done)
        ids, groups = components(*pairs)
        save(done.scratch, _GROUPS, ids=ids, groups=groups)
        if self.into is None:
            tasks = tuple(
                Task(str(number), {}, rows) for number, rows in self._column(done.sources).fragments()
            )
        else:
            tasks = split_tasks(table.open().scan().splits(self.task_rows))
        return Stage(_WRITE, tasks)

    def commit(self, done: Done) -> Mapping[str, Any]:
        source = pinned(self.table, done.sources["table"])
        known = load(done.scratch, _GROUPS)
        report = _report(source.open(), known["ids"], known["groups"])
        if self.into is not None:
            staged = [staged_from_json(value["staged"]) for value in done.values]
            summary = {"deduplicated_version": source.version, "dropped_rows": report["duplicates"]}
            made = self.into.create(source.open().schema, staged, done.job_id, summary)
            return {"table": made.name, "version": 1, "kept": sum(part.rows for part in staged), **report}
        table = commit_once(source.open_head(), done.job_id, since=source.version)
        function = Groups(known["ids"], known["groups"])
        snapshot = self._column(done.sources).commit(table, column_parts(done.values), function)
        return {"table": table.name, "version": snapshot.version, "column": self.as_column, **report}

    def _column(self, sources: Mapping[str, int]) -> ColumnWork:
        assert self.as_column is not None
        table = pinned(self.table, sources["table"])
        there = self.as_column in table.open().schema.names
        kind = None if there else pa.int64()
        return ColumnWork(table, self.as_column, type=kind, inputs=(ROW_ID,), rows="all")


@dataclass(frozen=True)
class Groups:
    """The group of each row of a batch: the function by which the column is computed."""

    ids: Ids
    groups: Ids

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        rows = batch.column(ROW_ID).to_numpy()
        if not len(self.ids):
            return pa.nulls(len(rows), pa.int64())
        places = np.minimum(np.searchsorted(self.ids, rows), len(self.ids) - 1)
        return pa.array(self.groups[places], mask=self.ids[places] != rows)


def _kept(task: Task, table: TableRef, schema: pa.Schema, dropped: Ids) -> Iterator[pa.RecordBatch]:
    for batch in split_of(task, table, [*schema.names, ROW_ID]).to_batches():
        kept = ~np.isin(batch.column(len(schema)).to_numpy(), dropped)
        yield pa.RecordBatch.from_arrays(batch.filter(pa.array(kept)).columns[:-1], schema=schema)


def _report(table: vl.Table, ids: Ids, groups: Ids) -> dict[str, Any]:
    """What was found: rows, groups, duplicates (rows besides the first of each group), and the largest groups."""
    found, sizes = np.unique(groups, return_counts=True)
    largest = np.argsort(-sizes, kind="stable")[:10]
    return {
        "rows": table.count(),
        "groups": len(found),
        "duplicates": int(len(ids) - len(found)),
        "largest": [[int(found[at]), int(sizes[at])] for at in largest],
    }


def dedup(
    table: vl.Table,
    *,
    by: str = "vector",
    column: str | None = None,
    keys: Sequence[str] = (),
    max_distance: float | None = None,
    metric: str = "cosine",
    mode: str | None = None,
    threshold: float = 0.8,
    shingle: int = 3,
    as_column: str | None = None,
    into: str | None = None,
    lake: vl.Lake | None = None,
    task_rows: int = TASK_ROWS,
    **options: Unpack[RunOptions],
) -> JobRun | Plan:
    """Find groups of duplicate rows, in tasks that resume; the table need not fit memory.

    A group is a connected component: a row is in it if it is a duplicate of any other one of it. Its name is the lowest row
    id of it, which is the row that is kept.

    Args:
        table: whose rows; at the version of this handle.
        by: `"vector"` (at most `max_distance` apart), `"text"` (a Jaccard similarity of at least `threshold` of their
            shingles, by MinHash and LSH) or `"key"` (the same values in `keys`).
        column: of vectors or texts; may be left out if there is one of them.
        keys: columns.
        max_distance: as `metric` measures (cosine: 1 - similarity; l2: squared).
        metric: of vectors: `"cosine"`, `"l2"`, `"dot"` or `"hamming"`.
        mode: `"exact"`, or `"index"` for candidates of a vector index, as for `Table.knn`.
        threshold: see `by`.
        shingle: words of a shingle.
        as_column: an int64 column for the group of each row: null for rows without a duplicate, or that have no value to
            compare.
        into: instead, creates a table of this name in `lake` with one row of each group, and all rows of no group.
        task_rows: rows of a task.
        options: of the run (`vectorlake.jobs.run_job`), and `dry_run`.

    Returns:
        What was done; its outcome reports rows, groups, duplicates and the ten largest groups. With `dry_run`, the plan.

    Raises:
        InvalidInputError: whatever can't be; nothing was written.
    """
    if (into is None) == (as_column is None):
        raise InvalidInputError("say where the result goes: as_column= of the table, or into= a new table")
    if into is not None and lake is None:
        raise InvalidInputError("say in which lake the new table is to be: lake=")
    likeness: Likeness
    if by == "vector":
        if max_distance is None:
            raise InvalidInputError(
                "say how far duplicates may be apart: max_distance=, such as 0.05 by cosine"
            )
        named = vector_column(table.schema, column, f"table {table.name!r}")
        likeness = NearVectors(named, float(max_distance), metric, mode)
    elif by == "text":
        if not 0 < threshold <= 1 or shingle < 1:
            raise InvalidInputError(
                f"threshold must be above 0 and at most 1, and shingle at least 1, not {threshold!r} and {shingle!r}"
            )
        likeness = SimilarTexts(_text_column(table, column), threshold, shingle)
    elif by == "key":
        if not keys or isinstance(keys, str):
            raise InvalidInputError(f"by='key' needs keys=, a list of columns, not {keys!r}")
        likeness = EqualKeys(tuple(keys))
    else:
        raise InvalidInputError(f"by must be 'vector', 'text' or 'key', not {by!r}")
    check_likeness(table, likeness)
    place = None if into is None or lake is None else NewTable.of(lake, into)
    return start(Dedup(table.ref, likeness, as_column, place, task_rows), **options)


def _text_column(table: vl.Table, column: str | None) -> str:
    if column is not None:
        return column
    texts: list[str] = [
        field.name for field in table.schema if "string" in str(field.type) or "text" in str(field.type)
    ]
    if len(texts) != 1:
        raise InvalidInputError(
            f"say which column holds the texts: column=, one of {', '.join(texts) or '(none)'}"
        )
    return texts[0]
