"""The k best documents of each query by MaxSim (late interaction), exact, over a stream of blocks of token vectors.

MaxSim (Khattab and Zaharia, "ColBERT", SIGIR 2020) sums, over the tokens of a query, the best inner product with any
token of the document. A distance here is minus that, so that smaller is nearer, as under every metric.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.errors import InvalidInputError
from vectorlake.kernels.knn import NO_ROW
from vectorlake.kernels.metric import Metric
from vectorlake.kernels.order import sorted_rows
from vectorlake.kernels.reference import METRIC_CODES
from vectorlake.kernels.rows import Rows
from vectorlake.kernels.team import Team, cores

_GROUP_TOKENS: Final = 512
"""Query tokens that are multiplied with one document after another: they stay in a core's cache."""
_CHUNK_BYTES: Final = 16 << 20
"""Memory for the documents' tokens as float32."""
_CHUNK_SCORES: Final = 4 << 20
"""Scores of one chunk of documents."""
_UNIT: Final = 2.0**-24
_TAME: Final = 1e290
"""Where products of norms lie between this and its reciprocal, float64 neither overflows nor loses small numbers."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tokens:
    """Multivectors, end to end.

    Attributes:
        vectors: [t, d] of float32, float64, float16, int8 or uint8, all tokens.
        offsets: int64 [m + 1], where those of each multivector begin, and the end; some may have none.
        usable: bool [t], False for tokens that don't count; None where all do.
    """

    vectors: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]
    usable: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def part(self, first: int, end: int) -> Tokens:
        """The multivectors [first, end)."""
        offsets = self.offsets[first : end + 1]
        low, high = offsets[0], offsets[-1]
        usable = None if self.usable is None else self.usable[low:high]
        return Tokens(self.vectors[low:high], offsets - low, usable)

    def take(self, wanted: npt.NDArray[np.int64]) -> Tokens:
        """Some of the multivectors, in that order."""
        starts, ends = self.offsets[:-1][wanted], self.offsets[1:][wanted]
        offsets = np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64)
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
        return Tokens(self.vectors[places], offsets, None if self.usable is None else self.usable[places])


@dataclasses.dataclass(frozen=True, slots=True)
class Documents:
    """Documents that have been looked through: which of their tokens count under a metric, and how long they are.

    Attributes:
        rows: all tokens.
        offsets: int64 [m + 1], where each document's begin.
        usable: bool [tokens].
        norms: float64 [tokens].
        row_ids: int64 [m].
    """

    rows: Rows
    offsets: npt.NDArray[np.int64]
    usable: npt.NDArray[np.bool_]
    norms: npt.NDArray[np.float64]
    row_ids: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls, tokens: Tokens, row_ids: npt.NDArray[np.int64], metric: Metric, *, threads: int = 1
    ) -> Documents:
        """Look through some documents.

        Raises:
            InvalidInputError: their tokens are no vectors of numbers.
        """
        rows = Rows.of(tokens.vectors, what="token vectors")
        ids = np.ascontiguousarray(row_ids, np.int64)
        return _surveyed(tokens, rows, ids, 0, len(tokens), metric, Team(threads))


def _surveyed(
    documents: Tokens,
    rows: Rows,
    row_ids: npt.NDArray[np.int64],
    first: int,
    end: int,
    metric: Metric,
    team: Team,
) -> Documents:
    from vectorlake.kernels.maxsim_scan import survey

    offsets = np.ascontiguousarray(documents.offsets[first : end + 1], np.int64)
    low, high = int(offsets[0]), int(offsets[-1])
    block = Rows(rows.array[low:high], rows.code)
    usable = np.ones(high - low, np.bool_)
    if documents.usable is not None:
        usable = np.ascontiguousarray(documents.usable[low:high], np.bool_).copy()
    norms = np.empty(high - low)

    def look(start: int, stop: int) -> None:
        survey(
            METRIC_CODES[metric],
            block.code,
            block.address,
            block.stride,
            block.dimension,
            start,
            stop,
            usable,
            norms,
        )

    team.run(look, _parts(high - low, team.threads))
    return Documents(block, offsets - low, usable, norms, row_ids[first:end])


def check_maxsim_metric(metric: Metric) -> None:
    """Refuse a metric that MaxSim isn't defined for.

    Raises:
        InvalidInputError: it is neither dot nor cosine.
    """
    if metric not in (Metric.DOT, Metric.COSINE):
        raise InvalidInputError(
            f"MaxSim sums best products, so metric {metric.value!r} means nothing for multivectors: "
            "use 'dot' or 'cosine'"
        )


class ExactMaxSim:
    """Finds the k documents with the highest MaxSim for each query among blocks that are added one after another.

    The distance is minus the sum, over the query's tokens in their order, of the largest float64 product (summed as
    `lanes` defines; under cosine divided by both norms, and in [-1, 1]) with a token of the document. Documents are
    ordered by distance, then by row id; neither threads nor the cutting into blocks changes a bit.

    A token never counts when an element is infinite or not a number or, under cosine, when its norm is zero; a product
    doesn't when it overflows float64. A document without a token that counts never matches, nor one whose sum
    overflows. Under cosine the zero tokens of a query (padding) are left out; a query without tokens finds nothing.

    Candidates come from float32 products: n bits of rounding in any order of summation change the product of two
    vectors of d elements by no more than (d + 16) 2**-24 of the product of their norms (Higham, "Accuracy and
    Stability of Numerical Algorithms", 3.1). A document is left out only when k others are surely nearer.

    Args:
        queries: their tokens, finite. Read until the last `add`.
        k: how many documents to find for each query, at least 1.
        metric: dot or cosine.
        threads: how many work inside `add`; as many as this process may run on when None.

    Raises:
        InvalidInputError: another metric, a query that is not finite, or k or threads below 1.
    """

    def __init__(self, queries: Tokens, *, k: int, metric: Metric, threads: int | None = None) -> None:
        check_maxsim_metric(metric)
        if k < 1:
            raise InvalidInputError(f"k is {k}: ask for at least one neighbour")
        if threads is not None and threads < 1:
            raise InvalidInputError(f"threads is {threads}: give at least 1, or None for all")
        self._metric = metric
        self._threads = threads or cores()
        self._asked = _Asked.of(queries, metric)
        count = len(queries)
        self._distances = np.full((count, k), np.inf)
        self._row_ids = np.full((count, k), NO_ROW, np.int64)
        self._lock = threading.Lock()

    def add(self, documents: Tokens, row_ids: npt.NDArray[np.int64]) -> None:
        """Offer a block of documents to every query. Calls from several threads take turns.

        Args:
            documents: their tokens, of the queries' dimension; blocks may differ in type.
            row_ids: int64 [m], each document's id; no two share one.

        Raises:
            InvalidInputError: wrong shapes or types.
        """
        rows = Rows.of(documents.vectors, what="token vectors", dimension=self._asked.doubles.shape[1])
        ids = np.ascontiguousarray(row_ids, np.int64)
        if ids.shape != (len(documents),):
            raise InvalidInputError(f"{len(documents)} documents came with row ids of shape {ids.shape}")
        if not len(documents) or not len(self._asked.doubles):
            return
        team = Team(self._threads)
        with self._lock:
            for first, end in self._chunks(documents.offsets):
                held = _surveyed(documents, rows, ids, first, end, self._metric, team)
                self._search(_Chunk.of(held, self._metric, team), team)

    def result(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """The best documents among those added so far, best first; more blocks may follow.

        Returns:
            row ids int64 [n, k] (-1 where fewer than k match), distances float64 [n, k] (infinity there), and how many
            were found, int64 [n].
        """
        with self._lock:
            distances, row_ids = sorted_rows(self._distances, self._row_ids)
        found = distances < np.inf
        row_ids[~found] = -1
        return row_ids, distances, found.sum(axis=1)

    def _chunks(self, offsets: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
        """Cut documents so that neither their tokens nor the scores take much memory."""
        tokens = max(1, _CHUNK_BYTES // (4 * self._asked.doubles.shape[1]))
        most = max(1, _CHUNK_SCORES // len(self._distances))
        cuts = [0]
        while cuts[-1] < len(offsets) - 1:
            start = cuts[-1]
            end = int(np.searchsorted(offsets, offsets[start] + tokens, side="right")) - 1
            cuts.append(max(start + 1, min(end, start + most)))
        return list(itertools.pairwise(cuts))

    def add_chosen(
        self, documents: Documents, starts: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]
    ) -> None:
        """Offer to each query some documents of its own, none twice.

        Args:
            documents: made with this search's metric.
            starts: int64 [n + 1], where those of each query begin in `chosen`.
            chosen: int64, which of the documents.
        """
        asking = np.repeat(np.diff(self._asked.offsets) > 0, np.diff(starts))
        counts = np.diff(starts) * (np.diff(self._asked.offsets) > 0)
        team = Team(self._threads)
        with self._lock:
            self._measure(
                documents,
                np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
                np.ascontiguousarray(chosen[asking], np.int64),
                team,
            )

    def _search(self, chunk: _Chunk, team: Team) -> None:
        asked = self._asked
        if not len(chunk.documents):
            return
        if chunk.bounded_with(asked):
            starts, chosen = self._nominate(chunk, team)
        else:
            asking = np.diff(asked.offsets) > 0
            starts = np.concatenate([[0], np.cumsum(asking * len(chunk.documents))]).astype(np.int64)
            chosen = np.tile(chunk.documents, int(asking.sum()))
        self._measure(chunk.held, starts, chosen, team)

    def _measure(
        self,
        held: Documents,
        starts: npt.NDArray[np.int64],
        chosen: npt.NDArray[np.int64],
        team: Team,
    ) -> None:
        from vectorlake.kernels.maxsim_scan import measure

        asked = self._asked

        def part(first: int, end: int) -> None:
            measure(
                METRIC_CODES[self._metric],
                asked.doubles,
                asked.norms,
                asked.offsets,
                held.rows.code,
                held.rows.address,
                held.rows.stride,
                held.offsets,
                held.usable,
                held.norms,
                held.row_ids,
                starts,
                chosen,
                first,
                end,
                self._distances,
                self._row_ids,
            )

        team.run(part, [(q, q + 1) for q in np.flatnonzero(np.diff(starts)).tolist()])

    def _nominate(self, chunk: _Chunk, team: Team) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """For each query the documents that may be among its k best: where they begin, and which they are."""
        asked, k = self._asked, self._distances.shape[1]
        scores = chunk.scores(asked, team)
        unit = chunk.scale * asked.scale
        relative = (self._asked.doubles.shape[1] + 32) * _UNIT
        chosen = []
        for q in range(len(scores)):
            if asked.offsets[q] == asked.offsets[q + 1]:
                chosen.append(np.empty(0, np.int64))
                continue
            distances = scores[q].astype(np.float64) * -unit
            error = (chunk.longest * asked.weights[q] + 1e-30) * (relative * unit)
            limit = self._distances[q, 0]
            if len(distances) >= k:
                limit = min(limit, np.partition(distances + error, k - 1)[k - 1])
            chosen.append(chunk.documents[distances - error <= limit])
        starts = np.concatenate([[0], np.cumsum([len(some) for some in chosen])]).astype(np.int64)
        return starts, np.concatenate(chosen)


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    """Queries, ready: tokens that count only.

    Attributes:
        doubles: float64 [t, d], as given.
        norms: float64 [t].
        offsets: int64 [n + 1].
        scale: what the panels' tokens were divided by (1 under cosine, where each is divided by its norm).
        weights: float64 [n], the sum of norms of each query's tokens, in units of `scale`.
        groups: (first query, end, panels float32 [p, d, PANEL]) of some queries each.
    """

    doubles: npt.NDArray[np.float64]
    norms: npt.NDArray[np.float64]
    offsets: npt.NDArray[np.int64]
    scale: float
    weights: npt.NDArray[np.float64]
    groups: list[tuple[int, int, npt.NDArray[np.float32]]]

    @classmethod
    def of(cls, queries: Tokens, metric: Metric) -> _Asked:
        from vectorlake.kernels.scan import prepare_queries

        rows = Rows.of(queries.vectors, what="query tokens")
        finite = rows.finite()
        if not finite.all():
            bad = int(np.searchsorted(queries.offsets, np.flatnonzero(~finite)[0], side="right")) - 1
            raise InvalidInputError(
                f"query {bad} has an element that is infinite or not a number: leave it out"
            )
        doubles = np.empty((rows.count, rows.dimension))
        norms = np.empty(rows.count)
        prepare_queries(rows.code, rows.address, rows.stride, 0, rows.count, doubles, norms)
        counts = np.diff(queries.offsets)
        if metric is Metric.COSINE:
            kept = norms > 0
            owner = np.repeat(np.arange(len(queries)), counts)
            counts = np.bincount(owner[kept], minlength=len(queries))
            doubles, norms = doubles[kept], norms[kept]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        scale = 1.0 if metric is Metric.COSINE else float(norms.max(initial=0)) or 1.0
        with np.errstate(over="ignore", invalid="ignore"):
            factors = norms if metric is Metric.COSINE else np.full(len(norms), scale)
            units = (doubles / factors[:, None]).astype(np.float32)
            lengths = norms / factors
        weights = np.concatenate([[0.0], np.cumsum(lengths)])
        return cls(
            np.ascontiguousarray(doubles),
            norms,
            offsets,
            scale,
            np.array([lengths[a:b].sum() for a, b in itertools.pairwise(offsets)]),
            list(_panels(units, offsets)) if np.isfinite(weights[-1]) else [],
        )


def _panels(
    units: npt.NDArray[np.float32], offsets: npt.NDArray[np.int64]
) -> list[tuple[int, int, npt.NDArray[np.float32]]]:
    """Whole queries by groups, their tokens side by side."""
    from vectorlake.kernels.maxsim_products import PANEL

    groups = []
    first = 0
    while first < len(offsets) - 1:
        end = int(np.searchsorted(offsets, offsets[first] + _GROUP_TOKENS, side="right")) - 1
        end = min(max(end, first + 1), len(offsets) - 1)
        tokens = units[offsets[first] : offsets[end]]
        padded = np.zeros((-(-len(tokens) // PANEL) * PANEL, units.shape[1]), np.float32)
        padded[: len(tokens)] = tokens
        panels = padded.reshape(-1, PANEL, units.shape[1]).transpose(0, 2, 1)
        groups.append((first, end, np.ascontiguousarray(panels)))
        first = end
    return groups


@dataclasses.dataclass(frozen=True, slots=True)
class _Chunk:
    """Documents that are compared at once.

    Attributes:
        held: them.
        documents: int64, the chunk's documents that have a token that counts.
        scale: what float32 tokens are divided by.
        longest: float64, for each of `documents` its longest token, in units of `scale`.
        tokens: float32 [t, d], those that count, in units of `scale`.
        places: int64 [documents + 1], where each one's begin in `tokens`.
    """

    held: Documents
    documents: npt.NDArray[np.int64]
    scale: float
    longest: npt.NDArray[np.float64]
    shortest: float
    tokens: npt.NDArray[np.float32]
    places: npt.NDArray[np.int64]
    cosine: bool

    @classmethod
    def of(cls, held: Documents, metric: Metric, team: Team) -> _Chunk:
        from vectorlake.kernels.maxsim_scan import widen_tokens

        block, offsets, usable, norms = held.rows, held.offsets, held.usable, held.norms
        counting = np.flatnonzero(usable)
        before = np.concatenate([[0], np.cumsum(usable)])
        counts = before[offsets[1:]] - before[offsets[:-1]]
        chosen = np.flatnonzero(counts)
        places = np.concatenate([[0], np.cumsum(counts[chosen])]).astype(np.int64)
        lengths = norms[counting]
        cosine = metric is Metric.COSINE
        scale = 1.0 if cosine else float(lengths.max(initial=0)) or 1.0
        tokens = np.empty((len(counting), block.dimension), np.float32)
        longest = np.ones(len(chosen))
        if not np.isfinite(scale):
            return cls(held, chosen, scale, longest, 0.0, tokens, places, cosine)
        factors = 1.0 / lengths if cosine else np.full(len(counting), 1.0 / scale)

        def widen(start: int, stop: int) -> None:
            widen_tokens(block.code, block.address, block.stride, counting, factors, start, stop, tokens)

        team.run(widen, _parts(len(counting), team.threads))
        if not cosine and len(chosen):
            longest = np.maximum.reduceat(lengths, places[:-1]) / scale
        shortest = float(lengths.min(initial=np.inf))
        return cls(held, chosen, scale, longest, shortest, tokens, places, cosine)

    def bounded_with(self, asked: _Asked) -> bool:
        """Whether the error bound of float32 products holds; else all documents are to be measured."""
        if not asked.groups:
            return False
        with np.errstate(over="ignore"):
            highest = float(self.held.norms[self.held.usable].max(initial=0)) * float(
                asked.norms.max(initial=0)
            )
            highest *= max(1, len(asked.norms))
            if not self.cosine:
                return self.scale * asked.scale > 1 / _TAME and highest < _TAME
            lowest = self.shortest * float(asked.norms.min(initial=np.inf))
        # Factors of tokens are float32 too.
        tame = self.shortest > 1e-30 and float(self.held.norms[self.held.usable].max(initial=0)) < 1e30
        return tame and lowest > 1 / _TAME and highest < _TAME

    def scores(self, asked: _Asked, team: Team) -> npt.NDArray[np.float32]:
        """Estimated MaxSim, float32 [queries, documents], in units of both scales."""
        from vectorlake.kernels.maxsim_scan import estimate

        out = np.empty((len(asked.weights), len(self.documents)), np.float32)
        for first, end, panels in asked.groups:
            inside = asked.offsets[first : end + 1] - asked.offsets[first]

            def part(start: int, stop: int) -> None:
                estimate(panels, inside, self.tokens, self.places, start, stop, out[first:end])  # noqa: B023

            team.run(part, _parts(len(self.documents), team.threads))
        return out


def _parts(count: int, threads: int) -> list[tuple[int, int]]:
    """Cut into some parts for each thread, so that none waits long for another."""
    step = max(64, -(-count // (4 * threads)))
    return [(start, min(start + step, count)) for start in range(0, count, step)]
