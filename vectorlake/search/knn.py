"""k nearest neighbours over a snapshot: settle what was asked, search exactly or by an index, then fetch the columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa

from vectorlake.errors import InvalidInputError
from vectorlake.expr import Expr
from vectorlake.kernels import Metric
from vectorlake.schema import Field, did_you_mean, is_multivector, listing
from vectorlake.search.choice import Effortful, Mode, Target, as_mode, choose_target, positive
from vectorlake.search.depth import Extent, Grouping, ranked
from vectorlake.search.exact import ExactEngine
from vectorlake.search.found import Found
from vectorlake.search.indexed import IndexEngine, warn
from vectorlake.search.multivector import MaxSimEngine
from vectorlake.search.multivector_index import TokensEngine
from vectorlake.search.multivector_queries import as_multivectors
from vectorlake.search.queries import Queries, as_bits, as_queries, refuse_metric
from vectorlake.search.ready import ready
from vectorlake.search.selection import Selection, as_row_ids
from vectorlake.table.locate import take_rows
from vectorlake.table.view import View
from vectorlake.tracing import span

RESULT: Final = pa.schema(
    [
        pa.field("query", pa.int64(), False),
        pa.field("rank", pa.int32(), False),
        pa.field("row_id", pa.int64(), False),
        pa.field("distance", pa.float64(), False),
    ]
)


Searching: TypeAlias = ExactEngine | IndexEngine | MaxSimEngine


@dataclass(frozen=True)
class Options:
    """What `Table.knn` takes besides queries; each is told there."""

    column: str | None = None
    k: int | None = 10
    metric: str | Metric | None = None
    filter: str | Expr | object | None = None
    columns: Sequence[str] = ()
    mode: str | Mode | None = None
    index: str | None = None
    effort: Effortful = field(default_factory=Effortful)
    max_distance: float | None = None
    offset: int | None = None
    include: Any = None
    exclude: Any = None
    group_by: str | None = None
    group_size: int = 1
    threads: int | None = None
    device: str | None = None


def options_of(
    *,
    nprobe: int | None = None,
    ef: int | None = None,
    target_recall: float | None = None,
    pool: int | None = None,
    **others: Any,
) -> Options:
    """Options from the keyword arguments of `Table.knn`.

    Raises:
        InvalidInputError: an unknown one.
    """
    known = set(Options.__dataclass_fields__) - {"effort"}
    for name in others:
        if name not in known:
            names = sorted(known)
            raise InvalidInputError(
                f"unknown option {name!r}{did_you_mean(name, names)}; choose from {listing(names)}"
            )
    return Options(**others, effort=Effortful(nprobe, ef, target_recall, pool))


@dataclass(frozen=True)
class Settled:
    """A search that is settled, but has not run."""

    view: View
    target: Target
    asked: Queries
    extent: Extent
    wanted: list[Field]
    engine: Searching

    def run(self) -> Found:
        """Find the rows of each query that is not null."""
        extent = self.extent
        if not len(self.asked.positions):
            return Found(np.empty((0, 0), np.int64), np.empty((0, 0)), np.empty(0, np.int64))
        told = span("knn", table=self.view.store.uri, version=self.view.snapshot.version)
        if not told.recording:
            return ranked(self.engine, extent, self.view, approximate=self.target.index is not None)
        with told:
            most = max(self.view.snapshot.num_rows, 1)
            depth = most if extent.depth is None else min(extent.depth, most)
            told.set(column=self.target.field.name, queries=len(self.asked.positions), k=depth)
            found = ranked(self.engine, extent, self.view, approximate=self.target.index is not None)
            told.set(metric=str(self.target.metric), **_told(self.engine))
            return found

    def to_arrow(self, found: Found) -> pa.Table:
        """The rows found, with the columns wanted."""
        return _result(self.view, self.asked.positions, found, self.wanted, first=self.extent.skipped)


def knn(view: View, queries: object, options: Options) -> pa.Table:
    """The nearest rows of each query (see `Table.knn`)."""
    search = settled(view, queries, options)
    return search.to_arrow(search.run())


def settled(view: View, queries: object, options: Options) -> Settled:
    """Check everything that was asked, and settle how to search."""
    extent = _extent(view, options)
    mode = as_mode(options.mode, asked=options.effort.given or options.index is not None)
    target = choose_target(
        view.snapshot, column=options.column, metric=options.metric, index=options.index, mode=mode
    )
    refuse_metric(target.metric, target.field)
    wanted = view.select(list(options.columns)) if options.columns else []
    selection = Selection(
        None if options.filter is None else view.bind(options.filter),
        as_row_ids("include", options.include),
        as_row_ids("exclude", options.exclude),
    )
    engine: Searching
    prepared = None
    if options.device is not None and (
        target.index is not None or target.metric is Metric.HAMMING or is_multivector(target.field.type)
    ):
        raise InvalidInputError(
            f"device={options.device!r} is for exact searches by {Metric.L2}, {Metric.COSINE} or {Metric.DOT} of columns "
            "with one vector a row: leave it out"
        )
    if target.index is not None:
        prepared = ready(view, target.index)
        for fault in prepared.coverage.faults:
            warn(fault)
    if is_multivector(target.field.type):
        tokens, asked = as_multivectors(queries, target.field)
        if prepared is None:
            engine = MaxSimEngine(view, target.field, target.metric, tokens, selection, options.threads)
        else:
            wish = options.effort.wish(prepared.index)
            engine = TokensEngine(prepared, tokens, selection, wish, threads=options.threads)
        return Settled(view, target, asked, extent, wanted, engine)
    asked = as_queries(queries, target.field)
    if target.metric is Metric.HAMMING:
        asked = as_bits(asked, target.field)
    if prepared is None:
        engine = ExactEngine(
            view, target.field, target.metric, asked.vectors, selection, options.threads, options.device
        )
    else:
        wish = options.effort.wish(prepared.index)
        engine = IndexEngine(prepared, asked.vectors, selection, wish, threads=options.threads)
    return Settled(view, target, asked, extent, wanted, engine)


def _extent(view: View, options: Options) -> Extent:
    k = None if options.k is None else positive("k", options.k)
    offset = None if options.offset is None else positive("offset", options.offset, 0)
    if options.threads is not None:
        positive("threads", options.threads)
    most = options.max_distance
    if most is not None and (isinstance(most, bool) or math.isnan(most)):
        raise InvalidInputError(f"max_distance must be a number, not {most!r}")
    if k is None and most is None:
        raise InvalidInputError("k=None finds all rows within a distance: give max_distance")
    group = None
    if options.group_by is not None:
        (column,) = view.select([options.group_by])
        group = Grouping(column, positive("group_size", options.group_size))
    elif options.group_size != 1:
        raise InvalidInputError("group_size says how many rows of each group: give group_by, the column")
    # More neighbours than rows can't be found: a huge k must not reserve memory for them.
    if k is not None:
        k = min(k, max(view.snapshot.num_rows, 1))
    return Extent(k, offset, None if most is None else float(most), group)


def _told(engine: Searching) -> dict[str, str | bool | int]:
    if not isinstance(engine, IndexEngine):
        return {"rows": engine.rows, "filtered": engine.selection.predicate is not None}
    trace = engine.trace
    return {
        "index": engine.prepared.index.name,
        "probed": trace.probed,
        "scored": trace.scored,
        "candidates": trace.candidates,
        "rows": trace.scanned,
    }


def _result(view: View, positions: np.ndarray, found: Found, wanted: list[Field], *, first: int) -> pa.Table:
    width = found.row_ids.shape[1]
    counts = found.counts
    total = int(counts.sum())
    if total == found.row_ids.size:
        ids, distances = found.row_ids.reshape(-1), found.distances.reshape(-1)
        ranks = np.arange(first, first + width, dtype=np.int32)
        if len(counts) > 1:
            ranks = np.tile(ranks, len(counts))
    else:
        there = np.arange(width)[None, :] < counts[:, None]
        ids, distances = found.row_ids[there], found.distances[there]
        ranks = np.broadcast_to(np.arange(first, first + width, dtype=np.int32), there.shape)[there]
    query = np.repeat(positions, counts)
    table = pa.Table.from_arrays(
        [pa.array(query, pa.int64()), pa.array(ranks), pa.array(ids), pa.array(distances)], schema=RESULT
    )
    if wanted:
        rows = take_rows(view, ids, wanted)
        for index, column in enumerate(rows.schema):
            # A column of the table that is called like one of ours gets the suffix that joins give the right side.
            name = f"{column.name}_right" if column.name in RESULT.names else column.name
            table = table.append_column(column.with_name(name), rows.column(index))
    return table
