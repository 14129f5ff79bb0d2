"""Spark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa
from engine import Capability, Engine, engine, numbered

import vectorlake as vl


@engine
class Spark(Engine):
    name = "spark"
    needs = ("pyspark",)
    lacks: ClassVar = {
        Capability.ORDER: "Spark promises no order of rows without ORDER BY",
        Capability.FLOAT16: "Spark has no half floats: they show as FLOAT",
    }

    def start(self) -> None:
        from spark_support import session

        self._spark = session()

    def stop(self) -> None:
        """The session is shared with other modules, and ends with the process."""

    def read(
        self,
        table: vl.Table,
        *,
        columns: Sequence[str] | None = None,
        filter: str | None = None,
        version: int | str | None = None,
        with_row_id: bool = False,
    ) -> pa.Table:
        import vectorlake_spark

        options = {}
        if isinstance(version, int):
            options = {"version": str(version)}
        elif version is not None:
            tags = [tag.name for tag in table.tags()]
            options = {"tag" if version in tags else "branch": version}
        return vectorlake_spark.read(
            self._spark, table.uri, columns=columns, filter=filter, with_row_id=with_row_id, options=options
        ).toArrow()

    def sql(self, lake: vl.Lake, query: str) -> pa.Table:
        import vectorlake_spark

        # A lake's namespaces are databases of Spark's own catalog, as catalogs can't be written in Python.
        vectorlake_spark.attach(self._spark, lake)
        try:
            return self._spark.sql(query.replace("lake.", "")).toArrow()
        finally:
            vectorlake_spark.detach(self._spark, lake)

    def write(
        self, lake: vl.Lake, name: str, rows: pa.Table, *, mode: str, primary_key: Sequence[str] = ()
    ) -> None:
        import vectorlake_spark

        vectors = {
            field.name: field.type.list_size
            for field in rows.schema
            if mode == "create" and pa.types.is_fixed_size_list(field.type)
        }
        frame = self._spark.createDataFrame(rows)
        vectorlake_spark.write(frame, lake, name, mode=mode, primary_key=primary_key, vectors=vectors)

    def knn(self, table: vl.Table, queries: pa.Array, k: int, **options: Any) -> pa.Table:
        import vectorlake_spark

        named = {"col" if name == "column" else name: value for name, value in options.items()}
        asked = self._spark.createDataFrame(numbered(queries))
        return vectorlake_spark.knn(asked, table, k, id="query", vec="vector", **named).toArrow()

    def metadata(self, table: vl.Table, name: str) -> pa.Table:
        import vectorlake_spark

        return vectorlake_spark.read(self._spark, table.uri, options={"metadata": name}).toArrow()
