"""Measure what recall each effort reaches on a segment just built, so that a target recall can pick one.

Some rows of the segment are asked for, and what is nominated is compared with their exact neighbours in it; the row itself
is left out on both sides. Whoever is nominated is measured exactly later, so being nominated is being found.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.index.protocol import Ask, Config, IndexKind, Searcher, Vectors
from vectorlake.kernels import ExactKnn, Metric

Calibration = tuple[tuple[int, int, float], ...]
"""(effort, pool, recall@10), ascending."""

K: Final = 10
QUERIES: Final = 200
MARGIN: Final = 1.0
"""How many times as much is taken to be missed as was measured."""


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
    """Recall@10 at each rung of the kind's ladder, never falling from rung to rung.

    Args:
        searcher: a segment, open.
        vectors: the rows it was built from, and maybe others, which don't count; read twice.
        rng: picks the queries.
        queries: how many rows are asked for.

    Returns:
        (effort, pool, recall) in ascending cost; empty where too few rows have neighbours to measure anything.
    """
    row_ids = np.sort(searcher.row_ids[searcher.row_ids >= 0])
    if len(row_ids) <= K:
        return ()
    picked = np.sort(rng.choice(row_ids, min(queries, len(row_ids)), replace=False))
    asked = _vectors_of(vectors, picked)
    if not len(asked):
        return ()
    exact = ExactKnn(asked, k=K + 1, metric=config.metric, threads=threads)
    for block in vectors.blocks():
        exact.add(block.vectors, block.row_ids, _among(block.row_ids, row_ids))
    truth, _, _ = exact.result()
    truth = np.where(truth == picked[:, None], -1, truth)
    sent = asked if config.metric is Metric.HAMMING else np.ascontiguousarray(asked, np.float32)
    rungs: list[tuple[int, int, float]] = []
    best = 0.0
    for effort, pool in kind.efforts(config, len(row_ids)):
        nominated = searcher.search(Ask(sent, pool + 1, effort, threads=threads))
        slots = nominated.slots
        found = np.where(slots >= 0, searcher.row_ids[np.maximum(slots, 0)], -2)
        measured = recall_of(found, truth)
        best = max(best, 1.0 - min(1.0, (1.0 - measured) * MARGIN))
        rungs.append((int(effort), int(pool), float(best)))
    return tuple(rungs)


def recall_of(found: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> float:
    """The share of each query's first K true neighbours that were found, on average.

    Args:
        found: int64 [n, m] row ids, any negative number but -1 for none.
        truth: int64 [n, t], nearest first; -1 is passed over.
    """
    hits = total = 0
    for mine, right in zip(found, truth, strict=True):
        nearest = right[right >= 0][:K]
        hits += int(np.isin(nearest, mine).sum())
        total += len(nearest)
    return hits / total if total else 1.0


def _among(row_ids: npt.NDArray[np.int64], known: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which row ids are among ascending ones."""
    at = np.minimum(np.searchsorted(known, row_ids), len(known) - 1)
    return np.asarray(known[at] == row_ids, np.bool_)


def _vectors_of(vectors: Vectors, row_ids: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The vectors of some rows, in the order of their ids (ascending)."""
    ids: list[npt.NDArray[np.int64]] = []
    rows: list[npt.NDArray[Any]] = []
    for block in vectors.blocks():
        hit = _among(block.row_ids, row_ids)
        if hit.any():
            ids.append(block.row_ids[hit])
            rows.append(block.vectors[hit])
    if not rows:
        return np.empty((0, 1))
    return np.ascontiguousarray(np.concatenate(rows)[np.argsort(np.concatenate(ids))])
