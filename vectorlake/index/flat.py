"""Brute force as a kind: the vectors once more, in one place, all of them compared with every query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.errors import CorruptDataError
from vectorlake.index.options import check_known
from vectorlake.index.protocol import (
    NO_SLOT,
    ROW_IDS,
    Arrays,
    ArraySource,
    Ask,
    Block,
    Config,
    Facts,
    Nominated,
    Resolved,
    Vectors,
)
from vectorlake.index.slots import allowed_slots
from vectorlake.kernels.metric import Metric

VECTORS: Final = "vectors"
_SCORES: Final = 2 << 20
"""How many estimates are held at a time."""


class FlatKind:
    """Stores the vectors as they are. Nothing is learnt and nothing is missed."""

    name = "flat"
    version = 1
    exhaustive = True
    metrics = frozenset({Metric.L2, Metric.COSINE, Metric.DOT})
    elements = frozenset({"float16", "float32", "float64", "int8", "uint8"})

    def resolve(self, facts: Facts, options: Mapping[str, Any]) -> Resolved:
        check_known(self.name, options, ())
        return Resolved({}, {})

    def train(
        self, vectors: Vectors, config: Config, *, rng: np.random.Generator, threads: int, memory: int
    ) -> Arrays:
        return {}

    def build(
        self,
        model: Arrays | ArraySource,
        blocks: Iterable[Block],
        config: Config,
        *,
        threads: int,
        memory: int,
    ) -> Arrays:
        parts = list(blocks)
        empty = np.empty((0, config.dimension), config.element)
        return {
            ROW_IDS: np.concatenate([np.empty(0, np.int64), *(part.row_ids for part in parts)]),
            VECTORS: np.concatenate([empty, *(part.vectors for part in parts)]),
        }

    def cuts(self, segment: Arrays) -> Mapping[str, npt.NDArray[np.int64]]:
        return {}

    def merge(
        self,
        model: Arrays | ArraySource,
        segments: Sequence[tuple[ArraySource, npt.NDArray[np.bool_]]],
        config: Config,
    ) -> Arrays:
        return {
            name: np.concatenate([source[name][kept] for source, kept in segments])
            for name in (ROW_IDS, VECTORS)
        }

    def open(self, model: ArraySource, segment: ArraySource, config: Config) -> FlatSearcher:
        return FlatSearcher(segment[ROW_IDS], segment[VECTORS], config)

    def efforts(self, config: Config, rows: int) -> Sequence[tuple[int, int]]:
        return [(1, 10)]


class FlatSearcher:
    """Compares every vector by float32 products."""

    largest_effort = 1

    def __init__(self, row_ids: npt.NDArray[np.int64], vectors: npt.NDArray[Any], config: Config) -> None:
        if len(row_ids) != len(vectors):
            raise CorruptDataError(
                f"a flat segment has {len(row_ids)} row ids, but {len(vectors)} vectors: rebuild the index"
            )
        self.row_ids = row_ids
        self._vectors = vectors
        self._config = config

    def search(self, ask: Ask) -> Nominated:
        count, slots = len(ask.queries), len(self.row_ids)
        pool = min(ask.pool, slots)
        found = np.full((count, ask.pool), NO_SLOT, np.int64)
        estimates = np.full((count, ask.pool), np.inf, np.float32)
        allowed = allowed_slots(ask.allowed, slots) & (self.row_ids >= 0)
        step = max(1, _SCORES // max(slots, 1))
        for first in range(0, count if pool else 0, step):
            scores = self._scores(ask.queries[first : first + step])
            # Vectors that are not finite have no distance from anything.
            scores[:, ~allowed] = np.inf
            scores[~np.isfinite(scores)] = np.inf
            best = np.argpartition(scores, pool - 1, axis=1)[:, :pool]
            values = np.take_along_axis(scores, best, axis=1)
            estimates[first : first + step, :pool] = values
            found[first : first + step, :pool] = np.where(values < np.inf, best, NO_SLOT)
        return Nominated(found, estimates, probed=count, scored=count * slots)

    @np.errstate(invalid="ignore", over="ignore")
    def _scores(self, queries: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        asked = queries.astype(np.float32)
        stored = self._vectors.astype(np.float32, copy=False)  # a copy would be as large as the segment
        products: npt.NDArray[np.float32] = asked @ stored.T
        if self._config.metric is Metric.DOT:
            return -products
        lengths = np.einsum("ij,ij->i", stored, stored)
        if self._config.metric is Metric.COSINE:
            with np.errstate(divide="ignore", invalid="ignore"):
                products /= np.linalg.norm(asked, axis=1, keepdims=True)
                products /= np.sqrt(lengths)
            return np.asarray(np.nan_to_num(1 - products, nan=np.inf), np.float32)
        squares = np.square(asked).sum(axis=1)[:, None] + lengths
        return np.asarray(squares - 2 * products, np.float32)
