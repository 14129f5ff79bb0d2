"""The index kind for multivectors: an inverted file over token vectors that nominates documents by estimated MaxSim.

After PLAID (Santhanam, Khattab, Potts and Zaharia, "PLAID: an efficient engine for late interaction retrieval", CIKM
2022), with the residual codes of ColBERTv2 (Santhanam et al., NAACL 2022). A slot is a document; its tokens come to
`build` one after another, each with the document's row id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.errors import CorruptDataError, InvalidInputError
from vectorlake.index.options import check_known, whole_number
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
from vectorlake.kernels.team import Team

CENTROIDS: Final = "centroids"
CUTOFFS: Final = "cutoffs"
LEVELS: Final = "levels"
SCALE: Final = "scale"
OFFSETS: Final = "offsets"
PLACES: Final = "places"
CODES: Final = "codes"
LISTS: Final = "lists"
LIST_OFFSETS: Final = "list_offsets"

_BITS: Final = (1, 2, 4, 8)
_TOKENS_A_ROW: Final = 32
"""How many are guessed where only rows are known."""
_MOST_CENTROIDS: Final = 1 << 16
_SAMPLE: Final = 12
"""Tokens for each centroid that is learnt."""
_ITERATIONS: Final = 3
_CODED: Final = 10
"""So many documents are scored by their codes for each that is nominated: centroids alone order them roughly."""
_LARGEST: Final = np.float32(1e15)
"""Elements, in units of the longest token learnt from, are cut here: their products still fit float32."""
_STEP: Final = 1 << 15


class TokensKind:
    """Centroids over all tokens, lists of the documents that have a token of each, and a few bits for each element."""

    name = "tokens"
    version = 1
    exhaustive = True
    several = True
    metrics = frozenset({Metric.DOT, Metric.COSINE})
    elements = frozenset({"float16", "float32", "float64", "int8", "uint8"})

    def resolve(self, facts: Facts, options: Mapping[str, Any]) -> Resolved:
        check_known(self.name, options, ("centroids", "bits"))
        chosen: dict[str, str] = {}
        centroids = whole_number(options, "centroids", least=1, most=_MOST_CENTROIDS)
        if centroids is None:
            tokens = _TOKENS_A_ROW * max(facts.rows, 1)
            power = int(np.log2(8 * np.sqrt(tokens)))
            centroids = min(_MOST_CENTROIDS, 1 << power)
            chosen["centroids"] = (
                f"a power of two below 8 √tokens, at {_TOKENS_A_ROW} tokens a row; never more than there are tokens"
            )
        bits = whole_number(options, "bits", least=1, most=8)
        if bits is None:
            bits = 2
            chosen["bits"] = "two bits an element order documents well enough to measure few"
        if bits not in _BITS:
            raise InvalidInputError(f"bits must be 1, 2, 4 or 8, not {bits}")
        return Resolved({"centroids": centroids, "bits": bits}, chosen)

    def train(
        self, vectors: Vectors, config: Config, *, rng: np.random.Generator, threads: int, memory: int
    ) -> Arrays:
        from vectorlake.kernels.ivf.kmeans import k_means
        from vectorlake.kernels.ivf.nearest import nearest_centroids

        wanted = min(_SAMPLE * config.options["centroids"], memory // (16 * config.dimension))
        sample = vectors.sample(max(wanted, 1), rng)
        if not len(sample):
            raise InvalidInputError("there are no token vectors to learn from")
        scale = _scale_of(sample, config.metric)
        rows = _units(sample, config.metric, scale)
        count = min(config.options["centroids"], len(rows))
        centroids = np.ascontiguousarray(k_means(rows, count, iterations=_ITERATIONS, rng=rng), np.float32)
        places, _ = nearest_centroids(rows, centroids)
        residuals = np.sort((rows - centroids[places]).ravel())
        levels = 1 << config.options["bits"]
        cuts = np.array_split(residuals, levels)
        return {
            CENTROIDS: centroids,
            CUTOFFS: np.array([part[0] if len(part) else 0 for part in cuts[1:]], np.float32),
            LEVELS: np.array([part.mean() if len(part) else 0 for part in cuts], np.float32),
            SCALE: np.array([scale], np.float64),
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
        from vectorlake.kernels.ivf.nearest import nearest_centroids
        from vectorlake.kernels.tokens import encode_residuals

        centroids, bits = np.array(model[CENTROIDS]), config.options["bits"]
        ids, places, codes = [], [], []
        for vectors, row_ids in _pieces(blocks):
            tokens = _units(vectors, config.metric, float(model[SCALE][0]))
            at, _ = nearest_centroids(tokens, centroids)
            at = np.ascontiguousarray(at, np.int32)
            coded = np.empty((len(tokens), -(-config.dimension * bits // 8)), np.uint8)
            encode_residuals(tokens, at, centroids, np.array(model[CUTOFFS]), bits, coded)
            ids.append(row_ids)
            places.append(at)
            codes.append(coded)
        of_token = np.concatenate([np.empty(0, np.int64), *ids])
        starts = np.flatnonzero(np.diff(of_token, prepend=-1))
        return _segment(
            of_token[starts],
            np.append(starts, len(of_token)).astype(np.int64),
            np.concatenate([np.empty(0, np.int32), *places]),
            np.concatenate([np.empty((0, -(-config.dimension * bits // 8)), np.uint8), *codes]),
            len(centroids),
        )

    def cuts(self, segment: Arrays) -> Mapping[str, npt.NDArray[np.int64]]:
        return {}

    def merge(
        self,
        model: Arrays | ArraySource,
        segments: Sequence[tuple[ArraySource, npt.NDArray[np.bool_]]],
        config: Config,
    ) -> Arrays:
        ids, lengths, places, codes = [], [], [], []
        for source, kept in segments:
            held = np.diff(source[OFFSETS])
            tokens = np.repeat(kept, held)
            ids.append(source[ROW_IDS][kept])
            lengths.append(held[kept])
            places.append(source[PLACES][tokens])
            codes.append(source[CODES][tokens])
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
        return _segment(
            np.concatenate(ids), offsets, np.concatenate(places), np.concatenate(codes), len(model[CENTROIDS])
        )

    def open(self, model: ArraySource, segment: ArraySource, config: Config) -> TokensSearcher:
        return TokensSearcher(model, segment, config)

    def efforts(self, config: Config, rows: int) -> Sequence[tuple[int, int]]:
        centroids = config.options["centroids"]
        # Where lists are short, fewer of them than this hold nothing to choose from.
        least = 4 * min(centroids, rows) / max(rows, 1)
        ladder = [(1, 16), (2, 24), (4, 40), (8, 80), (32, 160)]
        return [*((e, p) for e, p in ladder if least <= e < centroids), (centroids, 320)]


@dataclass(frozen=True)
class _Panels:
    """Queries' tokens side by side (see `kernels.tokens.nominate`), and what their scores are multiplied by."""

    panels: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    factors: npt.NDArray[np.float64]


