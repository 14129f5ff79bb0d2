"""What a data-file format does for a table: write one column group, read it back whole, in part, or by
position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from vectorlake.expr import Expr
from vectorlake.store.protocol import Store


@dataclass(frozen=True, slots=True)
class FileSource:
    """Where a data file lies: a store and a path in it, with the length that the manifest promises.

    Length is compared whenever a file is opened. With a `checksum` the whole file is read and compared first
    too: Lance and Vortex read most damage back silently, and Lance may end the process on a damaged footer.
    """

    store: Store
    path: str
    size: int | None = None
    checksum: str | None = None

    @property
    def uri(self) -> str:
        return f"{self.store.uri}/{self.path}"

    @property
    def local(self) -> Path | None:
        return self.store.local_path(self.path)


@dataclass(frozen=True, slots=True)
class ColumnStats:
    """Bounds of one top-level column: min and max as Arrow scalars (None when unknown), nulls, NaNs, values.

    Bounds hold for every non-null, non-NaN value; long strings and binaries are cut (the maximum rounded up).
    """

    min: pa.Scalar | None
    max: pa.Scalar | None
    null_count: int | None
    nan_count: int | None = None


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """What a writer left behind: rows, bytes, checksum (`xxh3-64:<16 hex digits>`) and statistics by column
    name."""

    rows: int
    size: int
    checksum: str
    stats: Mapping[str, ColumnStats]


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Knobs that a format may honour: rows a group (Parquet, Arrow), compression, per-column encodings.

    Compression `"default"` is the format's own choice: zstd for Parquet, none for Arrow (so that it can be
    memory-mapped); Lance and Vortex choose encodings themselves. `blob_columns` names binary columns of large
    values.
    """

    row_group_rows: int = 65_536
    compression: str = "default"
    blob_columns: frozenset[str] = frozenset()
    extra: Mapping[str, str] = field(default_factory=dict)


class FileWriter(Protocol):
    """Push batches, then `close()`; `abort()` instead (at any time, more than once) leaves no file. Not
    thread-safe.

    After any error the file is unusable: abort. `StorageError` where the disk refuses (full, read-only),
    `InvalidInputError` where a batch's schema is not the file's or a value can't be held (a date64 that is no
    whole day).
    """

    def write(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> WrittenFile:
        """Finish the file. It is neither fsynced nor renamed: the caller does both."""
        ...

    def abort(self) -> None: ...


class FileReader(Protocol):
    """An open data file. Safe to use from several threads (a format whose handle is not keeps one per
    thread).

    Columns are top-level names; `None` means all. Row positions count from the file's first row. Every method
    raises `CorruptDataError` where the file turns out damaged or gone, `NotFoundError` on a column that the
    file does not have, `InvalidInputError` on rows outside of it. `close()` is optional: a reader that nobody
    holds closes itself.
    """

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the file as it reads back (Parquet: field metadata keeps `PARQUET:field_id`)."""
        ...

    @property
    def num_rows(self) -> int: ...

    def read(
        self, columns: Sequence[str] | None, start: int, stop: int, *, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        """Rows `[start, stop)` in order, as batches of at most `batch_rows` rows with just `columns`, in that
        order.

        No columns asked for gives batches without columns whose `num_rows` add up.
        """
        ...

    def take(self, columns: Sequence[str] | None, positions: np.ndarray) -> pa.RecordBatch:
        """The rows at `positions` (int64, any order, duplicates allowed), in the order given."""
        ...

    def prune(self, predicate: Expr, start: int, stop: int) -> list[tuple[int, int]]:
        """Row ranges inside `[start, stop)` that may hold matches, by the format's own statistics; all when
        unknown.

        Never leaves out a row for which `predicate` is true.
        """
        ...

    def matching(self, predicate: Expr, start: int, stop: int) -> np.ndarray | None:
        """Positions (int64, ascending) inside `[start, stop)` where `predicate` is true, evaluated by the
        format itself, exactly as `predicate.evaluate` would; None where the format can't, or can't
        exactly."""
        ...

    def mapped(self, column: str) -> list[np.ndarray] | None:
        """A vector column without nulls as memory-mapped arrays [rows, dim] in row order, no copy; None if
        not possible."""
        ...

    def close(self) -> None: ...


class FileFormat(Protocol):
    """One kind of data file, found by `name` in the registry."""

    name: str
    suffix: str

    def unsupported(self, schema: pa.Schema) -> list[str]:
        """Names of top-level columns that this format can't give back bit for bit with the same Arrow
        type."""
        ...

    def create(self, path: Path, schema: pa.Schema, options: WriteOptions) -> FileWriter:
        """Start a new local file at `path` (which must not exist).

        Raises `UnsupportedError`, before anything is written, naming each column that `unsupported` names.
        """
        ...

    def open(self, source: FileSource) -> FileReader:
        """Open a file; `CorruptDataError` if it is missing, has another length than `source.size`, or is
        damaged."""
        ...
