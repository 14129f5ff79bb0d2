"""vectorlake in DuckDB: a lake as a catalog, nearest neighbours in SQL, and queries written into tables.

>>> import duckdb, vectorlake as vl, vectorlake_duckdb
>>> lake = vl.connect("memory://duckdb-doc")
>>> items = lake.create_table("ns.items", {"id": [1, 2], "vec": [[1.0, 0.0], [0.0, 1.0]]})
>>> con = duckdb.connect()
>>> vectorlake_duckdb.attach(con, lake)
>>> con.sql("SELECT id FROM lake.ns.items WHERE id > 1").fetchall()
[(2,)]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vectorlake import Lake, Table, UnsupportedError

try:
    import duckdb
except ImportError as e:
    raise UnsupportedError("vectorlake_duckdb needs DuckDB: pip install 'vectorlake[duckdb]'") from e

from vectorlake.extend import WriteMode
from vectorlake_duckdb._catalog import attach, detach, find_attached, refresh
from vectorlake_duckdb._relations import knn, knn_join, read
from vectorlake_duckdb._write import Query
from vectorlake_duckdb._write import write as _write

__all__ = ["WriteMode", "attach", "create_table", "detach", "knn", "knn_join", "read", "refresh", "write"]


def write(
    con: duckdb.DuckDBPyConnection,
    query: Query,
    lake: Lake | str,
    name: str,
    *,
    mode: str | WriteMode = WriteMode.APPEND,
    primary_key: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
) -> Table:
    """Write what a query returns into a table, in one atomic commit; rows are streamed, not held in memory.

    Args:
        con: the connection to run the query on. It is busy until the rows are written.
        query: a SELECT, or a relation such as `con.sql(...)` returns.
        lake: where the table is: a lake, or the name that one is attached under.
        name: the table, `ns.items`.
        mode: `"append"`, `"overwrite"` (replace all rows), `"upsert"` (replace those of the same primary key) or
            `"create"` (with `primary_key` and `properties`).

    Returns:
        The table, at the version written. A table that is created in an attached lake shows there at once.

    Raises:
        AlreadyExistsError: the table to create exists.
        NotFoundError: the table to append to does not exist, or no lake is attached under that name.
        InvalidInputError: an unknown mode, or columns and values that don't fit; nothing is written.
        duckdb.Error: the query failed; nothing is written.
    """
    where = lake if isinstance(lake, Lake) else find_attached(con, lake).lake
    table = _write(con, query, where, name, mode=mode, primary_key=primary_key, properties=properties)
    if WriteMode.parse(mode) is WriteMode.CREATE and not isinstance(lake, Lake):
        refresh(con, lake)
    return table


def create_table(
    con: duckdb.DuckDBPyConnection,
    name: str,
    query: Query,
    *,
    lake: Lake | str = "lake",
    primary_key: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
) -> Table:
    """Create a table from what a query returns: `write` with mode `"create"`."""
    return write(
        con, query, lake, name, mode=WriteMode.CREATE, primary_key=primary_key, properties=properties
    )
