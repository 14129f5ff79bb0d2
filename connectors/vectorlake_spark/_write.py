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

from vectorlake import AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError
from vectorlake.extend import (
    IntoNewTable,
    IntoTable,
    StagedRows,
    StageMode,
    StreamPosition,
    WriteMode,
)
from vectorlake_spark._failing import failing_briefly
from vectorlake_spark._options import Options
from vectorlake_spark._types import arrow_schema, stored_schema

_QUERY_ID = "sql.streaming.queryId"
"""The local property in which Spark tells the tasks of a streaming query which one it is."""


@dataclass(frozen=True)
class Staged(WriterCommitMessage):
    """What a task wrote: whether for a table that was not there yet, and for which streaming query."""

    rows: StagedRows
    new: bool
    query: str | None = None


@dataclass(frozen=True)
class Target:
    """What a frame is written into.

    Attributes:
        destination: a table, at the version at which the write was planned, or one that appears with the rows.
        schema: the frame's.
    """

    destination: IntoTable | IntoNewTable
    schema: StructType

    @classmethod
    def plan(cls, options: Options, schema: StructType, *, overwrite: bool) -> Self:
        """Find the table, or what a new one is to be like.

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
            return cls(_new_table(options, mode, schema), schema)
        if mode is WriteMode.CREATE:
            raise AlreadyExistsError(
                f"there is a table at {table.uri} already: append to it, or overwrite it"
            )
        return cls(IntoTable(table.ref, StageMode(mode.value)), schema)

    def stage(self, batches: Iterator[pa.RecordBatch]) -> Staged:
        """Write a task's rows to files that nobody refers to yet.

        Raises:
            InvalidInputError: columns or values that don't fit; nothing is left.
        """
        first = next(batches, None)
        schema = arrow_schema(self.schema) if first is None else first.schema
        rows = itertools.chain(() if first is None else (first,), batches)
        staged = self.destination.stage(pa.RecordBatchReader.from_batches(schema, rows))
        context = TaskContext.get()
        query = None if context is None else context.getLocalProperty(_QUERY_ID)
        return Staged(staged, isinstance(self.destination, IntoNewTable), query)

    def commit(self, messages: Sequence[Staged], position: StreamPosition | None = None) -> None:
        """Make what all tasks staged one version; with a position, exactly once.

        Raises:
            ConflictError: others created the table after tasks of a stream had written for a new one.
        """
        staged = [message.rows for message in messages]
        if isinstance(self.destination, IntoTable) and any(message.new for message in messages):
            self.destination.discard(staged)
            raise ConflictError(
                f"others created {self.destination.table.uri} meanwhile; nothing was written: start the query again"
            )
        self.destination.commit(staged, position=position)

    def abort(self, messages: Sequence[Staged | None]) -> None:
        """Remove what tasks staged.

        A task that failed is None among the messages. Where none is, Spark gives up since the commit failed, maybe after it
        took place: then the files stay, and `Table.collect_orphans` removes them if nobody refers to them.
        """
        if None in messages:
            self.destination.discard([message.rows for message in messages if message is not None])


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


def _new_table(options: Options, mode: WriteMode, schema: StructType) -> IntoNewTable:
    if mode is WriteMode.UPSERT and not options.primary_key:
        raise InvalidInputError(
            "there is no table to upsert into, and a new one needs a primary key for it: name its columns with the option "
            "'primaryKey'"
        )
    lake, name = options.location.lake()
    columns = stored_schema(schema, options.vectors)
    return IntoNewTable.plan(
        lake, name, columns, primary_key=options.primary_key, properties=options.properties
    )
