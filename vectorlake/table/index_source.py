"""The vectors of a column as an index is built from them: those of some rows, block by block, without what can't match."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vectorlake.index.protocol import Block
from vectorlake.kernels.metric import Metric
from vectorlake.schema import Field, FixedListType, ListType
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.scan import ordered_map, width_of
from vectorlake.table.view import View

Rows: TypeAlias = tuple[FragmentReader, npt.NDArray[np.int64]]
"""Positions of a fragment, ascending."""
_BLOCK_BYTES: Final = 8 << 20
_BLOCK_ROWS: Final = 16_384
_SHARE: Final = 16
"""A block takes at most one part in this many of the memory allowed: some are read ahead."""
_DENSE: Final = 3
"""Samples of more than one row in this many are taken while all are read."""


@dataclass(frozen=True)
class _Piece:
    reader: FragmentReader
    positions: npt.NDArray[np.int64]
    mapped: npt.NDArray[Any] | None
    """The vectors at these positions, where they are mapped."""


class ColumnVectors:
    """Some rows of a vector column. Vectors of multivectors come one by one, each with its row's id.

    Rows whose vector is null, or holds NaN or an infinity, or for cosine has no direction, match no query: they are left
    out, and `skipped` tells which they were after `blocks` has been read.
    """

    def __init__(
        self, view: View, column: Field, rows: Sequence[Rows], metric: Metric, *, threads: int, memory: int
    ) -> None:
        self._view = view
        self._column = column
        self._of = rows
        self._metric = metric
        self._threads = max(1, min(threads, 4))
        width = max(width_of(column.to_storage().type), 1)
        self._step = max(64, min(_BLOCK_ROWS, _BLOCK_BYTES // width, memory // _SHARE // width))
        self._skipped: list[npt.NDArray[np.int64]] = []

    @property
    def rows(self) -> int:
        """How many rows there are, those that will be skipped included."""
        return sum(len(positions) for _, positions in self._of)

    @property
    def several(self) -> bool:
        """Whether a row may have several vectors."""
        return isinstance(self._column.type, ListType)

    @property
    def dimension(self) -> int:
        """Elements of a vector."""
        kind = self._column.type
        kind = kind.element.type if isinstance(kind, ListType) else kind
        assert isinstance(kind, FixedListType)
        return kind.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the elements."""
        kind = self._column.to_storage().type
        while not pa.types.is_primitive(kind):
            kind = kind.value_type
        found: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
        return found

    @property
    def skipped(self) -> npt.NDArray[np.int64]:
        """Ids of the rows that the last blocks left out."""
        return np.concatenate([np.empty(0, np.int64), *self._skipped])

    def blocks(self) -> Iterator[Block]:
        """All of them."""
        self._skipped = []
        for block, skipped in self._blocks(self._of):
            self._skipped.append(skipped)
            if len(block.vectors):
                yield block

    def sample(self, count: int, rng: np.random.Generator) -> npt.NDArray[Any]:
        """At most `count` distinct vectors; fewer if there are fewer that can match."""
        total = self.rows
        found: list[npt.NDArray[Any]] = []
        held = 0
        drawn = np.zeros(0, np.int64)
        wanted = min(count, total)
        while held < count and len(drawn) < total:
            fresh = _draw(total, drawn, wanted, rng)
            drawn = np.union1d(drawn, fresh)
            for block, _ in self._blocks(self._at(np.sort(fresh))):
                found.append(block.vectors if block.vectors.base is None else block.vectors.copy())
                held += len(block.vectors)
            # Nulls may be many: draw as many more as the share found so far lets expect, and some.
            wanted = min(total - len(drawn), max(1024, int((count - held) * len(drawn) / max(held, 1) * 1.2)))
        if not found:
            return np.empty((0, self.dimension), self.dtype)
        vectors = np.concatenate(found)
        if len(vectors) <= count:
            return vectors
        chosen: npt.NDArray[Any] = vectors[np.sort(rng.choice(len(vectors), count, replace=False))]
        return chosen

    def _at(self, numbers: npt.NDArray[np.int64]) -> list[Rows]:
        """The rows with some numbers (ascending), counted through all of them."""
        starts = np.cumsum([0, *(len(positions) for _, positions in self._of)])
        cuts = np.searchsorted(numbers, starts)
        return [
            (reader, positions[numbers[cuts[i] : cuts[i + 1]] - starts[i]])
            for i, (reader, positions) in enumerate(self._of)
            if cuts[i] < cuts[i + 1]
        ]

    def _blocks(self, rows: Sequence[Rows]) -> Iterator[tuple[Block, npt.NDArray[np.int64]]]:
        pieces = (piece for reader, positions in rows for piece in self._pieces(reader, positions))
        yield from ordered_map(self._read, pieces, threads=self._threads)

    def _pieces(self, reader: FragmentReader, positions: npt.NDArray[np.int64]) -> Iterator[_Piece]:
        mapped = reader.mapped(self._column)
        if mapped is None:
            for start in range(0, len(positions), self._step):
                yield _Piece(reader, positions[start : start + self._step], None)
            return
        offset = 0
        for array in mapped:
            low, high = np.searchsorted(positions, [offset, offset + len(array)])
            for start in range(low, high, self._step):
                part = positions[start : min(start + self._step, high)]
                first, last = int(part[0]) - offset, int(part[-1]) - offset
                whole = last - first + 1 == len(part)
                yield _Piece(reader, part, array[first : last + 1] if whole else array[part - offset])
            offset += len(array)

    def _read(self, piece: _Piece) -> tuple[Block, npt.NDArray[np.int64]]:
        positions = piece.positions
        row_ids = _ids(piece.reader, positions)
        if piece.mapped is not None:
            return _matching(piece.mapped, row_ids, self._metric)
        first, last = int(positions[0]), int(positions[-1]) + 1
        if _DENSE * len(positions) >= last - first:
            array = piece.reader.read([self._column], first, last).column(0)
            if len(positions) < last - first:
                array = array.take(pa.array(positions - first))
        else:
            array = piece.reader.take([self._column], positions).column(0)
        vectors, holders, valid = _values(array, self._column)
        without = np.setdiff1d(row_ids, row_ids[holders[valid]])
        block, skipped = _matching(vectors[valid], row_ids[holders[valid]], self._metric)
        # A multivector is skipped only if none of its vectors is left.
        left = np.setdiff1d(skipped, block.row_ids)
        return block, np.concatenate([without, left])


