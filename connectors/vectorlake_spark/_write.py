"""Write a Spark frame into a table: each task stages its rows, and the driver commits all of them as one version."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql.datasource import DataSourceArrowWriter, WriterCommitMessage
from pyspark.sql.types import StructType

from vectorlake import AlreadyExistsError, InvalidInputError, NotFoundError, Table
from vectorlake.extend import (
    StagedRows,
    StageMode,
    StreamPosition,
    TableRef,
    WriteMode,
    commit_staged,
    discard_staged,
    stage_rows,
)
from vectorlake_spark._failing import failing_briefly
from vectorlake_spark._options import Options
from vectorlake_spark._types import arrow_schema, stored_schema

_QUERY_ID = "sql.streaming.queryId"
"""The local property in which Spark tells the tasks of a streaming query which one it is."""


@dataclass(frozen=True)
class Staged(WriterCommitMessage):
    """What a task wrote, and for which streaming query."""

    rows: StagedRows
    query: str | None = None


@dataclass(frozen=True)
class Target:
    """The table that a frame is written into.

    Attributes:
        table: at the version at which the write was planned; rows are conformed to its columns.
        mode: what happens to the rows that are there; append and overwrite create a table where there is none.
        schema: the frame's.
        created: whether the table was created for this write, and goes if it fails.
    """

    table: TableRef
    mode: WriteMode
    schema: StructType
    created: bool = False

    @classmethod
    def plan(cls, options: Options, schema: StructType, *, overwrite: bool) -> Self:
        """Open the table, or create it.

        Raises:
            InvalidInputError: an unknown mode or one that contradicts Spark's, a version to write to, columns that make no
                table, a primary key that is none.
            AlreadyExistsError: the table to create exists.
        """
        mode = _mode(options, overwrite=overwrite)
        pins = [
            name
            for name, value in (
                ("version", options.version),
                ("tag", options.tag),
                ("timestamp", options.timestamp),
            )
            if value is not None
        ]
        if pins:
            raise InvalidInputError(f"writes go to the newest version: leave out the option {pins[0]!r}")
        try:
            table = options.location.open()
        except NotFoundError:
            if options.location.branch is not None:
                raise
            return cls(_create(options, schema).ref, mode, schema, created=True)
        if mode is WriteMode.CREATE:
            raise AlreadyExistsError(
                f"there is a table at {table.uri} already: append to it, or overwrite it"
            )
        return cls(table.ref, mode, schema)

    def stage(self, batches: Iterator[pa.RecordBatch]) -> Staged:
        """Write a task's rows to files that nobody refers to yet.

        Raises:
            InvalidInputError: columns or values that don't fit; nothing is left.
        """
        first = next(batches, None)
        schema = arrow_schema(self.schema) if first is None else first.schema
        rows = itertools.chain(() if first is None else (first,), batches)
        staged = stage_rows(self.table.open(), pa.RecordBatchReader.from_batches(schema, rows))
        context = TaskContext.get()
        return Staged(staged, None if context is None else context.getLocalProperty(_QUERY_ID))

    def commit(self, messages: Sequence[Staged], position: StreamPosition | None = None) -> None:
        """Make what all tasks staged one version; with a position, exactly once."""
        staged = [message.rows for message in messages]
        commit_staged(self.table.open_head(), staged, mode=_stage_mode(self.mode), position=position)

    def abort(self, messages: Sequence[Staged | None]) -> None:
        """Remove what tasks staged, and the table if it was created for them.

        A task that failed is None among the messages. Where none is, Spark gives up since the commit failed, maybe after it
        took place: then the files stay, and `Table.collect_orphans` removes them if nobody refers to them.
        """
        if None not in messages:
            return
        table = self.table.open_head()
        discard_staged(table, [message.rows for message in messages if message is not None])
        if self.created and table.refresh().version == self.table.version:
            table.store.delete([info.path for info in table.store.list()])


class Writer(DataSourceArrowWriter):
    """Writes a frame in one commit."""

    def __init__(self, target: Target) -> None:
        self._target = target

    @classmethod
    def plan(cls, options: Options, schema: StructType, *, overwrite: bool) -> Self:
        """A writer into the table that the options name (see `Target.plan`)."""
        return cls(Target.plan(options, schema, overwrite=overwrite))

    def write(self, iterator: Iterator[pa.RecordBatch]) -> Staged:
        """Stage a task's rows."""
        with failing_briefly():
            return self._target.stage(iterator)

    def commit(self, messages: list[Staged]) -> None:  # type: ignore[override]
        """Commit the rows of all tasks as one version."""
        with failing_briefly():
            self._target.commit(messages)

    def abort(self, messages: list[Staged | None]) -> None:  # type: ignore[override]
        """Leave nothing of a write that failed."""
        with failing_briefly():
            self._target.abort(messages)


def _stage_mode(mode: WriteMode) -> StageMode:
    return StageMode.APPEND if mode is WriteMode.CREATE else StageMode(mode.value)


def _mode(options: Options, *, overwrite: bool) -> WriteMode:
    sparks = WriteMode.OVERWRITE if overwrite else WriteMode.APPEND
    if options.mode is None:
        return sparks
    mode = WriteMode.parse(options.mode)
    if overwrite and mode is not WriteMode.OVERWRITE:
        raise InvalidInputError(
            f"option 'mode' is {options.mode!r}, but Spark was told to overwrite: write with .mode('append')"
        )
    return mode


def _create(options: Options, schema: StructType) -> Table:
    lake, name = options.location.lake()
    columns = stored_schema(schema, options.vectors)
    key = list(options.primary_key)
    if key:  # A frame's columns allow nulls, a key doesn't: rows are checked when they are written.
        columns = pa.schema(
            [field.with_nullable(field.nullable and field.name not in key) for field in columns]
        )
    return lake.create_table(name, columns, primary_key=key, properties=options.properties)
