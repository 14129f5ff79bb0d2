"""Write what a DuckDB query returns into a table of a lake, streaming, in one atomic commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import duckdb

from vectorlake import Lake, Table
from vectorlake.extend import WriteMode, write_into

BATCH_ROWS: Final = 65_536

Query: TypeAlias = "str | duckdb.DuckDBPyRelation"
"""A SELECT, or a relation such as `con.sql(…)` returns."""


def write(
    con: duckdb.DuckDBPyConnection,
    query: Query,
    lake: Lake,
    name: str,
    *,
    mode: str | WriteMode = WriteMode.APPEND,
    primary_key: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
) -> Table:
    """Write what a query returns into a table, in one atomic commit; rows are streamed, not held in memory.

    Args:
        con: the connection to run the query on. It is busy until the rows are written.
        query: a SELECT, or a relation.
        lake: where the table is.
        name: the table, `ns.items`.
        mode: `"append"`, `"overwrite"` (replace all rows), `"upsert"` (replace those of the same primary key) or
            `"create"` (with `primary_key` and `properties`).

    Returns:
        The table, at the version written.

    Raises:
        AlreadyExistsError: the table to create exists.
        NotFoundError: the table to append to does not.
        InvalidInputError: an unknown mode, or columns and values that don't fit; nothing is written.
        duckdb.Error: the query failed; nothing is written.
    """
    parsed = WriteMode.parse(mode)  # before the query runs
    reader = (con.sql(query) if isinstance(query, str) else query).to_arrow_reader(BATCH_ROWS)
    try:
        return write_into(lake, name, reader, parsed, primary_key=primary_key, properties=properties)
    finally:
        reader.close()
