"""Search a segment of an inverted file: choose partitions, make tables, scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.errors import CorruptDataError
from vectorlake.index.ivf_model import Model, transformed
from vectorlake.index.ivf_options import FLAT, INT8, PQ
from vectorlake.index.ivf_segment import BLOCKS, checked_first_blocks
from vectorlake.index.parts import parts_of
from vectorlake.index.protocol import ROW_IDS, ArraySource, Ask, Nominated
from vectorlake.kernels.ivf.fastscan import BLOCK, COARSE, FINE
from vectorlake.kernels.ivf.multiply import PANEL, multiply, panels_of
from vectorlake.kernels.ivf.probe import choose_probes
from vectorlake.kernels.ivf.scan import LOOK_UPS, scan
from vectorlake.kernels.ivf.tables import fill_bit_tables, fill_tables
from vectorlake.kernels.ivf.transform import DEAD
from vectorlake.kernels.metric import Metric
from vectorlake.kernels.rows import INT8 as INT8_CODE
from vectorlake.kernels.rows import Rows
from vectorlake.kernels.team import Team

_AT_ONCE: Final = 4096
"""Queries that are shared out to threads at a time."""
_FINE_FROM: Final = 3
"""From so many bits on, coarse tables would add noticeably to the error of the code."""
_EARLY_ROWS: Final = 8
"""The first wave looks at about so many rows for each that is nominated."""
_MIDDLE: Final = 6
"""The second at so many times as many; the rest is the third."""

_HANDICAP: Final = 0.5
"""Of a partition's spread, so much is added to the distance of its centroid when partitions are chosen. All of it would give
the distance of a row in the middle; neighbours lie on the near side, the nearer the more rows a partition has spread out. In
trials with 320 and 1,024 partitions of text embeddings, shares of 0.4 to 0.6 found 99 % in a fifth fewer rows than 0."""

_CORRELATED: Final = 1.5
"""Where a filter selects rows close to each other, rows looked at grow with such a power of how much denser they lie."""
_CONCENTRATED: Final = 3.0
"""So many times as many rows at most. In trials where whole clusters were left out, 2 lost up to 0.014 of recall."""

_NO_WORDS: Final = np.empty(0, np.uint32)
_NO_WEIGHTS: Final = np.empty(0, np.int64)
_NO_SHIFTS: Final = np.empty((0, 1), np.float32)


@dataclass(frozen=True)
class _Bounds:
    """How much is looked at for each query.

    Attributes:
        nprobe: partitions.
        most: at most, where `weights` ask for more.
        weights: int64 [partitions], rows that may be nominated; empty for all.
        enough: with weights: so many rows.
        waves: int64 [w], see `kernels.ivf.scan`.
    """

    nprobe: int
    most: int
    weights: npt.NDArray[np.int64]
    enough: int
    waves: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Probed:
    """Some queries as asked and transformed, with their norms, and the partitions to look at for each."""

    asked: npt.NDArray[Any]
    queries: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.float64]
    probes: npt.NDArray[np.int32]
    shifts: npt.NDArray[np.float32]


class IvfSearcher:
    """An open segment of an inverted file."""

    def __init__(self, model: Model, segment: ArraySource) -> None:
        self._model = model
        self._segment = segment
        self._first_blocks = np.array(checked_first_blocks(model, segment))
        self._blocks = np.diff(self._first_blocks)
        self._slots = int(self._first_blocks[-1]) * BLOCK
        self._addresses = np.zeros(len(model.centroids), np.int64)
        if segment.local:
            self._mapped = segment[BLOCKS]
            if self._mapped.shape != (int(self._first_blocks[-1]), model.shape.block_bytes):
                raise CorruptDataError(
                    f"an ivf segment has blocks of shape {self._mapped.shape}, but its partitions need "
                    f"{self._first_blocks[-1]} of {model.shape.block_bytes} bytes: rebuild the index"
                )
            if segment[ROW_IDS].shape != (self._slots,):
                raise CorruptDataError(
                    f"an ivf segment has {len(segment[ROW_IDS])} row ids, but {self._slots} slots: rebuild the index"
                )
            self._addresses = self._mapped.ctypes.data + self._first_blocks[:-1] * model.shape.block_bytes
        self._panels = panels_of(model.centroids)
        squares = np.einsum("ij,ij->i", model.centroids, model.centroids)
        self._partition_terms = np.asarray(
            -(model.centroids @ model.offset) if model.by_dot else model.weight * squares, np.float32
        )
        share = 0.0 if model.by_dot else _HANDICAP * model.weight
        self._handicaps = np.asarray(share * model.spreads, np.float32)
        self._factor = np.float32(-1.0 if model.by_dot else -2.0 * model.weight)
        codes = model.config.options["codes"]
        planes = model.shape.planes
        self._fine = codes == PQ or planes >= _FINE_FROM
        self._style = LOOK_UPS
        self._elements = model.shape.pairs
        if not model.shape.interleaved:
            self._elements = model.shape.width
            self._style = INT8_CODE if codes == INT8 else _code_of(model.config.element)
        self._as_stored = codes == FLAT

    @property
    def compared(self) -> int:
        return min(self._model.shape.covered, self._model.config.dimension)

    @property
    def divides(self) -> bool:
        """Not where partitions are fetched: those that several queries probe are then fetched once."""
        return self._segment.local

    @property
    def row_ids(self) -> npt.NDArray[np.int64]:
        ids: npt.NDArray[np.int64] = self._segment[ROW_IDS]
        return ids

    @property
    def largest_effort(self) -> int:
        return len(self._model.centroids)

    def search(self, ask: Ask) -> Nominated:
        count = len(ask.queries)
        slots = np.empty((count, ask.pool), np.int64)
        estimates = np.empty((count, ask.pool), np.float32)
        looked = np.zeros(2, np.int64)
        if self._slots == 0 or ask.pool == 0:
            slots[:], estimates[:] = -1, np.inf
            return Nominated(slots, estimates, 0, 0)
        for first in range(0, count, _AT_ONCE):
            part = slice(first, min(first + _AT_ONCE, count))
            looked += self._search(ask, ask.queries[part], slots[part], estimates[part])
        return Nominated(slots, estimates, int(looked[0]), int(looked[1]) * BLOCK)

    def _search(
        self,
        ask: Ask,
        asked: npt.NDArray[Any],
        slots: npt.NDArray[np.int64],
        estimates: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.int64]:
        """Answer some queries in place; returns how many partitions and blocks were looked at."""
        count, threads = len(asked), ask.threads
        slots[:, self._slots :], estimates[:, self._slots :] = -1, np.inf
        bounds = self._bounds(ask)
        looked: list[npt.NDArray[np.int64]] = []
        probed: dict[int, _Probed] = {}

        def probe(first: int, end: int) -> None:
            probed[first] = self._probed(ask, asked[first:end], bounds)

        def nominate(first: int, end: int) -> None:
            part = probed.pop(first)
            looked.append(self._scanned(ask, part, bounds, addresses, slots[first:end], estimates[first:end]))

        def both(first: int, end: int) -> None:
            probe(first, end)
            nominate(first, end)

        parts = parts_of(count, threads)
        addresses = self._addresses
        team = Team(threads)
        if self._segment.local:
            team.run(both, parts)
        else:
            team.run(probe, parts)
            addresses, _alive = self._fetched([part.probes for part in probed.values()])
            team.run(nominate, parts)
        total: npt.NDArray[np.int64] = np.sum(looked, axis=0)
        return total

    def _bounds(self, ask: Ask) -> _Bounds:
        nlist = len(self._model.centroids)
        nprobe = max(1, min(ask.effort, nlist))
        early = max(1, round(_EARLY_ROWS * ask.pool / max(self._slots / nlist, 1)))
        waves = np.array([end for end in (early, _MIDDLE * early) if end < nprobe], np.int64)
        if ask.allowed is None:
            return _Bounds(nprobe, nprobe, _NO_WEIGHTS, 0, waves)
        weights, enough = self._allowed(ask, nprobe)
        return _Bounds(nprobe, nlist, weights, enough, waves)

    def _probed(self, ask: Ask, asked: npt.NDArray[Any], bounds: _Bounds) -> _Probed:
        """Choose the partitions of some queries."""
        model = self._model
        queries, states, lengths = transformed(model, asked, as_queries=True, threads=1)
        if model.by_dot:
            terms = np.asarray(-np.einsum("ij,j->i", queries + model.offset, model.offset), np.float32)
        else:
            squares = np.einsum("ij,ij->i", queries, queries)
            terms = np.asarray(np.float32(model.weight) * squares, np.float32)
        own = _NO_SHIFTS
        if self._as_stored:
            still = model.by_dot or model.config.metric is Metric.HAMMING
            own = np.zeros((len(queries), 1), np.float32) if still else terms[:, None]
        probes = np.empty((len(queries), bounds.most), np.int32)
        shifts = np.empty((len(queries), bounds.most), np.float32)
        dead = (states == DEAD) if model.config.metric is Metric.COSINE else np.zeros(len(states), np.bool_)
        products = np.empty((len(queries), self._panels.shape[0] * PANEL), np.float32)
        multiply(queries, self._panels, products)
        choose_probes(
            products,
            self._factor,
            self._partition_terms,
            terms,
            dead.view(np.uint8),
            bounds.weights,
            bounds.enough,
            bounds.waves,
            own,
            self._handicaps,
            bounds.nprobe,
            probes,
            shifts,
        )
        return _Probed(asked, queries, lengths, probes, shifts)

    def _scanned(
        self,
        ask: Ask,
        probed: _Probed,
        bounds: _Bounds,
        addresses: npt.NDArray[np.int64],
        slots: npt.NDArray[np.int64],
        estimates: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.int64]:
        """Nominate slots for some queries; returns how many partitions and blocks were looked at."""
        model = self._model
        count, pool = len(probed.queries), min(ask.pool, self._slots)
        whole = pool == ask.pool
        found = estimates if whole else np.empty((count, pool), np.float32)
        places = slots if whole else np.empty((count, pool), np.int64)
        looked = np.zeros(2, np.int64)
        tables, slopes, bases = self._tables(probed.asked, probed.queries)
        scan(
            self._style,
            int(self._fine),
            model.shape.planes,
            self._elements,
            model.shape.block_bytes,
            addresses,
            self._first_blocks,
            _NO_WORDS if ask.allowed is None else np.require(ask.allowed, np.uint32, ["C", "W"]),
            tables,
            slopes,
            bases,
            probed.probes,
            probed.shifts,
            bounds.waves,
            pool,
            2 * pool + 4 * BLOCK,
            found,
            places,
            looked,
        )
        if not whole:
            slots[:, :pool], estimates[:, :pool] = places, found
        self._rescale(estimates, probed.lengths)
        return looked

    def _allowed(self, ask: Ask, nprobe: int) -> tuple[npt.NDArray[np.int64], int]:
        """Rows of each partition that may be nominated, and how many of them to look at."""
        assert ask.allowed is not None
        bits = np.bitwise_count(ask.allowed[: self._slots // BLOCK]).astype(np.int64)
        totals = np.concatenate([[0], np.cumsum(bits)])
        weights = totals[self._first_blocks[1:]] - totals[self._first_blocks[:-1]]
        nlist = len(self._model.centroids)
        passing = max(float(totals[-1]), 1.0) / self._slots
        # The share of rows allowed around one that is, on average; that of all rows where the filter ignores vectors.
        others = weights / np.maximum(self._blocks * BLOCK - 1, 1)
        around = float((others * np.maximum(weights - 1, 0)).sum()) / max(float(totals[-1]), 1.0)
        around = min(max(around, passing), 1.0)
        # The k-th nearest of those allowed is farther away than the k-th of all, but probing as many of them as of all
        # without a filter is more than enough: the mean of both kept recall level in trials. Where those allowed lie
        # together, they fill few partitions, and queries from elsewhere have many about equally far.
        more = min((around / passing) ** _CORRELATED, _CONCENTRATED)
        enough = int(nprobe * self._slots / nlist * np.sqrt(around) * more)
        return weights, max(enough, ask.pool)

    def _tables(
        self, asked: npt.NDArray[Any], queries: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        shape = self._model.shape
        slopes = np.ones(len(queries), np.float32)
        bases = np.zeros(len(queries), np.float32)
        if not shape.interleaved:
            return np.ascontiguousarray(queries).view(np.uint8), slopes, bases
        tables = np.empty((len(queries), shape.table_bytes), np.uint8)
        if self._as_stored:
            fill_bit_tables(np.require(asked, np.uint8, ["C", "W"]), tables)
        else:
            fill_tables(
                np.ascontiguousarray(queries[:, : shape.covered]),
                shape.planes,
                FINE if self._fine else COARSE,
                self._model.codebook,
                0,
                len(queries),
                tables,
                slopes,
                bases,
            )
        return tables, slopes, bases

    def _fetched(
        self, probes: Sequence[npt.NDArray[np.int32]]
    ) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.uint8]]]:
        """Addresses of partitions read from a store, and the arrays that must live while they are used."""
        addresses = np.zeros(len(self._model.centroids), np.int64)
        wanted = np.unique(np.concatenate([part.reshape(-1) for part in probes]))
        wanted = wanted[wanted >= 0]
        wanted = wanted[self._blocks[wanted] > 0]
        parts = self._segment.parts(BLOCKS, wanted.tolist())
        size = self._model.shape.block_bytes
        for partition, part in zip(wanted.tolist(), parts, strict=True):
            if part.shape != (self._blocks[partition], size) or not part.flags.c_contiguous:
                raise CorruptDataError(
                    f"partition {partition} of an ivf segment has blocks of shape {part.shape}, but needs "
                    f"{self._blocks[partition]} of {size} bytes: rebuild the index"
                )
            addresses[partition] = part.ctypes.data
        return addresses, parts

    def _rescale(self, estimates: npt.NDArray[np.float32], lengths: npt.NDArray[np.float64]) -> None:
        """From the model's units to those of the metric."""
        metric, scale = self._model.config.metric, self._model.scale
        if metric is Metric.L2 and scale != 1:
            estimates *= np.float32(scale * scale)
        elif metric is Metric.DOT:
            with np.errstate(invalid="ignore"):
                np.nan_to_num(
                    np.multiply(estimates, (lengths * scale)[:, None].astype(np.float32), out=estimates),
                    copy=False,
                    nan=np.inf,
                    posinf=np.inf,
                )


def _code_of(element: str) -> int:
    return Rows.of(np.empty((0, 1), element), what="vectors").code
