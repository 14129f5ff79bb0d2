"""Measure what recall each effort reaches on a segment just built, so that a target recall can pick one.

Some rows of the segment are asked for, and what is nominated is compared with their exact neighbours in it; the row itself
is left out on both sides. Whoever is nominated is measured exactly later, so being nominated is being found.

Rows of the table stand in for the queries of users. On 100,000 sentence embeddings of 384 dimensions with 500 held-out
queries, the held-out queries missed 0.8 to 1.25 times as many neighbours as the rows did at the same effort (28 rungs of an
IVF index, recall 0.77 to 1.0), no more than the spread of a mean over 200 queries. So the mean is told less its standard
error, and nothing else is added: queries from elsewhere, such as questions that look for answers, may do worse, which
`Table.evaluate_index` tells when it is given some of them.

In a graph rows are found more easily than others, as edges were chosen for them. So a search for a row passes over it, as
if it weren't there (`Ask.omitted`): that is a bit worse than a graph without the row would be, whose edges would lead
elsewhere. On clustered, Gaussian, uniform and low-dimensional vectors, rows that were passed over missed as many neighbours
as held-out queries did, or up to twice as many; rows that were not passed over, down to a fifth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.index.protocol import Ask, Config, IndexKind, Nominated, Searcher, Vectors, compared
from vectorlake.kernels import ExactKnn, Metric

Calibration = tuple[tuple[int, int, float], ...]
"""(effort, pool, recall@10), ascending in cost and in recall."""

K: Final = 10
QUERIES: Final = 800
_NEWS: Final = 0.87
"""A rung is written down if it misses at most so many times what the one before it misses."""
_SURELY: Final = 1.64
"""So many standard errors are taken off what was found: of other rows as many are found, 19 times of 20."""
_CODE: Final = 0.006
"""Cost of comparing one code, for each element that it covers, in nanoseconds; only the ratio to the next matters."""
_ROW: Final = 0.6
"""Cost of measuring one nominated row, likewise."""
_NOWHERE: Final = np.iinfo(np.int64).max
"""The place of a neighbour that was not nominated."""


def calibrate(
    kind: IndexKind,
    config: Config,
    searcher: Searcher,
    vectors: Vectors,
    *,
    rng: np.random.Generator,
    threads: int,
    queries: int = QUERIES,
) -> Calibration:
    """Recall@10 at those rungs of the kind's ladder that are worth their cost.

    Costs are estimated from counts, not from clocks, so that the same data and seed give the same answer.

    Args:
        searcher: a segment, open.
        vectors: the rows it was built from; read twice.
        rng: picks the queries.
        queries: how many rows are asked for.

    Returns:
        (effort, pool, recall), each dearer and better than the one before; empty where too few rows have neighbours to
        measure anything.
    """
    row_ids = np.sort(searcher.row_ids[searcher.row_ids >= 0])
    if len(row_ids) <= K:
        return ()
    picked = np.sort(rng.choice(row_ids, min(queries, len(row_ids)), replace=False))
    own = _slots_of(picked, searcher.row_ids)
    asked = _vectors_of(vectors, picked)
    if len(asked) < len(picked):
        return ()
    exact = ExactKnn(asked, k=K + 1, metric=config.metric, threads=threads)
    for block in vectors.blocks():
        exact.add(block.vectors, block.row_ids)
    truth, _, _ = exact.result()
    truth = np.where(truth == picked[:, None], -1, truth)
    right = _slots_of(truth, searcher.row_ids)
    sent = asked if config.metric is Metric.HAMMING else np.ascontiguousarray(asked, np.float32)
    by_effort: dict[int, list[int]] = {}
    for effort, pool in kind.efforts(config, len(row_ids)):
        by_effort.setdefault(int(effort), []).append(int(pool))
    rungs: list[tuple[float, int, int, float]] = []
    for effort, pools in by_effort.items():
        # The best of few are the first of the best of many.
        nominated = searcher.search(Ask(sent, max(pools) + 1, effort, threads=threads, omitted=own))
        ranks = _ranks_of(nominated, own, right, len(searcher.row_ids))
        each = nominated.scored / len(asked) * compared(searcher, config) * _CODE
        for pool in pools:
            cost = each + pool * config.dimension * _ROW
            rungs.append((cost, effort, pool, _recall(ranks, pool, truth)))
    return _worthwhile(rungs)


def _ranks_of(
    nominated: Nominated,
    own: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
    count: int,
) -> npt.NDArray[np.int64]:
    """Which place the slot of each true neighbour, -1 for none, has among the nominated by estimate, the own slot aside;
    int64 like `right`, `_NOWHERE` for those that are not there. There are `count` slots."""
    estimates = np.where(nominated.slots == own[:, None], np.inf, nominated.estimates)
    order = np.argsort(estimates, axis=1, kind="stable")
    slots = np.take_along_axis(np.asarray(nominated.slots), order, axis=1)
    numbers = np.arange(slots.shape[1])
    # One place more: number -1, where there is no slot, is the last.
    places = np.full(count + 1, _NOWHERE)
    ranks = np.empty(right.shape, np.int64)
    for query, mine in enumerate(slots):
        places[mine] = numbers
        ranks[query] = places[right[query]]
        places[mine] = _NOWHERE
    ranks[right < 0] = _NOWHERE
    return ranks


def _slots_of(rows: npt.NDArray[np.int64], row_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The slots in which rows are; -1 for those that are in none."""
    order = np.argsort(row_ids, kind="stable")
    at = np.minimum(np.searchsorted(row_ids, rows, sorter=order), len(row_ids) - 1)
    slots: npt.NDArray[np.int64] = np.where((row_ids[order[at]] == rows) & (rows >= 0), order[at], -1)
    return slots


def _recall(ranks: npt.NDArray[np.int64], pool: int, truth: npt.NDArray[np.int64]) -> float:
    """The mean share of the first K true neighbours that are among the first `pool` nominated, and surely so."""
    there = truth >= 0
    nearest = there & (np.cumsum(there, axis=1) <= K)
    counts = nearest.sum(axis=1)
    if not counts.any():
        return 1.0
    shares = (nearest & (ranks < pool)).sum(axis=1)[counts > 0] / counts[counts > 0]
    error = float(np.std(shares)) / math.sqrt(len(shares))
    return max(0.0, float(np.mean(shares)) - _SURELY * error)


def _worthwhile(rungs: Sequence[tuple[float, int, int, float]]) -> Calibration:
    """The rungs (cost, effort, pool, recall) that are noticeably better than all cheaper ones, and the best of all."""
    kept: list[tuple[int, int, float]] = []
    best = -1.0
    last = max((recall for *_, recall in rungs), default=0.0)
    for _, effort, pool, recall in sorted(rungs):
        if (1 - recall <= _NEWS * (1 - best) and recall > best) or recall == last > best:
            kept.append((effort, pool, recall))
            best = recall
    return tuple(kept)


def _vectors_of(vectors: Vectors, row_ids: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The vectors of some rows, in the order of their ids (ascending)."""
    ids: list[npt.NDArray[np.int64]] = []
    rows: list[npt.NDArray[Any]] = []
    for block in vectors.blocks():
        hit = np.isin(block.row_ids, row_ids, assume_unique=True)
        if hit.any():
            ids.append(block.row_ids[hit])
            rows.append(block.vectors[hit])
    if not rows:
        return np.empty((0, 1))
    return np.ascontiguousarray(np.concatenate(rows)[np.argsort(np.concatenate(ids))])
