"""Search an open graph segment: by beam, or by measuring all that a filter lets pass where that costs less."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.errors import CorruptDataError
from vectorlake.index.graph_build import longest_of
from vectorlake.index.graph_memory import Copying
from vectorlake.index.graph_slack import beam_for
from vectorlake.index.protocol import NO_SLOT, Ask, Config, Nominated, Single
from vectorlake.kernels.counter import counter
from vectorlake.kernels.distance import METRIC_DOT
from vectorlake.kernels.graph import beam, query
from vectorlake.kernels.graph.record import DEGREE, UNUSABLE, Layout
from vectorlake.kernels.metric import Metric
from vectorlake.kernels.reference import METRIC_CODES
from vectorlake.kernels.team import Team

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_VISIT: Final = 14
"""Measuring this many vectors in a row costs about as much as one visit of a vertex."""
_DEEP: Final = 0.5
"""What is nearest under a filter is among this share of what a beam visits, or it has been led astray..."""
_DEEPER: Final = 1.5
"""...except where so many times the share is found without one."""
_WIDER: Final = 4
"""So many times wider is a beam for queries that were led astray."""
_DISTANCES: Final = 4 << 20
"""How many distances are held at a time when all are measured."""
_BATCH: Final = 4
"""From this many queries for a thread on, they are searched in lockstep."""
_SCANNED: Final = 8
"""Queries of which all distances are measured together."""
_NOT_TAKEN: Final = -1
_WRITABLE: Final = ("C", "W")
"""Compiled code takes no read-only arrays, though it writes to none of the queries."""
_NOBODY: Final = np.empty(0, np.int64)


class GraphSearcher:
    """A segment, open."""

    def __init__(
        self,
        row_ids: Ints,
        arrays: tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]],
        slacks: Floats,
        model: tuple[Floats, npt.NDArray[np.int8], float],
        config: Config,
    ) -> None:
        self.row_ids = row_ids
        self._records, self._roots, self._guests = arrays
        self._slacks = slacks
        self._beams: dict[int, tuple[int, float]] = {}
        self._centre, self._signs, self._unit = model
        layout = Layout(config.dimension)
        self._check(layout, config.dimension)
        self._code = METRIC_CODES[config.metric]
        self._factor = 0.5 if config.metric is Metric.COSINE else self._unit**2
        self._slots = len(row_ids)
        at = layout.vector + layout.padded
        squares = np.ascontiguousarray(self._records[:, at + 4 : at + 8]).view(np.float32)[:, 0]
        self._longest = longest_of(squares) if self._code == METRIC_DOT else 0.0
        self._live: npt.NDArray[np.bool_] = (squares != UNUSABLE) & (row_ids >= 0)
        self._near = self._records
        self._graph = (
            self._records.ctypes.data,
            layout.record,
            self._slots,
            self._roots.ctypes.data,
            len(self._roots),
            self._guests.ctypes.data,
            self._code,
        )
        self._copying = Copying(self._records)
        self._space = (np.array(self._centre), np.array(self._signs))

    @property
    def largest_effort(self) -> int:
        return max(1, self._slots)

    def takes_turns(self, ask: Ask) -> bool:
        return not self._measures_all(ask, self._passing(ask))

    def search(self, ask: Ask) -> Nominated:
        count = len(ask.queries)
        queries = self._rounded(ask.queries)
        found = np.empty((count, ask.pool), np.int64)
        distances = np.empty((count, ask.pool), np.float32)
        passing = self._passing(ask)
        if self._measures_all(ask, passing):
            scored = self._scan(queries, np.arange(count), ask, found, distances)
            return Nominated(found, distances, 0, scored)
        width, slack = self._beam_of(ask, passing)
        counts = np.full((2, count), _NOT_TAKEN)
        self._beam(queries, ask, width, slack, found, distances, counts)
        mine = np.arange(count) if ask.turn is None else np.flatnonzero(counts[0] != _NOT_TAKEN)
        probed = int(counts[0, mine].sum())
        scored = probed * DEGREE
        if (copy := self._copying.after(probed, count)) is not None:
            self._near = copy
            self._graph = (copy.ctypes.data, *self._graph[1:])
        if ask.allowed is not None:
            astray = mine[self._astray(ask, width, counts[:, mine], found[mine])]
            more, seen = self._look_farther(queries, astray, ask, width, passing, found, distances)
            probed, scored = probed + more, scored + seen
        return Nominated(found, distances, probed, scored, None if ask.turn is None else mine)

    def _astray(self, ask: Ask, width: int, counts: Ints, found: Ints) -> npt.NDArray[np.bool_]:
        """Which queries found what they did too deep among what they visited: near the edge of a beam much is overlooked."""
        visits, depths = counts
        usual = ask.pool / max(ask.effort, ask.pool)
        most = max(_DEEP, min(_DEEPER * usual, (3 + usual) / 4))
        # A beam that ended early with a full pool had nothing nearer left.
        ended = (visits >= width) | (found[:, -1] == NO_SLOT)
        astray: npt.NDArray[np.bool_] = ended & (depths > most * visits)
        return astray

    def _look_farther(
        self, queries: Floats, which: Ints, ask: Ask, width: int, passing: int, found: Ints, distances: Floats
    ) -> tuple[int, int]:
        """Search again for queries that a filter led astray, with ever wider beams, or measure all that may be nominated
        once that costs less; returns visits, and how many were compared."""
        probed = scored = 0
        while len(which):
            width *= _WIDER
            if passing <= _VISIT * width:
                return probed, scored + self._scan(queries, which, ask, found, distances)
            some = np.ascontiguousarray(queries[which])
            counts = np.empty((2, len(which)), np.int64)
            slots, away = (np.empty((len(which), ask.pool), kind) for kind in (np.int64, np.float32))
            again = replace(ask, turn=None, omitted=None if ask.omitted is None else ask.omitted[which])
            self._beam(some, again, width, np.inf, slots, away, counts)
            found[which], distances[which] = slots, away
            probed += int(counts[0].sum())
            scored += int(counts[0].sum()) * DEGREE
            which = which[self._astray(ask, width, counts, slots)]
        return probed, scored

    def for_singles(self, ask: Ask) -> Single:
        """What a query needs besides the graph takes longer than the graph where it is found out anew for each."""
        passing, pool = self._passing(ask), ask.pool
        if self._measures_all(ask, passing):
            return lambda query: self.search(replace(ask, queries=query))
        width, slack = self._beam_of(ask, passing)
        allowed = 0 if ask.allowed is None else ask.allowed.ctypes.data

        def single(query: npt.NDArray[Any]) -> Nominated:
            found, distances = np.empty((1, pool), np.int64), np.empty((1, pool), np.float32)
            counts = np.empty((2, 1), np.int64)
            beam.search_beam(
                *self._graph, self._rounded(query), _NOBODY, counter(), 1, *self._space, 1, width, pool, allowed,
                _NOBODY, self._factor, slack, self._longest, found, distances, counts[0], counts[1],
            )  # fmt: skip
            if allowed and self._astray(ask, width, counts, found).any():
                return self.search(replace(ask, queries=query))
            probed = int(counts[0, 0])
            return Nominated(found, distances, probed, probed * DEGREE)

        return single

    def _rounded(self, queries: npt.NDArray[Any]) -> Floats:
        """As compiled code takes them, in the graph's units."""
        if self._unit != 1.0:
            return np.asarray(queries, np.float32) * np.float32(1 / self._unit)
        if queries.flags.c_contiguous and queries.flags.writeable and queries.dtype == np.float32:
            return queries
        return np.require(queries, np.float32, _WRITABLE)

    def _beam_of(self, ask: Ask, passing: int) -> tuple[int, float]:
        """The width of the beam and the slack for an ask."""
        visits = max(ask.effort, ask.pool)
        if (how := self._beams.get(visits)) is None:
            how = self._beams[visits] = beam_for(self._slacks, visits)
        return self._widened(how[0], passing), how[1]

    def _passing(self, ask: Ask) -> int:
        """How many slots may be nominated."""
        return self._slots if ask.allowed is None else int(np.bitwise_count(ask.allowed).sum())

    def _measures_all(self, ask: Ask, passing: int) -> bool:
        """Whether all that may be nominated are measured, since a beam would cost more."""
        visits = max(ask.effort, ask.pool)
        return ask.effort >= self.largest_effort or passing <= _VISIT * self._widened(visits, passing)

    def _widened(self, width: int, passing: int) -> int:
        """So wide a beam, widened by what a filter leaves, so that as many that pass are met."""
        return -(-width * self._slots // max(passing, 1))

    def _beam(
        self,
        queries: Floats,
        ask: Ask,
        width: int,
        slack: float,
        found: Ints,
        distances: Floats,
        counts: Ints,
    ) -> None:
        """Search the graph; writes slots, distances, and for each query how many vertices were visited and how deep among
        them the pool is."""
        count = len(queries)
        allowed = 0 if ask.allowed is None else ask.allowed.ctypes.data
        omitted = _NOBODY if ask.omitted is None else ask.omitted
        turn, threads = counter(), min(ask.threads, count)
        if ask.turn is not None:
            turn, threads = ask.turn, 1
        lanes = beam.LANES if count >= _BATCH * ask.threads else 1

        def work() -> None:
            beam.search_beam(
                *self._graph, queries, _NOBODY, turn, count, *self._space, lanes, width, ask.pool, allowed, omitted,
                self._factor, slack, self._longest, found, distances, counts[0], counts[1],
            )  # fmt: skip

        Team(threads).together(work)

    def _scan(self, queries: Floats, which: Ints, ask: Ask, found: Ints, distances: Floats) -> int:
        """Measure all slots that may be nominated, for some queries; returns how many were measured."""
        live = self._live
        if ask.allowed is not None:
            live = live & np.unpackbits(
                ask.allowed.view(np.uint8), count=self._slots, bitorder="little"
            ).astype(np.bool_)
        slots = np.flatnonzero(live)
        pool = min(ask.pool, len(slots))
        found[which] = NO_SLOT
        distances[which] = np.inf
        if not pool:
            return 0
        step = max(1, _DISTANCES // len(slots))
        team = Team(ask.threads if len(slots) * len(which) > 20_000 else 1)
        for first in range(0, len(which), step):
            some = which[first : first + step]
            asked = np.ascontiguousarray(queries[some])
            measured = np.empty((len(some), len(slots)), np.float32)
            team.share(
                lambda a, b, asked=asked, measured=measured: query.scan_slots(  # type: ignore[misc]
                    self._graph[0], self._graph[1], self._code, asked, a, b, *self._space, slots, measured
                ),
                len(some),
                _SCANNED,
            )
            if pool < len(slots):
                best = np.argpartition(measured, pool - 1, axis=1)[:, :pool]
                measured = np.take_along_axis(measured, best, axis=1)
            else:
                best = np.broadcast_to(np.arange(pool), measured.shape)
            measured = self._finished(asked, measured)
            found[some, :pool] = np.where(measured < np.inf, slots[best], NO_SLOT)
            distances[some, :pool] = measured
        return len(slots) * len(which)

    def _finished(self, queries: Floats, distances: Floats) -> Floats:
        """From distances in the graph's space to those of the metric."""
        if self._code == METRIC_DOT:
            distances = distances - (queries @ self._centre)[:, None]
        distances = distances * np.float32(self._factor)
        return np.where(np.isfinite(distances), distances, np.float32(np.inf))

    def _check(self, layout: Layout, dimension: int) -> None:
        slots = len(self.row_ids)
        expected = (
            ("records", self._records, (slots, layout.record)),
            ("roots", self._roots, (len(self._roots), layout.root)),
            ("slacks", self._slacks, (len(self._slacks), 3)),
            ("centre", self._centre, (dimension,)),
            ("signs", self._signs, (len(self._signs), layout.padded)),
        )
        for name, array, shape in expected:
            if array.shape != shape:
                raise CorruptDataError(
                    f"a graph segment of {slots} slots has array {name!r} of shape {array.shape}, not {shape}: "
                    "rebuild the index"
                )
