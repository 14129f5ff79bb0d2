"""Brute force as a kind: every row as small integers in one place, all of them compared with every query.

Arrays of a segment, for vectors of floats (what the integers mean is told in `kernels/quantize.py` and `kernels/codes.py`):

- `row_ids` int64 [slots]
- `panels` uint8 [ceil(slots / 16), p / 4, 16, 4]: the leading directions in -52..52, plus 52
- `terms` float64 [5, slots]: the bound of what the panels say of a row
- `codes` int8 [slots, d rounded up to a multiple of 16]: all dimensions in -127..127, not rotated
- `code_terms` float64 [5, slots]: their bound

and of the model `centre` float32 [d] and `rotation` float32 [p, d], [0, d] where the panels hold all dimensions. Integers
and bits are stored as they are (`vectors`), and their model is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
from vectorlake.index.slots import allowed_slots
from vectorlake.kernels.codes import RowCodes, RowEncoder, fine_width, from_panels, head_width, to_panels
from vectorlake.kernels.head import choose_head
from vectorlake.kernels.knn import ExactKnn
from vectorlake.kernels.metric import Metric
from vectorlake.kernels.quantize import Frame, centre_of
from vectorlake.kernels.rows import Rows

VECTORS: Final = "vectors"
CENTRE: Final = "centre"
ROTATION: Final = "rotation"
PANELS: Final = "panels"
TERMS: Final = "terms"
CODES: Final = "codes"
CODE_TERMS: Final = "code_terms"

HEAD: Final = "head"
"""An option: how many leading directions are compared first; 0 for none."""
AUTO: Final = "auto"
_FLOATS: Final = frozenset({"float16", "float32", "float64"})
_SAMPLE: Final = 16384
_SCORES: Final = 2 << 20
"""How many estimates are held at a time."""
_ROWS: Final = 8192


class FlatKind:
    """Nothing is missed: what a segment nominates are the nearest of all its rows, by their integers.

    Exact search takes its codes too: `FlatSearcher.codes` with `kernels.ExactKnn.add_encoded`.
    """

    name = "flat"
    version = 1
    exhaustive = True
    metrics = frozenset({Metric.L2, Metric.COSINE, Metric.DOT, Metric.HAMMING})
    elements = frozenset({"float16", "float32", "float64", "int8", "uint8"})

    def resolve(self, facts: Facts, options: Mapping[str, Any]) -> Resolved:
        check_known(self.name, options, (HEAD,))
        if _stored(facts.element, facts.metric):
            if options.get(HEAD) is not None:
                raise InvalidInputError(f"head is for vectors of floats: {facts.element} is stored as it is")
            return Resolved({}, {})
        if options.get(HEAD, AUTO) == AUTO:
            return Resolved({HEAD: AUTO}, {HEAD: "as many leading directions as promise the quickest search"})
        return Resolved({HEAD: whole_number(options, HEAD, least=0, most=facts.dimension) or 0}, {})

    def train(
        self, vectors: Vectors, config: Config, *, rng: np.random.Generator, threads: int, memory: int
    ) -> Arrays:
        if _stored(config.element, config.metric):
            return {}
        room = memory // (16 * config.dimension)
        sample = vectors.sample(max(1, min(_SAMPLE, room)), rng)
        centre = np.zeros(config.dimension, np.float32)
        rotation = np.zeros((0, config.dimension), np.float32)
        head = config.options.get(HEAD, AUTO)
        if len(sample):
            centre = centre_of(Rows.of(sample, what="vectors"), config.metric, np.empty(0, np.bool_))
            if head != 0 and head != config.dimension:
                asked = sample[:: max(1, len(sample) // 64)]
                rotation = choose_head(
                    sample, asked, centre, config.metric, batch=None, kept=None if head == AUTO else head
                )
        return {CENTRE: centre, ROTATION: rotation}

    def build(
        self,
        model: Arrays | ArraySource,
        blocks: Iterable[Block],
        config: Config,
        *,
        threads: int,
        memory: int,
    ) -> Arrays:
        ids = [np.empty(0, np.int64)]
        if _stored(config.element, config.metric):
            vectors = [np.empty((0, config.dimension), config.element)]
            for block in blocks:
                ids.append(block.row_ids)
                vectors.append(block.vectors)
            return {ROW_IDS: np.concatenate(ids), VECTORS: np.concatenate(vectors)}
        encoder = RowEncoder(_frame(model), config.metric)
        parts = [encoder.encode(np.empty((0, config.dimension), config.element))]
        for block in blocks:
            ids.append(block.row_ids)
            parts.append(encoder.encode(block.vectors))
        heads, terms, codes, code_terms = zip(*parts, strict=True)
        return {
            ROW_IDS: np.concatenate(ids),
            PANELS: to_panels(np.concatenate(heads)),
            TERMS: np.concatenate(terms, axis=1),
            CODES: np.concatenate(codes),
            CODE_TERMS: np.concatenate(code_terms, axis=1),
        }

    def cuts(self, segment: Arrays) -> Mapping[str, npt.NDArray[np.int64]]:
        return {}

    def merge(
        self,
        model: Arrays | ArraySource,
        segments: Sequence[tuple[ArraySource, npt.NDArray[np.bool_]]],
        config: Config,
    ) -> Arrays:
        def joined(name: str, axis: int) -> npt.NDArray[Any]:
            return np.concatenate(
                [np.compress(kept, source[name], axis=axis) for source, kept in segments], axis=axis
            )

        if _stored(config.element, config.metric):
            return {ROW_IDS: joined(ROW_IDS, 0), VECTORS: joined(VECTORS, 0)}
        heads = [from_panels(source[PANELS], len(kept))[kept] for source, kept in segments]
        return {
            ROW_IDS: joined(ROW_IDS, 0),
            PANELS: to_panels(np.concatenate(heads)),
            TERMS: joined(TERMS, 1),
            CODES: joined(CODES, 0),
            CODE_TERMS: joined(CODE_TERMS, 1),
        }

    def open(self, model: ArraySource, segment: ArraySource, config: Config) -> FlatSearcher:
        row_ids = segment[ROW_IDS]
        if _stored(config.element, config.metric):
            vectors = segment[VECTORS]
            _require(VECTORS, vectors, (len(row_ids), config.dimension))
            return FlatSearcher(row_ids, vectors, None, config.metric)
        frame = _frame(model)
        slots, dimension = len(row_ids), config.dimension
        codes = RowCodes(
            config.metric, frame, slots, segment[PANELS], segment[TERMS], segment[CODES], segment[CODE_TERMS]
        )
        _require(CENTRE, frame.centre, (dimension,))
        _require(PANELS, codes.panels, (-(-slots // 16), head_width(frame) // 4, 16, 4))
        _require(TERMS, codes.terms, (5, slots))
        _require(CODES, codes.fine, (slots, fine_width(dimension)))
        _require(CODE_TERMS, codes.fine_terms, (5, slots))
        return FlatSearcher(row_ids, None, codes, config.metric)

    def efforts(self, config: Config, rows: int) -> Sequence[tuple[int, int]]:
        return [(1, pool) for pool in (10, 12, 16, 24, 40, 80)]


class FlatSearcher:
    """Compares every row with every query.

    Attributes:
        row_ids: int64 [slots].
        codes: for exact search by `kernels.ExactKnn.add_encoded`; None where vectors are stored as they are, so that a
            scan of the table does the same.
    """

    largest_effort = 1

    def __init__(
        self,
        row_ids: npt.NDArray[np.int64],
        vectors: npt.NDArray[Any] | None,
        codes: RowCodes | None,
        metric: Metric,
    ) -> None:
        self.row_ids = row_ids
        self.codes = codes
        self._vectors = vectors
        self._metric = metric

    def search(self, ask: Ask) -> Nominated:
        """Nominate the slots that are nearest by their codes."""
        slots = len(self.row_ids)
        pool = min(ask.pool, slots)
        shape = len(ask.queries), ask.pool
        found = np.full(shape, NO_SLOT, np.int64)
        estimates = np.full(shape, np.inf, np.float32)
        allowed = allowed_slots(ask.allowed, slots) & (self.row_ids >= 0)
        if pool and len(ask.queries):
            by = self._exactly if self._vectors is not None else self._by_codes
            found[:, :pool], estimates[:, :pool] = by(ask, pool, allowed)
        return Nominated(found, estimates, probed=shape[0], scored=shape[0] * slots)

    def _exactly(
        self, ask: Ask, pool: int, allowed: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        assert self._vectors is not None
        knn = ExactKnn(ask.queries, k=pool, metric=self._metric, threads=ask.threads)
        knn.add(self._vectors, np.arange(len(self.row_ids)), allowed)
        slots, distances, _ = knn.result()
        with np.errstate(over="ignore"):
            return slots, distances.astype(np.float32)

    def _by_codes(
        self, ask: Ask, pool: int, allowed: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        assert self.codes is not None
        codes, count = self.codes, len(ask.queries)
        moved, constant, slope = _moved(ask.queries, codes.frame.centre, self._metric)
        weights = np.zeros((count, codes.fine.shape[1]), np.float32)
        weights[:, : moved.shape[1]] = moved
        best = np.full((count, pool), -np.inf, np.float32)
        found = np.full((count, pool), NO_SLOT, np.int64)
        at_once = max(1, _SCORES // _ROWS)
        for start in range(0, codes.count, _ROWS):
            end = min(start + _ROWS, codes.count)
            rows = codes.fine[start:end].astype(np.float32)
            scale, half = (codes.fine_terms[term, start:end].astype(np.float32) for term in (0, 3))
            here = allowed[start:end]
            for q in range(0, count, at_once):
                nearness = weights[q : q + at_once] @ rows.T
                nearness *= scale
                nearness += half
                nearness[:, ~here] = -np.inf
                _merge(best[q : q + at_once], found[q : q + at_once], nearness, start)
        found[best == -np.inf] = NO_SLOT
        with np.errstate(over="ignore", invalid="ignore"):
            distances = constant[:, None] - slope * best
        return found, np.where(found >= 0, np.nan_to_num(distances, nan=0.0), np.inf).astype(np.float32)


def _merge(
    best: npt.NDArray[np.float32], found: npt.NDArray[np.int64], nearness: npt.NDArray[np.float32], start: int
) -> None:
    """Keep the highest of what was known and what is new, in place."""
    pool = best.shape[1]
    if nearness.shape[1] > pool:
        top = np.argpartition(nearness, -pool, axis=1)[:, -pool:]
    else:
        top = np.broadcast_to(np.arange(nearness.shape[1]), nearness.shape)
    values = np.concatenate([best, np.take_along_axis(nearness, top, axis=1)], axis=1)
    slots = np.concatenate([found, top + start], axis=1)
    order = np.argpartition(values, -pool, axis=1)[:, -pool:]
    best[...] = np.take_along_axis(values, order, axis=1)
    found[...] = np.take_along_axis(slots, order, axis=1)


def _moved(
    queries: npt.NDArray[Any], centre: npt.NDArray[np.float32], metric: Metric
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """Queries in product space, and how nearness becomes a distance: constant less slope times it."""
    wide, middle = queries.astype(np.float64), centre.astype(np.float64)
    if metric is Metric.DOT:
        return wide, -(wide @ middle), 1.0
    if metric is Metric.COSINE:
        lengths = np.linalg.norm(wide, axis=1, keepdims=True)
        wide = np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)
    wide = wide - middle
    square = np.square(wide).sum(axis=1)
    return (wide, square / 2, 1.0) if metric is Metric.COSINE else (wide, square, 2.0)


def _stored(element: str, metric: Metric) -> bool:
    """Whether vectors are kept as they are: they are small integers already."""
    return metric is Metric.HAMMING or element not in _FLOATS


def _frame(model: Arrays | ArraySource) -> Frame:
    try:
        # Copied: what lies in a mapped file can't be written to, which compiled code takes for another type.
        return Frame.of(np.array(model[CENTRE]), np.array(model[ROTATION]))
    except (KeyError, ValueError) as e:
        raise CorruptDataError(f"the model of a flat index is damaged ({e}): rebuild the index") from e


def _require(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise CorruptDataError(
            f"array {name!r} of a flat index has shape {array.shape}, not {shape}: rebuild the index"
        )
