"""The k nearest rows of each query over a stream of blocks, exact whatever the path."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from vectorlake.errors import InvalidInputError
from vectorlake.kernels.capability import best_path
from vectorlake.kernels.metric import Metric, Path
from vectorlake.kernels.order import sorted_rows
from vectorlake.kernels.reference import METRIC_CODES
from vectorlake.kernels.rows import INT8, UINT8, Rows
from vectorlake.kernels.team import Team, cores

if TYPE_CHECKING:
    from vectorlake.kernels.codes import RowCodes
    from vectorlake.kernels.integer_path import IntegerPath
    from vectorlake.kernels.paths import SearchPath
    from vectorlake.kernels.quantize import Frame

_Offer: TypeAlias = Callable[..., None]
"""Offers rows [first, end) to the heaps given after these two."""

NO_ROW: Final = 2**63 - 1

_FOR_CODES: Final = 1 << 30
"""Codes are there already, so that products pay for any number of queries."""

_SMALL_WORK: Final = 2_000_000
"""Elements to multiply below which threads would cost more than they save."""

_SHARES: Final = 2
"""A group of queries is one in so many of those that are left for each thread."""


class ExactKnn:
    """Finds the k nearest rows of each query among blocks that are added one after another.

    The answer is that of a float64 scan of the stored values: distances are float64 sums in one fixed order
    (see `lanes`), rows are ordered by distance, then by row id, and neither the path, the number of threads
    nor the cutting into blocks changes a bit. A row never matches when an element is infinite or not a
    number, when its distance overflows float64, or, under cosine, when its norm or the query's is zero.

    Candidates come from products of rounded vectors. A row is left out only when a proven bound on its
    distance exceeds that of k rows; all others are measured in float64 from the stored values. Whole numbers
    against int8 or uint8 rows are multiplied as they are where the CPU has AVX2, and nothing is left to measure.

    Memory is bounded by the queries, n * k results and some tens of MiB, however many rows are added. Blocks
    are read where they stand (read-only and memory-mapped arrays too) and may be released once `add` returns.
    Blocks of ten thousand rows or more go fastest.

    Args:
        queries: [n, d] of float32, float64, float16, int8 or uint8, finite; for hamming uint8, each byte eight
            bits. Read until the last `add`: leave it be.
        k: how many rows to find for each query, at least 1.
        metric: the distance.
        threads: how many threads work inside `add`; as many as this process may run on when None.
        path: how candidates are found; None or AUTO takes the fastest.
        bounds: float64 [n]: for each query, rows that are farther than this are not wanted. The nearer to the k-th
            distance, the less has to be looked at closely.
        device: torch's name of the device that Path.GPU, which it implies, multiplies on; `"cuda"` when None.

    Raises:
        InvalidInputError: wrong shapes or types, a query that is not finite, k or threads below 1, an unknown device or
            one for another path.
        UnsupportedError: this machine can't run the path, or torch or the device is not there.
    """

    def __init__(
        self,
        queries: npt.NDArray[Any],
        *,
        k: int,
        metric: Metric,
        threads: int | None = None,
        path: Path | None = None,
        bounds: npt.NDArray[np.float64] | None = None,
        device: str | None = None,
    ) -> None:
        self._queries = Rows.of(queries, what="queries")
        if k < 1:
            raise InvalidInputError(f"k is {k}: ask for at least one neighbour")
        if threads is not None and threads < 1:
            raise InvalidInputError(f"threads is {threads}: give at least 1, or None for all")
        if metric is Metric.HAMMING:
            self._queries.require_bits(what="queries")
        finite = self._queries.finite()
        if not finite.all():
            bad = int(np.flatnonzero(~finite)[0])
            raise InvalidInputError(
                f"query {bad} has an element that is infinite or not a number: leave it out"
            )
        self._metric = metric
        path, self._device = _on_device(path or Path.AUTO, device)
        self._path = best_path(path, queries=self._queries.count)
        self._threads = threads or cores()
        count = self._queries.count
        self._distances = np.full((count, k), np.inf)
        self._row_ids = np.full((count, k), NO_ROW, np.int64)
        if bounds is not None:
            if bounds.shape != (count,):
                raise InvalidInputError(f"{count} queries came with bounds of shape {bounds.shape}")
            # An empty place at the bound keeps out what is farther, and gives way to what is as far.
            self._distances[:] = bounds[:, None]
        self._lock = threading.Lock()
        self._search: SearchPath | None = None
        self._offered = 0
        self._headed = False
        self._integers: IntegerPath | None = None
        self._integers_asked = False

    def add(
        self,
        vectors: npt.NDArray[Any],
        row_ids: npt.NDArray[np.int64],
        valid: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Offer a block of rows to every query. Calls from several threads take turns.

        Args:
            vectors: [m, d] of float32, float64, float16, int8 or uint8; blocks may differ in type.
            row_ids: int64 [m], each row's id; no two rows share one.
            valid: bool [m], False where a row must not match; None where all may.

        Raises:
            InvalidInputError: wrong shapes or types; nothing of the block was offered.
        """
        rows = Rows.of(vectors, what="vectors", dimension=self._queries.dimension)
        if self._metric is Metric.HAMMING:
            rows.require_bits(what="vectors")
        ids = np.ascontiguousarray(row_ids, np.int64)
        mask = np.ascontiguousarray([] if valid is None else valid, np.bool_)
        if ids.shape != (rows.count,):
            raise InvalidInputError(f"{rows.count} vectors came with row ids of shape {ids.shape}")
        if valid is not None and mask.shape != (rows.count,):
            raise InvalidInputError(f"{rows.count} vectors came with a mask of shape {mask.shape}")
        if rows.count == 0 or self._queries.count == 0:
            return
        work = rows.count * rows.dimension * self._queries.count
        threads = 1 if work < _SMALL_WORK else self._threads
        team = Team(threads)
        with self._lock:
            if self._path is Path.DIRECT or self._metric is Metric.HAMMING:
                self._scan(rows, ids, mask, team)
            elif (integers := self._integers_for(rows)) is not None:
                self._search_integers(integers, rows, ids, mask, team)
            else:
                self._filter(rows, ids, mask, team)

    def add_encoded(
        self,
        codes: RowCodes,
        places: npt.NDArray[np.int64],
        element: npt.DTypeLike,
        row_ids: npt.NDArray[np.int64],
    ) -> None:
        """Offer rows that were encoded before; like `add`, but nothing is read of rows that their codes rule out.

        A flat index keeps such codes (`index.flat.FlatSearcher.codes`). The answer is exact for the vectors that stand
        at the places given, which must be those that were encoded, bit for bit.

        Args:
            codes: of all slots, made for this metric.
            places: int64 [slots], the address in memory at which each slot's vector is stored, its elements one after
                another (`array.ctypes.data + row * array.strides[0]`); 0 for a slot that must not match. What is there
                must stay until the call returns.
            element: the type of the stored elements: float32, float64, float16, int8 or uint8.
            row_ids: int64 [slots]; no two rows share one.

        Raises:
            InvalidInputError: wrong shapes, another metric or dimension; nothing was offered.
        """
        from vectorlake.kernels.paths import Block

        dimension, count = self._queries.dimension, codes.count
        if codes.metric is not self._metric or len(codes.frame.centre) != dimension:
            raise InvalidInputError(
                f"the codes are of {codes.metric} in {len(codes.frame.centre)} dimensions, "
                f"the search is of {self._metric} in {dimension}"
            )
        # Compiled code tells arrays that may be written from those that may not.
        ids, where = (np.require(given, np.int64, ["C", "W"]) for given in (row_ids, places))
        if ids.shape != (count,) or where.shape != (count,):
            raise InvalidInputError(f"{count} codes came with {ids.shape} row ids and {where.shape} places")
        if count == 0 or self._queries.count == 0:
            return
        # One row stands for all: they are read at their places.
        rows = Rows.of(np.broadcast_to(np.zeros((1, dimension), element), (count, dimension)), what="vectors")
        path = best_path(Path.AUTO if self._path is Path.DIRECT else self._path, queries=_FOR_CODES)
        team = Team(self._threads)
        with self._lock:
            search = self._open_path(codes.frame, path, team)
            groups = shares_of(self._queries.count, self._threads, search)
            for first in range(0, count, search.adopted_rows):
                end = min(first + search.adopted_rows, count)
                block = Block(rows, ids, np.empty(0, np.bool_), first, end)
                search.adopt(block, codes, where, team.run)
                search.search_all(team.run, groups)

    def result(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """The nearest rows among those added so far, nearest first; more blocks may follow.

        Returns:
            row ids int64 [n, k] (-1 where fewer than k rows match), distances float64 [n, k] (infinity
            there), and how many rows were found, int64 [n].
        """
        with self._lock:
            distances, row_ids = sorted_rows(self._distances, self._row_ids)
        found = row_ids != NO_ROW
        distances[~found] = np.inf
        row_ids[~found] = -1
        return row_ids, distances, found.sum(axis=1)

    def _filter(
        self, rows: Rows, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_], team: Team
    ) -> None:
        from vectorlake.kernels.paths import Block

        search = self._search = self._open(rows, mask, team)
        count = self._queries.count
        groups = shares_of(count, self._threads, search)
        for first in range(0, rows.count, search.block_rows):
            block = Block(rows, ids, mask, first, min(first + search.block_rows, rows.count))
            search.encode(block, team.run)
            search.search_all(team.run, groups)

    def _integers_for(self, rows: Rows) -> IntegerPath | None:
        """The path for integers, if these rows and the queries are such."""
        if self._path is not Path.AVX2 or rows.code not in (INT8, UINT8):
            return None
        if not self._integers_asked:
            from vectorlake.kernels.integer_path import IntegerPath, whole_queries

            whole = whole_queries(self._queries)
            if whole is not None:
                self._integers = IntegerPath(
                    whole, self._metric, distances=self._distances, row_ids=self._row_ids
                )
            self._integers_asked = True
        return self._integers

    def _search_integers(
        self,
        path: IntegerPath,
        rows: Rows,
        ids: npt.NDArray[np.int64],
        mask: npt.NDArray[np.bool_],
        team: Team,
    ) -> None:
        groups = shares_of(self._queries.count, self._threads, path)
        for first in range(0, rows.count, path.block_rows):
            block = slice(first, first + path.block_rows)
            path.encode(Rows(rows.array[block], rows.code), mask[block], team.run)
            team.run(functools.partial(path.search, ids=ids[block]), groups)

    def _open(self, rows: Rows, mask: npt.NDArray[np.bool_], team: Team) -> SearchPath:
        """The path so far, or a new one: the first, and when so much was searched that finding a head pays."""
        from vectorlake.kernels.head import head_for
        from vectorlake.kernels.quantize import Frame, centre_of

        self._offered += rows.count
        search = self._search
        if search is not None and self._headed:
            return search
        centre = centre_of(rows, self._metric, mask)
        rotation = None
        if self._path is not Path.GPU:
            rotation = head_for(rows, centre, mask, self._queries, self._metric, self._offered, team.threads)
        self._headed = rotation is not None or self._path is Path.GPU
        if search is not None and (rotation is None or not len(rotation)):
            return search
        return self._open_path(Frame.of(centre, rotation), self._path, team)

    def _open_path(self, frame: Frame, path: Path, team: Team) -> SearchPath:
        from vectorlake.kernels import paths

        task = paths.Task(self._queries, self._metric, frame, self._distances, self._row_ids, team.run)
        if path is Path.AVX2:
            return paths.PanelPath(task)
        if path is Path.NUMKONG:
            return paths.NumkongPath(task)
        if path is Path.GPU:
            from vectorlake.kernels.gpu import GpuPath

            return GpuPath(task, self._device)
        return paths.FloatPath(task)

    def _scan(self, rows: Rows, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_], team: Team) -> None:
        offer = self._offer_bits if self._metric is Metric.HAMMING else self._offer_floats
        into = offer(rows, ids, mask)
        heaps = [(self._distances, self._row_ids)]
        heaps += [
            (np.full_like(self._distances, np.inf), np.full_like(self._row_ids, NO_ROW))
            for _ in range(team.threads - 1)
        ]
        free = list(heaps)

        def part(first: int, end: int) -> None:
            heap = free.pop()  # as many heaps as threads, so there is one
            into(first, end, *heap)
            free.append(heap)

        step = max(1, min(8192, -(-rows.count // team.threads)))
        team.run(part, [(s, min(s + step, rows.count)) for s in range(0, rows.count, step)])
        if len(heaps) > 1:
            k = self._distances.shape[1]
            distances, row_ids = sorted_rows(
                *(np.concatenate(parts, axis=1) for parts in zip(*heaps, strict=True))
            )
            # Descending order is a heap.
            self._distances[:] = distances[:, :k][:, ::-1]
            self._row_ids[:] = row_ids[:, :k][:, ::-1]

    def _offer_floats(self, rows: Rows, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_]) -> _Offer:
        from vectorlake.kernels.scan import prepare_queries, scan

        asked, metric = self._queries, METRIC_CODES[self._metric]
        doubles = np.empty((asked.count, asked.dimension))
        norms = np.empty(asked.count)
        prepare_queries(asked.code, asked.address, asked.stride, 0, asked.count, doubles, norms)

        def offer(first: int, end: int, *heap: npt.NDArray[Any]) -> None:
            scan(metric, doubles, norms, rows.code, rows.address, rows.stride, ids, mask, first, end, *heap)

        return offer

    def _offer_bits(self, rows: Rows, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_]) -> _Offer:
        from vectorlake.kernels.hamming import scan_bits

        asked = self._queries
        queries = asked.address, asked.stride, asked.count, asked.dimension

        def offer(first: int, end: int, *heap: npt.NDArray[Any]) -> None:
            scan_bits(*queries, rows.address, rows.stride, ids, mask, first, end, *heap)

        return offer


def _on_device(path: Path, device: str | None) -> tuple[Path, str]:
    """The path that a device implies, and its device, which is seen to be there; empty for other paths."""
    if device is None and path is not Path.GPU:
        return path, ""
    if path not in (Path.AUTO, Path.GPU):
        raise InvalidInputError(f"a device is for Path.GPU, not for {path}: leave one of them out")
    from vectorlake.kernels.gpu import check_device

    check_device(device or "cuda")
    return Path.GPU, device or "cuda"


def shares_of(count: int, threads: int, path: SearchPath | IntegerPath) -> list[tuple[int, int]]:
    """Cut queries into groups of whole tiles: as many for each thread, or ever smaller ones, so that all end at one time.

    In the latter case each is its part of what is left (Polychronopoulos & Kuck, "Guided self-scheduling", 1987).
    """
    if path.least_group is None or threads == 1:
        rounds = -(-count // (threads * path.group))
        step = -(-count // (threads * rounds * path.tile)) * path.tile
        return [(first, min(first + step, count)) for first in range(0, count, step)]
    groups: list[tuple[int, int]] = []
    first = 0
    while first < count:
        share = -(-(count - first) // (_SHARES * threads))
        step = -(-max(min(share, path.group), path.least_group) // path.tile) * path.tile
        groups.append((first, min(first + step, count)))
        first += step
    return groups
