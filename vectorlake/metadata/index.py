"""An index over a vector column: how it was made, its model, and its segments (format specification, "Indexes")."""

from __future__ import annotations

from typing import Any

import msgspec


class ArrayInfo(msgspec.Struct, frozen=True):
    """Where one array lies in an index file, so that it can be mapped or read by range without opening the file."""

    offset: int
    """Bytes from the file's beginning; a multiple of 64."""
    dtype: str
    """Of what is stored, as numpy writes it: `<f4`, `|u1`, …"""
    shape: tuple[int, ...]
    checksum: str
    """Of the array's bytes."""
    base: int | None = None
    """The array is of int64, stored as the differences from this number, which take fewer bytes."""


class IndexFile(msgspec.Struct, frozen=True):
    """An immutable Arrow IPC file of named arrays (`index.arrays`)."""

    path: str
    size: int
    checksum: str
    arrays: dict[str, ArrayInfo]
    extra: dict[str, Any] = {}


class IndexSegment(msgspec.Struct, frozen=True):
    """Rows that were indexed together, once. A row is covered when its id is in the segment and its value is not newer.

    Segments of one model merge without training anew.
    """

    id: str
    file: IndexFile
    version: int
    """The table's version whose values the segment holds."""
    rows: int
    """Rows that it holds, those deleted since included, and those that match nothing (null vectors), which have no code."""
    min_row_id: int = 0
    max_row_id: int = -1
    extra: dict[str, Any] = {}


class Index(msgspec.Struct, frozen=True):
    """One index: what it was made with (all of it, so that it can be made again), its model, and its segments."""

    name: str
    field_id: int
    kind: str
    """A name of `index.registry`; a release that does not know it scans instead."""
    kind_version: int
    """Layout of the kind's arrays; a release that knows only older ones scans instead."""
    metric: str
    dimension: int
    element: str
    """The column's element type when the index was made: `float32`, `float16`, `int8`, …"""
    model_id: str
    """Unique for each training: segments of one model are comparable and merge."""
    model: IndexFile
    options: dict[str, Any] = {}
    """Every option of the kind, settled."""
    chosen: dict[str, str] = {}
    """Option → why it has its value, for those that were settled from the data."""
    segments: tuple[IndexSegment, ...] = ()
    trained_rows: int = 0
    """Rows of the table when the model was trained: one that has grown far beyond that wants another."""
    calibration: tuple[tuple[int, int, float], ...] = ()
    """(effort, pool, recall@10) as measured when the model was trained, ascending; empty if it was not."""
    extra: dict[str, Any] = {}

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given by whoever made the index, not settled from the data."""
        return {key: value for key, value in self.options.items() if key not in self.chosen}
