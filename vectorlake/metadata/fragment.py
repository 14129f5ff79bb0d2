"""A fragment: a horizontal slice of rows, held by one or more data files, each with some of the columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pyarrow as pa

from vectorlake.schema import Field


class Layout(msgspec.Struct, frozen=True):
    """What a data file physically holds: its columns as fields with ids, under the names they have in the file.

    Files written by one operation share a layout, so that a manifest keeps it once. With `by_field_id` the file is a
    foreign Parquet file: columns are found by the field ids in its footer, or, if it has none, through `name_mapping`
    (Iceberg's), and `fields` are those of the source's schema when the file was registered.
    """

    fields: tuple[Field, ...]
    by_field_id: bool = False
    name_mapping: tuple[dict[str, Any], ...] = ()
    extra: dict[str, Any] = {}


class DataFile(msgspec.Struct, frozen=True):
    """A column group of one fragment: rows `[row_start, row_stop)` of one file."""

    path: str
    """Relative to the table's folder for our own files, an absolute URI for a foreign one."""
    format: str
    layout: Layout
    row_start: int
    row_stop: int
    size: int
    checksum: str | None = None
    e_tag: str | None = None
    sequence: int = 0
    """The version at which these values were written; 0 until the commit gives it."""

    @property
    def foreign(self) -> bool:
        return "://" in self.path

    @property
    def field_ids(self) -> frozenset[int]:
        return frozenset(field.id for field in self.layout.fields)


class DeletionVector(msgspec.Struct, frozen=True):
    """Deleted row positions of one fragment (counted from its first row): a range of a deletes file."""

    path: str
    offset: int
    length: int
    cardinality: int
    checksum: str


class KeySegment(msgspec.Struct, frozen=True):
    """Where the hashes of a fragment's primary keys lie: an immutable file that finds the positions of keys."""

    path: str
    size: int
    checksum: str


class BallSegment(msgspec.Struct, frozen=True):
    """Where the bounding balls of a vector column's runs of rows lie: an immutable file that says what a search may skip."""

    field_id: int
    version: int
    """Of the file's layout; readers leave alone those of a greater version than they know."""
    source: str
    """Path of the data file whose values they bound: where another holds the column by now, they say nothing."""
    order: tuple[int, ...]
    """Fields (by id) at whose changes of value runs end: what the rows were sorted by."""
    path: str
    size: int
    checksum: str


class FieldBounds(msgspec.Struct, frozen=True):
    """What is known of one field's values in one fragment. Bounds hold for every non-null, non-NaN value."""

    min: pa.Scalar | None = None
    max: pa.Scalar | None = None
    null_count: int | None = None
    nan_count: int | None = None


class Fragment(msgspec.Struct, frozen=True):
    """A slice of rows, in the order of its files. Its id and its physical rows never change; files and deletes may."""

    row_count: int
    """Physical rows, deleted ones included."""
    files: tuple[DataFile, ...]
    id: int = -1
    """Given by the commit; -1 before."""
    first_row_id: int | None = None
    """Row ids are `first_row_id + position`; None when a file holds them explicitly (or before the commit)."""
    deletes: DeletionVector | None = None
    constants: dict[int, Any] = {}
    """Field id → JSON literal, for columns that no file holds but that have one value here (Iceberg partition values)."""
    bounds: Mapping[int, FieldBounds] = {}
    keys: KeySegment | None = None
    """Covers all physical rows; None if there is none (small fragments, foreign files, tables without a primary key)."""
    balls: tuple[BallSegment, ...] = ()
    """At most one for a field, each of all physical rows; there are some where rows were sorted."""

    @property
    def live_rows(self) -> int:
        return self.row_count - (self.deletes.cardinality if self.deletes else 0)

    def balls_of(self, field_id: int) -> BallSegment | None:
        """The balls of a field's values, unless these have been replaced since."""
        file = self.file_of(field_id)
        for known in self.balls:
            if file is not None and (known.field_id, known.source) == (field_id, file.path):
                return known
        return None

    def file_of(self, field_id: int) -> DataFile | None:
        """The file that holds a top-level field; the one written last if several do."""
        holders = [file for file in self.files if field_id in file.field_ids]
        return max(holders, key=lambda file: file.sequence) if holders else None
