"""What jobs that compute a column share: values range by range, then a file a fragment, then one commit."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa

from vectorlake.extend import ColumnWork, Store, TableRef, decode_fragments
from vectorlake.jobs import Done, Job, Plan, Stage, Task, TaskResult, Work, commit_once
from vectorlake_jobs._tables import pinned

_VALUES = "values"


class ColumnJob(Job):
    """Computes a column: in tasks of some rows, which keep their values in the job's scratch folder, then one file for
    each fragment.

    So a worker that dies costs some rows of a slow function, however large the fragments are.
    """

    @property
    def column(self) -> str:
        """The column to be computed."""
        raise NotImplementedError

    @property
    def task_rows(self) -> int:
        """Rows of a task."""
        raise NotImplementedError

    def written(self) -> TableRef:
        """The table that gets the column; the plan calls its version `written`."""
        raise NotImplementedError

    def sources(self) -> dict[str, int]:
        """The versions to pin."""
        return {"written": self.written().version}

    def work(self, sources: Mapping[str, int], memory: int) -> ColumnWork:
        """The column's computation over the pinned version."""
        raise NotImplementedError

    def function(self, sources: Mapping[str, int], threads: int) -> Callable[[pa.RecordBatch], Any] | str:
        """By which it's computed."""
        raise NotImplementedError

    def summary(self) -> Mapping[str, str]:
        """What the snapshot is to say besides."""
        return {}

    def row_bytes(self) -> int:
        """About how many bytes a row takes, for a dry run."""
        raise NotImplementedError

    def home(self) -> Store:
        return self.written().open().store

    def plan(self) -> Plan:
        sources = self.sources()
        tasks: list[Task] = []
        for fragment, rows in self.work(sources, memory=1 << 30).fragments():
            pieces = max(1, -(-rows // self.task_rows))
            for start, stop in pairwise(rows * piece // pieces for piece in range(pieces + 1)):
                given = {"fragment": fragment, "rows": [start, stop]}
                tasks.append(
                    Task(f"{fragment}-{start}", given, stop - start, (stop - start) * self.row_bytes())
                )
        return Plan(sources, Stage("compute", tuple(tasks)))

    def next_stage(self, done: Done) -> Stage | None:
        if len(done.stages) == 2:
            return None
        fragments: dict[int, list[Task]] = {}
        for task in done.stages[0].stage.tasks:
            fragments.setdefault(task.input["fragment"], []).append(task)
        tasks = (
            Task(str(fragment), {"parts": [part.id for part in parts]}, sum(part.rows for part in parts))
            for fragment, parts in fragments.items()
        )
        return Stage("write", tuple(tasks))

    def run(self, task: Task, work: Work) -> TaskResult:
        column = self.work(work.sources, work.memory)
        if work.stage.name == "write":
            parts = (_get(work.scratch, part) for part in task.input["parts"])
            return column_result(column.write(int(task.id), (array for part in parts for array in part)))
        start, stop = task.input["rows"]
        function = self.function(work.sources, work.threads)
        values = list(column.values(task.input["fragment"], start, stop, function))
        _put(work.scratch, task.id, values)
        return TaskResult({"values": sum(map(len, values))})

    def commit(self, done: Done) -> Mapping[str, Any]:
        since = done.sources["written"]
        head = pinned(self.written(), since).open_head()
        table = commit_once(head, done.job_id, since=since, summary=self.summary())
        parts = column_parts(done.values)
        work, function = self.work(done.sources, done.memory), self.function(done.sources, done.threads)
        version = work.commit(table, parts, function).version
        values = sum(value["values"] for value in done.stages[0].values)
        return {"table": table.name, "version": version, "column": self.column, "values": values}


def _put(scratch: Store, name: str, values: list[pa.Array]) -> None:
    sink = pa.BufferOutputStream()
    if values:
        schema = pa.schema([pa.field(_VALUES, values[0].type)])
        with pa.ipc.new_file(sink, schema) as writer:
            for array in values:
                writer.write_batch(pa.RecordBatch.from_arrays([array], schema=schema))
    scratch.put(f"{name}.arrow", sink.getvalue().to_pybytes())


def _get(scratch: Store, name: str) -> Iterator[pa.Array]:
    data = scratch.get(f"{name}.arrow")
    if data:
        reader = pa.ipc.open_file(data)
        yield from (reader.get_batch(number).column(0) for number in range(reader.num_record_batches))


def column_result(part: bytes) -> TaskResult:
    """A part of a column, as `ColumnWork` returned it, as a task's result."""
    files = [file.path for fragment in decode_fragments(part) for file in fragment.files]
    return TaskResult({"part": base64.b64encode(part).decode()}, tuple(files))


def column_parts(values: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """The parts of a column, as `ColumnWork.commit` takes them, from the results of tasks."""
    return [base64.b64decode(value["part"]) for value in values]
