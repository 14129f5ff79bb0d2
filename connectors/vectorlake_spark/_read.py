"""Read a table into Spark: a task for each part of a pinned scan, which skips what the pushed filters rule out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.datasource import DataSourceReader, Filter, InputPartition
from pyspark.sql.types import StructType

from vectorlake import NotFoundError, Scan, Table
from vectorlake.extend import ROW_ID, MetadataTable, Split, TableRef, inspect
from vectorlake_spark._failing import briefly, failing_briefly
from vectorlake_spark._filters import pushed
from vectorlake_spark._options import Options
from vectorlake_spark._types import spark_schema, to_spark


class SplitPartition(InputPartition):
    """A part of a scan: what one task reads."""

    def __init__(self, split: Split) -> None:
        super().__init__(None)
        self.split = split

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows. One thread reads: Spark runs a task on each core."""
        return self.split.scan().replace(threads=1).to_batches()


class MetadataPartition(InputPartition):
    """One of a table's metadata tables."""

    def __init__(self, table: TableRef, kind: MetadataTable, columns: Sequence[str]) -> None:
        super().__init__(None)
        self.table = table
        self.kind = kind
        self.columns = list(columns)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows."""
        return inspect(self.table.open().view, self.kind, columns=self.columns)


class _PushFilters:
    """`pushFilters` of a reader, as an attribute that seems not to be overridden.

    Spark fails every read of a reader that overrides it while `spark.sql.python.filterPushdown.enabled` is off.
    """

    __func__ = staticmethod(DataSourceReader.pushFilters)

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __call__(self, filters: list[Filter]) -> Iterable[Filter]:
        self._reader.push(filters)
        return filters


class Reader(DataSourceReader):
    """Plans a read of one version, and reads its parts."""

    def __init__(self, options: Options, table: TableRef, schema: StructType) -> None:
        self._options = options
        self._table = table
        self._schema = schema
        self._pushed: pc.Expression | None = None
        self.pushFilters = _PushFilters(self)  # type: ignore[method-assign]

    def push(self, filters: Sequence[Filter]) -> None:
        """Take in filters that Spark checks again.

        Only where that was asked for: Spark 4.3.0 keeps one plan of a loaded frame or table, so that its other scans,
        with other filters or none, read no more than the scan that was planned last.
        """
        if self._options.push_filters and self._options.metadata is None:
            with failing_briefly():
                self._pushed = pushed(filters, self._table.open())

    def partitions(self) -> list[InputPartition]:
        """One for each part; none where no row can match, for which Spark calls `read` with no partition."""
        with failing_briefly():
            table, names = self._table.open(), self._schema.names
            if self._options.metadata is not None:
                return [MetadataPartition(self._table, self._options.metadata, names)]
            scan = planned(table, self._options, names, self._pushed)
            return [SplitPartition(split) for split in scan.splits(self._options.rows_per_partition)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """The rows of a part."""
        if isinstance(partition, SplitPartition | MetadataPartition):
            return briefly(to_spark(partition.batches(), self._schema))
        return iter(())


def planned(
    table: Table, options: Options, columns: Sequence[str], narrowed: pc.Expression | None = None
) -> Scan:
    """The scan of some columns for which the option `filter` and a pushed filter are true.

    Raises:
        NotFoundError: a column that the table lacks (any more).
        InvalidInputError: a filter that does not parse or fit.
    """
    known = [*table.schema.names, ROW_ID, "_last_updated_version"]
    for name in columns:
        if name not in known:
            raise NotFoundError(
                f"the table at {table.uri} has no column {name!r} at version {table.version}: load it again, or DROP "
                "and CREATE the table in Spark's catalog, which remembers columns"
            )
    scan = table.scan(list(columns), filter=options.filter)
    if narrowed is None:
        return scan
    return scan.to_dataset().scanner(list(columns), filter=narrowed).scan


def shown_schema(table: Table, options: Options) -> StructType:
    """What a read with some options shows.

    Raises:
        NotFoundError: an unknown column.
        UnsupportedError: a column that Spark can't show.
    """
    if options.metadata is not None:
        fields: Any = options.metadata.schema
        if options.columns is not None:
            fields = [fields.field(name) for name in options.columns]
        return spark_schema(pa.schema(list(fields)))
    scan = table.scan(options.columns, filter=options.filter, with_row_id=options.row_ids)
    return spark_schema(scan.schema)
