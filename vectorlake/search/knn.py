"""Exact k nearest neighbours over a snapshot: stream the vector column through the kernels, then fetch the columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from vectorlake.errors import InvalidInputError
from vectorlake.expr import Expr
from vectorlake.kernels import ExactKnn, Metric
from vectorlake.plan.scan import fields_by_name
from vectorlake.schema import Field, FixedListType
from vectorlake.search.queries import as_bits, as_queries, refuse_metric, refuse_mode, vector_column
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.locate import take_rows
from vectorlake.table.scan import MORSEL_ROWS, ordered_map, width_of
from vectorlake.table.view import View
from vectorlake.tracing import span

RESULT: Final = pa.schema(
    [
        pa.field("query", pa.int64(), False),
        pa.field("rank", pa.int32(), False),
        pa.field("row_id", pa.int64(), False),
        pa.field("distance", pa.float64(), False),
    ]
)
_BLOCK_BYTES: Final = 32 * 1024 * 1024
_GATHER: Final = 8
"""Rows that a filter leaves are gathered before scoring when fewer than one in this many survives; else masked."""


@dataclass(frozen=True)
class Block:
    """Vectors [rows, dimension] with their row ids, and which of them count (None: all)."""

    vectors: np.ndarray
    row_ids: np.ndarray
    valid: np.ndarray | None


def knn(
    view: View,
    queries: object,
    *,
    column: str | None = None,
    k: int = 10,
    metric: str | Metric = Metric.L2,
    filter: str | Expr | object | None = None,
    columns: list[str] | None = None,
    mode: str = "exact",
    threads: int | None = None,
) -> pa.Table:
    """The k nearest rows of each query (see `Table.knn`)."""
    refuse_mode(mode)
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InvalidInputError(f"k must be an integer of at least 1, not {k!r}")
    measure = Metric.parse(metric) if isinstance(metric, str) else metric
    field = vector_column(view.snapshot.schema, column)
    refuse_metric(measure, field)
    wanted = view.select(list(columns or []))
    predicate = view.bind(filter)
    asked = as_queries(queries, field)
    if measure is Metric.HAMMING:
        asked = as_bits(asked, field)
    row_ids, distances, counts = np.empty((0, k), np.int64), np.empty((0, k)), np.empty(0, np.int64)
    if len(asked.vectors):
        # More neighbours than rows can't be found: a huge k must not reserve memory for them.
        most = min(int(k), max(view.snapshot.num_rows, 1))
        with span("knn", table=view.store.uri, version=view.snapshot.version, column=field.name) as told:
            told.set(queries=len(asked.vectors), k=most)
            search = ExactKnn(asked.vectors, k=most, metric=measure, threads=threads)
            rows = 0
            for block in _blocks(view, field, predicate, threads):
                rows += len(block.vectors)
                search.add(block.vectors, block.row_ids, block.valid)
            row_ids, distances, counts = search.result()
            told.set(rows=rows, metric=str(measure), filtered=predicate is not None)
    return _result(view, asked.positions, row_ids, distances, counts, wanted)


def _blocks(view: View, field: Field, predicate: Expr | None, threads: int | None) -> Iterator[Block]:
    """All candidate vectors, block by block: mapped from the file where that works, else read ahead on some threads."""
    fields = fields_by_name(view.snapshot.schema)
    rows = max(512, min(MORSEL_ROWS, _BLOCK_BYTES // max(width_of(field.to_storage().type), 1)))
    unmapped: list[tuple[FragmentReader, int, int]] = []
    for reader in view.readers(predicate):
        pieces = reader.mapped(field)
        ranges = [(0, reader.fragment.row_count)] if predicate is None else reader.prune(predicate, fields)
        if pieces is None:
            unmapped.extend(
                (reader, s, min(s + rows, high)) for low, high in ranges for s in range(low, high, rows)
            )
            if len(unmapped) >= 64:
                yield from _read(view, field, predicate, unmapped, threads)
                unmapped = []
        else:
            yield from _mapped(view, reader, predicate, pieces, ranges)
    yield from _read(view, field, predicate, unmapped, threads)


def _mapped(
    view: View,
    reader: FragmentReader,
    predicate: Expr | None,
    pieces: list[np.ndarray],
    ranges: list[tuple[int, int]],
) -> Iterator[Block]:
    offset = 0
    for piece in pieces:
        for low, high in ranges:
            for start in range(max(low, offset), min(high, offset + len(piece)), MORSEL_ROWS):
                stop = min(start + MORSEL_ROWS, high, offset + len(piece))
                positions, _ = view.matches(reader, predicate, start, stop)
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
    predicate: Expr | None,
    morsels: list[tuple[FragmentReader, int, int]],
    threads: int | None,
) -> Iterator[Block]:
    def read(morsel: tuple[FragmentReader, int, int]) -> Block | None:
        reader, start, stop = morsel
        positions, _ = view.matches(reader, predicate, start, stop)
        if positions is None:
            return _block(reader.read([field], start, stop).column(0), reader.row_ids(start, stop), field)
        if not len(positions):
            return None
        if len(positions) * _GATHER < stop - start:
            array = reader.take([field], positions).column(0)
        else:
            array = reader.read([field], start, stop).column(0).take(pa.array(positions - start))
        return _block(array, reader.row_ids_at(positions), field)

    for block in ordered_map(read, morsels, threads=threads or 2):
        if block is not None:
            yield block


def _block(array: pa.FixedSizeListArray, row_ids: np.ndarray, field: Field) -> Block:
    assert isinstance(field.type, FixedListType)
    size = field.type.size
    values = array.values.slice(array.offset * size, len(array) * size)
    valid = None
    if array.null_count or values.null_count:
        inside = values.is_valid().to_numpy(zero_copy_only=False).reshape(-1, size).all(axis=1)
        valid = array.is_valid().to_numpy(zero_copy_only=False) & inside
        values = values.fill_null(0) if values.null_count else values
    return Block(values.to_numpy(zero_copy_only=False).reshape(-1, size), row_ids, valid)


def _result(
    view: View,
    positions: np.ndarray,
    row_ids: np.ndarray,
    distances: np.ndarray,
    counts: np.ndarray,
    wanted: list[Field],
) -> pa.Table:
    width = row_ids.shape[1]
    found = np.arange(width)[None, :] < counts[:, None]
    ids = row_ids[found]
    ranks = np.broadcast_to(np.arange(width, dtype=np.int32), row_ids.shape)[found]
    query = np.repeat(positions, counts)
    table = pa.Table.from_arrays(
        [pa.array(query, pa.int64()), pa.array(ranks), pa.array(ids), pa.array(distances[found])],
        schema=RESULT,
    )
    if wanted:
        rows = take_rows(view, ids, wanted)
        for index, field in enumerate(rows.schema):
            # A column of the table that is called like one of ours gets the suffix that joins give the right side.
            name = f"{field.name}_right" if field.name in RESULT.names else field.name
            table = table.append_column(field.with_name(name), rows.column(index))
    return table
