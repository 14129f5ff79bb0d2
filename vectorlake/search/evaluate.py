"""What recall an index reaches, measured against the exact search of the same snapshot, and at what cost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vectorlake.errors import InvalidInputError
from vectorlake.kernels import Metric
from vectorlake.kernels.maxsim import Tokens
from vectorlake.schema import Field, is_multivector
from vectorlake.search.choice import Effortful, Mode, Target, choose_target, positive
from vectorlake.search.exact import ExactEngine
from vectorlake.search.indexed import IndexEngine, warn
from vectorlake.search.multivector import MaxSimEngine, tokens_of
from vectorlake.search.multivector_index import TokensEngine
from vectorlake.search.multivector_queries import as_multivectors
from vectorlake.search.queries import as_bits, as_queries
from vectorlake.search.ready import Ready, ready
from vectorlake.search.selection import Selection
from vectorlake.search.vectors import Rows, blocks_of
from vectorlake.table.view import View

Asked: TypeAlias = npt.NDArray[Any] | Tokens
"""Queries: vectors [n, d], or multivectors."""
_TIMED = 200
"""So many queries are timed one by one."""


@dataclass(frozen=True)
class Evaluation:
    """How an index does. Prints as a line or two.

    Attributes:
        index: its name.
        recall: the share of the k nearest that were found, on average.
        worst: the recall of the query with the lowest.
        k: neighbours of each query.
        queries: how many were asked.
        sampled: whether they were rows of the table, each left out of its own answer.
        effort: partitions, or beam width, of each segment; None if no segment could be searched.
        pool: rows measured exactly for each query.
        expected_recall: as calibrated when the index was made.
        p50_ms: median time of a single query, in milliseconds.
        p95_ms: what 95 % of them stay below.
        queries_per_second: of all together as one batch.
        exact_queries_per_second: of the exact search beside it.
        probed: partitions looked at for a query, on average.
        scored: codes compared.
        candidates: rows measured exactly after nomination.
        scanned: rows scanned because no segment covers them.
    """

    index: str
    recall: float
    worst: float
    k: int
    queries: int
    sampled: bool
    effort: int | None
    pool: int | None
    expected_recall: float | None
    p50_ms: float
    p95_ms: float
    queries_per_second: float
    exact_queries_per_second: float
    probed: float
    scored: float
    candidates: float
    scanned: int

    def __str__(self) -> str:
        expected = "" if self.expected_recall is None else f" (calibrated: {self.expected_recall:.4f})"
        source = "rows of the table" if self.sampled else "queries"
        return (
            f"index {self.index!r}: recall@{self.k} {self.recall:.4f}{expected} over {self.queries:,} {source}, "
            f"worst {self.worst:.2f}\n"
            f"  effort {self.effort}, pool {self.pool}: scored {self.scored:,.0f}, measured {self.candidates:,.0f}, "
            f"scanned {self.scanned:,} rows a query\n"
            f"  one query {self.p50_ms:.3f} ms (95 %: {self.p95_ms:.3f}); a batch {self.queries_per_second:,.0f} a second, "
            f"exactly {self.exact_queries_per_second:,.0f}"
        )


def evaluate(
    view: View,
    name: str | None,
    queries: object | None,
    *,
    column: str | None,
    sample: int,
    k: int,
    effort: Effortful,
    filter: Any,
    seed: int,
    threads: int | None,
) -> Evaluation:
    """Measure an index (see `Table.evaluate_index`)."""
    target = choose_target(view.snapshot, column=column, metric=None, index=name, mode=Mode.INDEX)
    assert target.index is not None
    positive("k", k)
    prepared = ready(view, target.index)
    for fault in prepared.coverage.faults:
        warn(fault)
    own: npt.NDArray[np.int64] | None = None
    vectors: Asked
    if queries is None:
        rng = np.random.default_rng(seed)
        draw = sampled_tokens if is_multivector(target.field.type) else sampled
        vectors, own = draw(view, target.field, positive("sample", sample), rng)
    elif is_multivector(target.field.type):
        vectors, _ = as_multivectors(queries, target.field)
    else:
        asked = as_queries(queries, target.field)
        vectors = (as_bits(asked, target.field) if target.metric is Metric.HAMMING else asked).vectors
    if not len(vectors):
        raise InvalidInputError("there is nothing to evaluate with: no query, or no row with a vector")
    wish, selection = effort.wish(target.index), Selection(view.bind(filter))
    depth = min(k + (own is not None), max(view.snapshot.num_rows, 1))

    truth, exact_seconds = _exactly(view, target, vectors, selection, depth, threads)
    engine_of(prepared, vectors, selection, wish, threads).nearest(
        depth, None
    )  # compiles, and pages files in
    engine = engine_of(prepared, vectors, selection, wish, threads)
    begun = time.perf_counter()
    found = engine.nearest(depth, None).row_ids
    seconds = time.perf_counter() - begun
    singly = [
        _timed(prepared, _one(vectors, i), selection, wish, depth, threads)
        for i in range(min(len(vectors), _TIMED))
    ]
    shares = recalls(found, truth, own, k)
    settled, trace, count = engine.effort, engine.trace, len(vectors)
    return Evaluation(
        index=target.index.name,
        recall=float(shares.mean()),
        worst=float(shares.min()),
        k=k,
        queries=count,
        sampled=own is not None,
        effort=settled.effort if settled else None,
        pool=settled.pool if settled else None,
        expected_recall=settled.recall if settled else None,
        p50_ms=float(np.median(singly)) * 1e3,
        p95_ms=float(np.quantile(singly, 0.95)) * 1e3,
        queries_per_second=count / seconds,
        exact_queries_per_second=count / exact_seconds,
        probed=trace.probed / count,
        scored=trace.scored / count,
        candidates=trace.candidates / count,
        scanned=trace.scanned,
    )


def recalls(
    found: npt.NDArray[np.int64], truth: npt.NDArray[np.int64], own: npt.NDArray[np.int64] | None, k: int
) -> npt.NDArray[np.float64]:
    """The recall of each query; 1 where nothing is to be found.

    Args:
        found: int64 [n, m] row ids, -1 for none.
        truth: int64 [n, m], nearest first, -1 for none.
        own: int64 [n], a row that each query leaves out of its own answer.
        k: how many of the nearest count.
    """
    shares = np.ones(len(truth))
    for query in range(len(truth)):
        right, mine = truth[query], found[query]
        right, mine = right[right >= 0], mine[mine >= 0]
        if own is not None:
            right, mine = right[right != own[query]], mine[mine != own[query]]
        right = right[:k]
        if len(right):
            shares[query] = np.isin(right, mine[:k]).mean()
    return shares


def sampled(
    view: View, field: Field, count: int, rng: np.random.Generator
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Vectors of some rows and their ids; fewer than asked for where rows have none."""
    readers = list(view.readers())
    starts = np.cumsum([0, *(reader.fragment.row_count for reader in readers)])
    total = int(starts[-1])
    picked = (
        np.sort(rng.choice(total, min(2 * count, total), replace=False)) if total else np.empty(0, np.int64)
    )
    rows: list[Rows] = []
    for index, reader in enumerate(readers):
        low, high = np.searchsorted(picked, starts[index : index + 2])
        positions = picked[low:high] - starts[index]
        positions = positions[~np.isin(positions, reader.deleted)]
        if len(positions):
            rows.append((reader, positions))
    vectors, ids = [], []
    for block in blocks_of(rows, field):
        there = np.ones(len(block.vectors), np.bool_) if block.valid is None else block.valid
        vectors.append(np.asarray(block.vectors)[there])
        ids.append(block.row_ids[there])
    if not vectors:
        return np.empty((0, 1)), np.empty(0, np.int64)
    all_vectors, all_ids = np.concatenate(vectors), np.concatenate(ids)
    finite = (
        np.isfinite(all_vectors).all(axis=1)
        if all_vectors.dtype.kind == "f"
        else np.ones(len(all_ids), np.bool_)
    )
    chosen = rng.permutation(np.flatnonzero(finite))[:count]
    return np.ascontiguousarray(all_vectors[chosen]), all_ids[chosen]


