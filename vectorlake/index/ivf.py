"""Inverted files as an index kind: vectors in partitions around centroids, of which a query looks at the nearest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.index import ivf_model, ivf_options, ivf_segment
from vectorlake.index.ivf_search import IvfSearcher
from vectorlake.index.protocol import Arrays, ArraySource, Block, Config, Facts, Resolved, Vectors
from vectorlake.kernels.metric import Metric

_LEAST_SHARE: Final = 64
"""Calibration probes at least one in so many partitions."""
_RUNGS: Final = 3
"""So many rungs double what is probed: between two that are far apart, recall is known too badly to aim at."""
_POOLS: Final = (20, 30, 40, 60, 80, 100, 130, 160, 200, 300)


class IvfKind:
    """Partitions by k-means, codes of residuals scanned by table look-ups (FastScan).

    Options, all chosen from the data unless given:

    - `nlist`: partitions.
    - `codes`: `rabitq` (bits of the rotated residual; Gao & Long 2024), `pq` (4-bit product quantisation; Jégou et al.
      2011, André et al. 2015), `int8` (residuals as bytes) or `flat` (vectors as stored; packed bits under hamming).
    - `bits`: of each element, with `rabitq`; 1 to 8.
    - `energy`: with `rabitq`, codes cover as many principal directions as hold this share of the vectors' variance, where
      these are clearly fewer than all.
    - `pq_m`: 4-bit codes in a row, with `pq`.
    - `sample`: rows that are learnt from.
    - `iterations`: of k-means.
    """

    name = "ivf"
    version = 2
    exhaustive = True
    metrics = frozenset(Metric)
    elements = frozenset({"float16", "float32", "float64", "int8", "uint8"})

    def resolve(self, facts: Facts, options: Mapping[str, Any]) -> Resolved:
        return ivf_options.resolve(facts, options)

    def train(
        self, vectors: Vectors, config: Config, *, rng: np.random.Generator, threads: int, memory: int
    ) -> Arrays:
        return ivf_model.train(vectors, config, rng=rng, threads=threads, memory=memory).arrays()

    def build(
        self,
        model: Arrays | ArraySource,
        blocks: Iterable[Block],
        config: Config,
        *,
        threads: int,
        memory: int,
    ) -> Arrays:
        return ivf_segment.build(ivf_model.model_of(model, config), blocks, threads=threads, memory=memory)

    def cuts(self, segment: Arrays) -> Mapping[str, npt.NDArray[np.int64]]:
        return ivf_segment.cuts(segment)

    def merge(
        self,
        model: Arrays | ArraySource,
        segments: Sequence[tuple[ArraySource, npt.NDArray[np.bool_]]],
        config: Config,
    ) -> Arrays:
        opened = ivf_model.model_of(model, config)
        parts = [ivf_segment.lifted(opened, source, kept) for source, kept in segments]
        return ivf_segment.arranged(opened, parts, threads=1)

    def open(self, model: ArraySource, segment: ArraySource, config: Config) -> IvfSearcher:
        return IvfSearcher(ivf_model.model_of(model, config), segment)

    def efforts(self, config: Config, rows: int) -> Sequence[tuple[int, int]]:
        nlist = int(config.options["nlist"])
        rungs = range(round(_RUNGS * math.log2(_LEAST_SHARE)), -1, -1)
        probes = sorted({max(1, round(nlist * 2 ** (-rung / _RUNGS))) for rung in rungs})
        return [(probe, pool) for probe in probes for pool in _POOLS]
