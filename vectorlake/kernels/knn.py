"""The k nearest rows of each query over a stream of blocks, exact whatever the path."""

from __future__ import annotations

import concurrent.futures
import os
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from vectorlake.errors import InvalidInputError
from vectorlake.kernels.metric import Metric, Path
from vectorlake.kernels.reference import METRIC_CODES
from vectorlake.kernels.rows import Rows


class ExactKnn:
    """Finds the k nearest rows of each query among blocks that are added one after another.

    The answer is that of a float64 scan of the stored values: distances are float64 sums in one fixed order
    (see `lanes`), rows are ordered by distance, then by row id, and neither the path, the number of threads
    nor the cutting into blocks changes a bit. A row never matches when an element is infinite or not a
    number, when its distance overflows float64, or, under cosine, when its norm or the query's is zero.

    Memory is bounded by the queries, n * k results, and a few MiB per thread, however many rows are added.
    Blocks are read where they stand (read-only and memory-mapped arrays too) and may be released once `add`
    returns.

    Args:
        queries: [n, d] of float32, float64, float16, int8 or uint8, finite. Read until the last `add`: don't
            change it.
        k: how many rows to find for each query, at least 1.
        metric: the distance.
        threads: how many threads work inside `add`; as many as this process may run on when None.
        path: how candidates are found; for tests and measurements.

    Raises:
        InvalidInputError: wrong shapes or types, a query that is not finite, or k or threads below 1.
    """

    def __init__(
        self,
        queries: npt.NDArray[Any],
        *,
        k: int,
        metric: Metric,
        threads: int | None = None,
        path: Path | None = None,
    ) -> None:
        self._queries = Rows.of(queries, what="queries")
        if k < 1:
            raise InvalidInputError(f"k is {k}: ask for at least one neighbour")
        if threads is not None and threads < 1:
            raise InvalidInputError(f"threads is {threads}: give at least 1, or None for all")
        finite = self._queries.norms_are_finite()
        if not finite.all():
            bad = int(np.flatnonzero(~finite)[0])
            raise InvalidInputError(
                f"query {bad} has an element that is infinite or not a number: leave it out"
            )
        self._metric = metric
        self._path = path or Path.AUTO
        self._threads = threads or len(os.sched_getaffinity(0))
        count = self._queries.count
        self._distances = np.full((count, k), np.inf)
        self._row_ids = np.full((count, k), 2**63 - 1, np.int64)
        self._lock = threading.Lock()

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
        ids = np.ascontiguousarray(row_ids, np.int64)
        mask = np.ascontiguousarray([] if valid is None else valid, np.bool_)
        if ids.shape != (rows.count,):
            raise InvalidInputError(f"{rows.count} vectors came with row ids of shape {ids.shape}")
        if valid is not None and mask.shape != (rows.count,):
            raise InvalidInputError(f"{rows.count} vectors came with a mask of shape {mask.shape}")
        if rows.count == 0 or self._queries.count == 0:
            return
        from vectorlake.kernels.scan import prepare_queries, scan

        with self._lock:
            asked = self._queries
            doubles = np.empty((asked.count, asked.dimension))
            norms = np.empty(asked.count)
            prepare_queries(asked.code, asked.address, asked.stride, 0, asked.count, doubles, norms)
            code = METRIC_CODES[self._metric]

            def work(part: npt.NDArray[np.int64]) -> None:
                first, end = int(part[0]), int(part[-1]) + 1
                scan(
                    code,
                    doubles[first:end],
                    norms[first:end],
                    rows.code,
                    rows.address,
                    rows.stride,
                    ids,
                    mask,
                    0,
                    rows.count,
                    self._distances[first:end],
                    self._row_ids[first:end],
                )

            parts = [p for p in np.array_split(np.arange(asked.count), self._threads) if len(p)]
            with concurrent.futures.ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(work, parts))

    def result(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """The nearest rows among those added so far, nearest first; more blocks may follow.

        Returns:
            row ids int64 [n, k] (-1 where fewer than k rows match), distances float64 [n, k] (infinity
            there), and how many rows were found, int64 [n].
        """
        with self._lock:
            order = np.lexsort((self._row_ids, self._distances), axis=1)
            distances = np.take_along_axis(self._distances, order, axis=1)
            row_ids = np.take_along_axis(self._row_ids, order, axis=1)
        found = distances < np.inf
        row_ids[~found] = -1
        return row_ids, distances, found.sum(axis=1)