def sampled_tokens(
    view: View, field: Field, count: int, rng: np.random.Generator
) -> tuple[Tokens, npt.NDArray[np.int64]]:
    """Multivectors of some rows and their ids; fewer than asked for where rows have none."""
    rows, left = [], np.sort(rng.permutation(_live_rows(view))[: 2 * count])
    for reader in view.readers():
        live = reader.all_live()
        mine = left[left < len(live)]
        if len(mine):
            rows.append((reader, live[mine]))
        left = left[left >= len(live)] - len(live)
    parts: list[npt.NDArray[Any]] = []
    ids: list[int] = []
    for tokens, row_ids in tokens_of(rows, field):
        for at, row_id in enumerate(row_ids.tolist()):
            one = tokens.part(at, at + 1)
            held = one.vectors if one.usable is None else one.vectors[one.usable]
            if len(held) and len(ids) < count and np.isfinite(held).all():
                parts.append(held)
                ids.append(row_id)
    if not parts:
        return Tokens(np.empty((0, 1), np.float32), np.zeros(1, np.int64)), np.empty(0, np.int64)
    offsets = np.cumsum([0, *(len(part) for part in parts)]).astype(np.int64)
    return Tokens(np.concatenate(parts), offsets), np.array(ids, np.int64)


def _live_rows(view: View) -> int:
    return sum(len(reader.all_live()) for reader in view.readers())


def engine_of(
    prepared: Ready, vectors: Asked, selection: Selection, wish: Any, threads: int | None
) -> IndexEngine:
    """The engine for an index and some queries."""
    if isinstance(vectors, Tokens):
        return TokensEngine(prepared, vectors, selection, wish, threads=threads)
    return IndexEngine(prepared, vectors, selection, wish, threads=threads)


def _one(vectors: Asked, at: int) -> Asked:
    return vectors.part(at, at + 1) if isinstance(vectors, Tokens) else vectors[at : at + 1]


def _exactly(
    view: View,
    target: Target,
    vectors: Asked,
    selection: Selection,
    depth: int,
    threads: int | None,
) -> tuple[npt.NDArray[np.int64], float]:
    begun = time.perf_counter()
    exact: ExactEngine | MaxSimEngine
    if isinstance(vectors, Tokens):
        exact = MaxSimEngine(view, target.field, target.metric, vectors, selection, threads)
    else:
        exact = ExactEngine(view, target.field, target.metric, vectors, selection, threads)
    truth = exact.nearest(depth, None).row_ids
    return truth, time.perf_counter() - begun


def _timed(
    prepared: Ready, query: Asked, selection: Selection, wish: Any, k: int, threads: int | None
) -> float:
    begun = time.perf_counter()
    engine_of(prepared, query, selection, wish, threads).nearest(k, None)
    return time.perf_counter() - begun
