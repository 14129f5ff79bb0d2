"""Write new values of existing rows: as new images under their row ids, or in place as new files of some columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vectorlake.formats.batches import Regrouped
from vectorlake.ids import NewId
from vectorlake.metadata.fragment import FieldBounds, Fragment
from vectorlake.plan.commit import FragmentUpdate
from vectorlake.plan.layout import column_groups
from vectorlake.plan.merge import Cost
from vectorlake.schema import Field
from vectorlake.table.columns import scattered, stored_field
from vectorlake.table.fragment_reader import ROW_ID_FIELD, FragmentReader
from vectorlake.table.ingest import conform
from vectorlake.table.key_segments import KeyCollector
from vectorlake.table.keys import enforced, key_fields
from vectorlake.table.scan import width_of
from vectorlake.table.view import View
from vectorlake.table.writer import ColumnGroupWriter, unsupported, write_fragments

CHUNK_ROWS = 16_384
"""Rows whose values are computed at a time."""


@dataclass(frozen=True)
class Hits:
    """Rows of one fragment that get new values."""

    reader: FragmentReader
    positions: np.ndarray
    """Ascending, int64."""
    rows: np.ndarray
    """Which row of the source belongs to each (int64), or empty without a source."""
    clause: np.ndarray
    """Which clause gives the values of each (int8)."""

    def slice(self, start: int, stop: int) -> Hits:
        return Hits(self.reader, self.positions[start:stop], self.rows[start:stop], self.clause[start:stop])


Values = Callable[[Hits], Mapping[str, tuple[np.ndarray, pa.Array]]]
"""New values of some rows: column → (indices among the rows, their values in storage types)."""


@dataclass(frozen=True)
class Written:
    """New fragments and what their rows' keys hash to (empty without an enforced primary key)."""

    fragments: tuple[Fragment, ...] = ()
    hashes: np.ndarray | None = None


def write_images(view: View, batches: Iterable[pa.RecordBatch], *, new_id: NewId) -> Written:
    """Write rows with a last column `_row_id` (null for rows that are new) as new fragments."""
    snapshot = view.snapshot
    keys = KeyCollector(key_fields(snapshot.schema, snapshot.primary_key)) if enforced(snapshot) else None
    fragments = write_fragments(
        view.store,
        regrouped(batches),
        [*snapshot.schema.fields, ROW_ID_FIELD],
        properties=snapshot.properties,
        new_id=new_id,
        keys=keys,
    )
    return Written(tuple(fragments), None if keys is None else keys.hashes)


def regrouped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in fewer batches: changes of many fragments come in many small ones."""
    groups = Regrouped(CHUNK_ROWS)
    for batch in batches:
        yield from groups.push(batch)
    yield from groups.rest()


def images(view: View, hits: Iterable[Hits], values: Values) -> Iterator[pa.RecordBatch]:
    """Rows with their new values, the others copied, and their row ids."""
    fields = list(view.snapshot.schema.fields)
    for hit in hits:
        for start in range(0, len(hit.positions), CHUNK_ROWS):
            part = hit.slice(start, start + CHUNK_ROWS)
            new = values(part)
            count = len(part.positions)
            whole = {name for name, (at, _) in new.items() if len(at) == count}
            copied = [field for field in fields if field.name not in whole]
            old = part.reader.take(copied, part.positions)
            columns = {field.name: old.column(index) for index, field in enumerate(copied)}
            for name, (at, given) in new.items():
                columns[name] = given if name in whole else scattered(given, at, count, columns[name])
            yield with_row_ids(columns, fields, part.reader.row_ids_at(part.positions))


def with_row_ids(
    columns: Mapping[str, pa.Array], fields: Sequence[Field], row_ids: np.ndarray | None
) -> pa.RecordBatch:
    """A batch as the table stores it, checked, with `_row_id` at the end (null without row ids)."""
    names = [field.name for field in fields if field.name in columns]
    batch = conform(pa.RecordBatch.from_arrays([columns[name] for name in names], names=names), fields)
    ids = pa.nulls(batch.num_rows, pa.int64()) if row_ids is None else pa.array(row_ids, pa.int64())
    schema = pa.schema([*batch.schema, ROW_ID_FIELD.to_storage()])
    return pa.RecordBatch.from_arrays([*batch.columns, ids], schema=schema)


def write_in_place(
    view: View, hits: Hits, fields: Sequence[Field], values: Values, *, new_id: NewId
) -> FragmentUpdate:
    """Files of some columns of one fragment: new values for the rows hit, the old ones for all others."""
    stored = [stored_field(field) for field in fields]
    writers: list[ColumnGroupWriter] = []
    try:
        writers.extend(
            ColumnGroupWriter(view.store, group, new_id=new_id)
            for group in column_groups(stored, view.snapshot.properties, unsupported)
        )
        for batch in _in_place(hits, fields, values):
            for writer in writers:
                writer.write(batch)
        finished = [writer.close() for writer in writers]
    except BaseException as e:
        for writer in writers:
            writer.abort(e)
        raise
    bounds: dict[int, FieldBounds] = {}
    for _, known in finished:
        bounds.update(known)
    files = tuple(file for file, _ in finished)
    view.store.sync_folders([file.path for file in files])
    return FragmentUpdate(hits.reader.fragment.id, files=files, bounds=bounds)


def _in_place(hits: Hits, fields: Sequence[Field], values: Values) -> Iterator[pa.RecordBatch]:
    reader = hits.reader
    stored = [stored_field(field) for field in fields]  # rows that are deleted may hold nulls
    schema = pa.schema([field.to_storage() for field in stored])
    by_name = {field.name: index for index, field in enumerate(fields)}
    for start in range(0, reader.fragment.row_count, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, reader.fragment.row_count)
        columns = list(reader.read(stored, start, stop).columns)
        low, high = np.searchsorted(hits.positions, [start, stop])
        if low < high:
            part = hits.slice(low, high)
            for name, (at, given) in values(part).items():
                index = by_name[name]
                checked = conform(pa.RecordBatch.from_arrays([given], names=[name]), [fields[index]])
                columns[index] = scattered(
                    checked.column(0), part.positions[at] - start, stop - start, columns[index]
                )
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def cost_of(view: View, hits: Sequence[Hits], fields: Sequence[Field]) -> Cost:
    """About how many bytes the two ways would write: images of the rows, or the columns of their fragments."""
    row = sum(width_of(field.to_storage().type) for field in view.snapshot.schema.fields) + 8
    column = sum(width_of(field.to_storage().type) for field in fields)
    return Cost(
        rows=row * sum(len(hit.positions) for hit in hits),
        columns=column * sum(hit.reader.fragment.row_count for hit in hits),
    )
