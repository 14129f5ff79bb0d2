"""An index kind that keeps vectors as they are, so that tests of tables can look into its segments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

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
from vectorlake.kernels.metric import Metric

VECTORS = "vectors"


class PlainKind:
    """Learns nothing, and nominates slots as they come."""

    name = "plain"
    version = 1
    exhaustive = True
    metrics = frozenset(Metric)
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
        return {name: np.concatenate([s[name][kept] for s, kept in segments]) for name in (ROW_IDS, VECTORS)}

    def open(self, model: ArraySource, segment: ArraySource, config: Config) -> PlainSearcher:
        return PlainSearcher(segment[ROW_IDS], segment[VECTORS])

    def efforts(self, config: Config, rows: int) -> Sequence[tuple[int, int]]:
        return [(1, 10)]


class PlainSearcher:
    largest_effort = 1

    def __init__(self, row_ids: npt.NDArray[np.int64], vectors: npt.NDArray[Any]) -> None:
        self.row_ids = row_ids
        self.vectors = vectors

    def search(self, ask: Ask) -> Nominated:
        slots = np.full((len(ask.queries), ask.pool), NO_SLOT, np.int64)
        found = min(ask.pool, len(self.row_ids))
        slots[:, :found] = np.arange(found)
        return Nominated(slots, np.where(slots >= 0, 0, np.inf).astype(np.float32), probed=0, scored=0)
