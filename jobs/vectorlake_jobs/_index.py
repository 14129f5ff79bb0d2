"""Index builds as jobs: train once, encode ranges of rows side by side, merge, commit once; or only rows that lack it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Unpack

import msgspec

import vectorlake as vl
from vectorlake.extend import IndexShape, IndexWork, OptimizePlan, RowRange, Store, TableRef
from vectorlake.jobs import Done, Job, JobRun, Plan, Stage, Task, TaskResult, Work, commit_once
from vectorlake_jobs._start import RunOptions, start
from vectorlake_jobs._tables import identity, pinned

TASK_ROWS: Final = 131_072
SEGMENT_ROWS: Final = IndexShape.segment_rows


class _IndexJob(Job):
    """Encoding, merging and calibrating, which new indexes and those with new rows have in common."""

    table: TableRef
    task_rows: int
    segment_rows: int
    seed: int

    def home(self) -> Store:
        return self.table.open().store

    def _work(self, sources: Mapping[str, int], memory: int, threads: int | None = None) -> IndexWork:
        table = pinned(self.table, sources["table"])
        return IndexWork(table, memory, threads, self.seed, self.segment_rows)

    def _encode_stage(self, work: IndexWork, index: dict[str, Any], shared: dict[str, Any]) -> Stage:
        """A task for each range of rows that the index lacks."""
        width = 4 * index["dimension"]
        tasks = tuple(
            Task(
                f"{number:06d}",
                {"ranges": [[one.fragment_id, one.start, one.stop] for one in ranges]},
                rows,
                rows * width,
            )
            for number, (ranges, rows) in enumerate(work.uncovered(index, self.task_rows))
        )
        return Stage("encode", tasks, {**shared, "index": index})

    def run(self, task: Task, work: Work) -> TaskResult:
        doing = self._work(work.sources, work.memory, work.threads)
        index = work.stage.shared["index"]
        match work.stage.name:
            case "train":
                trained = doing.train(index)
                return TaskResult({"index": trained}, (trained["model"]["path"],))
            case "encode":
                ranges = [RowRange(*known) for known in task.input["ranges"]]
                segments = doing.encode(index, ranges)
                return TaskResult({"segments": segments}, _paths(segments))
            case "merge":
                segment = doing.merge(index, task.input["segments"])
                return TaskResult({"segment": segment}, _paths([segment]))
            case _:
                return TaskResult({"index": doing.calibrate(index)})

    def tidy(self, done: Done) -> None:
        """Remove the segments that were merged before they were committed."""
        merged = {one for task in done.stage("merge").stage.tasks for one in task.input["segments"]}
        self.home().delete(_paths([one for one in _encoded(done) if one["id"] in merged]))

    def _merge_stage(self, index: dict[str, Any], groups: Sequence[Sequence[str]]) -> Stage:
        """A task for each group of segments that become one; the index has all of them."""
        rows = {segment["id"]: segment["rows"] for segment in index["segments"]}
        tasks = tuple(
            Task(f"{number:06d}", {"segments": list(ids)}, sum(rows[one] for one in ids))
            for number, ids in enumerate(groups)
        )
        return Stage("merge", tasks, {"index": index})


def _encoded(done: Done) -> list[dict[str, Any]]:
    return [segment for value in done.stage("encode").values for segment in value["segments"]]


def _after_merge(done: Done) -> dict[str, Any]:
    """The index whose merged segments stand for those that went into them."""
    stage = done.stage("merge")
    index: dict[str, Any] = stage.stage.shared["index"]
    gone = {one for task in stage.stage.tasks for one in task.input["segments"]}
    kept = [segment for segment in index["segments"] if segment["id"] not in gone]
    return {**index, "segments": [*kept, *(value["segment"] for value in stage.values)]}


def _paths(segments: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(segment["file"]["path"] for segment in segments)


@dataclass(frozen=True)
class IndexBuild(_IndexJob):
    """A new index.

    Attributes:
        again: the name of the index that is made anew instead; then the next five are not asked.
    """

    table: TableRef
    column: str | None
    kind: str
    index_name: str | None
    metric: str
    options: Mapping[str, Any]
    again: str | None = None
    seed: int = 0
    segment_rows: int = SEGMENT_ROWS
    task_rows: int = TASK_ROWS
    calibrate: bool = True

    @property
    def name(self) -> str:
        return "build-index"

    @property
    def parameters(self) -> Mapping[str, Any]:
        given = {
            "column": self.column,
            "kind": self.kind,
            "index": self.index_name,
            "metric": self.metric,
            "options": dict(self.options),
            "again": self.again,
            "seed": self.seed,
            "segment_rows": self.segment_rows,
            "task_rows": self.task_rows,
            "calibrate": self.calibrate,
        }
        return {"table": identity(self.table), **given}

    def plan(self) -> Plan:
        sources = {"table": self.table.version}
        work = self._work(sources, 1 << 30)
        if self.again is not None:
            index = work.settle_again(self.again)
        else:
            index = work.settle(
                self.column, self.kind, name=self.index_name, metric=self.metric, options=self.options
            )
        rows = index["trained_rows"]
        return Plan(
            sources,
            Stage("train", (Task("model", {}, rows, rows * 4 * index["dimension"]),), {"index": index}),
        )

    def next_stage(self, done: Done) -> Stage | None:
        match done.stages[-1].stage.name:
            case "train":
                return self._encode_stage(self._work(done.sources, done.memory), done.values[0]["index"], {})
            case "encode":
                index = {**done.stage("encode").stage.shared["index"], "segments": _encoded(done)}
                return self._merge_stage(index, list(_groups(index["segments"], self.segment_rows)))
            case "merge" if self.calibrate:
                return Stage("calibrate", (Task("recall"),), {"index": _after_merge(done)})
        return None

    def commit(self, done: Done) -> Mapping[str, Any]:
        index = done.values[0]["index"] if self.calibrate else _after_merge(done)
        since = done.sources["table"]
        work = self._work(done.sources, done.memory)
        table = commit_once(pinned(self.table, since).open_head(), done.job_id, since=since)
        before = None if self.again is None else work.of(self.again)
        snapshot = work.commit(table, index, before=before)
        return _outcome(table, snapshot, index)


def _groups(segments: Sequence[Mapping[str, Any]], most: int) -> list[list[str]]:
    """Neighbouring segments that fit into one of at most so many rows, where there is more than one."""
    groups: list[list[str]] = []
    held = most + 1
    for segment in segments:
        if held + segment["rows"] > most:
            groups.append([])
            held = 0
        groups[-1].append(segment["id"])
        held += segment["rows"]
    return [group for group in groups if len(group) > 1]


@dataclass(frozen=True)
class IndexUpdate(_IndexJob):
    """An index that takes in what it does not cover, with fewer segments and no dead rows."""

    table: TableRef
    index_name: str
    shape: IndexShape
    seed: int = 0
    task_rows: int = TASK_ROWS

    @property
    def segment_rows(self) -> int:  # type: ignore[override]
        return self.shape.segment_rows

    @property
    def name(self) -> str:
        return "update-index"

    @property
    def parameters(self) -> Mapping[str, Any]:
        given = {"index": self.index_name, "seed": self.seed, "task_rows": self.task_rows}
        return {"table": identity(self.table), **given, **msgspec.to_builtins(self.shape)}

    def plan(self) -> Plan:
        sources = {"table": self.table.version}
        work = self._work(sources, 1 << 30)
        plan = work.plan(self.index_name, self.shape)
        shared = {"plan": msgspec.to_builtins(plan)}
        index = work.of(self.index_name)
        if not plan.add_rows:
            return Plan(sources, Stage("encode", (), {**shared, "index": index}))
        return Plan(sources, self._encode_stage(work, index, shared))

    def next_stage(self, done: Done) -> Stage | None:
        if len(done.stages) == 2:
            return None
        first = done.stage("encode").stage
        plan = _plan_of(first)
        fresh = _encoded(done)
        index = {**first.shared["index"], "segments": [*first.shared["index"]["segments"], *fresh]}
        index["segments"] = [one for one in index["segments"] if one["id"] not in plan.drop]
        ids = [segment["id"] for segment in fresh]
        groups = [[one] for one in plan.rewrite]
        if plan.merge:
            groups.append([*plan.merge, *(ids if plan.merge_added else ())])
        if len(ids) > 1 and not (plan.merge and plan.merge_added):
            groups += _groups(fresh, self.segment_rows)
        return self._merge_stage(index, groups)

    def commit(self, done: Done) -> Mapping[str, Any]:
        first = done.stage("encode").stage
        before, after = first.shared["index"], _after_merge(done)
        since = done.sources["table"]
        table = commit_once(pinned(self.table, since).open_head(), done.job_id, since=since)
        plan = _plan_of(first)
        if not plan:
            return _outcome(table, table.snapshot, before)
        work = self._work(done.sources, done.memory)
        snapshot = work.commit_optimized(table, before, after, plan)
        return _outcome(table, snapshot, after)


def _plan_of(stage: Stage) -> OptimizePlan:
    return msgspec.convert(stage.shared["plan"], OptimizePlan)


def _outcome(table: vl.Table, snapshot: Any, index: Mapping[str, Any]) -> dict[str, Any]:
    segments = index["segments"]
    rows = sum(segment["rows"] for segment in segments)
    told = {"index": index["name"], "segments": len(segments), "indexed_rows": rows}
    return {"table": table.name, "version": snapshot.version, **told}


def build_index(
    table: vl.Table,
    column: str | None = None,
    kind: str = "ivf",
    *,
    name: str | None = None,
    metric: str = "l2",
    seed: int = 0,
    segment_rows: int = SEGMENT_ROWS,
    task_rows: int = TASK_ROWS,
    calibrate: bool = True,
    index_options: Mapping[str, Any] | None = None,
    **options: Unpack[RunOptions],
) -> JobRun | Plan:
    """Build an index over a vector column, side by side: train once, encode in parts, merge, commit once.

    What others write meanwhile is no conflict: searches scan it until `update_index` takes it in.

    Args:
        table: the version of this handle is indexed.
        column: and the arguments up to `metric`: as for `Table.create_index`.
        seed: of everything random.
        segment_rows: rows of a segment, at most: those of the parts are merged up to so many.
        task_rows: rows of a task.
        calibrate: measure recall, so that searches can be asked for a recall.
        index_options: of the kind; those left out are chosen from the data.
        options: of the run (`vectorlake.jobs.run_job`), and `dry_run`.

    Raises:
        InvalidInputError, NotFoundError, AlreadyExistsError, ConflictError: as for `Table.create_index`.
    """
    job = IndexBuild(
        table.ref,
        column,
        kind,
        name,
        metric,
        dict(index_options or {}),
        seed=seed,
        segment_rows=segment_rows,
        task_rows=task_rows,
        calibrate=calibrate,
    )
    return start(job, **options)


def update_index(
    table: vl.Table,
    name: str,
    *,
    dead_share: float = IndexShape.dead_share,
    growth: float = IndexShape.growth,
    min_rows: int = 1,
    seed: int = 0,
    segment_rows: int = SEGMENT_ROWS,
    task_rows: int = TASK_ROWS,
    **options: Unpack[RunOptions],
) -> JobRun | Plan:
    """Take rows that no segment covers into an index, merge small segments, leave out dead rows; `Table.optimize_indexes`
    as a job.

    An index that the table has outgrown is trained and built anew.

    Args:
        table: the version of this handle is indexed.
        name: of the index.
        dead_share: and the next two: as for `Table.optimize_indexes`.
        seed: and the next two: as for `build_index`.
        options: of the run (`vectorlake.jobs.run_job`), and `dry_run`.

    Raises:
        NotFoundError: no such index.
        UnsupportedError: it is of a kind or version that this release does not know.
        ConflictError: another writer has changed the index meanwhile.
    """
    shape = IndexShape(segment_rows, dead_share, growth, min_rows)
    if IndexWork(table.ref).plan(name, shape).retrain:
        again = IndexBuild(
            table.ref,
            None,
            "",
            None,
            "",
            {},
            again=name,
            seed=seed,
            segment_rows=segment_rows,
            task_rows=task_rows,
        )
        return start(again, **options)
    return start(IndexUpdate(table.ref, name, shape, seed, task_rows), **options)
