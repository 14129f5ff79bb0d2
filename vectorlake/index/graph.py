"""A graph over quantised vectors, for single queries in tens of microseconds and most queries per second at high recall.

Every vertex has one record with its vector, rounded to bytes, and the one-bit codes of its 32 neighbours: a visit reads
one run of memory (`kernels.graph.record`). Local segments are mapped, and only what is visited is read; a remote segment
is fetched whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.errors import InvalidInputError
from vectorlake.index.graph_build import BYTES_PER_ROW, Bytes, Graph, Plan, build_graph, vectors_of
from vectorlake.index.graph_search import GraphSearcher
from vectorlake.index.graph_slack import POOL
from vectorlake.index.options import check_known, fraction, whole_number
from vectorlake.index.protocol import (
    ROW_IDS,
    Arrays,
    ArraySource,
    Block,
    Config,
    Facts,
    Resolved,
    Vectors,
)
from vectorlake.kernels.graph import construct, rotation
from vectorlake.kernels.graph.record import LARGEST_DIMENSION, Layout
from vectorlake.kernels.metric import Metric
from vectorlake.kernels.reference import METRIC_CODES
from vectorlake.kernels.team import Team

CENTRE: Final = "centre"
SIGNS: Final = "signs"
UNIT: Final = "unit"
RECORDS: Final = "records"
ROOTS: Final = "roots"
GUESTS: Final = "guests"
SLACKS: Final = "slacks"

_SAMPLE: Final = 20_000
_STEP: Final = 8192
_SHARE: Final = 1024
_WIDTH: Final = 200
_ROUNDS: Final = 2
_VISITS: Final = 0.5
_EFFORTS: Final = (
    16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 768, 1024, 1536, 2048
)  # fmt: skip


class GraphKind:
    """After SymphonyQG (Gou et al., SIGMOD 2025). Options: `width` and `rounds` of the construction, `visits` of a beam."""

    name = "graph"
    version = 1
    exhaustive = True  # the largest effort measures all rows, whatever edges lead to
    metrics = frozenset({Metric.L2, Metric.COSINE, Metric.DOT})
    elements = frozenset({"float16", "float32", "float64", "int8", "uint8"})

    def resolve(self, facts: Facts, options: Mapping[str, Any]) -> Resolved:
        check_known(self.name, options, ("width", "rounds", "visits"))
        if Layout(facts.dimension).padded > LARGEST_DIMENSION:
            raise InvalidInputError(
                f"an index of kind 'graph' takes vectors of up to {LARGEST_DIMENSION} elements, not {facts.dimension}"
            )
        chosen: dict[str, str] = {}
        width = whole_number(options, "width", least=8, most=4096)
        if width is None:
            width = _WIDTH
            chosen["width"] = "wider finds hardly better edges, and takes longer to build"
        rounds = whole_number(options, "rounds", least=0, most=8)
        if rounds is None:
            rounds = _ROUNDS
            chosen["rounds"] = "the second search finds neighbours that the first missed, a third hardly any"
        visits = fraction(options, "visits")
        if visits is None:
            visits = _VISITS
            chosen["visits"] = (
                "easy queries leave visits to hard ones, where the segment is measured to find more so"
            )
        return Resolved({"width": width, "rounds": rounds, "visits": visits}, chosen)

    def train(
        self, vectors: Vectors, config: Config, *, rng: np.random.Generator, threads: int, memory: int
    ) -> Arrays:
        count = max(1, min(_SAMPLE, memory // (32 * config.dimension)))
        sample = np.asarray(vectors.sample(count, rng), np.float64)
        sample = sample[np.isfinite(sample).all(axis=1)]
        unit = 1.0
        if config.metric is Metric.COSINE:
            lengths = np.linalg.norm(sample, axis=1, keepdims=True)
            sample = sample[lengths[:, 0] > 0] / lengths[lengths > 0][:, None]
        elif sample.size and (largest := float(np.abs(sample).max())) and not 1e-6 < largest < 1e6:
            unit = float(2.0 ** np.floor(np.log2(largest)))  # float32 shall hold the squares
        centre = (sample / unit).mean(axis=0) if len(sample) else np.zeros(config.dimension)
        signs = 2 * rng.integers(0, 2, (rotation.ROUNDS, Layout(config.dimension).padded), np.int8) - 1
        return {
            CENTRE: centre.astype(np.float32),
            SIGNS: signs.astype(np.int8),
            UNIT: np.array([unit], np.float64),
        }

    def build(
        self,
        model: Arrays | ArraySource,
        blocks: Iterable[Block],
        config: Config,
        *,
        threads: int,
        memory: int,
    ) -> Arrays:
        ids: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
        stored: list[Bytes] = []
        for block in blocks:
            ids.append(block.row_ids)
            stored += _encoded(model, block.vectors, config, Team(threads))
        return _segment(np.concatenate(ids), stored, config, threads=threads, memory=memory)

    def cuts(self, segment: Arrays) -> Mapping[str, npt.NDArray[np.int64]]:
        return {}

    def merge(
        self,
        model: Arrays | ArraySource,
        segments: Sequence[tuple[ArraySource, npt.NDArray[np.bool_]]],
        config: Config,
    ) -> Arrays:
        """Build anew from the vectors in the records: no vector is read from the table."""
        layout = Layout(config.dimension)
        ids = np.concatenate([np.empty(0, np.int64), *(source[ROW_IDS][kept] for source, kept in segments)])
        stored = [vectors_of(source[RECORDS], layout)[kept] for source, kept in segments]
        memory = max(1 << 30, 2 * len(ids) * BYTES_PER_ROW)
        return _segment(ids, stored, config, threads=1, memory=memory)

    def open(self, model: ArraySource, segment: ArraySource, config: Config) -> GraphSearcher:
        arrays = segment[RECORDS], segment[ROOTS], segment[GUESTS]
        # Segments of an index from before `visits` have none.
        slacks = np.array(segment[SLACKS]) if "visits" in config.options else np.empty((0, 3), np.float32)
        return GraphSearcher(
            segment[ROW_IDS], arrays, slacks, (model[CENTRE], model[SIGNS], float(model[UNIT][0])), config
        )

    def efforts(self, config: Config, rows: int) -> Sequence[tuple[int, int]]:
        return [(effort, POOL) for effort in _EFFORTS if effort <= max(rows, _EFFORTS[0])]


def _encoded(
    model: Arrays | ArraySource, vectors: npt.NDArray[Any], config: Config, team: Team
) -> Iterator[Bytes]:
    """Vectors as records hold them, some thousands at a time."""
    layout = Layout(config.dimension)
    centre, signs = np.array(model[CENTRE]), np.array(model[SIGNS])
    unit = float(model[UNIT][0])
    for first in range(0, len(vectors), _STEP):
        part = vectors[first : first + _STEP]
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = part if unit == 1.0 else np.asarray(part, np.float64) / unit
            rows = np.require(scaled, np.float32, ["C", "W"])
        rotated = np.empty((len(rows), layout.padded), np.float32)
        usable = np.empty(len(rows), np.bool_)
        out = np.zeros((len(rows), layout.stored), np.uint8)

        def encode(
            a: int, b: int, rows: Any = rows, rotated: Any = rotated, usable: Any = usable, out: Any = out
        ) -> None:
            code = METRIC_CODES[config.metric]
            rotation.prepare_rows(code, rows, a, b, centre, True, signs, rotated, usable)
            construct.store_rows(rotated, usable, a, b, out.ctypes.data, layout.stored)

        team.share(encode, len(rows), _SHARE)
        yield out


def _segment(
    ids: npt.NDArray[np.int64], stored: list[Bytes], config: Config, *, threads: int, memory: int
) -> Arrays:
    options = config.options
    # An index of before `visits` keeps to the searches that its recall was measured with.
    plan = Plan(METRIC_CODES[config.metric], options["width"], options["rounds"], options.get("visits", 1.0))
    graph: Graph = build_graph(
        stored, len(ids), Layout(config.dimension), plan, threads=threads, memory=memory
    )
    return {
        ROW_IDS: ids,
        RECORDS: graph.records,
        ROOTS: graph.roots,
        GUESTS: graph.guests,
        SLACKS: graph.slacks,
    }
