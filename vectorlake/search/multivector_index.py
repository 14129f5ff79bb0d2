"""The search by an index over token vectors: documents it nominates are measured exactly, uncovered rows are scanned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from vectorlake.index.protocol import Ask
from vectorlake.kernels.maxsim import Documents, ExactMaxSim, Tokens
from vectorlake.search.found import Found
from vectorlake.search.heaps import Heaps
from vectorlake.search.indexed import IndexEngine
from vectorlake.search.multivector import as_tokens, tokens_of
from vectorlake.search.plan import Effort, Wish
from vectorlake.search.ready import Ready, ReadySegment
from vectorlake.search.selection import Selection
from vectorlake.search.vectors import Rows
from vectorlake.table.fragment_reader import FragmentReader

_KEPT_BYTES: Final = 128 << 20
"""Token vectors of a column are kept in memory between searches if its files are no larger."""


class TokensEngine(IndexEngine):
    """Searches an index over a multivector column."""

    def __init__(
        self,
        prepared: Ready,
        tokens: Tokens,
        selection: Selection,
        wish: Wish,
        *,
        threads: int | None = None,
    ) -> None:
        super().__init__(prepared, tokens.vectors, selection, wish, threads=threads)
        self._tokens = tokens

    @property
    def count(self) -> int:
        return len(self._tokens)

    def _ask(self, first: int, end: int, effort: Effort, threads: int) -> Ask:
        part = self._tokens.part(first, end)
        vectors = np.ascontiguousarray(part.vectors, np.float32)
        return Ask(vectors, effort.pool, effort.effort, threads=threads, offsets=part.offsets)

    def _measure(
        self,
        first: int,
        end: int,
        segment: ReadySegment,
        nominees: npt.NDArray[np.int64],
        part: Heaps,
        threads: int,
    ) -> None:
        opened = segment.opened
        there = nominees >= 0
        owners = np.repeat(np.arange(len(nominees)), there.sum(axis=1))
        slots = nominees[there]
        fragments, positions = opened.fragment[slots], opened.position[slots]
        search = ExactMaxSim(
            self._tokens.part(first, end), k=part.distances.shape[1], metric=self.metric, threads=threads
        )
        for index in np.unique(fragments[fragments >= 0]).tolist():
            mine = np.flatnonzero(fragments == index)
            documents, chosen = self._documents(opened.readers[index], positions[mine], threads)
            starts = np.searchsorted(owners[mine], np.arange(len(nominees) + 1)).astype(np.int64)
            search.add_chosen(documents, starts, chosen)
        part.offer(Found(*search.result()))

    def _documents(
        self, reader: FragmentReader, positions: npt.NDArray[np.int64], threads: int
    ) -> tuple[Documents, npt.NDArray[np.int64]]:
        """Documents of a fragment, and which of them stand at some positions."""
        field, view = self.prepared.field, self.prepared.view
        rows = reader.fragment.row_count
        if self._keeps():

            def load() -> Documents:
                self.trace.read += rows
                tokens = as_tokens(reader.read([field], 0, rows).column(0))
                return Documents.of(tokens, reader.row_ids(0, rows), self.metric, threads=threads)

            key = ("documents", reader.fragment.id, field.id, str(self.metric))
            return view.memo.get(key, load), positions
        distinct, chosen = np.unique(positions, return_inverse=True)
        self.trace.read += len(distinct)
        tokens = as_tokens(reader.take([field], distinct).column(0))
        documents = Documents.of(tokens, reader.row_ids_at(distinct), self.metric, threads=threads)
        return documents, chosen.astype(np.int64)

    def _keeps(self) -> bool:
        """Whether the column is small enough to be kept in memory."""
        field, view = self.prepared.field, self.prepared.view

        def total() -> int:
            files = (reader.fragment.file_of(field.id) for reader in view.readers())
            return sum(file.size for file in files if file is not None)

        return view.memo.get(("bytes of a column", field.id), total) <= _KEPT_BYTES

    def _scan(self, rows_of: Sequence[Rows] | None, k: int, heaps: Heaps) -> None:
        rows = self.prepared.coverage.uncovered if rows_of is None else rows_of
        search = ExactMaxSim(self._tokens, k=k, metric=self.metric, threads=self._threads)
        for documents, row_ids in tokens_of(rows, self.prepared.field):
            self.trace.scanned += len(documents)
            search.add(documents, row_ids)
        heaps.offer(Found(*search.result()))
