"""The ways to find candidates: encode a block of rows, then search it for groups of queries."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from vectorlake.kernels.asked import encode_queries
from vectorlake.kernels.codes import RowCodes, aligned, aligned_zeros, fine_width, from_panels, head_width
from vectorlake.kernels.encode import LAYOUT_FLOATS, LAYOUT_PANELS, LAYOUT_ROWS, encode_rows
from vectorlake.kernels.fused import MOST, TILE, stretch_of, to_tiles
from vectorlake.kernels.metric import Metric
from vectorlake.kernels.microkernel import BYTES, LEVELS, PANEL_ROWS, STEP
from vectorlake.kernels.products import search_products
from vectorlake.kernels.quantize import FACTS, TERMS, UNIT, Frame, QueryCode
from vectorlake.kernels.reference import METRIC_CODES
from vectorlake.kernels.rounding import LANES
from vectorlake.kernels.rows import Rows
from vectorlake.kernels.scan import prepare_queries
from vectorlake.kernels.select import RUN

BLOCK_BYTES: Final = 8 << 20
"""How large an encoded block may be: each group of queries reads it, from the last level of cache."""

MOST_ROWS: Final = 16384

PANELS_ROWS: Final = 1 << 17
"""How many rows a block of panels that lie there already may have: of them only the terms are copied."""

WAIT_BYTES: Final = 128 << 20
"""How much memory waiting candidates may take."""

FINE_LEVELS: Final = 127

_QUERIES_AT_ONCE: Final = 32
_QUERIES_AT_MOST: Final = 512
"""How many queries a thread encodes at a time, of which it holds a copy: more, where they are many."""
_QUERY_PARTS: Final = 64
"""Into how many parts they are cut then: each is a call from Python, and threads wait for each other in these."""
_SMALLEST_LENGTH: Final = 1e-30
_TERMS_AT_ONCE: Final = 8192
"""Of how many rows a thread scales the terms at a time: a multiple of PANEL_ROWS."""


FineArguments: TypeAlias = tuple[npt.NDArray[np.int8], int, npt.NDArray[np.float64], npt.NDArray[np.float32]]
Parts: TypeAlias = Sequence[tuple[int, int]]
Run: TypeAlias = Callable[[Callable[[int, int], None], Parts], None]
"""Calls a function for every part: one after another, or shared out to threads."""


def cut(count: int, step: int) -> list[tuple[int, int]]:
    """Ranges of `step` that make up range(count), the last of what is left."""
    return [(first, min(first + step, count)) for first in range(0, count, step)]


def one_by_one(function: Callable[[int, int], None], parts: Parts) -> None:
    """Call the function for every part in turn."""
    for part in parts:
        function(*part)


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """What all paths are given.

    Attributes:
        queries: as the caller handed them over.
        metric: the distance.
        frame: where product space lies.
        distances: float64 [n, k], heaps.
        row_ids: int64 [n, k], heaps.
        run: shares out what is done for the queries at first.
    """

    queries: Rows
    metric: Metric
    frame: Frame
    distances: npt.NDArray[np.float64]
    row_ids: npt.NDArray[np.int64]
    run: Run = one_by_one

    @property
    def room(self) -> int:
        """How many candidates may wait for each query, besides those of a run."""
        return max(1024, min(16 * int(self.distances.shape[1]), MOST_ROWS))


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """Rows of one call that are encoded at once.

    Attributes:
        rows: the vectors of the call.
        ids: int64, of the call's rows.
        valid: bool, of the call's rows, or empty where all are.
        first: which row is the block's first.
        end: one past its last.
    """

    rows: Rows
    ids: npt.NDArray[np.int64]
    valid: npt.NDArray[np.bool_]
    first: int
    end: int

    @property
    def count(self) -> int:
        """How many rows."""
        return self.end - self.first


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """Candidates that wait to be measured, per query (see `search.search_panels`)."""

    rows: npt.NDArray[np.int64]
    highs: npt.NDArray[np.float32]
    lows: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64]
    thresholds: npt.NDArray[np.float32]
    units: npt.NDArray[np.float64]

    @classmethod
    def of(cls, queries: int, room: int) -> Waiting:
        """None wait yet."""
        shape = queries, room
        return cls(
            np.empty(shape, np.int64),
            np.empty(shape, np.float32),
            np.empty(shape, np.float32),
            np.zeros(queries, np.int64),
            np.empty(queries, np.float32),
            np.empty(queries),
        )

    def part(self, first: int, end: int) -> tuple[npt.NDArray[Any], ...]:
        """The arrays of some queries."""
        every = (self.rows, self.highs, self.lows, self.counts, self.thresholds, self.units)
        return tuple(array[first:end] for array in every)


class SearchPath(Protocol):
    """Encodes one block after another and searches it, both by parts that threads share out."""

    block_rows: int
    """How many rows a block may have."""

    adopted_rows: int
    """How many if they were encoded before. Threads wait for each other at the end of a block."""

    group: int
    """How many queries to search for at a time, at most: more ask more of a core's cache."""

    least_group: int | None
    """How few it may be, as smaller groups ask for a block's rows more often; None where all are to be alike."""

    tile: int
    """What the first of them is a multiple of."""

    def encode(self, block: Block, run: Run) -> None:
        """Encode a block, sharing parts of it out by `run`."""
        ...

    def adopt(self, block: Block, codes: RowCodes, places: npt.NDArray[np.int64], run: Run) -> None:
        """Take a block that was encoded before, sharing parts of it out by `run`."""
        ...

    def search_all(self, run: Run, groups: Parts) -> None:
        """Offer the block to the heaps of all queries, sharing groups of them out by `run`."""
        ...


