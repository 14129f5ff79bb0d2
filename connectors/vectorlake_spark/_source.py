"""The data source `vectorlake`: what Spark asks for schemas, readers and writers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from pyspark.sql.datasource import DataSource
from pyspark.sql.types import ArrayType, StructType

from vectorlake import InvalidInputError
from vectorlake.extend import TableRef
from vectorlake_spark._changes import ChangesReader, changes_schema
from vectorlake_spark._failing import failing_briefly
from vectorlake_spark._options import Options, located
from vectorlake_spark._read import Reader, shown_schema
from vectorlake_spark._sink import StreamWriter
from vectorlake_spark._write import Writer

TABLE_KEY: Final = "vectorlake.table"
"""In the columns' metadata of a table in Spark's catalog: the options it was created with, as JSON.

Spark hands the options of a CREATE TABLE to `schema()`, and to nobody else.
"""
ATTACHED_KEY: Final = "vectorlake.attached"
"""There too, of a table that has a source of its own: that source's name."""
_CATALOGS: Final = ("provider", "owner", "location")


class VectorlakeSource(DataSource):
    """Tables in Spark: `spark.read.format("vectorlake").load("lake/namespace/table")`, and the like."""

    fixed: ClassVar[Mapping[str, str]] = {}
    """Options that every table of this source has: a subclass is a source for one table."""

    _pinned: TableRef | None = None

    @classmethod
    def name(cls) -> str:
        """What Spark calls the source."""
        return "vectorlake"

    def schema(self) -> StructType:
        """The columns that a read shows. The source is at that version from here on, so a frame never changes."""
        with failing_briefly():
            asked = self._asked()
            options = Options.parse(asked)
            table = options.open()
            self._pinned = table.ref
            if options.changes is not None:
                return changes_schema(table, options)
            schema = shown_schema(table, options)
        return _in_catalog(schema, asked, self.fixed, self.name()) if "provider" in asked else schema

    def reader(self, schema: StructType) -> Reader:
        """A reader of the version that the schema was told of, or of the newest one."""
        with failing_briefly():
            options = Options.parse(self._asked(schema))
            if options.changes is not None:
                raise InvalidInputError(
                    "changes are read as a stream: spark.readStream instead of spark.read"
                )
            table = self._pinned if self._pinned is not None else options.open().ref
            return Reader(options, table, schema)

    def writer(self, schema: StructType, overwrite: bool) -> Writer:
        """A writer into the table, which is created if there is none."""
        with failing_briefly():
            return Writer.plan(Options.parse(self._target(schema)), schema, overwrite=overwrite)

    def streamReader(self, schema: StructType) -> ChangesReader:
        """A reader of the rows there are, and of those that are committed later."""
        with failing_briefly():
            return ChangesReader(Options.parse(self._asked(schema)), schema)

    def streamWriter(self, schema: StructType, overwrite: bool) -> StreamWriter:
        """A writer that commits each micro-batch exactly once."""
        with failing_briefly():
            return StreamWriter(Options.parse(self._target(schema)), schema, overwrite=overwrite)

    def _asked(self, schema: StructType | None = None) -> dict[str, Any]:
        """The options; those of a CREATE TABLE from the columns' metadata, since Spark forgets them."""
        given = {**self.fixed, **self.options}
        if located(given) or schema is None:
            return given
        for field in schema.fields:
            if TABLE_KEY in field.metadata:
                return {**json.loads(field.metadata[TABLE_KEY]), **given}
        raise InvalidInputError(
            "Spark doesn't say which table is meant: CREATE TABLE … USING vectorlake OPTIONS (path '…') takes no columns: "
            "they come from the table; make a table with df.write.format('vectorlake').mode('append').save('…')"
        )

    def _target(self, schema: StructType) -> dict[str, Any]:
        """The options of the table to write into.

        Columns that Spark passes on unchanged keep the metadata of the table that they were read from: to trust it
        would write `INSERT INTO a SELECT * FROM b` into b. Only where a column was cast is its metadata the target's. A
        table in the catalog says that its arrays may hold nulls, so one that may not was cast.
        """
        given = {**self.fixed, **self.options}
        if located(given):
            return given
        for field in schema.fields:
            cast = isinstance(field.dataType, ArrayType) and not field.dataType.containsNull
            if cast and TABLE_KEY in field.metadata:
                return {**json.loads(field.metadata[TABLE_KEY]), **given}
        raise InvalidInputError(
            "Spark doesn't tell a Python data source which table it inserts into: name it once more, as in INSERT INTO t "
            "WITH (path = 'lake/namespace/table') SELECT …, or df.writeTo('t').option('path', '…').append(); tables that "
            "vectorlake_spark.attach has made need no path"
        )


def _in_catalog(
    schema: StructType, asked: Mapping[str, str], fixed: Mapping[str, str], name: str
) -> StructType:
    """The columns as Spark's catalog is to remember them: they say which table they are of."""
    if fixed:
        mark = {ATTACHED_KEY: name}
    else:
        carried = {key: asked[key] for key in asked if key not in _CATALOGS and not key.startswith("option.")}
        mark = {TABLE_KEY: json.dumps(carried)}
    for field in schema.fields:
        field.metadata = {**field.metadata, **mark}
        if isinstance(field.dataType, ArrayType):  # see `VectorlakeSource._target`
            field.dataType = ArrayType(field.dataType.elementType, containsNull=True)
    return schema