class Among:
    """Those of some vectors whose rows have certain ids."""

    def __init__(self, vectors: ColumnVectors, row_ids: npt.NDArray[np.int64]) -> None:
        self._vectors = vectors
        self._ids = np.unique(row_ids)

    @property
    def rows(self) -> int:
        return len(self._ids)

    def sample(self, count: int, rng: np.random.Generator) -> npt.NDArray[Any]:
        """At most `count` of them; all are held in memory meanwhile."""
        parts = [block.vectors for block in self.blocks()]
        vectors: npt.NDArray[Any] = np.concatenate(parts)
        return vectors[np.sort(rng.permutation(len(vectors))[:count])]

    def blocks(self) -> Iterator[Block]:
        """All of them."""
        for block in self._vectors.blocks():
            at = np.minimum(np.searchsorted(self._ids, block.row_ids), len(self._ids) - 1)
            hit = self._ids[at] == block.row_ids
            if hit.any():
                yield Block(block.vectors[hit], block.row_ids[hit])


def _draw(
    total: int, drawn: npt.NDArray[np.int64], count: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """At most `count` numbers below `total` that were not drawn before."""
    if len(drawn) + count >= total:
        return np.setdiff1d(np.arange(total), drawn, assume_unique=True)
    if not len(drawn):
        return rng.choice(total, count, replace=False).astype(np.int64)
    return np.setdiff1d(rng.choice(total, min(total, count + len(drawn)), replace=False), drawn)[:count]


def _ids(reader: FragmentReader, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    first, last = int(positions[0]), int(positions[-1]) + 1
    if last - first == len(positions):
        return reader.row_ids(first, last)
    return reader.row_ids_at(positions)


def _values(
    array: pa.Array, column: Field
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Vectors [n, d], the row of each, and whether it and all its elements are there."""
    rows = np.arange(len(array))
    there = array.is_valid().to_numpy(zero_copy_only=False)
    if isinstance(column.type, ListType):
        offsets = array.offsets.to_numpy()
        lengths = np.where(there, np.diff(offsets), 0)
        vectors = array.flatten()  # leaves out what null lists cover
        holders = np.repeat(rows, lengths)
        there = vectors.is_valid().to_numpy(zero_copy_only=False)
    else:
        vectors, holders = array, rows
    size = vectors.type.list_size
    values = vectors.values.slice(vectors.offset * size, len(vectors) * size)
    if values.null_count:
        inside = values.is_valid().to_numpy(zero_copy_only=False).reshape(-1, size).all(axis=1)
        there, values = there & inside, values.fill_null(0)
    return values.to_numpy(zero_copy_only=False).reshape(-1, size), holders, there


def _matching(
    vectors: npt.NDArray[Any], row_ids: npt.NDArray[np.int64], metric: Metric
) -> tuple[Block, npt.NDArray[np.int64]]:
    """The vectors that can match a query, and the ids of the others."""
    if vectors.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            squares = np.einsum(
                "ij,ij->i", vectors, vectors, dtype=np.float64 if vectors.dtype == np.float64 else np.float32
            )
        good = np.isfinite(squares)
        suspect = np.flatnonzero(~good)  # or so large that squares overflow
        good[suspect] = np.isfinite(vectors[suspect]).all(axis=1)
        if metric is Metric.COSINE:
            suspect = np.flatnonzero(squares == 0)  # or so small that squares vanish
            good[suspect] &= vectors[suspect].any(axis=1)
    elif metric is Metric.COSINE:
        good = vectors.any(axis=1)
    else:
        return Block(vectors, row_ids), row_ids[:0]
    if good.all():
        return Block(vectors, row_ids), row_ids[:0]
    return Block(vectors[good], row_ids[good]), row_ids[~good]
