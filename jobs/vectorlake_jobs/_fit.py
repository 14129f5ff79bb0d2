"""Jobs that end in a column computed by a model: fit it in stages over samples or all rows, then apply it to each row."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Unpack

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import vectorlake as vl
from vectorlake.errors import AlreadyExistsError, InvalidInputError
from vectorlake.extend import ColumnWork, Store, TableRef
from vectorlake.jobs import Done, Job, JobRun, Plan, Stage, Task, TaskResult, Work, commit_once
from vectorlake_jobs._arrays import Matrix, load, matrix_of, plain_type, save, vector_size
from vectorlake_jobs._columns import column_parts, column_result
from vectorlake_jobs._models import Model
from vectorlake_jobs._queries import vector_column
from vectorlake_jobs._start import RunOptions, start
from vectorlake_jobs._tables import NewTable, identity, pinned, split_of, split_tasks

TASK_ROWS: Final = 65_536
"""Rows of a task that fits."""
APPLY: Final = "apply"
"""The last stage: the column."""
SAMPLE: Final = "sample"
"""A first stage that only draws rows."""
_BATCH: Final = 8192


@dataclass(frozen=True)
class FitColumn(Job):
    """Fit a model to a column of vectors, and fill a column with what it says of each row.

    Attributes:
        table: whose rows.
        column: their vectors.
        as_column: the column to add, or to fill anew.
        model: the table that keeps the model; None for none.
        seed: of everything random.
        task_rows: rows of a task of the fitting.
    """

    table: TableRef
    column: str
    as_column: str
    model: NewTable | None
    seed: int
    task_rows: int

    @property
    def settings(self) -> Mapping[str, Any]:
        """What else the result depends on, as JSON: the fields that a job adds."""
        shared = {field.name for field in fields(FitColumn)}
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in shared}

    @abstractmethod
    def first(self, tasks: tuple[Task, ...]) -> Stage | None:
        """The first stage of the fitting, over tasks that are parts of the table; None if nothing needs fitting."""

    @abstractmethod
    def fit(self, task: Task, work: Work) -> TaskResult:
        """A part of a stage of the fitting."""

    @abstractmethod
    def fitted(self, done: Done) -> Model | Stage:
        """The model, or the next stage of the fitting; looks at what was done so far."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {
            "table": identity(self.table),
            "column": self.column,
            "as_column": self.as_column,
            "model": None if self.model is None else self.model.identity,
            "seed": self.seed,
            "task_rows": self.task_rows,
            **self.settings,
        }

    def home(self) -> Store:
        return self.table.open().store

    def plan(self) -> Plan:
        table = self.table.open()
        if self.as_column == self.column:
            raise InvalidInputError(
                f"column {self.column!r} can't hold its own model's answer: name another as_column="
            )
        if self.model is not None:
            self.model.check_free()
        if table.count(f'"{self.column}" IS NOT NULL') == 0:
            raise InvalidInputError(
                f"column {self.column!r} of {table.name!r} holds no vectors: there is nothing to fit to"
            )
        sources = {"table": self.table.version}
        stage = self.first(split_tasks(table.scan([self.column]).splits(self.task_rows)))
        return Plan(sources, stage or self._apply(self.fitted_at_once(), sources, None))

    def fitted_at_once(self) -> Model:
        """The model of a job that needs no fitting."""
        raise NotImplementedError

    def run(self, task: Task, work: Work) -> TaskResult:
        if work.stage.name != APPLY:
            return self.fit(task, work)
        model = self._model(work.stage, work.scratch)
        part = self._work(work.sources, model).run(int(task.id), model.function(self.column))
        return column_result(part)

    def next_stage(self, done: Done) -> Stage | None:
        if done.stages[-1].stage.name == APPLY:
            return None
        fitted = self.fitted(done)
        return fitted if isinstance(fitted, Stage) else self._apply(fitted, done.sources, done.scratch)

    def commit(self, done: Done) -> Mapping[str, Any]:
        model = self._model(done.stages[-1].stage, done.scratch)
        outcome: dict[str, Any] = {}
        if self.model is not None:
            outcome["model"] = _keep(self.model, model, done, self.table, self.column)
        head = pinned(self.table, done.sources["table"]).open_head()
        table = commit_once(head, done.job_id, since=done.sources["table"])
        work = self._work(done.sources, model)
        snapshot = work.commit(table, column_parts(done.values), model.function(self.column))
        return {
            "table": table.name,
            "version": snapshot.version,
            "column": self.as_column,
            **outcome,
            **self.report(done, model),
        }

    def report(self, done: Done, model: Model) -> Mapping[str, Any]:
        """What else there is to tell."""
        return {}

    def batches(self, task: Task, work: Work) -> Iterator[Matrix]:
        """The vectors of a part of the table, some thousands at a time, without nulls."""
        table = pinned(self.table, work.sources["table"])
        for batch in split_of(task, table, [self.column], batch_size=_BATCH).to_batches():
            rows = matrix_of(batch.column(0))[0]
            if len(rows):
                yield rows

    def sampled(self, task: Task, work: Work, share: float, metric: str) -> TaskResult:
        """A random share of a part's vectors, in the scratch folder: what a task of the stage `sample` does."""
        rng = np.random.default_rng([self.seed, int(task.id)])
        kept = [rows[rng.random(len(rows)) < share] for rows in self.batches(task, work)]
        rows = np.concatenate(kept) if kept else np.empty((0, 0), np.float32)
        return TaskResult({"rows": save(work.scratch, f"sample/{task.id}.npz", rows=rows)})

    def _apply(self, model: Model, sources: Mapping[str, int], scratch: Store | None) -> Stage:
        shared = {} if scratch is None else {"model": _save_model(model, scratch)}
        width = 4 * int(model.settings["dimension"])
        fragments = self._work(sources, model).fragments()
        tasks = tuple(Task(str(number), {}, rows, rows * width) for number, rows in fragments)
        return Stage(APPLY, tasks, shared)

    def _model(self, stage: Stage, scratch: Store) -> Model:
        if "model" in stage.shared:
            return _load_model(stage.shared["model"], scratch)
        return self.fitted_at_once()

    def _work(self, sources: Mapping[str, int], model: Model) -> ColumnWork:
        table = pinned(self.table, sources["table"])
        there = self.as_column in table.open().schema.names
        kind = None if there else model.output
        return ColumnWork(
            table, self.as_column, type=kind, inputs=(self.column,), rows="all", batch_rows=_BATCH
        )


