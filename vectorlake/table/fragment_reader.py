"""Read one fragment: find the file of each column, zip column groups, evolve types, number rows, drop deleted ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from pyroaring import BitMap64

from vectorlake.errors import CorruptDataError
from vectorlake.expr import Expr
from vectorlake.formats.protocol import FileReader
from vectorlake.metadata.deletion import to_positions
from vectorlake.metadata.fragment import DataFile, DeletionVector, Fragment
from vectorlake.plan.projection import constant, convert
from vectorlake.schema import (
    LAST_UPDATED_VERSION,
    ROW_ID,
    ROW_ID_FIELD_ID,
    VERSION_FIELD_ID,
    Field,
    ScalarType,
)
from vectorlake.table.files import DataFiles

ROW_ID_FIELD: Final = Field(ROW_ID_FIELD_ID, ROW_ID, ScalarType("int64"), nullable=True)
"""Row ids as a file holds them for rows that came from elsewhere; null for those that are new in the fragment."""
VERSION_FIELD: Final = Field(VERSION_FIELD_ID, LAST_UPDATED_VERSION, ScalarType("int64"), nullable=True)
"""Versions as a file holds them for rows that were moved; null for those whose values are as new as the file."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Columns that come from one file: (position among the wanted fields, stored field, wanted field)."""

    file: DataFile
    columns: tuple[tuple[int, Field, Field], ...]