class TokensSearcher:
    """Probes lists, scores by centroids, then the best by codes."""

    def __init__(self, model: ArraySource, segment: ArraySource, config: Config) -> None:
        self.row_ids: npt.NDArray[np.int64] = segment[ROW_IDS]
        self._metric = config.metric
        self._scale = float(model[SCALE][0])
        self._centroids = np.ascontiguousarray(model[CENTROIDS], np.float32)
        self._decoded = _byte_table(model[LEVELS], config.options["bits"])
        self._arrays = tuple(
            np.ascontiguousarray(segment[name], kind)
            for name, kind in (
                (PLACES, np.int32),
                (CODES, np.uint8),
                (OFFSETS, np.int64),
                (LIST_OFFSETS, np.int64),
                (LISTS, np.int32),
            )
        )
        self._all = np.full(-(-len(self.row_ids) // 32), 0xFFFFFFFF, np.uint32)
        self._check(config)

    def _check(self, config: Config) -> None:
        places, codes, offsets, list_offsets, lists = self._arrays
        count, slots = len(self._centroids), len(self.row_ids)
        fits = (
            self._centroids.shape[1:] == (config.dimension,)
            and len(offsets) == slots + 1
            and len(places) == len(codes) == offsets[-1]
            and codes.shape[1:] == (-(-config.dimension * config.options["bits"] // 8),)
            and len(list_offsets) == count + 1
            and len(lists) == list_offsets[-1]
            and (np.diff(offsets) >= 0).all()
            and (np.diff(list_offsets) >= 0).all()
            and (not len(places) or (places.min() >= 0 and places.max() < count))
            and (not len(lists) or (lists.min() >= 0 and lists.max() < slots))
        )
        if not fits:
            raise CorruptDataError("the arrays of a tokens segment don't fit each other: rebuild the index")

    @property
    def largest_effort(self) -> int:
        """All centroids."""
        return len(self._centroids)

    def search(self, ask: Ask) -> Nominated:
        from vectorlake.kernels.tokens import nominate

        asked = self._panels(ask)
        count = len(asked.counts)
        slots = np.full((count, ask.pool), NO_SLOT, np.int64)
        scores = np.full((count, ask.pool), -np.inf, np.float32)
        looked = np.zeros((count, 2), np.int64)
        # Where few documents may be found, as many of them are looked at as else of all.
        effort = min(self.largest_effort, int(np.ceil(ask.effort / max(ask.selectivity, 1e-6))))
        allowed = self._all if ask.allowed is None else np.ascontiguousarray(ask.allowed, np.uint32)

        places, codes, offsets, list_offsets, lists = self._arrays

        def part(first: int, end: int) -> None:
            nominate(
                asked.panels,
                asked.offsets,
                asked.counts,
                len(self._centroids),
                self._centroids.ctypes.data,
                self._decoded,
                places.ctypes.data,
                codes.ctypes.data,
                len(self.row_ids),
                offsets.ctypes.data,
                list_offsets.ctypes.data,
                lists.ctypes.data,
                allowed,
                effort,
                max(_CODED * ask.pool, ask.pool),
                ask.pool,
                first,
                end,
                slots,
                scores,
                looked,
            )

        if len(self.row_ids) and ask.pool:
            Team(ask.threads).share(part, count, -(-count // (4 * ask.threads)))
        estimates = (scores * -asked.factors[:, None]).astype(np.float32)
        if ask.offsets is None and self._metric is Metric.COSINE:
            estimates += 1  # of vectors, whose distance this is
        estimates[slots == NO_SLOT] = np.inf
        return Nominated(slots, estimates, probed=int(looked[:, 0].sum()), scored=int(looked[:, 1].sum()))

    def _panels(self, ask: Ask) -> _Panels:
        from vectorlake.kernels.maxsim_products import PANEL

        tokens = np.ascontiguousarray(ask.queries, np.float32)
        offsets = np.arange(len(tokens) + 1) if ask.offsets is None else ask.offsets
        counts = np.diff(offsets).astype(np.int64)
        lengths = np.sqrt(np.einsum("ij,ij->i", tokens, tokens, dtype=np.float64))
        owner = np.repeat(np.arange(len(counts)), counts)
        longest = np.zeros(len(counts))
        np.maximum.at(longest, owner, lengths)
        longest[longest == 0] = 1.0
        divisor = lengths if self._metric is Metric.COSINE else longest[owner]
        divisor = np.where(divisor > 0, divisor, 1.0)
        units = (tokens / divisor[:, None]).astype(np.float32)
        used = -(-counts // PANEL)
        starts = np.concatenate([[0], np.cumsum(used)]).astype(np.int64)
        padded = np.zeros((int(starts[-1]) * PANEL, units.shape[1]), np.float32)
        padded[np.arange(len(units)) + np.repeat(starts[:-1] * PANEL - offsets[:-1], counts)] = units
        panels = padded.reshape(-1, PANEL, units.shape[1]).transpose(0, 2, 1)
        factors = np.ones(len(counts)) if self._metric is Metric.COSINE else longest * self._scale
        return _Panels(np.ascontiguousarray(panels), starts, counts, factors)


def _segment(
    row_ids: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    places: npt.NDArray[np.int32],
    codes: npt.NDArray[np.uint8],
    centroids: int,
) -> Arrays:
    """A segment's arrays; the lists follow from the tokens' centroids."""
    slots = max(len(row_ids), 1)
    holders = np.repeat(np.arange(len(row_ids)), np.diff(offsets))
    pairs = np.unique(places.astype(np.int64) * slots + holders)
    return {
        ROW_IDS: np.ascontiguousarray(row_ids, np.int64),
        OFFSETS: offsets,
        PLACES: places,
        CODES: codes,
        LISTS: (pairs % slots).astype(np.int32),
        LIST_OFFSETS: np.searchsorted(pairs // slots, np.arange(centroids + 1)).astype(np.int64),
    }


def _pieces(blocks: Iterable[Block]) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.int64]]]:
    """Blocks by pieces that take little memory as float32."""
    for block in blocks:
        for start in range(0, len(block.vectors), _STEP):
            yield block.vectors[start : start + _STEP], block.row_ids[start : start + _STEP]


def _scale_of(sample: npt.NDArray[Any], metric: Metric) -> float:
    if metric is Metric.COSINE:
        return 1.0
    with np.errstate(over="ignore"):
        longest = float(np.linalg.norm(sample.astype(np.float64), axis=1).max())
    return longest if 0 < longest < np.inf else 1.0


def _units(vectors: npt.NDArray[Any], metric: Metric, scale: float) -> npt.NDArray[np.float32]:
    """Token vectors as float32 in units of the model: under cosine of length one."""
    wide: npt.NDArray[Any] = vectors.astype(np.float64 if vectors.dtype.itemsize == 8 else np.float32)
    if metric is Metric.COSINE:
        lengths = np.linalg.norm(wide.astype(np.float64), axis=1)
        divisor: Any = np.where(lengths > 0, lengths, 1.0)[:, None]
    else:
        divisor = scale
    with np.errstate(over="ignore", invalid="ignore"):
        units = np.nan_to_num(wide / divisor, nan=0.0, posinf=float(_LARGEST), neginf=-float(_LARGEST))
    return np.ascontiguousarray(np.clip(units, -_LARGEST, _LARGEST), np.float32)


def _byte_table(levels: npt.NDArray[np.float32], bits: int) -> npt.NDArray[np.float32]:
    """The residuals that each byte of a code stands for, float32 [256, 8 / bits]."""
    each = 8 // bits
    if len(levels) != 1 << bits:
        raise CorruptDataError(
            f"the model of a tokens index has {len(levels)} levels, not {1 << bits}: rebuild the index"
        )
    codes = np.arange(256)[:, None] >> (bits * np.arange(each)) & ((1 << bits) - 1)
    return np.ascontiguousarray(levels[codes], np.float32)
