"""Compaction as a job: a task for each group of fragments that are rewritten together, one commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import vectorlake as vl
from vectorlake.extend import CompactionWork, Store, TableRef
from vectorlake.jobs import Done, Job, JobRun, Plan, Stage, Task, TaskResult, Work, commit_once
from vectorlake_jobs._start import RunOptions, start
from vectorlake_jobs._tables import identity, pinned


@dataclass(frozen=True)
class Compact(Job):
    """A compaction; the arguments are those of `Table.compact`."""

    table: TableRef
    target_rows: int | None
    sort_by: tuple[tuple[str, str], ...]
    deleted_share: float
    foreign: str

    @property
    def name(self) -> str:
        return "compact"

    @property
    def parameters(self) -> Mapping[str, Any]:
        given = {"target_rows": self.target_rows, "sort_by": [list(one) for one in self.sort_by]}
        return {
            "table": identity(self.table),
            **given,
            "deleted_share": self.deleted_share,
            "foreign": self.foreign,
        }

    def home(self) -> Store:
        return self.table.open().store

    def plan(self) -> Plan:
        sources = {"table": self.table.version}
        groups = self._work(sources).plan().groups
        tasks = (
            Task(f"{number:06d}", {"group": number}, group.rows, group.bytes_read)
            for number, group in enumerate(groups)
        )
        return Plan(sources, Stage("rewrite", tuple(tasks)))

    def run(self, task: Task, work: Work) -> TaskResult:
        part, files = self._work(work.sources).rewrite(task.input["group"], memory=work.memory)
        work.scratch.put(task.id, part)
        return TaskResult({}, files)

    def commit(self, done: Done) -> Mapping[str, Any]:
        since = done.sources["table"]
        table = commit_once(pinned(self.table, since).open_head(), done.job_id, since=since)
        tasks = done.stages[-1].stage.tasks
        parts = [done.scratch.get(task.id) for task in tasks]
        version = (self._work(done.sources).commit(table, parts) if parts else table.snapshot).version
        return {"table": table.name, "version": version, "rows": sum(task.rows for task in tasks)}

    def _work(self, sources: Mapping[str, int]) -> CompactionWork:
        table = pinned(self.table, sources["table"])
        return CompactionWork(table, self.target_rows, self.sort_by, self.deleted_share, self.foreign)


def compact(
    table: vl.Table,
    *,
    target_rows: int | None = None,
    sort_by: str | Sequence[str | tuple[str, str]] | None = None,
    deleted_share: float = CompactionWork.deleted_share,
    foreign: str = CompactionWork.foreign,
    **options: Unpack[RunOptions],
) -> JobRun | Plan:
    """Rewrite small fragments as few large ones, groups of them side by side; `Table.compact` as a job.

    With `sort_by` all rows are one group, and so one task.

    Args:
        table: the version of this handle is compacted.
        target_rows: and the arguments after it: as for `Table.compact`.
        options: of the run (`vectorlake.jobs.run_job`), and `dry_run`.

    Raises:
        InvalidInputError, NotFoundError, UnsupportedError: as for `Table.compact`.
    """
    given = [sort_by] if isinstance(sort_by, str) else list(sort_by or ())
    order = tuple((one, "asc") if isinstance(one, str) else (one[0], one[1]) for one in given)
    return start(Compact(table.ref, target_rows, order, deleted_share, foreign), **options)