class Fine:
    """Integers of all dimensions, for the rows that those of the head alone let pass."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.padded = -(-task.queries.dimension // BYTES) * BYTES
        frame = Frame.of(task.frame.centre)
        self.queries = _encode_all(
            dataclasses.replace(task, frame=frame), levels=FINE_LEVELS, padded=self.padded
        )
        self.codes = np.empty((0, self.padded), np.int8)
        self.wide_terms = np.empty((TERMS, 0))
        self.terms = np.empty((TERMS, 0), np.float32)

    def begin(self, places: int) -> None:
        """Make room for the rows of a block."""
        if len(self.codes) < places:
            self.codes = aligned_zeros(places * self.padded).view(np.int8).reshape(places, self.padded)
        self.wide_terms = np.zeros((TERMS, places))

    def arguments(self, first: int, end: int) -> FineArguments:
        """What a search of some queries needs."""
        return (
            self.queries.integers[first:end],
            self.codes.ctypes.data,
            self.queries.facts[first:end],
            self.terms,
        )


class _Encoding:
    """What the paths share: queries and blocks in product space."""

    tile = 1
    least_group: int | None = None
    part_rows = RUN
    """Rows that one thread encodes at a time, by whole panels."""

    def __init__(
        self,
        task: Task,
        *,
        levels: int,
        layout: int,
        padded: int,
        stretch: int = 0,
        most: int = 0,
        always_fine: bool = False,
    ) -> None:
        self.task = task
        self.levels = levels
        self.layout = layout
        self.padded = padded
        bytes_waiting = 16 * task.queries.count * (task.room + RUN)
        self.waiting = (
            Waiting.of(task.queries.count, task.room + RUN) if bytes_waiting <= WAIT_BYTES else None
        )
        width = padded * (4 if layout == LAYOUT_FLOATS else 1)
        runs = max(1, BLOCK_BYTES // (width * RUN))
        self.block_rows = self.adopted_rows = min(MOST_ROWS, runs * RUN)
        self.queries = _encode_all(task, levels=levels, padded=padded, stretch=stretch, most=most)
        self.fine = Fine(task) if len(task.frame.rotation) or always_fine else None
        self.places = np.empty(0, np.int64)
        self.largest = _SMALLEST_LENGTH
        self.local = threading.local()
        self.metric = METRIC_CODES[task.metric]
        self.integers = np.empty(0, np.uint8)
        self.floats = np.empty((0, padded), np.float32)
        self.moved = np.empty((0, 0), np.float32)

    def encode(self, block: Block, run: Run) -> None:
        self._begin(block)
        parts = cut(block.count, self.part_rows)
        if len(self.task.frame.rotation):
            run(self._move, parts)
            # One product for all: numpy's BLAS brings its own threads.
            np.matmul(self.moved[: block.count], self.rotation, out=self.heads[: block.count])
            run(self._round, parts)
        else:
            run(self._encode, parts)
        if self.fine is not None:
            run(self._encode_fine, parts)
        self._ready()

    def adopt(self, block: Block, codes: RowCodes, places: npt.NDArray[np.int64], run: Run) -> None:
        """Take a block's rows as they were encoded before (see `codes`), each stored at a place of its own.

        Args:
            block: slots, by whole runs.
            codes: of all slots.
            places: int64 [slots], the address of each row; 0 for one that must not match.
            run: calls a function for every part.
        """
        self._start(block)
        self.places = places
        if block.first == 0:
            self.largest = max(float(codes.terms[2].max(initial=0.0)), _SMALLEST_LENGTH)
        first, end = block.first, block.end
        room = -(-block.count // PANEL_ROWS) * PANEL_ROWS
        lost = np.float32(self._take(codes, first, room, run))
        self.terms = np.zeros((TERMS, room), np.float32)
        if self.fine is not None:
            self.fine.codes = np.ascontiguousarray(codes.fine[first:end])
            self.fine.terms = np.zeros((TERMS, room), np.float32)
        units = self._units()

        def scale(start: int, stop: int) -> None:
            here = slice(first + start, min(first + stop, end))
            self._scale(codes.terms[:, here], units, places[here], self.terms[:, start:stop])
            self.terms[1, start:stop] += lost * self.terms[2, start:stop]
            if self.fine is not None:
                self._scale(codes.fine_terms[:, here], units, places[here], self.fine.terms[:, start:stop])

        run(scale, cut(room, _TERMS_AT_ONCE))

    def search(self, first: int, end: int) -> None:
        """Offer the block to the heaps of some queries; `first` is a multiple of `tile`."""
        raise NotImplementedError

    def search_all(self, run: Run, groups: Parts) -> None:
        """See `SearchPath`."""
        run(self.search, groups)

    def _take(self, codes: RowCodes, first: int, room: int, run: Run) -> float:
        """Have the integers of the heads at hand; returns what products lose besides, relative to lengths."""
        raise NotImplementedError

    def _unpack(self, codes: RowCodes, first: int, heads: npt.NDArray[Any], run: Run) -> None:
        """Write the integers of the heads of slots from `first` on to [rows, padded], rows by whole panels."""

        def unpack(start: int, end: int) -> None:
            panels = codes.panels[(first + start) // PANEL_ROWS : (first + end) // PANEL_ROWS]
            heads[start:end] = from_panels(panels, end - start)[:, : self.padded]

        run(unpack, cut(len(heads), self.part_rows))

    @staticmethod
    def _scale(
        terms: npt.NDArray[np.float64],
        units: npt.NDArray[np.float64],
        places: npt.NDArray[np.int64],
        scaled: npt.NDArray[np.float32],
    ) -> None:
        """Write the terms of some rows; those without a place, and what fills the last panel, never match."""
        count = terms.shape[1]
        np.divide(terms, units, out=scaled[:, :count], casting="same_kind")
        scaled[3, :count][places == 0] = -np.inf
        scaled[3, count:] = -np.inf

    def _units(self) -> npt.NDArray[np.float64]:
        return np.array([[1.0], [1.0], [1.0], [self.largest], [1.0]]) * self.largest

    def _start(self, block: Block) -> None:
        self.block = block
        if block.first == 0:
            self.largest = _SMALLEST_LENGTH
            if self.waiting is not None:
                self.waiting.counts[:] = 0  # an interrupted call may have left some behind

    def _begin(self, block: Block) -> None:
        self._start(block)
        places = -(-block.count // PANEL_ROWS) * PANEL_ROWS
        if self.layout == LAYOUT_FLOATS:
            if len(self.floats) < places:
                self.floats = np.zeros((places, self.padded), np.float32)
        elif len(self.integers) < places * self.padded:
            self.integers = aligned_zeros(places * self.padded)
        kept, dimension = self.task.frame.rotation.shape
        if kept and len(self.moved) < places:
            whole, width = (-(-size // LANES) * LANES for size in (dimension, kept))
            self.moved = np.zeros((places, whole), np.float32)
            self.heads = np.zeros((places, width), np.float32)
            self.sizes = np.zeros((places, 2))
            self.rotation = np.zeros((whole, width), np.float32)
            self.rotation[:dimension, :kept] = self.task.frame.rotation.T
        if self.fine is not None:
            self.fine.begin(places)
        self.wide_terms = np.zeros((TERMS, places))
        self.wide_terms[3, block.count :] = -np.inf

    def _source(self) -> tuple[int, int, int, int, npt.NDArray[np.bool_]]:
        rows, first = self.block.rows, self.block.first
        address = rows.address + first * rows.stride
        return self.metric, rows.code, address, rows.stride, self.block.valid[first : self.block.end]

    def _move(self, start: int, end: int) -> None:
        from vectorlake.kernels.rotate import move_rows

        centre = self.task.frame.centre
        move_rows(*self._source(), start, end, centre, self.moved, self.sizes, self.wide_terms)

    def _round(self, start: int, end: int) -> None:
        from vectorlake.kernels.rotate import round_heads

        frame = self.task.frame
        round_heads(
            self.metric,
            len(frame.centre),
            start,
            end,
            frame.blur,
            self.heads,
            self.sizes,
            self.layout,
            self.levels,
            self.padded,
            self.integers,
            self.floats,
            self.wide_terms,
        )

    def _encode_fine(self, start: int, end: int) -> None:
        assert self.fine is not None
        encode_rows(
            *self._source(),
            start,
            end,
            self.task.frame.centre,
            LAYOUT_ROWS,
            FINE_LEVELS,
            self.fine.padded,
            self.fine.codes.reshape(-1).view(np.uint8),
            self.floats,
            self.fine.wide_terms,
        )

    def _encode(self, start: int, end: int) -> None:
        encode_rows(
            *self._source(),
            start,
            end,
            self.task.frame.centre,
            self.layout,
            self.levels,
            self.padded,
            self.integers,
            self.floats,
            self.wide_terms,
        )

    def candidates(self, first: int, end: int) -> tuple[Any, ...]:
        """Where candidates of some queries wait, and whether they are to be measured now.

        They wait for the end of the call where memory allows; else for the end of the block.
        """
        if self.waiting is not None:
            return *self.waiting.part(first, end), self.block.end == self.block.rows.count
        kept: Waiting | None = getattr(self.local, "waiting", None)
        if kept is None or len(kept.counts) < end - first:
            kept = self.local.waiting = Waiting.of(end - first, self.task.room + RUN)
        return *kept.part(0, end - first), True

    def _ready(self) -> None:
        self.largest = max(float(self.wide_terms[2].max()), self.largest)
        units = self._units()
        self.terms = (self.wide_terms / units).astype(np.float32)
        if self.fine is not None:
            self.fine.terms = (self.fine.wide_terms / units).astype(np.float32)

    def _fine(self, first: int, end: int) -> FineArguments:
        if self.fine is not None:
            return self.fine.arguments(first, end)
        nothing = np.empty((end - first, 0), np.int8)
        return nothing, 0, np.empty((0, FACTS)), np.empty((TERMS, 0), np.float32)


class PanelPath(_Encoding):
    """Integer products by AVX2, fused with the selection."""

    group = 128
    least_group: int | None = 16
    tile = TILE

    def __init__(self, task: Task) -> None:
        padded = -(-task.frame.kept // STEP) * STEP
        self.stretch = stretch_of(padded)
        super().__init__(
            task, levels=LEVELS, layout=LAYOUT_PANELS, padded=padded, stretch=self.stretch, most=MOST
        )
        self.adopted_rows = PANELS_ROWS
        self.tiles = to_tiles(self.queries.integers)
        self.queries = dataclasses.replace(self.queries, integers=np.empty((0, padded), np.int8))

    def _take(self, codes: RowCodes, first: int, room: int, run: Run) -> float:
        panels = aligned(codes.panels[first // PANEL_ROWS : (first + room) // PANEL_ROWS])
        self.integers = panels.reshape(-1)
        return 0.0

    def search(self, first: int, end: int) -> None:
        from vectorlake.kernels.search import search_panels

        asked, rows = self.task.queries, self.block.rows
        search_panels(
            self.metric,
            rows.dimension,
            self.padded,
            self.stretch,
            asked.code,
            asked.address + first * asked.stride,
            asked.stride,
            self.queries.facts[first:end],
            self.tiles[first // TILE :].ctypes.data,
            self.tiles.strides[0],
            self.integers.ctypes.data,
            self.terms,
            *self._fine(first, end),
            self.largest,
            self.block.first,
            rows.code,
            rows.address,
            rows.stride,
            self.places,
            self.block.ids,
            self.task.distances[first:end],
            self.task.row_ids[first:end],
            *self.candidates(first, end),
        )


class _ProductPath(_Encoding):
    """Products by a library, into a buffer that each thread keeps."""

    def __init__(self, task: Task, *, levels: int, layout: int) -> None:
        super().__init__(task, levels=levels, layout=layout, padded=-(-task.frame.kept // 4) * 4)

    def select(self, first: int, end: int, products: int, stride: int) -> None:
        asked, rows = self.task.queries, self.block.rows
        search_products(
            self.metric,
            rows.dimension,
            int(self.levels > 0),
            asked.code,
            asked.address + first * asked.stride,
            asked.stride,
            self.queries.facts[first:end],
            products,
            stride,
            self.terms,
            *self._fine(first, end),
            self.largest,
            self.block.first,
            rows.code,
            rows.address,
            rows.stride,
            self.places,
            self.block.ids,
            self.task.distances[first:end],
            self.task.row_ids[first:end],
            *self.candidates(first, end),
        )


class FloatPath(_ProductPath):
    """Float32 products by numpy's BLAS, whose own threads are disturbed the least by few large products."""

    group = 480

    def __init__(self, task: Task) -> None:
        super().__init__(task, levels=0, layout=LAYOUT_FLOATS)

    def _take(self, codes: RowCodes, first: int, room: int, run: Run) -> float:
        self.floats = np.empty((room, self.padded), np.float32)
        self._unpack(codes, first, self.floats, run)
        return (len(self.task.frame.centre) + 24) * UNIT

    def search(self, first: int, end: int) -> None:
        queries = self.queries.integers[first:end]
        places = self.terms.shape[1]
        products = _buffer(self.local, (len(queries), places), np.float32)
        np.matmul(queries, self.floats[:places].T, out=products)
        self.select(first, end, products.ctypes.data, products.strides[0])


