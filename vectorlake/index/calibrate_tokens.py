"""Measure what recall each effort of an index over multivectors reaches: some of its documents serve as queries."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from vectorlake.index.calibrate import Calibration, K
from vectorlake.index.protocol import Ask, Block, Config, IndexKind, Searcher, Vectors
from vectorlake.kernels.maxsim import ExactMaxSim, Tokens

QUERIES: Final = 100
_HARDER: Final = 1.4
"""How many times as much queries miss."""


def calibrate_tokens(
    kind: IndexKind,
    config: Config,
    searcher: Searcher,
    vectors: Vectors,
    *,
    rng: np.random.Generator,
    threads: int,
) -> Calibration:
    """Recall@10 at each rung of the kind's ladder (see `calibrate.calibrate`)."""
    row_ids = searcher.row_ids[searcher.row_ids >= 0]
    if len(row_ids) <= K:
        return ()
    picked = np.sort(rng.choice(row_ids, min(QUERIES, len(row_ids)), replace=False))
    queries = _documents_of(vectors, picked)
    if not len(queries.vectors):
        return ()
    exact = ExactMaxSim(queries, k=K + 1, metric=config.metric, threads=threads)
    for block in vectors.blocks():
        documents, ids = as_documents(block)
        exact.add(documents, ids)
    truth = exact.result()[0]
    truth = np.where(truth == picked[:, None], -1, truth)
    sent = np.ascontiguousarray(queries.vectors, np.float32)
    rungs: list[tuple[int, int, float]] = []
    for effort, pool in kind.efforts(config, len(row_ids)):
        ask = Ask(sent, pool + 1, effort, threads=threads, offsets=queries.offsets)
        slots = searcher.search(ask).slots
        found = np.where(slots >= 0, searcher.row_ids[np.maximum(slots, 0)], -2)
        recall = _recall(found, truth)
        if not rungs or recall > rungs[-1][2]:
            rungs.append((int(effort), int(pool), recall))
    return tuple(rungs)


def _recall(found: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> float:
    """The mean share of the first K true neighbours that queries will find, to be careful.

    Rows are easier than queries: on 5,000 texts of 17 tokens queries missed up to 1.4 times as many neighbours as the mean
    over rows less twice its standard error tells.
    """
    nearest = [right[right >= 0][:K] for right in truth]
    shares = [
        float(np.isin(right, mine).mean()) for mine, right in zip(found, nearest, strict=True) if len(right)
    ]
    if not shares:
        return 1.0
    missed = 1.0 - float(np.mean(shares)) + 2 * float(np.std(shares)) / math.sqrt(len(shares))
    return max(0.0, 1.0 - _HARDER * missed)


def as_documents(block: Block) -> tuple[Tokens, npt.NDArray[np.int64]]:
    """A block of token vectors as documents, with the id of each."""
    starts = np.flatnonzero(np.diff(block.row_ids, prepend=-1))
    offsets = np.append(starts, len(block.row_ids)).astype(np.int64)
    return Tokens(block.vectors, offsets), block.row_ids[starts]


def _documents_of(vectors: Vectors, row_ids: npt.NDArray[np.int64]) -> Tokens:
    """The documents with some ids, in the order of these (ascending)."""
    parts: list[tuple[npt.NDArray[np.int64], Tokens]] = []
    for block in vectors.blocks():
        documents, ids = as_documents(block)
        wanted = np.flatnonzero(np.isin(ids, row_ids))
        if len(wanted):
            parts.append((ids[wanted], documents.take(wanted)))
    if not parts:
        return Tokens(np.empty((0, 1), np.float32), np.zeros(1, np.int64))
    lengths = np.concatenate([np.diff(tokens.offsets) for _, tokens in parts])
    joined = Tokens(
        np.concatenate([tokens.vectors for _, tokens in parts]),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )
    return joined.take(np.argsort(np.concatenate([ids for ids, _ in parts])))
