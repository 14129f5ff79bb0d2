"""Tables and the rows that a search finds as relations of DuckDB, without a catalog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from vectorlake import Table
from vectorlake.extend import pinned_table
from vectorlake_duckdb._read import FixedHandle, Pins, TableSource
from vectorlake_duckdb._types import shown_batches, shown_schema


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
    found = table.knn(queries, k=k, columns=columns, **options)
    shown = shown_schema(found.schema)
    batches = shown_batches(iter(found.combine_chunks().to_batches()), shown)
    return con.from_arrow(pa.Table.from_batches(batches, shown))