class FragmentReader:
    """Rows of one fragment under a given schema. Positions count physical rows from the fragment's first."""

    def __init__(
        self, fragment: Fragment, *, files: DataFiles, load_deletes: Callable[[DeletionVector], BitMap64]
    ) -> None:
        self.fragment = fragment
        self._files = files
        self._load_deletes = load_deletes
        self._deleted: np.ndarray | None = None
        self._row_ids: np.ndarray | None = None

    @property
    def deleted(self) -> np.ndarray:
        """Positions of deleted rows, ascending int64."""
        # Not a cached_property: before Python 3.12 that holds one lock for all readers while it loads.
        if self._deleted is None:
            vector = self.fragment.deletes
            self._deleted = (
                np.empty(0, np.int64) if vector is None else to_positions(self._load_deletes(vector))
            )
        return self._deleted

    def live(self, start: int, stop: int) -> np.ndarray | None:
        """Positions in `[start, stop)` that are not deleted; None if none is deleted there."""
        low, high = np.searchsorted(self.deleted, [start, stop])
        if low == high:
            return None
        keep = np.ones(stop - start, bool)
        keep[self.deleted[low:high] - start] = False
        return np.flatnonzero(keep) + start

    def all_live(self) -> np.ndarray:
        """Positions of all rows that are not deleted."""
        live = self.live(0, self.fragment.row_count)
        return np.arange(self.fragment.row_count) if live is None else live

    def keep_row_ids(self) -> None:
        """Read all row ids now, 8 bytes each, and have them at hand from now on."""
        if self._row_ids is None:
            self._row_ids = self.row_ids(0, self.fragment.row_count)

    def row_ids(self, start: int, stop: int) -> np.ndarray:
        """Row ids of the physical rows `[start, stop)`, int64."""
        if self._row_ids is not None:
            return self._row_ids[start:stop]
        first = self.fragment.first_row_id or 0
        implied = np.arange(first + start, first + stop, dtype=np.int64)
        if self.fragment.file_of(ROW_ID_FIELD_ID) is None:
            return implied
        (explicit,) = self._columns_range([ROW_ID_FIELD], start, stop)
        return _fill(explicit, implied)

    def row_ids_at(self, positions: np.ndarray) -> np.ndarray:
        """Row ids of the rows at some positions."""
        if self._row_ids is not None:
            return np.asarray(self._row_ids[positions])
        implied = positions.astype(np.int64) + (self.fragment.first_row_id or 0)
        if self.fragment.file_of(ROW_ID_FIELD_ID) is None:
            return implied
        (explicit,) = self._columns_at([ROW_ID_FIELD], positions)
        return _fill(explicit, implied)

    def read(self, fields: Sequence[Field], start: int, stop: int) -> pa.RecordBatch:
        """All physical rows `[start, stop)`, deleted ones included, in storage types."""
        return self._batch(
            fields,
            stop - start,
            lambda plain: self._columns_range(plain, start, stop),
            lambda: self.row_ids(start, stop),
        )

    def take(self, fields: Sequence[Field], positions: np.ndarray) -> pa.RecordBatch:
        """The rows at some positions, in that order, in storage types."""
        return self._batch(
            fields,
            len(positions),
            lambda plain: self._columns_at(plain, positions),
            lambda: self.row_ids_at(positions),
        )

    def _batch(
        self,
        fields: Sequence[Field],
        length: int,
        columns: Callable[[Sequence[Field]], list[pa.Array]],
        row_ids: Callable[[], np.ndarray],
    ) -> pa.RecordBatch:
        """A batch of stored columns and of the computed ones, which no file holds."""
        plain = iter(columns([field for field in fields if field.id >= 0]))
        arrays: list[pa.Array] = []
        for field in fields:
            if field.id >= 0:
                arrays.append(next(plain))
            elif field.name == ROW_ID:
                arrays.append(pa.array(row_ids(), pa.int64()))
            else:
                assert field.name == LAST_UPDATED_VERSION
                arrays.append(pa.array(self._versions(columns, length), pa.int64()))
        if not arrays:
            return empty_columns(length)
        return pa.RecordBatch.from_arrays(
            arrays, schema=pa.schema([field.to_storage().with_nullable(True) for field in fields])
        )

    def versions_at(self, positions: np.ndarray) -> np.ndarray:
        """The version at which each of the rows at some positions last changed."""
        return self._versions(lambda fields: self._columns_at(fields, positions), len(positions))

    def moved_versions(self, start: int, stop: int) -> np.ndarray:
        """The versions that the physical rows `[start, stop)` brought with them when they were moved here, int64.

        What was written to the fragment since does not count. Only for fragments that hold versions.
        """
        holder = self.fragment.file_of(VERSION_FIELD_ID)
        assert holder is not None
        (explicit,) = self._columns_range([VERSION_FIELD], start, stop)
        return _held_versions(explicit, holder)

    def _versions(self, columns: Callable[[Sequence[Field]], list[pa.Array]], length: int) -> np.ndarray:
        holder = self.fragment.file_of(VERSION_FIELD_ID)
        if holder is None:
            version = max((file.sequence for file in self.fragment.files), default=0)
            return np.full(length, version, np.int64)
        (explicit,) = columns([VERSION_FIELD])
        held = _held_versions(explicit, holder)
        later = [file.sequence for file in self.fragment.files if file.sequence > holder.sequence]
        return np.asarray(np.maximum(held, max(later, default=0)))

    def _groups(self, fields: Sequence[Field]) -> tuple[list[_Group], list[tuple[int, Field]]]:
        """The fields by the file that holds them, and those that no file holds."""
        by_file: dict[str, list[tuple[int, Field, Field]]] = {}
        files: dict[str, DataFile] = {}
        missing: list[tuple[int, Field]] = []
        for index, field in enumerate(fields):
            file = self.fragment.file_of(field.id)
            stored = self._stored(file, field) if file else None
            if file is None or stored is None:
                missing.append((index, field))
            else:
                files[file.path] = file
                by_file.setdefault(file.path, []).append((index, stored, field))
        return [_Group(files[path], tuple(columns)) for path, columns in by_file.items()], missing

    def _stored(self, file: DataFile, field: Field) -> Field | None:
        """The field as the file physically has it; None if the file turns out not to have it."""
        return next((stored for stored in self._files.fields(file) if stored.id == field.id), None)

    def _fill_missing(
        self, arrays: list[pa.Array], missing: Sequence[tuple[int, Field]], length: int
    ) -> None:
        for index, field in missing:
            value = self.fragment.constants.get(field.id, field.default)
            arrays[index] = constant(field, value, length)

    def _columns_range(self, fields: Sequence[Field], start: int, stop: int) -> list[pa.Array]:
        groups, missing = self._groups(fields)
        arrays: list[pa.Array] = [None] * len(fields)
        for group in groups:
            reader, offset = self._reader(group.file), group.file.row_start
            names = [stored.name for _, stored, _ in group.columns]
            batches = list(reader.read(names, offset + start, offset + stop, batch_rows=max(stop - start, 1)))
            rows = sum(batch.num_rows for batch in batches)
            if rows != stop - start:
                raise CorruptDataError(
                    f"{group.file.path} gave {rows} rows where {stop - start} were asked for"
                )
            for position, (index, stored, wanted) in enumerate(group.columns):
                arrays[index] = convert(
                    _joined([batch.column(position) for batch in batches]), stored, wanted
                )
        self._fill_missing(arrays, missing, stop - start)
        return arrays

    def _columns_at(self, fields: Sequence[Field], positions: np.ndarray) -> list[pa.Array]:
        groups, missing = self._groups(fields)
        arrays: list[pa.Array] = [None] * len(fields)
        for group in groups:
            names = [stored.name for _, stored, _ in group.columns]
            batch = self._reader(group.file).take(names, positions + group.file.row_start)
            for position, (index, stored, wanted) in enumerate(group.columns):
                arrays[index] = convert(batch.column(position), stored, wanted)
        self._fill_missing(arrays, missing, len(positions))
        return arrays

    def _reader(self, file: DataFile) -> FileReader:
        reader = self._files.open(file)
        if reader.num_rows < file.row_stop:
            raise CorruptDataError(
                f"{file.path} has {reader.num_rows} rows, the manifest expects at least {file.row_stop}; run verify"
            )
        return reader

    def prune(self, predicate: Expr, fields: Mapping[str, Field]) -> list[tuple[int, int]]:
        """Row ranges that may hold matches, by the statistics inside the files."""
        whole = [(0, self.fragment.row_count)]
        found = self._single_file(predicate, fields)
        if found is None:
            return whole
        file, reader = found
        ranges = reader.prune(predicate, file.row_start, file.row_stop)
        return [(start - file.row_start, stop - file.row_start) for start, stop in ranges]

    def matching(
        self, predicate: Expr, fields: Mapping[str, Field], start: int, stop: int
    ) -> np.ndarray | None:
        """Positions in `[start, stop)` where the predicate is true, found by the file format itself, if it can."""
        found = self._single_file(predicate, fields)
        if found is None:
            return None
        file, reader = found
        positions = reader.matching(predicate, file.row_start + start, file.row_start + stop)
        return None if positions is None else positions - file.row_start

    def _single_file(
        self, predicate: Expr, fields: Mapping[str, Field]
    ) -> tuple[DataFile, FileReader] | None:
        """The one file that holds all of the predicate's columns just as the predicate knows them, if there is one."""
        chosen: DataFile | None = None
        for name in predicate.columns():
            field = fields.get(name)
            file = self.fragment.file_of(field.id) if field and field.id >= 0 else None
            if field is None or file is None or (chosen is not None and file.path != chosen.path):
                return None
            stored = self._stored(file, field)
            if stored is None or stored.name != name or stored.to_storage().type != field.to_storage().type:
                return None
            chosen = file
        return (chosen, self._reader(chosen)) if chosen else None

    def mapped(self, field: Field) -> list[np.ndarray] | None:
        """A vector column of all physical rows as memory-mapped arrays [rows, dimension], where the file allows it."""
        file = self.fragment.file_of(field.id)
        stored = self._stored(file, field) if file else None
        if file is None or stored is None or stored.to_storage().type != field.to_storage().type:
            return None
        reader = self._reader(file)
        pieces = reader.mapped(stored.name)
        if pieces is None or (file.row_start, file.row_stop) == (0, reader.num_rows):
            return pieces
        return list(_window(pieces, file.row_start, file.row_stop))


