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

from vectorlake.index.protocol import Ask, Config, IndexKind, Nominated, Searcher, Vectors
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
"""Cost of comparing one code, for each element of a vector, in nanoseconds; only the ratio to the next matters."""
_ROW: Final = 0.6
"""Cost of measuring one nominated row, likewise."""


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
    order = np.argsort(searcher.row_ids, kind="stable")
    own = order[np.searchsorted(searcher.row_ids, picked, sorter=order)]
    asked = _vectors_of(vectors, picked)
    if len(asked) < len(picked):
        return ()
    exact = ExactKnn(asked, k=K + 1, metric=config.metric, threads=threads)
    for block in vectors.blocks():
        exact.add(block.vectors, block.row_ids)
    truth, _, _ = exact.result()
    truth = np.where(truth == picked[:, None], -1, truth)
    sent = asked if config.metric is Metric.HAMMING else np.ascontiguousarray(asked, np.float32)
    by_effort: dict[int, list[int]] = {}
    for effort, pool in kind.efforts(config, len(row_ids)):
        by_effort.setdefault(int(effort), []).append(int(pool))
    rungs: list[tuple[float, int, int, float]] = []
    for effort, pools in by_effort.items():
        # The best of few are the first of the best of many.
        nominated = searcher.search(Ask(sent, max(pools) + 1, effort, threads=threads, omitted=own))
        ranks = _ranks_of(nominated, own, searcher.row_ids, truth)
        each = nominated.scored / len(asked) * config.dimension * _CODE
        for pool in pools:
            cost = each + pool * config.dimension * _ROW
            rungs.append((cost, effort, pool, _recall(ranks, pool, truth)))
    return _worthwhile(rungs)


def _ranks_of(
    nominated: Nominated,
    own: npt.NDArray[np.int64],
    row_ids: npt.NDArray[np.int64],
    truth: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Which place each true neighbour has among the nominated by estimate, the own slot aside: int64 like `truth`, a huge
    one for none."""
    estimates = np.where(nominated.slots == own[:, None], np.inf, nominated.estimates)
    order = np.argsort(estimates, axis=1, kind="stable")
    slots = np.take_along_axis(np.asarray(nominated.slots), order, axis=1)
    found = np.where(slots >= 0, row_ids[np.maximum(slots, 0)], -2)
    ranks = np.full(truth.shape, np.iinfo(np.int64).max)
    for query, (mine, right) in enumerate(zip(found, truth, strict=True)):
        places = {row: place for place, row in enumerate(mine.tolist())}
        for at, row in enumerate(right.tolist()):
            ranks[query, at] = places.get(row, ranks[query, at])
    return ranks


def _recall(ranks: npt.NDArray[np.int64], pool: int, truth: npt.NDArray[np.int64]) -> float:
    """The mean share of the first K true neighbours that are among the first `pool` nominated, and surely so."""
    shares = []
    for places, right in zip(ranks, truth, strict=True):
        nearest = places[right >= 0][:K]
        if len(nearest):
            shares.append(float((nearest < pool).mean()))
    if not shares:
        return 1.0
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
