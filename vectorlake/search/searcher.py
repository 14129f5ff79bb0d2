"""A search planned once and run many times, with as little as possible around the kernels: for loops of single queries."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vectorlake.errors import CorruptDataError, InvalidInputError
from vectorlake.kernels import Metric
from vectorlake.kernels.heap import NO_ROW
from vectorlake.kernels.refine import settle
from vectorlake.kernels.rows import Rows as Matrix
from vectorlake.kernels.rows import code_of
from vectorlake.schema import FixedListType, is_multivector
from vectorlake.search.choice import Effortful, Mode, choose_target, positive
from vectorlake.search.heaps import Heaps
from vectorlake.search.indexed import IndexEngine, warn
from vectorlake.search.indexed import settle as settle_effort
from vectorlake.search.plan import Effort
from vectorlake.search.ready import Ready, ready
from vectorlake.search.selection import Selection
from vectorlake.table.view import View


class KnnSearcher:
    """The k nearest rows by an index of one snapshot, for queries that come one by one or in batches.

    Everything but the search itself is settled when it is made: later versions of the table do not show. Safe to share
    between threads. Made by `Table.searcher`.

    Attributes:
        index: the index's name.
        effort: partitions (IVF) or beam width (graph) that are looked at.
        pool: rows that are measured exactly for each query.
    """

    def __init__(
        self, view: View, prepared: Ready, wish: Any, selection: Selection, *, k: int, threads: int | None
    ) -> None:
        self.index = prepared.index.name
        self.k = k
        self._view = view
        self._prepared = prepared
        self._wish = wish
        self._selection = selection
        self._threads = threads
        kind = prepared.field.type
        assert isinstance(kind, FixedListType)
        self.dimension = kind.size
        self._bits = prepared.index.metric == Metric.HAMMING
        self._element = np.dtype(np.uint8 if self._bits else np.float32)
        self._code = code_of(self._element)
        self._effort = settle_effort(prepared, wish, k) if prepared.segments else Effort(0, 0, None, "")
        self.effort, self.pool = self._effort.effort, self._effort.pool
        self._lean = prepared.lean if selection.all else None
        self._none = Heaps.empty(1, k, None)
        if self._lean is not None:
            self._nominate = self._lean.nominator(self._effort)

    def search(self, queries: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The nearest rows of one vector [dimension] or of several [n, dimension].

        Queries are rounded to float32 (hamming: packed bits, uint8).

        Returns:
            row ids int64 [n, k], -1 where fewer were found; distances float64 [n, k], infinity there.

        Raises:
            InvalidInputError: another dimension, or a query with NaN or infinity.
        """
        given = np.ascontiguousarray(queries, self._element)
        if given.ndim == 1:
            given = given.reshape(1, -1)
        if given.ndim != 2 or given.shape[1] != self.dimension:
            raise InvalidInputError(
                f"queries must be [n, {self.dimension}] or [{self.dimension}], not of shape {given.shape}"
            )
        if not self._bits and np.count_nonzero(np.isfinite(given)) < given.size:
            raise InvalidInputError("a query holds NaN or infinity: no distance to it means anything")
        if self._lean is None or len(given) != 1:
            return self._general(given)
        try:
            slots = self._nominate(given).slots
        except CorruptDataError:
            return self._general(given)
        heaps = Heaps(self._none.distances.copy(), self._none.row_ids.copy())
        self._lean.measure(Matrix(given, self._code), slots, heaps)
        if heaps.row_ids[0, 0] == NO_ROW:
            return self._general(given)
        settle(heaps.distances, heaps.row_ids)
        return heaps.row_ids, heaps.distances

    def _general(self, queries: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        engine = IndexEngine(self._prepared, queries, self._selection, self._wish, threads=self._threads)
        found = engine.nearest(self.k, None)
        return found.row_ids, found.distances


def make_searcher(
    view: View,
    *,
    column: str | None,
    index: str | None,
    metric: str | Metric | None,
    k: int,
    effort: Effortful,
    filter: Any,
    threads: int | None,
) -> KnnSearcher:
    """Plan a search (see `Table.searcher`)."""
    target = choose_target(view.snapshot, column=column, metric=metric, index=index, mode=Mode.INDEX)
    assert target.index is not None
    if is_multivector(target.field.type):
        raise InvalidInputError(
            f"column {target.field.name!r} holds multivectors: a searcher takes single vectors, so use knn()"
        )
    depth = min(positive("k", k), max(view.snapshot.num_rows, 1))
    prepared = ready(view, target.index)
    for fault in prepared.coverage.faults:
        warn(fault)
    selection = Selection(view.bind(filter))
    return KnnSearcher(view, prepared, effort.wish(target.index), selection, k=depth, threads=threads)