def samples_of(done: Done, stage: str) -> Matrix:
    """The rows that the tasks of a stage drew."""
    parts = [load(done.scratch, value["rows"])["rows"] for value in done.stage(stage).values]
    filled = [part for part in parts if len(part)]
    if not filled:
        raise InvalidInputError("the sample is empty: take a larger share of the rows")
    return np.concatenate(filled)


def share_of(rows: int, wanted: int) -> float:
    """Which share of the rows gives about so many."""
    return min(1.0, wanted / max(rows, 1))


def _save_model(model: Model, scratch: Store) -> str:
    settings = np.frombuffer(json.dumps([model.method, dict(model.settings)]).encode(), np.uint8)
    return save(
        scratch, "model.npz", **{"": settings}, **{f"a_{name}": array for name, array in model.arrays.items()}
    )


def _load_model(path: str, scratch: Store) -> Model:
    arrays = load(scratch, path)
    method, settings = json.loads(arrays.pop("").tobytes())
    return Model(method, settings, {name.removeprefix("a_"): array for name, array in arrays.items()})


def _keep(place: NewTable, model: Model, done: Done, source: TableRef, column: str) -> str:
    """Create the model's table, unless an earlier try of this job has."""
    lake = place.open()
    properties = {
        **model.properties,
        "model.source": source.uri,
        "model.column": column,
        "model.job": done.job_id,
    }
    try:
        lake.create_table(place.name, model.to_arrow(), properties=properties)
    except AlreadyExistsError:
        if lake.table(place.name).properties.get("model.job") != done.job_id:
            raise
    return place.name


