"""A table as a stream: the rows there are, then those of each version that is committed, in micro-batches.

An offset is the version that has been read, `{"version": 7}`, or how many parts of it while the rows there are come in
several batches, `{"version": 7, "parts": 3}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import pyarrow as pa
from pyspark.sql.datasource import DataSourceStreamReader, InputPartition
from pyspark.sql.streaming.datasource import (
    ReadAllAvailable,
    ReadLimit,
    ReadMaxFiles,
    ReadMaxRows,
    SupportsTriggerAvailableNow,
)
from pyspark.sql.types import StructType

from vectorlake import InvalidInputError, Table
from vectorlake.extend import ROW_ID, Split, TableRef
from vectorlake_spark._failing import briefly, failing_briefly
from vectorlake_spark._options import Options
from vectorlake_spark._read import SplitPartition, planned
from vectorlake_spark._types import spark_schema, to_spark

_LEADING: Final = pa.schema(
    [
        pa.field("_change_type", pa.string()),
        pa.field("_commit_version", pa.int64()),
        pa.field("_commit_timestamp", pa.timestamp("ms", "UTC")),
        pa.field(ROW_ID, pa.int64()),
    ]
)


class Told(StrEnum):
    """Which changes a stream tells."""

    APPENDED = "append-only"
    """New rows; a version that deletes or updates any is an error."""
    INSERTED = "inserts"
    """New rows; deletes and updates are passed over."""
    ALL = "all"
    """All changes, with the columns of the change feed."""

    @classmethod
    def parse(cls, told: str | None) -> Told:
        try:
            return cls.APPENDED if told is None else cls(told)
        except ValueError as e:
            raise InvalidInputError(
                f"option 'changes' must be 'append-only', 'inserts' or 'all', not {told!r}"
            ) from e


def changes_schema(table: Table, options: Options) -> StructType:
    """The columns of a stream with the option `changes`.

    Raises:
        NotFoundError: an unknown column.
    """
    columns = table.scan(options.columns).schema
    if Told.parse(options.changes) is Told.ALL:
        columns = pa.schema([*_LEADING, *(field for field in columns if field.name != ROW_ID)])
    return spark_schema(columns)


class SnapshotPartition(InputPartition):
    """A part of the rows that were there when the stream began, as inserts."""

    def __init__(self, split: Split, table: TableRef) -> None:
        super().__init__(None)
        self.split = split
        self.table = table

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """The rows, with the columns of the change feed."""
        snapshot = self.table.open().snapshot
        constants = {
            "_change_type": pa.scalar("insert"),
            "_commit_version": pa.scalar(snapshot.version, pa.int64()),
            "_commit_timestamp": pa.scalar(snapshot.timestamp_ms, pa.timestamp("ms", "UTC")),
        }
        for batch in SplitPartition(self.split).batches():
            arrays = [
                pa.repeat(constants[name], batch.num_rows) if name in constants else batch.column(name)
                for name in columns
            ]
            yield pa.RecordBatch.from_arrays(arrays, names=columns)


class VersionPartition(InputPartition):
    """What one version changed."""

    def __init__(self, table: TableRef, filter: str | None, told: Told) -> None:
        super().__init__(None)
        self.table = table
        self.filter = filter
        self.told = told

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """The rows, with the columns asked for.

        Raises:
            InvalidInputError: the version deletes or updates rows, which the stream is not to tell.
        """
        table = self.table.open()
        leading = set(_LEADING.names)
        wanted = [name for name in columns if name not in leading]
        changes = table.changes(table.version - 1, columns=wanted, filter=self.filter, threads=1)
        for batch in changes.to_batches():
            if self.told is not Told.ALL:
                inserted = pa.compute.equal(batch.column("_change_type"), "insert")
                if self.told is Told.APPENDED and not pa.compute.all(inserted).as_py():
                    raise InvalidInputError(
                        f"version {table.version} of the table at {table.uri} deletes or updates rows, which a stream of "
                        "appended rows can't tell: stream with the option changes='all' (the change feed), or pass over "
                        "such changes with changes='inserts'"
                    )
                batch = batch.filter(inserted)
            yield batch.select(columns)


@dataclass(frozen=True)
class _Offset:
    """How far a stream has come: all of a version, or the first parts of one."""

    version: int
    parts: int | None = None

    @classmethod
    def of(cls, offset: dict[str, Any]) -> _Offset:
        return cls(int(offset["version"]), offset.get("parts"))

    def to_dict(self) -> dict[str, int]:
        return {"version": self.version} | ({} if self.parts is None else {"parts": self.parts})


class ChangesReader(DataSourceStreamReader, SupportsTriggerAvailableNow):
    """Says how far the table has come, and divides what lies between two offsets into tasks."""

    def __init__(self, options: Options, schema: StructType) -> None:
        self._options = options
        self._schema = schema
        self._told = Told.parse(options.changes)
        self._table = options.location.open()
        self._last: int | None = None
        if options.max_versions is not None and options.max_rows is not None:
            raise InvalidInputError(
                "options 'maxVersionsPerTrigger' and 'maxRowsPerTrigger' exclude each other"
            )

    def __getstate__(self) -> dict[str, Any]:
        # Workers read what partitions say; the handle that follows the table stays with the driver.
        return {**self.__dict__, "_table": None}

    def initialOffset(self) -> dict[str, int]:
        """Before all rows, or after the version `fromVersion`."""
        with failing_briefly():
            start = self._options.from_version
            if start is None:
                return _Offset(0).to_dict()
            at: int | str = int(start) if start.isdecimal() else start
            if at == 0:
                return _Offset(0).to_dict()
            return _Offset(self._table.version if at == "latest" else self._table.at(at).version).to_dict()

    def getDefaultReadLimit(self) -> ReadLimit:
        """At most so many versions or rows in a micro-batch; a version is never cut."""
        if self._options.max_versions is not None:
            return ReadMaxFiles(self._options.max_versions)
        return ReadAllAvailable() if self._options.max_rows is None else ReadMaxRows(self._options.max_rows)

    def prepareForTriggerAvailableNow(self) -> None:
        """Stop at the version that is the newest now."""
        self._last = self._newest()

    def latestOffset(self, start: dict[str, Any], limit: ReadLimit) -> dict[str, int]:
        """As far as the limit allows, and one version at least."""
        with failing_briefly():
            done = _Offset.of(start)
            newest = self._newest() if self._last is None else self._last
            if done.version == 0 or done.parts is not None:
                version = done.version or newest
                return self._through_snapshot(version, done.parts or 0, limit).to_dict()
            if newest <= done.version:
                return start
            if isinstance(limit, ReadMaxFiles):
                return _Offset(min(newest, done.version + limit.max_files)).to_dict()
            if isinstance(limit, ReadMaxRows):
                return _Offset(self._within(done.version, newest, limit.max_rows)).to_dict()
            return _Offset(newest).to_dict()

    def reportLatestOffset(self) -> dict[str, int]:
        """The newest version, for the query's progress."""
        with failing_briefly():
            return _Offset(self._newest()).to_dict()

    def partitions(self, start: dict[str, Any], end: dict[str, Any]) -> list[InputPartition]:
        """A task for each part of the rows that are there, and for each version after them."""
        with failing_briefly():
            done, until = _Offset.of(start), _Offset.of(end)
            found: list[InputPartition] = []
            after = done.version
            if done.version == 0 or done.parts is not None:
                after = done.version or until.version
                if after:
                    table = self._at(after).ref
                    parts = self._splits(after)[
                        done.parts or 0 : until.parts if until.version == after else None
                    ]
                    found += [SnapshotPartition(split, table) for split in parts]
            for version in range(after + 1, until.version + 1):
                found.append(VersionPartition(self._at(version).ref, self._options.filter, self._told))
            return found

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """The rows of a task."""
        assert isinstance(partition, SnapshotPartition | VersionPartition)
        return briefly(to_spark(partition.batches(self._schema.names), self._schema))

    def _newest(self) -> int:
        return self._table.refresh().version

    def _at(self, version: int) -> Table:
        return self._table.at(version)

    def _splits(self, version: int) -> list[Split]:
        leading = set(_LEADING.names) - {ROW_ID}
        columns = [name for name in self._schema.names if name not in leading]
        rows = self._options.rows_per_partition
        if self._options.max_rows is not None:
            rows = min(rows or self._options.max_rows, self._options.max_rows)
        return planned(self._at(version), self._options, columns).splits(rows)

    def _through_snapshot(self, version: int, parts: int, limit: ReadLimit) -> _Offset:
        """All of the rows that are there, or as many parts as the limit allows."""
        if not isinstance(limit, ReadMaxRows):
            return _Offset(version)
        splits = self._splits(version)
        until, rows = parts, 0
        while until < len(splits) and (until == parts or rows + splits[until].rows <= limit.max_rows):
            rows += splits[until].rows
            until += 1
        return _Offset(version) if until == len(splits) else _Offset(version, until)

    def _within(self, done: int, newest: int, most: int) -> int:
        """The last version until which at most so many rows were added."""
        rows = 0
        for version in range(done + 1, newest + 1):
            rows += int(self._at(version).snapshot.summary.get("added_rows", 0))
            if rows > most and version > done + 1:
                return version - 1
        return newest
