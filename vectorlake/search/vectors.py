"""Vectors of chosen rows: where they stand if their files are mapped, read by position if not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vectorlake.kernels.rows import code_of
from vectorlake.schema import Field, FixedListType, ScalarType
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.scan import MORSEL_ROWS, width_of
from vectorlake.table.vector_rows import vector_rows

_BLOCK_BYTES: Final = 32 << 20

Rows = tuple[FragmentReader, npt.NDArray[np.int64]]
"""Some live rows of a fragment, by ascending position."""


@dataclass(frozen=True)
class Block:
    """Vectors [rows, dimension] with their row ids, and which of them count (None: all)."""

    vectors: npt.NDArray[Any]
    row_ids: npt.NDArray[np.int64]
    valid: npt.NDArray[np.bool_] | None


def as_block(array: pa.FixedSizeListArray, row_ids: npt.NDArray[np.int64]) -> Block:
    """Vectors as read from a file; those that are null, or hold a null, don't count."""
    vectors, valid = vector_rows(array)
    return Block(vectors, row_ids, valid)


def blocks_of(rows: Sequence[Rows], field: Field) -> Iterator[Block]:
    """The vectors of some rows, block by block."""
    step = max(512, min(MORSEL_ROWS, _BLOCK_BYTES // max(width_of(field.to_storage().type), 1)))
    for reader, positions in rows:
        pieces = reader.mapped(field)
        if pieces is None:
            for start in range(0, len(positions), step):
                part = positions[start : start + step]
                yield as_block(reader.take([field], part).column(0), reader.row_ids_at(part))
            continue
        offset = 0
        for piece in pieces:
            low, high = np.searchsorted(positions, [offset, offset + len(piece)])
            for start in range(int(low), int(high), step):
                part = positions[start : min(start + step, int(high))]
                whole = int(part[-1]) - int(part[0]) + 1 == len(part)
                local = part - offset
                vectors = piece[local[0] : local[-1] + 1] if whole else piece[local]
                yield Block(vectors, reader.row_ids_at(part), None)
            offset += len(piece)


@dataclass(frozen=True)
class Addresses:
    """Where the vectors of slots stand in memory.

    Attributes:
        places: int64 [slots], 0 for a slot that holds no live row.
        kept: the mapped arrays, which must live as long as `places` is used.
    """

    places: npt.NDArray[np.int64]
    kept: tuple[npt.NDArray[Any], ...]


def addresses(
    readers: Sequence[FragmentReader],
    fragment: npt.NDArray[np.int32],
    position: npt.NDArray[np.int64],
    field: Field,
) -> Addresses | None:
    """Where slots' vectors stand; None if a fragment that holds any is not mapped.

    Args:
        readers: the fragments.
        fragment: int32 [slots], which of them holds the slot's row, negative for none.
        position: int64 [slots], the row's position there.
    """
    places = np.zeros(len(fragment), np.int64)
    kept: list[npt.NDArray[Any]] = []
    for index, reader in enumerate(readers):
        slots = np.flatnonzero(fragment == index)
        if not len(slots):
            continue
        pieces = reader.mapped(field)
        if pieces is None:
            return None
        starts = np.cumsum([0, *(len(piece) for piece in pieces)])
        at = position[slots]
        piece_of = np.searchsorted(starts, at, side="right") - 1
        bases = np.array([piece.ctypes.data for piece in pieces], np.int64)
        strides = np.array([piece.strides[0] for piece in pieces], np.int64)
        places[slots] = bases[piece_of] + (at - starts[piece_of]) * strides[piece_of]
        kept += pieces
    return Addresses(places, tuple(kept))


def element_code(column: Field) -> int:
    """The type of a column's elements, as kernels know it."""
    assert isinstance(column.type, FixedListType)
    assert isinstance(column.type.element.type, ScalarType)
    return code_of(np.dtype(column.type.element.type.name))
