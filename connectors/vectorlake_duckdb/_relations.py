"""Tables and the rows that a search finds as relations of DuckDB, without a catalog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from vectorlake import Table
from vectorlake.extend import found_columns, free_names, pinned_table, query_column
from vectorlake_duckdb._read import FixedHandle, Pins, TableSource
from vectorlake_duckdb._types import shown_batches, shown_schema
from vectorlake_duckdb._write import Query


def read(
    con: duckdb.DuckDBPyConnection,
    table: Table,
    *,
    columns: Sequence[str] | None = None,
    filter: str | None = None,
    with_row_id: bool = False,
) -> duckdb.DuckDBPyRelation:
    """A table, at the version that its handle shows now, as a relation; nothing is read before the relation is.

    What DuckDB then selects and filters is pushed into the table's own planner as well.

    Args:
        con: the connection that the relation belongs to.
        table: a table, or a version of it: `table.at("v1")`.
        columns: names, in the order wanted; all by default.
        filter: an SQL condition as `Table.scan` takes it, in which NaN is unordered.
        with_row_id: add the column `_row_id`.

    Raises:
        NotFoundError: an unknown column.
        InvalidInputError: a filter that does not fit.
    """
    at = pinned_table(table)
    wanted = at.scan(columns, filter, with_row_id=with_row_id).schema.names
    source = TableSource(Pins(), FixedHandle(at, filter), owner=None)
    return con.from_arrow(source).select(*(duckdb.ColumnExpression(name) for name in wanted))


def knn(
    con: duckdb.DuckDBPyConnection,
    table: Table,
    queries: object,
    k: int | None = 10,
    *,
    columns: Sequence[str] = (),
    **options: Any,
) -> duckdb.DuckDBPyRelation:
    """The nearest rows of one vector or of several, as a relation: what `Table.knn` returns, to go on with in DuckDB.

    Args:
        con: the connection that the relation belongs to.
        table: a table, or a version of it.
        queries: as `Table.knn` takes them.
        k: neighbours a query; None for all within `max_distance`.
        columns: further columns of the rows found.
        options: as `Table.knn` takes them: `column`, `metric`, `filter`, `mode`, `target_recall`, ….

    Returns:
        `query`, `rank`, `row_id`, `distance` and `columns`.

    Raises:
        InvalidInputError, NotFoundError: what `Table.knn` refuses.
    """
    return con.from_arrow(_shown(table.knn(queries, k=k, columns=columns, **options)))


def knn_join(
    con: duckdb.DuckDBPyConnection,
    queries: Query,
    table: Table,
    k: int | None = 10,
    *,
    vec: str | None = None,
    columns: Sequence[str] | None = None,
    **options: Any,
) -> duckdb.DuckDBPyRelation:
    """The nearest rows of a table for every row of a query or relation, as a relation; searched at once, all in one search.

    Args:
        con: the connection to run the query on, and that the relation belongs to.
        queries: a SELECT, or a relation, with a column of vectors (arrays, or lists of one length); a null vector has no
            matches. All of its rows are held in memory.
        table: a table, or a version of it.
        k: neighbours a query; None for all within `max_distance`.
        vec: the column of vectors; may be left out if there is one only.
        columns: columns of the rows found; all but vectors by default.
        options: as `Table.knn` takes them.

    Returns:
        The query's columns, `rank`, `row_id`, `distance`, and `columns`, in the order of queries and ranks. A column whose
        name is taken gets `_1`.

    Raises:
        NotFoundError: the query has no column `vec`, or the table none of `columns`.
        InvalidInputError: what `Table.knn` refuses, another dimension among it.
        duckdb.Error: the query failed.
    """
    asked = (con.sql(queries) if isinstance(queries, str) else queries).to_arrow_table()
    vectors = asked[query_column(asked.schema, vec)]
    found = table.knn(vectors, k=k, columns=found_columns(table, columns), **options)
    matches = _shown(found.drop_columns("query"))
    rows = asked.take(found["query"])
    names = [*rows.column_names, *free_names(rows.column_names, matches.column_names)]
    return con.from_arrow(pa.table([*rows.columns, *matches.columns], names=names))


def _shown(found: pa.Table) -> pa.Table:
    """Matches in types that DuckDB has."""
    schema = shown_schema(found.schema)
    return pa.Table.from_batches(shown_batches(iter(found.combine_chunks().to_batches()), schema), schema)
