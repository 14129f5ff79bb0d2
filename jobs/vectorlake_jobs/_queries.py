"""Whose neighbours a KNN join finds: the rows of a table, or of Parquet or Arrow files, cut into parts for workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import pyarrow as pa

from vectorlake.errors import ConflictError, InvalidInputError, NotFoundError
from vectorlake.extend import TableRef, did_you_mean
from vectorlake.jobs import Task
from vectorlake_jobs._arrays import vector_size
from vectorlake_jobs._tables import identity, pinned, split_of, split_tasks

QUERY: Final = "query"
"""The column with a query's id: its row id in a table, its number in files."""
_SUFFIXES: Final = (".parquet", ".arrow", ".feather")


class Queries(Protocol):
    """A source of query vectors."""

    @property
    def identity(self) -> Any:
        """What names it in a job's parameters."""
        ...

    @property
    def version(self) -> int | None:
        """What is pinned, if anything."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """Of its rows."""
        ...

    def tasks(self, columns: Sequence[str], rows: int) -> tuple[Task, ...]:
        """Parts of about so many rows."""
        ...

    def read(
        self, task: Task, columns: Sequence[str], sources: Mapping[str, int], *, rows: int
    ) -> Iterator[pa.RecordBatch]:
        """A part's rows, so many at a time, at most: `query`, then the columns."""
        ...


@dataclass(frozen=True)
class TableQueries:
    """The rows of a table."""

    table: TableRef

    @property
    def identity(self) -> Any:
        """The table."""
        return identity(self.table)

    @property
    def version(self) -> int | None:
        """The table's."""
        return self.table.version

    @property
    def schema(self) -> pa.Schema:
        """The table's."""
        return self.table.open().schema

    def tasks(self, columns: Sequence[str], rows: int) -> tuple[Task, ...]:
        """Ranges of its rows."""
        return split_tasks(self.table.open().scan(columns=list(columns)).splits(rows=rows))

    def read(
        self, task: Task, columns: Sequence[str], sources: Mapping[str, int], *, rows: int
    ) -> Iterator[pa.RecordBatch]:
        """As every source does."""
        table = pinned(self.table, sources["queries"])
        split = split_of(task, table, ["_row_id", *columns], batch_size=rows)
        for batch in _merged(split.to_batches(), rows):
            yield batch.rename_columns([QUERY, *columns])


@dataclass(frozen=True)
class FileQueries:
    """The rows of a Parquet or Arrow file, or of all of them in a folder, numbered through in the order of their names."""

    path: str

    @property
    def identity(self) -> Any:
        """The path."""
        return {"path": self.path}

    @property
    def version(self) -> int | None:
        """None: tasks know the sizes of the files."""
        return None

    @property
    def schema(self) -> pa.Schema:
        """The first file's."""
        return _Opened.at(self._files()[0]).schema

    def tasks(self, columns: Sequence[str], rows: int) -> tuple[Task, ...]:
        """Runs of row groups (Parquet) or batches (Arrow) of a file."""
        tasks: list[Task] = []
        first = 0
        for file in self._files():
            opened, size = _Opened.at(file), os.path.getsize(file)
            counts = opened.counts()
            for low, high in pairwise(_cuts(counts, rows)):
                held = sum(counts[low:high])
                given = {"file": file, "size": size, "groups": [low, high], "first": first}
                tasks.append(Task(f"{len(tasks):06d}", given, held, size * held // max(sum(counts), 1)))
                first += held
        return tuple(tasks)

    def read(
        self, task: Task, columns: Sequence[str], sources: Mapping[str, int], *, rows: int
    ) -> Iterator[pa.RecordBatch]:
        """As every source does.

        Raises:
            ConflictError: the file was changed since the job was planned.
            InvalidInputError: pyarrow can't read it.
        """
        file, first = task.input["file"], task.input["first"]
        if not os.path.exists(file) or os.path.getsize(file) != task.input["size"]:
            raise ConflictError(
                f"{file} has changed since the job was planned: drop the job, and start it under another id"
            )
        low, high = task.input["groups"]
        try:
            for batch in _merged(_Opened.at(file).read(low, high, list(columns), rows), rows):
                numbers = pa.array(np.arange(first, first + batch.num_rows))
                first += batch.num_rows
                yield pa.RecordBatch.from_arrays([numbers, *batch.columns], [QUERY, *columns])
        except pa.ArrowException as e:
            raise InvalidInputError(
                f"{file} can't be read: {e}; if it is Parquet with null vectors of fixed size, write them as lists"
            ) from e

    def _files(self) -> list[str]:
        path = Path(self.path)
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        files = [str(one.resolve()) for one in found if one.suffix in _SUFFIXES and one.is_file()]
        if not files:
            raise NotFoundError(f"{self.path} is no Parquet or Arrow file, and no folder of any")
        return files


@dataclass(frozen=True)
class _Opened:
    """An open file: groups of rows that can be read one by one."""

    file: Any
    parquet: bool

    @classmethod
    def at(cls, path: str) -> _Opened:
        try:
            if path.endswith(".parquet"):
                import pyarrow.parquet as pq

                return cls(pq.ParquetFile(path, memory_map=True), True)
            return cls(pa.ipc.open_file(pa.memory_map(path)), False)
        except pa.ArrowException as e:
            raise InvalidInputError(f"{path} can't be read: {e}") from e

    @property
    def schema(self) -> pa.Schema:
        found: pa.Schema = self.file.schema_arrow if self.parquet else self.file.schema
        return found

    def counts(self) -> list[int]:
        """Rows of each group."""
        if self.parquet:
            metadata = self.file.metadata
            return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        return [self.file.get_batch(group).num_rows for group in range(self.file.num_record_batches)]

    def read(self, low: int, high: int, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        groups = range(low, high)
        if self.parquet:
            yield from self.file.iter_batches(rows, row_groups=list(groups), columns=columns)
            return
        for group in groups:
            yield self.file.get_batch(group).select(columns)


def _cuts(counts: Sequence[int], rows: int) -> list[int]:
    """Where to cut groups of rows so that the parts have about `rows`: at least one group each."""
    cuts, held = [0], 0
    for index, count in enumerate(counts):
        if held and held + count > rows:
            cuts.append(index)
            held = 0
        held += count
    return [*cuts, len(counts)] if counts else [0]


def _merged(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of exactly so many, but for the last: each costs a pass over the other side."""
    waiting: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        while batch.num_rows:
            part = batch.slice(0, rows - held)
            batch = batch.slice(part.num_rows)
            waiting.append(part)
            held += part.num_rows
            if held == rows:
                yield _joined(waiting)
                waiting, held = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.concat_batches(batches) if len(batches) > 1 else batches[0]


AnyQueries: TypeAlias = TableQueries | FileQueries


def vector_column(schema: pa.Schema, column: str | None, what: str) -> str:
    """The column with the query vectors: the one named, or the only one that holds vectors.

    Raises:
        NotFoundError: there is none of that name.
        InvalidInputError: none is named, and there is not exactly one.
    """
    if column is not None:
        if column not in schema.names:
            raise NotFoundError(f"{what} has no column {column!r}{did_you_mean(column, schema.names)}")
        return column
    found = [field.name for field in schema if vector_size(field.type) is not None]
    if len(found) != 1:
        raise InvalidInputError(
            f"{what} has {len(found)} columns of vectors{': ' + ', '.join(found) if found else ''}; say which with "
            "query_column="
        )
    return str(found[0])
