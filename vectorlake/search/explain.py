"""How a search was done: its plan, what was looked at, what was read, and the time of each stage."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from vectorlake.search.exact import ExactEngine
from vectorlake.search.indexed import IndexEngine
from vectorlake.search.knn import Settled, settled
from vectorlake.search.plan import Strategy
from vectorlake.search.ready import Ready
from vectorlake.search.request import Options
from vectorlake.table.view import View


@dataclass(frozen=True)
class Explanation:
    """A search that has run, and how. Prints as a plan.

    Attributes:
        found: what `Table.knn` returns.
        mode: `exact` or `index`.
        column: which was searched.
        metric: by which distance.
        queries: how many.
        index: its name; None for an exact search, and so for what follows where that makes no sense.
        kind: of the index.
        segments: how many were searched.
        covered_rows: live rows that segments answer for.
        uncovered_rows: those that have to be scanned.
        strategy: how rows were chosen: see `plan.Strategy`.
        estimates: estimated milliseconds of each strategy that there was.
        survivors: rows that filter, include and exclude leave; None without such.
        effort: partitions, or beam width, of each segment.
        pool: rows to be measured for each query.
        why: where effort and pool come from.
        expected_recall: as calibrated.
        probed: partitions looked at (graph: hops), over all queries.
        scored: codes compared.
        candidates: rows measured exactly after nomination.
        scanned: rows that were scanned, not by index.
        bytes_read: from the index's files on a remote store; 0 where they are mapped.
        rows_read: vectors read from data files that are not mapped.
        fragments: of the table; 0, as the three that follow, where an exact search did without bounding balls.
        fragments_skipped: of which no row was looked at, by statistics of the filter's columns or by balls.
        runs: of rows that have a ball.
        runs_skipped: that were too far for every query.
        faults: parts of the index that could not be used.
        milliseconds: by stage, and in all.
    """

    found: pa.Table
    mode: str
    column: str
    metric: str
    queries: int
    index: str | None
    kind: str | None
    segments: int
    covered_rows: int
    uncovered_rows: int
    strategy: str
    estimates: Mapping[str, float]
    survivors: int | None
    effort: int | None
    pool: int | None
    why: str
    expected_recall: float | None
    probed: int
    scored: int
    candidates: int
    scanned: int
    bytes_read: int
    rows_read: int
    fragments: int
    fragments_skipped: int
    runs: int
    runs_skipped: int
    faults: tuple[str, ...]
    milliseconds: Mapping[str, float]

    def __str__(self) -> str:
        lines = [f"knn of {self.queries:,} queries on {self.column!r} by {self.metric}: {self.mode}"]
        if self.index is None:
            lines.append(f"  all rows are measured: {self.scanned:,} looked at")
            if self.runs:
                lines.append(
                    f"  balls rule out {self.runs_skipped:,} of {self.runs:,} runs, and {self.fragments_skipped:,} of "
                    f"{self.fragments:,} fragments"
                )
        else:
            lines += self._indexed()
        lines += [f"  fault: {fault}" for fault in self.faults]
        stages = ", ".join(f"{stage} {spent:.3f}" for stage, spent in self.milliseconds.items())
        lines.append(f"  milliseconds: {stages}")
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        """All but the rows found, as plain values."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "found"}
        return {
            **values,
            "estimates": dict(self.estimates),
            "faults": list(self.faults),
            "milliseconds": dict(self.milliseconds),
        }

    def _indexed(self) -> list[str]:
        recall = "" if self.expected_recall is None else f", expected recall@10 {self.expected_recall:.3f}"
        covered = f"{self.segments} segments cover {self.covered_rows:,} rows"
        lines = [f"  index {self.index!r} ({self.kind}): {covered}, {self.uncovered_rows:,} rows are scanned"]
        if self.effort is not None:
            lines.append(f"  effort {self.effort}, pool {self.pool} ({self.why}){recall}")
        if self.survivors is not None:
            costs = ", ".join(f"{name} {cost:.3f} ms" for name, cost in self.estimates.items())
            lines.append(f"  {self.survivors:,} rows are selected: {self.strategy} (estimated: {costs})")
        lines.append(
            f"  probed {self.probed:,}, scored {self.scored:,}, measured {self.candidates:,}, scanned {self.scanned:,}; "
            f"read {self.bytes_read:,} bytes of the index and {self.rows_read:,} vectors from files"
        )
        return lines


def explain(view: View, queries: object, options: Options) -> Explanation:
    """Run a search and tell how it was done (see `Table.explain_knn`)."""
    begun = time.perf_counter_ns()
    search = settled(view, queries, options)
    planned = time.perf_counter_ns()
    before = _fetched(search)
    found = search.run()
    ran = time.perf_counter_ns()
    table = search.to_arrow(found)
    ended = time.perf_counter_ns()
    engine, target = search.engine, search.request.target
    trace = engine.trace if isinstance(engine, IndexEngine) else None
    stages = {"plan": planned - begun}
    stages |= {"search": ran - planned} if trace is None else trace.stages
    stages |= {"result": ended - ran, "total": ended - begun}
    prepared = engine.prepared if isinstance(engine, IndexEngine) else None
    effort = engine.effort if isinstance(engine, IndexEngine) else None
    choice = engine.choice if isinstance(engine, IndexEngine) else None
    pruning = engine.pruning if isinstance(engine, ExactEngine) else None
    return Explanation(
        found=table,
        mode="exact" if target.index is None else "index",
        column=target.field.name,
        metric=str(target.metric),
        queries=len(search.asked.positions),
        index=None if target.index is None else target.index.name,
        kind=None if target.index is None else target.index.kind,
        segments=0 if prepared is None else len(prepared.segments),
        covered_rows=0 if prepared is None else prepared.coverage.covered_rows,
        uncovered_rows=view.snapshot.num_rows if prepared is None else prepared.coverage.uncovered_rows,
        strategy=str(choice.strategy if choice else Strategy.PROBE) if prepared else "scan",
        estimates={str(name): cost / 1e6 for name, cost in choice.costs.items()} if choice else {},
        survivors=engine.survivors if isinstance(engine, IndexEngine) else None,
        effort=effort.effort if effort else None,
        pool=effort.pool if effort else None,
        why=effort.why if effort else "",
        expected_recall=effort.recall if effort else None,
        probed=trace.probed if trace else 0,
        scored=trace.scored if trace else 0,
        candidates=trace.candidates if trace else 0,
        scanned=trace.scanned if trace else getattr(engine, "rows", 0),
        bytes_read=_fetched(search) - before,
        rows_read=trace.read if trace else 0,
        fragments=pruning.fragments if pruning else 0,
        fragments_skipped=pruning.fragments_skipped if pruning else 0,
        runs=pruning.runs if pruning else 0,
        runs_skipped=pruning.runs_skipped if pruning else 0,
        faults=prepared.coverage.faults if prepared else (),
        milliseconds={stage: spent / 1e6 for stage, spent in stages.items()},
    )


def _fetched(search: Settled) -> int:
    if not isinstance(search.engine, IndexEngine):
        return 0
    return index_bytes(search.engine.prepared)


def index_bytes(prepared: Ready) -> int:
    """Bytes fetched so far of an index's files on a remote store."""
    from vectorlake.table.coverage import open_file

    view, index = prepared.view, prepared.index
    damaged = prepared.coverage.damaged
    files = [index.model, *(s.file for s in index.segments if s.id not in damaged)]
    return sum(open_file(view, file).bytes_read for file in files)
