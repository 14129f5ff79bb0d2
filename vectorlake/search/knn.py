"""k nearest neighbours over a snapshot: settle what was asked, search exactly or by an index, then fetch the columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa

from vectorlake.kernels import Metric
from vectorlake.kernels.maxsim import Tokens
from vectorlake.schema import Field, is_multivector
from vectorlake.search.depth import ranked
from vectorlake.search.exact import ExactEngine
from vectorlake.search.found import Found
from vectorlake.search.indexed import IndexEngine, warn
from vectorlake.search.multivector import MaxSimEngine
from vectorlake.search.multivector_index import TokensEngine
from vectorlake.search.multivector_queries import as_multivectors
from vectorlake.search.queries import Queries, as_bits, as_queries
from vectorlake.search.ready import Ready, ready
from vectorlake.search.request import Options, Request, request
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
class Settled:
    """A search that is settled, but has not run."""

    view: View
    request: Request
    asked: Queries
    engine: Searching

    def run(self) -> Found:
        """Find the rows of each query that is not null."""
        extent, target = self.request.extent, self.request.target
        if not len(self.asked.positions):
            return Found(np.empty((0, 0), np.int64), np.empty((0, 0)), np.empty(0, np.int64))
        told = span("knn", table=self.view.store.uri, version=self.view.snapshot.version)
        if not told.recording:
            return ranked(self.engine, extent, self.view, approximate=target.index is not None)
        with told:
            most = max(self.view.snapshot.num_rows, 1)
            depth = most if extent.depth is None else min(extent.depth, most)
            told.set(column=target.field.name, queries=len(self.asked.positions), k=depth)
            found = ranked(self.engine, extent, self.view, approximate=target.index is not None)
            told.set(metric=str(target.metric), **_told(self.engine))
            return found

    def to_arrow(self, found: Found) -> pa.Table:
        """The rows found, with the columns wanted."""
        asked = self.request
        return _result(self.view, self.asked.positions, found, asked.wanted, first=asked.extent.skipped)


def knn(view: View, queries: object, options: Options) -> pa.Table:
    """The nearest rows of each query (see `Table.knn`)."""
    search = settled(view, queries, options)
    return search.to_arrow(search.run())


def settled(view: View, queries: object, options: Options) -> Settled:
    """Check everything that was asked, and settle how to search."""
    wanted = request(view, options)
    target = wanted.target
    prepared = None
    if target.index is not None:
        prepared = ready(view, target.index)
        for fault in prepared.coverage.faults:
            warn(fault)
    if is_multivector(target.field.type):
        tokens, asked = as_multivectors(queries, target.field)
        return Settled(view, wanted, asked, _token_engine(view, wanted, prepared, tokens))
    asked = as_queries(queries, target.field)
    if target.metric is Metric.HAMMING:
        asked = as_bits(asked, target.field)
    return Settled(view, wanted, asked, _engine(view, wanted, prepared, asked.vectors))


def _engine(view: View, wanted: Request, prepared: Ready | None, vectors: np.ndarray) -> Searching:
    target, selection, threads = wanted.target, wanted.selection, wanted.threads
    if prepared is not None:
        return IndexEngine(prepared, vectors, selection, wanted.wish, threads=threads)
    return ExactEngine(view, target.field, target.metric, vectors, selection, threads, wanted.device)


def _token_engine(view: View, wanted: Request, prepared: Ready | None, tokens: Tokens) -> Searching:
    target, selection, threads = wanted.target, wanted.selection, wanted.threads
    if prepared is not None:
        return TokensEngine(prepared, tokens, selection, wanted.wish, threads=threads)
    return MaxSimEngine(view, target.field, target.metric, tokens, selection, threads)


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
    numbers = (np.repeat(positions, counts), ranks, ids, distances)
    columns = [_column(kind, values) for kind, values in zip(RESULT.types, numbers, strict=True)]
    table = pa.Table.from_arrays(columns, schema=RESULT)
    if wanted:
        rows = take_rows(view, ids, wanted)
        for index, column in enumerate(rows.schema):
            # A column of the table that is called like one of ours gets the suffix that joins give the right side.
            name = f"{column.name}_right" if column.name in RESULT.names else column.name
            table = table.append_column(column.with_name(name), rows.column(index))
    return table


def _column(kind: pa.DataType, values: np.ndarray) -> pa.Array:
    """Numbers of that type as a column, in the same memory."""
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])
