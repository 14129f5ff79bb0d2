"""Search an open graph segment: by beam, or by measuring all that a filter lets pass where that costs less."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.errors import CorruptDataError
from vectorlake.index.graph_build import Team
from vectorlake.index.protocol import NO_SLOT, Ask, Config, Nominated
from vectorlake.kernels.distance import METRIC_DOT
from vectorlake.kernels.graph import beam, query
from vectorlake.kernels.graph.record import UNUSABLE, Layout
from vectorlake.kernels.metric import Metric
from vectorlake.kernels.reference import METRIC_CODES

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_VISIT: Final = 14
"""Measuring this many vectors in a row costs about as much as one visit of a vertex."""
_ENOUGH: Final = 0.8
"""A beam that met a smaller share of the rows it was to meet has been led astray by its filter."""
_DISTANCES: Final = 4 << 20
"""How many distances are held at a time when all are measured."""
_BATCH: Final = 4
"""From this many queries for a thread on, they are searched in lockstep."""


class GraphSearcher:
    """A segment, open."""

    def __init__(
        self,
        row_ids: Ints,
        arrays: tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]],
        model: tuple[Floats, npt.NDArray[np.int8], float],
        config: Config,
    ) -> None:
        self.row_ids = row_ids
        self._records, self._roots, self._guests = arrays
        self._centre, self._signs, self._unit = model
        layout = Layout(config.dimension)
        self._check(layout, config.dimension)
        self._code = METRIC_CODES[config.metric]
        self._metric = config.metric
        self._slots = len(row_ids)
        at = layout.vector + layout.padded
        squares = np.ascontiguousarray(self._records[:, at + 4 : at + 8]).view(np.float32)[:, 0]
        self._live: npt.NDArray[np.bool_] = (squares != UNUSABLE) & (row_ids >= 0)
        self._graph = (
            self._records.ctypes.data,
            layout.record,
            self._slots,
            self._roots.ctypes.data,
            len(self._roots),
            self._guests.ctypes.data,
            self._code,
        )
        self._space = (np.array(self._centre), np.array(self._signs))

    @property
    def largest_effort(self) -> int:
        return max(1, self._slots)

    def search(self, ask: Ask) -> Nominated:
        count = len(ask.queries)
        found = np.full((count, ask.pool), NO_SLOT, np.int64)
        distances = np.full((count, ask.pool), np.inf, np.float32)
        queries = np.require(ask.queries, np.float32, ["C", "W"])  # compiled code takes no read-only arrays
        if self._unit != 1.0:
            queries = queries * np.float32(1 / self._unit)
        probed = scored = 0
        passing = self._slots
        if ask.allowed is not None:
            passing = int(np.bitwise_count(ask.allowed).sum())
        if count and passing:
            width = max(ask.effort, ask.pool)
            widened = -(-width * self._slots // passing)
            if ask.effort >= self.largest_effort or passing <= _VISIT * widened:
                scored = self._scan(queries, np.arange(count), ask, found, distances)
            else:
                probed, scored = self._beam(queries, ask, width, widened, found, distances)
        self._finish(queries, found, distances)
        return Nominated(found, distances, probed, scored)

    def _beam(
        self, queries: Floats, ask: Ask, wanted: int, width: int, found: Ints, distances: Floats
    ) -> tuple[int, int]:
        count = len(queries)
        counts = np.zeros((2, count), np.int64)
        allowed = 0 if ask.allowed is None else ask.allowed.ctypes.data
        nobody = np.empty(0, np.int64)
        threads = min(ask.threads, count)
        lanes = beam.LANES if count >= _BATCH * threads else 1

        def part(first: int, end: int) -> None:
            beam.search_beam(
                *self._graph, queries, nobody, first, end, *self._space, lanes, width, ask.pool, allowed, found,
                distances, counts[0], counts[1],
            )  # fmt: skip

        if threads < 2:
            part(0, count)
        else:
            with Team(threads) as team:
                team.run(part, count, max(64, -(-count // (8 * threads))))
        probed = int(counts[0].sum())
        scored = probed * 32
        if ask.allowed is not None:
            astray = np.flatnonzero(counts[1] < _ENOUGH * wanted)
            if len(astray):
                scored += self._scan(queries, astray, ask, found, distances)
        return probed, scored

    def _scan(self, queries: Floats, which: Ints, ask: Ask, found: Ints, distances: Floats) -> int:
        """Measure all slots that may be nominated, for some queries; returns how many were measured."""
        live = self._live
        if ask.allowed is not None:
            live = live & np.unpackbits(
                ask.allowed.view(np.uint8), count=self._slots, bitorder="little"
            ).astype(np.bool_)
        slots = np.flatnonzero(live)
        pool = min(ask.pool, len(slots))
        if not pool:
            return 0
        step = max(1, _DISTANCES // len(slots))
        with Team(ask.threads if len(slots) * len(which) > 20_000 else 1) as team:
            for first in range(0, len(which), step):
                some = which[first : first + step]
                asked = np.ascontiguousarray(queries[some])
                measured = np.empty((len(some), len(slots)), np.float32)
                team.run(
                    lambda a, b, asked=asked, measured=measured: query.scan_slots(  # type: ignore[misc]
                        self._graph[0], self._graph[1], self._code, asked, a, b, *self._space, slots, measured
                    ),
                    len(some),
                    8,
                )
                if pool < len(slots):
                    best = np.argpartition(measured, pool - 1, axis=1)[:, :pool]
                    measured = np.take_along_axis(measured, best, axis=1)
                else:
                    best = np.broadcast_to(np.arange(pool), measured.shape)
                found[some] = NO_SLOT
                distances[some] = np.inf
                found[some, :pool] = np.where(np.isfinite(measured), slots[best], NO_SLOT)
                distances[some, :pool] = measured
        return len(slots) * len(which)

    def _finish(self, queries: Floats, found: Ints, distances: Floats) -> None:
        """From distances in the graph's space to those of the metric, in place."""
        if self._metric is Metric.COSINE:
            distances *= np.float32(0.5)
        elif self._code == METRIC_DOT:
            distances -= (queries @ self._centre)[:, None]
        if self._unit != 1.0:
            distances *= np.float32(self._unit**2)
        if not np.isfinite(distances).all():
            found[~np.isfinite(distances)] = NO_SLOT
            distances[found == NO_SLOT] = np.inf

    def _check(self, layout: Layout, dimension: int) -> None:
        slots = len(self.row_ids)
        expected = (
            ("records", self._records, (slots, layout.record)),
            ("roots", self._roots, (len(self._roots), layout.root)),
            ("centre", self._centre, (dimension,)),
            ("signs", self._signs, (len(self._signs), layout.padded)),
        )
        for name, array, shape in expected:
            if array.shape != shape:
                raise CorruptDataError(
                    f"a graph segment of {slots} slots has array {name!r} of shape {array.shape}, not {shape}: "
                    "rebuild the index"
                )