class NumkongPath(_ProductPath):
    """Int8 products by numkong: AMX, VNNI or SDOT where the CPU has them."""

    group = 48

    def __init__(self, task: Task) -> None:
        super().__init__(task, levels=127, layout=LAYOUT_ROWS)

    def _take(self, codes: RowCodes, first: int, room: int, run: Run) -> float:
        rows = np.empty((room, self.padded), np.int8)
        self._unpack(codes, first, rows, run)
        self.integers = rows.view(np.uint8).reshape(-1)
        self._pack(room)
        return 0.0

    def _ready(self) -> None:
        super()._ready()
        self._pack(self.terms.shape[1])

    def _pack(self, places: int) -> None:
        import numkong

        integers = self.integers[: places * self.padded].view(np.int8).reshape(places, self.padded)
        self.packed: Any = numkong.dots_pack(integers)

    def search(self, first: int, end: int) -> None:
        import numkong

        queries = self.queries.integers[first:end]
        shape = (len(queries), self.terms.shape[1])
        products: Any = getattr(self.local, "products", None)
        if products is None or tuple(products.shape) != shape:
            products = self.local.products = numkong.empty(shape, dtype="int32")
        numkong.dots_packed(queries, self.packed, out=products)
        self.select(first, end, int(products.data_ptr), shape[1] * 4)