def _window(pieces: Sequence[np.ndarray], start: int, stop: int) -> Iterator[np.ndarray]:
    offset = 0
    for piece in pieces:
        low, high = max(start - offset, 0), min(stop - offset, len(piece))
        if low < high:
            yield piece[low:high]
        offset += len(piece)


def _joined(arrays: Sequence[pa.Array]) -> pa.Array:
    if len(arrays) == 1:
        return arrays[0]
    joined = pa.concat_arrays(arrays)
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _fill(explicit: pa.Array, implied: np.ndarray) -> np.ndarray:
    """Stored row ids, with those that are null taken from the row's position."""
    ids = np.asarray(explicit.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)
    return np.where(ids < 0, implied, ids)


def _held_versions(explicit: pa.Array, holder: DataFile) -> np.ndarray:
    """Stored versions, with those that are null taken from the file."""
    held = np.asarray(explicit.fill_null(holder.sequence).to_numpy(zero_copy_only=False), np.int64)
    # A branch's files hold its own versions; the sequences of those that the main line took over were lowered.
    return np.asarray(np.minimum(held, holder.sequence))


def empty_columns(rows: int) -> pa.RecordBatch:
    """A batch of some rows without columns."""
    return pa.RecordBatch.from_arrays([pa.nulls(rows)], names=["x"]).select([])
