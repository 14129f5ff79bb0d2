"""Blocks of a vector column to search: mapped from local files where vectors lie there as numbers, else read ahead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa

from vectorlake.plan.scan import fields_by_name
from vectorlake.schema import Field
from vectorlake.search.selection import Selection
from vectorlake.search.vectors import Block, as_block
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.scan import MORSEL_ROWS, ordered_map, width_of
from vectorlake.table.view import View

_BLOCK_BYTES: Final = 32 * 1024 * 1024
_GATHER: Final = 8
"""Rows that a filter leaves are gathered before scoring when fewer than one in this many survives; else masked."""

Part: TypeAlias = tuple[FragmentReader, Sequence[tuple[int, int]]]
"""Ranges of rows of a fragment."""


def whole_parts(view: View, selection: Selection) -> Iterator[Part]:
    """The rows among which those of a selection are, by statistics."""
    for reader in view.readers(selection.predicate):
        yield reader, ranges_of(view, reader, selection)


def ranges_of(view: View, reader: FragmentReader, selection: Selection) -> list[tuple[int, int]]:
    """The rows of a fragment among which those of a selection are, by statistics inside its files."""
    if selection.predicate is None:
        return [(0, reader.fragment.row_count)]
    return reader.prune(selection.predicate, fields_by_name(view.snapshot.schema))


def read_blocks(
    view: View, field: Field, selection: Selection, parts: Iterable[Part], threads: int | None
) -> Iterator[Block]:
    """The vectors of selected rows of some parts, block by block."""
    rows = max(512, min(MORSEL_ROWS, _BLOCK_BYTES // max(width_of(field.to_storage().type), 1)))
    unmapped: list[tuple[FragmentReader, int, int]] = []
    for reader, ranges in parts:
        pieces = reader.mapped(field)
        if pieces is None:
            unmapped.extend(
                (reader, s, min(s + rows, high)) for low, high in ranges for s in range(low, high, rows)
            )
            if len(unmapped) >= 64:
                yield from _read(view, field, selection, unmapped, threads)
                unmapped = []
        else:
            yield from _mapped(view, reader, selection, pieces, ranges)
    yield from _read(view, field, selection, unmapped, threads)


def _mapped(
    view: View,
    reader: FragmentReader,
    selection: Selection,
    pieces: list[np.ndarray],
    ranges: Sequence[tuple[int, int]],
) -> Iterator[Block]:
    offset = 0
    for piece in pieces:
        for low, high in ranges:
            for start in range(max(low, offset), min(high, offset + len(piece)), MORSEL_ROWS):
                stop = min(start + MORSEL_ROWS, high, offset + len(piece))
                positions = selection.positions(view, reader, start, stop)
                vectors = piece[start - offset : stop - offset]
                if positions is None:
                    yield Block(vectors, reader.row_ids(start, stop), None)
                elif len(positions) * _GATHER < stop - start:
                    if len(positions):
                        yield Block(vectors[positions - start], reader.row_ids_at(positions), None)
                else:
                    valid = np.zeros(stop - start, bool)
                    valid[positions - start] = True
                    yield Block(vectors, reader.row_ids(start, stop), valid)
        offset += len(piece)


def _read(
    view: View,
    field: Field,
    selection: Selection,
    morsels: list[tuple[FragmentReader, int, int]],
    threads: int | None,
) -> Iterator[Block]:
    def read(morsel: tuple[FragmentReader, int, int]) -> Block | None:
        reader, start, stop = morsel
        positions = selection.positions(view, reader, start, stop)
        if positions is None:
            return as_block(reader.read([field], start, stop).column(0), reader.row_ids(start, stop))
        if not len(positions):
            return None
        if len(positions) * _GATHER < stop - start:
            array = reader.take([field], positions).column(0)
        else:
            array = reader.read([field], start, stop).column(0).take(pa.array(positions - start))
        return as_block(array, reader.row_ids_at(positions))

    for block in ordered_map(read, morsels, threads=threads or 2):
        if block is not None:
            yield block