class CodePath(_Encoding):
    """Encodes rows for keeping, and searches nothing."""

    def __init__(self, task: Task) -> None:
        padded = head_width(task.frame)
        super().__init__(task, levels=LEVELS, layout=LAYOUT_ROWS, padded=padded, always_fine=True)
        self.fine_padded = fine_width(len(task.frame.centre))

    def codes(self, block: Block, run: Run) -> tuple[npt.NDArray[Any], ...]:
        """Encode a block (see `codes.RowEncoder.encode`)."""
        self.encode(block, run)
        assert self.fine is not None
        count = block.count
        heads = self.integers[: count * self.padded].view(np.int8).reshape(count, self.padded)
        terms, fine_terms = (source[:, :count].copy() for source in (self.wide_terms, self.fine.wide_terms))
        return heads.copy(), terms, self.fine.codes[:count].copy(), fine_terms


def _encode_all(task: Task, *, levels: int, padded: int, stretch: int = 0, most: int = 0) -> QueryCode:
    """Encode queries, the integers of a stretch as `asked.encode_queries` says."""
    asked, frame = task.queries, task.frame
    integers = np.zeros((asked.count, padded if levels else 0), np.int8)
    floats = np.zeros((asked.count, 0 if levels else padded), np.float32)
    facts = np.empty((asked.count, FACTS))
    middle = frame.centre.astype(np.float64)

    def encode(first: int, end: int) -> None:
        doubles, norms = np.empty((end - first, asked.dimension)), np.empty(end - first)
        prepare_queries(asked.code, asked.address, asked.stride, first, end - first, doubles, norms)
        encode_queries(
            METRIC_CODES[task.metric],
            doubles,
            norms,
            first,
            middle,
            frame.rotation,
            frame.drift,
            levels,
            stretch,
            most,
            integers,
            floats,
            facts,
        )

    step = max(_QUERIES_AT_ONCE, min(asked.count // _QUERY_PARTS, _QUERIES_AT_MOST))
    task.run(encode, cut(asked.count, step))
    return QueryCode(integers if levels else floats, facts)


def _buffer(local: threading.local, shape: tuple[int, int], kind: Any) -> npt.NDArray[Any]:
    products: npt.NDArray[Any] | None = getattr(local, "products", None)
    if products is None or products.shape != shape:
        products = local.products = np.empty(shape, kind)
    return products
