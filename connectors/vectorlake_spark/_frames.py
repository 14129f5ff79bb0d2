"""Spark frames of tables, and tables of Spark frames: the everyday calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import array, create_map, lit

from vectorlake import Lake, Table
from vectorlake.extend import WriteMode
from vectorlake_spark._catalog import located_at
from vectorlake_spark._functions import Knn, KnnJoin, table_function
from vectorlake_spark._source import VectorlakeSource
from vectorlake_spark._types import vector_metadata

_FORMAT = "vectorlake"


def read(
    spark: SparkSession,
    table: Table | str,
    *,
    columns: Sequence[str] | None = None,
    filter: str | None = None,
    with_row_id: bool = False,
    options: Mapping[str, str] | None = None,
) -> DataFrame:
    """A table as a frame.

    Args:
        spark: the session.
        table: a table, which is read at the version of the handle; or where one lies, which is read at its newest.
        columns: only these. Spark can't tell a Python source which ones it needs: name them where the table has wide ones.
        filter: a condition on the table's columns (docs/filters.md).
        with_row_id: add the column `_row_id`.
        options: further options of the format.

    Raises:
        NotFoundError: no such table or column.
        InvalidInputError: a filter that does not parse or fit, or an unknown option.
    """
    spark.dataSource.register(VectorlakeSource)
    given = {"path": table} if isinstance(table, str) else located_at(table.ref)
    if columns is not None:
        given["columns"] = json.dumps(list(columns))
    if filter is not None:
        given["filter"] = filter
    if with_row_id:
        given["rowIds"] = "true"
    return spark.read.format(_FORMAT).options(**given, **(options or {})).load()


def write(
    frame: DataFrame,
    lake: Lake,
    name: str,
    *,
    mode: str | WriteMode = WriteMode.APPEND,
    primary_key: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
    vectors: Mapping[str, str | int] | None = None,
) -> Table:
    """Write a frame into a table: tasks write files side by side, and one commit makes all of their rows visible.

    Args:
        frame: the rows.
        lake: where the table is.
        name: the table, `ns.items`.
        mode: `"append"`, `"overwrite"` (replace all rows), `"create"`, or `"upsert"` (replace the rows that have the same
            primary key, add the others). Without a table, all of them create it.
        primary_key: of a table that is created.
        properties: of a table that is created.
        vectors: of a table that is created, the columns of arrays that are vectors, and their dimension (`384`) or also
            their element (`"384, f16"`). A frame that was read from a table knows its own.

    Returns:
        The table, at the version written.

    Raises:
        InvalidInputError: an unknown mode.
        pyspark.errors.PySparkException: the frame failed, or its columns or values don't fit; nothing is written.
    """
    chosen = WriteMode.parse(mode)
    frame.sparkSession.dataSource.register(VectorlakeSource)
    given = {"uri": lake.uri, "table": name, "mode": chosen.value}
    given |= {f"storage.{key}": value for key, value in lake.storage_options.items()}
    given |= {f"property.{key}": value for key, value in (properties or {}).items()}
    given |= {f"vector.{key}": str(value) for key, value in (vectors or {}).items()}
    if primary_key:
        given["primaryKey"] = json.dumps(list(primary_key))
    sparks = "overwrite" if chosen is WriteMode.OVERWRITE else "append"
    frame.write.format(_FORMAT).mode(sparks).options(**given).save()
    return lake.table(name)


def create_table(
    frame: DataFrame,
    lake: Lake,
    name: str,
    *,
    primary_key: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
    vectors: Mapping[str, str | int] | None = None,
) -> Table:
    """Create a table from a frame: `write` with mode `"create"`."""
    return write(
        frame,
        lake,
        name,
        mode=WriteMode.CREATE,
        primary_key=primary_key,
        properties=properties,
        vectors=vectors,
    )


def upsert(frame: DataFrame, lake: Lake, name: str) -> Table:
    """Replace the rows that have the frame's primary keys, and add the others: `write` with mode `"upsert"`."""
    return write(frame, lake, name, mode=WriteMode.UPSERT)


def as_vector(frame: DataFrame, column: str, dimension: int, element: str = "f32") -> DataFrame:
    """The frame with a column of arrays marked as vectors, for the table that is made of it.

    Raises:
        InvalidInputError: a dimension or element that is none.
    """
    return frame.withMetadata(
        column, {**frame.schema[column].metadata, **vector_metadata(dimension, element)}
    )


def knn(queries: DataFrame, table: Table | str, k: int | None = 10, **options: Any) -> DataFrame:
    """The `k` nearest rows of each query: `query`, `rank`, `row_id`, `distance`, and columns of the rows found.

    Args:
        queries: with a column of vectors (arrays of numbers).
        table: a table, which is searched at the version of the handle; or where one lies.
        k: neighbours of a query; None for all within `max_distance`.
        options: `id`: the queries' column that becomes `query`; without it queries are counted, by one task. `vec`: their
            vector column, if they have several. `columns`: of the rows found, by default all that hold no vectors. And
            those of the search, as in SQL: `metric`, `filter`, `col`, `mode`, `index`, `nprobe`, `ef`, `target_recall`,
            `pool`, `max_distance`, `group_col`, `group_size`, `threads` (of each task).

    Each batch of queries is one search (`spark.sql.execution.arrow.maxRecordsPerBatch` rows). A NULL query has no matches.
    Row ids and distances are those of `Table.knn`, bit for bit.

    Raises:
        pyspark.errors.AnalysisException: an unknown option, table or column.
    """
    return _call(table_function(Knn, "knn"), queries, table, k, options)


def knn_join(queries: DataFrame, table: Table | str, k: int | None = 10, **options: Any) -> DataFrame:
    """The `k` nearest rows of each query, beside all columns of the query; otherwise as `knn`.

    Where both sides have a column of one name, the second is called `name_1`.
    """
    return _call(table_function(KnnJoin, "knn_join"), queries, table, k, options)


def _call(
    function: Any, queries: DataFrame, table: Table | str, k: int | None, options: Mapping[str, Any]
) -> DataFrame:
    named: dict[str, Any] = dict(options)
    path = table
    if isinstance(table, Table):
        ref = table.ref
        path = ref.uri
        named["version"] = ref.version
        if ref.branch is not None:
            named["branch"] = ref.branch
        if ref.storage_options:
            named["storage"] = dict(ref.storage_options)
    arguments = {name: _literal(value) for name, value in named.items() if value is not None}
    return function(queries.asTable(), lit(path), lit(k), **arguments)  # type: ignore[no-any-return]


def _literal(value: Any) -> Any:
    if isinstance(value, Mapping):
        return create_map(*[lit(part) for pair in value.items() for part in pair])
    if isinstance(value, list | tuple):
        return array(*[lit(part) for part in value])
    return lit(value)
