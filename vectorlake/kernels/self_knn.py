"""The k nearest other rows of every row: like rows share blocks, and each pair of blocks is multiplied once.

Exact by default; for a recall, pairs are looked at first by codes that are not sure to tell (see `aim`).
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from vectorlake.kernels.aim import Aim
from vectorlake.kernels.approximate import FirstLook, fill_reaches, meet_blocks
from vectorlake.kernels.codes import LEVELS, RowEncoder, aligned_zeros, fine_width, head_width, to_panels
from vectorlake.kernels.heap import NO_ROW
from vectorlake.kernels.metric import Metric
from vectorlake.kernels.microkernel import PANEL_ROWS, TILE_QUERIES
from vectorlake.kernels.order import sorted_rows
from vectorlake.kernels.pairing import Meetings
from vectorlake.kernels.quantize import TERMS, UNIT, Frame
from vectorlake.kernels.reference import METRIC_CODES
from vectorlake.kernels.rows import Rows
from vectorlake.kernels.self_frame import frame_for
from vectorlake.kernels.settle import BEYOND, FARTHEST, HALF, LENGTH, LOST, SCALE
from vectorlake.kernels.symmetric import join_blocks, seed_block
from vectorlake.kernels.team import Team, cores

BLOCK: Final = 768
"""Rows of a block, by whole tiles and panels: a core's cache holds their integers while they meet another block's."""

_ENCODED_AT_ONCE: Final = 4096
_SAMPLE: Final = 16_384
_LEAST_LENGTH: Final = 1e-30

assert BLOCK % PANEL_ROWS == 0
assert BLOCK % TILE_QUERIES == 0

Blocks: TypeAlias = Sequence[tuple[npt.NDArray[Any], npt.NDArray[np.int64]]]


@dataclasses.dataclass(frozen=True)
class Nearest:
    """What a self-join finds, for every row that can have neighbours, in the order of the rows.

    Attributes:
        own: int64 [n], the rows.
        row_ids: int64 [n, k], their neighbours, nearest first; -1 where there are fewer.
        distances: float64 [n, k], infinity there.
        counts: int64 [n], how many there are.
    """

    own: npt.NDArray[np.int64]
    row_ids: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]


def bytes_per_row(dimension: int, k: int, recall: float) -> int:
    """At most how much memory `nearest_others` takes for each row, besides the vectors."""
    return (5 if recall >= 1 else 8) * dimension + 48 * k + 200


def nearest_others(
    blocks: Blocks,
    *,
    k: int,
    metric: Metric,
    recall: float = 1.0,
    threads: int | None = None,
    block_rows: int = BLOCK,
) -> Nearest:
    """Join rows with themselves: the k nearest of the other rows of each, ties by row id, as `ExactKnn` finds them.

    Args:
        blocks: vectors [m, d] of one type, rows without gaps, and their row ids, int64 [m], each once. Vectors are read
            where they stand until the call returns.
        k: how many neighbours, at least 1.
        metric: one whose distances are sums.
        recall: the share of neighbours that is enough; with less than 1 some may be missed, and farther rows be there in
            their place, with their exact distances. The share is aimed at by a sample whose neighbours are found exactly.
        threads: as many as this process may run on when None.
        block_rows: how many rows meet others at a time, a multiple of 48; for a recall below 1, of 96.

    Rows that never match (see `ExactKnn`) are left out on both sides.
    """
    threads = threads or cores()
    rows = [Rows.of(vectors, what="vectors") for vectors, _ in blocks]
    frame, aimed = frame_for(rows, k, metric, recall, threads)
    team = Team(threads)
    codes = _encode(rows, [ids for _, ids in blocks], frame, metric, team)
    if not len(codes.usable):
        none = np.empty((0, k))
        return Nearest(np.empty(0, np.int64), none.astype(np.int64), none, np.empty(0, np.int64))
    order = _similar_together(codes, block_rows)
    return _Join(codes, order, k, metric, team, block_rows, aimed).run()


@dataclasses.dataclass(frozen=True)
class _Codes:
    """All rows in product space, in the order given (see `codes.RowEncoder.encode`), and which of them can match."""

    stored: list[Rows]
    dimension: int
    code: int
    heads: npt.NDArray[np.int8]
    terms: npt.NDArray[np.float64]
    fine: npt.NDArray[np.int8]
    fine_terms: npt.NDArray[np.float64]
    places: npt.NDArray[np.int64]
    row_ids: npt.NDArray[np.int64]
    usable: npt.NDArray[np.int64]

    def relative_scales(self) -> npt.NDArray[np.float32]:
        """What heads are multiplied by to be rows in product space, in a unit in which no square overflows."""
        scales: npt.NDArray[np.float32] = (
            self.terms[0] / max(float(self.terms[0].max()), _LEAST_LENGTH)
        ).astype(np.float32)
        return scales


def _encode(
    rows: list[Rows], row_ids: list[npt.NDArray[np.int64]], frame: Frame, metric: Metric, team: Team
) -> _Codes:
    total = sum(part.count for part in rows)
    dimension, code = (rows[0].dimension, rows[0].code) if rows else (1, 0)
    width, fine = head_width(frame), fine_width(dimension)
    codes = _Codes(
        rows,
        dimension,
        code,
        np.empty((total, width), np.int8),
        np.empty((TERMS, total)),
        np.empty((total, fine), np.int8),
        np.empty((TERMS, total)),
        np.empty(total, np.int64),
        np.concatenate(row_ids) if row_ids else np.empty(0, np.int64),
        np.empty(0, np.int64),
    )
    own = threading.local()
    parts: list[tuple[Rows, int, int, int]] = []
    start = 0
    for part in rows:
        codes.places[start : start + part.count] = part.address + np.arange(part.count) * part.stride
        parts += [
            (part, first, min(first + _ENCODED_AT_ONCE, part.count), start + first)
            for first in range(0, part.count, _ENCODED_AT_ONCE)
        ]
        start += part.count

    def work(index: int, _end: int) -> None:
        part, first, end, at = parts[index]
        encoder = getattr(own, "encoder", None)
        if encoder is None:
            encoder = own.encoder = RowEncoder(frame, metric)
        to = slice(at, at + end - first)
        heads, terms, finer, finer_terms = encoder.encode(part.array[first:end])
        codes.heads[to], codes.terms[:, to], codes.fine[to], codes.fine_terms[:, to] = (
            heads,
            terms,
            finer,
            finer_terms,
        )

    team.run(work, [(index, index + 1) for index in range(len(parts))])
    return dataclasses.replace(codes, usable=np.flatnonzero(codes.terms[3] != -np.inf))


def _similar_together(codes: _Codes, block_rows: int) -> npt.NDArray[np.int64]:
    """The usable rows in an order in which neighbours tend to be close."""
    from vectorlake.kernels.ivf.kmeans import k_means
    from vectorlake.kernels.ivf.nearest import nearest_centroids

    rows = codes.usable
    clusters = len(rows) // (block_rows // 2)
    if clusters < 4:
        return rows
    rng = np.random.default_rng(len(rows))
    scales = codes.relative_scales()
    sample = np.sort(rng.choice(rows, min(len(rows), max(_SAMPLE, 32 * clusters)), replace=False))
    centroids = k_means(codes.heads[sample] * scales[sample, None], clusters, iterations=6, rng=rng)
    chain = _chain(centroids)
    rank = np.empty(clusters, np.int64)
    rank[chain] = np.arange(clusters)
    near = np.empty(len(rows), np.int64)
    for first in range(0, len(rows), _SAMPLE):
        part = rows[first : first + _SAMPLE]
        places, _ = nearest_centroids(codes.heads[part] * scales[part, None], centroids)
        near[first : first + _SAMPLE] = rank[places]
    return rows[np.argsort(near, kind="stable")]


def _chain(centroids: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """From each centroid on to the nearest that is left."""
    halves = np.square(centroids).sum(axis=1) / 2
    left = np.ones(len(centroids), np.bool_)
    order = [0]
    for _ in range(len(centroids) - 1):
        left[order[-1]] = False
        nearness = centroids @ centroids[order[-1]] - halves
        nearness[~left] = -np.inf
        order.append(int(nearness.argmax()))
    return np.array(order)


class _Join:
    """Rows in their order, arranged for compiled steps."""

    def __init__(
        self,
        codes: _Codes,
        order: npt.NDArray[np.int64],
        k: int,
        metric: Metric,
        team: Team,
        block_rows: int,
        aimed: Aim | None,
    ) -> None:
        self.block_rows = block_rows
        self.codes = codes
        self.order = order
        self.team = team
        self.metric = metric
        self.count = len(order)
        self.blocks = -(-self.count // self.block_rows)
        room = self.blocks * self.block_rows
        width, fine = codes.heads.shape[1], codes.fine.shape[1]
        self.panels = aligned_zeros(room * width)
        self.tiles = np.empty(room * width, np.int8)
        self.fine = np.zeros((room, fine), np.int8)
        self.biases = np.zeros(room, np.int32)
        self.places = np.zeros(room, np.int64)
        self.places[: self.count] = codes.places[order]
        self.row_ids = np.full(room, NO_ROW, np.int64)
        self.row_ids[: self.count] = codes.row_ids[order]
        bounded = np.isfinite(codes.terms[3, order])
        lengths = (codes.terms[2] + codes.terms[1])[order][bounded]
        self.longest = max(float(lengths.max(initial=0.0)), _LEAST_LENGTH)
        self.terms = self._scaled(codes.terms)
        self.fine_terms = self._scaled(codes.fine_terms)
        self.reaches = np.full(room, FARTHEST, np.float32)
        self.distances = np.full((room, k), np.inf)
        self.ids = np.full((room, k), NO_ROW, np.int64)
        self.look = FirstLook.empty(room, width, aimed, self.longest) if aimed else None

    def _scaled(self, terms: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        scaled = np.zeros((TERMS, len(self.places)), np.float32)
        here, count = terms[:, self.order], self.count
        scaled[SCALE, :count] = here[0] / self.longest
        scaled[LOST, :count] = here[1] / self.longest
        scaled[LENGTH, :count] = (here[1] + here[2]) / self.longest
        scaled[HALF, :count] = -here[3] / self.longest**2
        scaled[BEYOND, :count] = here[4] / self.longest
        scaled[HALF, count:] = np.inf
        return scaled

    def _reach_of_distances(self) -> tuple[float, float, float]:
        """How a distance becomes a reach: slope, slack and what distances themselves may be off by."""
        dimension, unit = self.codes.dimension, self.longest**2
        tiny = (dimension + 64) * 2.0**-51
        slack = 2.0**-17 + 4 * (dimension + 16) * UNIT
        if self.metric is Metric.COSINE:
            slack += (8 * UNIT * (self.longest + 8 * UNIT) + tiny) / unit
        else:
            slack += 4 * tiny
        # Twice: half squares stand on both sides.
        return (0.5 if self.metric is Metric.L2 else 1.0) / unit, 2 * slack, tiny

    def _arrange(self, block: int, _end: int) -> None:
        first = block * self.block_rows
        rows = self.order[first : first + self.block_rows]
        heads = np.zeros((self.block_rows, self.codes.heads.shape[1]), np.int8)
        heads[: len(rows)] = self.codes.heads[rows]
        width = heads.shape[1]
        place = slice(first * width, (first + self.block_rows) * width)
        self.panels[place] = to_panels(heads).reshape(-1)
        words = heads.view(np.int32).reshape(self.block_rows // TILE_QUERIES, TILE_QUERIES, width // 4)
        self.tiles[place].view(np.int32).reshape(words.shape[0], width // 4, TILE_QUERIES)[:] = (
            words.transpose(0, 2, 1)
        )
        self.biases[first : first + self.block_rows] = LEVELS * heads.sum(axis=1, dtype=np.int32)
        self.fine[first : first + len(rows)] = self.codes.fine[rows]
        if self.look:
            self.look.arrange(
                first, first + self.block_rows, self.codes.heads[rows], self.codes.terms[:, rows]
            )

    def run(self) -> Nearest:
        every = [(block, block + 1) for block in range(self.blocks)]
        self.team.run(self._arrange, every)
        reach = self._reach_of_distances()
        metric, codes, width = METRIC_CODES[self.metric], self.codes, self.codes.heads.shape[1]
        common = (metric, codes.dimension, width, self.tiles.ctypes.data, self.panels.ctypes.data, self.count)

        measured: tuple[Any, Any, Any, Any, Any, Any] = (codes.code, self.places, self.row_ids, *reach)
        heaps = (self.reaches, self.distances, self.ids)

        def seed(block: int, _end: int) -> None:
            first, end = block * self.block_rows, (block + 1) * self.block_rows
            seed_block(
                *common,
                self.terms,
                self.biases,
                *measured,
                first,
                end,
                *heaps,
            )
            if self.look:
                look = self.look
                fill_reaches(self.reaches, look.grain, look.margin, first, end, look.short, look.lines)

        self.team.run(seed, every)
        meetings = Meetings(self._pairs())
        judged = (self.fine.shape[1], self.fine.ctypes.data, self.fine_terms)

        def meet(one: int, other: int) -> None:
            ranges = (
                one * self.block_rows,
                (one + 1) * self.block_rows,
                other * self.block_rows,
                (other + 1) * self.block_rows,
            )
            if self.look is None:
                join_blocks(*common, self.terms, self.biases, *judged, *measured, *ranges, *heaps)
                return
            look = self.look
            meet_blocks(
                metric,
                codes.dimension,
                look.padded,
                look.shift,
                look.tables.ctypes.data,
                look.panels.ctypes.data,
                self.count,
                look.factors,
                look.halves,
                look.lines,
                look.grain,
                look.margin,
                *judged,
                *measured,
                *ranges,
                look.short,
                *heaps,
            )

        def work() -> None:
            try:
                while (pair := meetings.take()) is not None:
                    try:
                        meet(*pair)
                    finally:
                        meetings.give_back(pair)
            except BaseException:
                meetings.stop()
                raise

        self.team.together(work)
        return self._result()

    def _pairs(self) -> npt.NDArray[np.int64]:
        """All pairs of blocks: each with itself first, then by the nearness of their means."""
        one, other = np.triu_indices(self.blocks, 1)
        scales = self.codes.relative_scales()
        means = np.stack(
            [
                (self.codes.heads[rows] * scales[rows, None]).mean(axis=0)
                for rows in np.split(self.order, np.arange(self.block_rows, self.count, self.block_rows))
            ]
        )
        square = np.square(means).sum(axis=1)
        apart = square[one] + square[other] - 2 * np.einsum("ij,ij->i", means[one], means[other])
        nearest = np.argsort(apart, kind="stable")
        itself = np.arange(self.blocks)
        return np.concatenate([np.stack([itself, itself], 1), np.stack([one, other], 1)[nearest]])

    def _result(self) -> Nearest:
        back = np.argsort(self.order)
        distances, row_ids = sorted_rows(self.distances[back], self.ids[back])
        found = row_ids != NO_ROW
        distances[~found] = np.inf
        row_ids[~found] = -1
        return Nearest(self.codes.row_ids[np.sort(self.order)], row_ids, distances, found.sum(axis=1))
