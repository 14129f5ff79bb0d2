"""Nearest rows by MaxSim over a multivector column: stream its token vectors through the kernel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vectorlake.kernels import Metric
from vectorlake.kernels.maxsim import ExactMaxSim, Tokens
from vectorlake.plan.scan import fields_by_name
from vectorlake.schema import Field
from vectorlake.search.found import Found
from vectorlake.search.selection import Selection, selected_rows
from vectorlake.search.vectors import Rows
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.scan import ordered_map
from vectorlake.table.view import View

_BLOCK_BYTES: Final = 16 << 20
_GATHER: Final = 8
"""Rows that a filter leaves are read one by one when fewer than one in this many survives."""


@dataclass
class MaxSimEngine:
    """Looks at the tokens of every row that is selected. `rows` counts those looked at last."""

    view: View
    field: Field
    metric: Metric
    tokens: Tokens
    selection: Selection
    threads: int | None = None
    rows: int = 0

    @property
    def queries(self) -> npt.NDArray[Any]:
        """[t, d], the tokens of all queries."""
        return self.tokens.vectors

    @property
    def most(self) -> int:
        """The table's rows."""
        return self.view.snapshot.num_rows

    def nearest(self, k: int, max_distance: float | None) -> Found:
        """The k nearest rows of each query, as a float64 scan finds them (see `ExactMaxSim`)."""
        search = ExactMaxSim(self.tokens, k=k, metric=self.metric, threads=self.threads)
        self.rows = 0
        if len(self.tokens.vectors):
            for documents, row_ids in token_blocks(self.view, self.field, self.selection, self.threads):
                self.rows += len(documents)
                search.add(documents, row_ids)
        found = Found(*search.result())
        return found if max_distance is None else found.limited(max_distance)


def token_blocks(
    view: View, field: Field, selection: Selection, threads: int | None
) -> Iterator[tuple[Tokens, npt.NDArray[np.int64]]]:
    """The multivectors of all selected rows with their row ids, block by block, read ahead on some threads."""
    predicate = selection.predicate
    fields = fields_by_name(view.snapshot.schema)

    def morsels() -> Iterator[tuple[FragmentReader, int, int]]:
        for reader in view.readers(predicate):
            step = _rows_at_once(reader, field)
            whole = [(0, reader.fragment.row_count)]
            for low, high in whole if predicate is None else reader.prune(predicate, fields):
                yield from ((reader, start, min(start + step, high)) for start in range(low, high, step))

    def read(
        morsel: tuple[FragmentReader, int, int],
    ) -> tuple[Tokens, npt.NDArray[np.int64]] | None:
        reader, start, stop = morsel
        positions = selection.positions(view, reader, start, stop)
        if positions is None:
            return as_tokens(reader.read([field], start, stop).column(0)), reader.row_ids(start, stop)
        if not len(positions):
            return None
        if len(positions) * _GATHER < stop - start:
            array = reader.take([field], positions).column(0)
        else:
            array = reader.read([field], start, stop).column(0).take(pa.array(positions - start))
        return as_tokens(array), reader.row_ids_at(positions)

    if selection.include is None:
        blocks = ordered_map(read, morsels(), threads=threads or 2)
        yield from (block for block in blocks if block is not None)
    else:
        yield from tokens_of(selected_rows(view, selection, threads), field)


def tokens_of(rows: Sequence[Rows], field: Field) -> Iterator[tuple[Tokens, npt.NDArray[np.int64]]]:
    """The multivectors of some rows with their row ids, block by block."""
    for reader, positions in rows:
        step = _rows_at_once(reader, field)
        for start in range(0, len(positions), step):
            part = positions[start : start + step]
            yield as_tokens(reader.take([field], part).column(0)), reader.row_ids_at(part)


def _rows_at_once(reader: FragmentReader, field: Field) -> int:
    """So many that a block is about as large as wanted, judged by the file's size."""
    file = reader.fragment.file_of(field.id)
    if file is None:
        return reader.fragment.row_count or 1
    width = file.size / max(file.row_stop, 1)
    return max(64, min(1 << 16, int(_BLOCK_BYTES / max(width, 1))))


def as_tokens(array: pa.Array) -> Tokens:
    """A multivector column's values as token vectors end to end; null rows have none, and null tokens don't count."""
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.nulls(0, array.type)
    lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = array.flatten()  # leaves out what null rows hold
    size = tokens.type.list_size
    values = tokens.values.slice(tokens.offset * size, len(tokens) * size)
    usable = None
    if tokens.null_count or values.null_count:
        inside = values.is_valid().to_numpy(zero_copy_only=False).reshape(-1, size).all(axis=1)
        usable = tokens.is_valid().to_numpy(zero_copy_only=False) & inside
        values = values.fill_null(0) if values.null_count else values
    return Tokens(values.to_numpy(zero_copy_only=False).reshape(-1, size), offsets, usable)