@dataclass(frozen=True)
class ApplyModel(FitColumn):
    """Fill a column by a model that a table keeps, for all rows or those that have no value yet."""

    kept: TableRef
    rows: str

    @property
    def name(self) -> str:
        return "apply-model"

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"kept": [self.kept.uri, self.kept.version], "rows": self.rows}

    def first(self, tasks: tuple[Task, ...]) -> Stage | None:
        return None

    def fit(self, task: Task, work: Work) -> TaskResult:
        raise NotImplementedError

    def fitted(self, done: Done) -> Model | Stage:
        raise NotImplementedError

    def fitted_at_once(self) -> Model:
        return Model.of(self.kept.open())

    def _work(self, sources: Mapping[str, int], model: Model) -> ColumnWork:
        whole = super()._work(sources, model)
        if whole.type is not None or self.rows == "all":
            return whole
        return ColumnWork(
            whole.table, whole.name, inputs=whole.inputs, rows=self.rows, batch_rows=whole.batch_rows
        )


def apply_model(
    table: vl.Table,
    model: vl.Table,
    *,
    as_column: str,
    column: str | None = None,
    rows: str = "missing",
    **options: Unpack[RunOptions],
) -> JobRun | Plan:
    """Fill a column by a model that `cluster` or `reduce` kept: for rows that came later, or for another table.

    Args:
        table: whose rows; at the version of this handle.
        model: the table that keeps the model.
        as_column: the column to fill; added if it isn't there.
        column: the vectors; may be left out if there is one column of them besides `as_column`.
        rows: `"missing"` (where the column is null) or `"all"`.
        options: of the run (`vectorlake.jobs.run_job`), and `dry_run`.

    Returns:
        What was done, or with `dry_run` the plan.

    Raises:
        InvalidInputError: no model, or one of vectors of another dimension; nothing was written.
    """
    if rows not in ("missing", "all"):
        raise InvalidInputError(f"rows must be 'missing' or 'all', not {rows!r}")
    named = chosen_column(table, column, as_column)
    return start(ApplyModel(table.ref, named, as_column, None, 0, TASK_ROWS, model.ref, rows), **options)


def chosen_column(table: vl.Table, column: str | None, as_column: str) -> str:
    """The column of vectors, which may be left out where there is one besides the answer's."""
    schema = table.schema
    if column is None and as_column in schema.names:
        schema = schema.remove(schema.get_field_index(as_column))
    return vector_column(schema, column, f"table {table.name!r}")


def dimension_of(table: vl.Table, column: str) -> int:
    """How many numbers a vector of a column has.

    Raises:
        InvalidInputError: it holds no vectors of fixed size.
    """
    kind = table.schema.field(column).type
    size = vector_size(kind)
    if size is None or not pa.types.is_primitive(plain_type(kind).value_type):
        raise InvalidInputError(
            f"column {column!r} of {table.name!r} holds {kind}: a column of vectors is needed"
        )
    return size


def one_of(name: str, value: str, known: Sequence[str]) -> str:
    """The value.

    Raises:
        InvalidInputError: it is none of those known.
    """
    if value not in known:
        raise InvalidInputError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    return value


def positive(name: str, value: object, most: int | None = None) -> int:
    """The value.

    Raises:
        InvalidInputError: it is no whole number from 1 up to `most`.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int | np.integer)
        or value < 1
        or (most is not None and value > most)
    ):
        limit = "" if most is None else f" up to {most:,}"
        raise InvalidInputError(f"{name} must be a whole number from 1{limit}, not {value!r}")
    return int(value)


Partial = dict[str, npt.NDArray[Any]]


def added_up(done: Done, stage: str) -> Partial:
    """The sums that the tasks of a stage wrote, added up in the order of tasks."""
    total: Partial = {}
    for value in done.stage(stage).values:
        for name, array in load(done.scratch, value["sums"]).items():
            total[name] = total[name] + array if name in total else array
    return total
