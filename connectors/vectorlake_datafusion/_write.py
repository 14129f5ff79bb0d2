"""Write what DataFusion computes into a table of a lake, streaming, in one atomic commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import pyarrow as pa
from datafusion import DataFrame, SessionContext

from vectorlake import Lake, Table
from vectorlake.extend import WriteMode, write_into
from vectorlake_datafusion._catalog import find_lake

Query: TypeAlias = str | DataFrame
"""A SELECT, or a frame."""


def write(
    ctx: SessionContext,
    query: Query,
    lake: Lake | str,
    name: str,
    *,
    mode: str | WriteMode = WriteMode.APPEND,
    primary_key: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
) -> Table:
    """Write what a query or frame yields into a table, in one atomic commit; rows are streamed, not held in memory.

    Args:
        ctx: the context that runs a query given as text.
        query: a SELECT, or a frame.
        lake: where the table is: a lake, or the name that one is attached under.
        name: the table, `ns.items`.
        mode: `"append"`, `"overwrite"` (replace all rows), `"upsert"` (replace those of the same primary key) or
            `"create"` (with `primary_key` and `properties`).

    Returns:
        The table, at the version written.

    Raises:
        AlreadyExistsError: the table to create exists.
        NotFoundError: the table to write to does not, or no lake is attached under that name.
        InvalidInputError: an unknown mode, or columns and values that don't fit; nothing is written.
    """
    parsed = WriteMode.parse(mode)  # before the query runs
    where = lake if isinstance(lake, Lake) else find_lake(ctx, lake)
    frame = ctx.sql(query) if isinstance(query, str) else query
    reader = pa.RecordBatchReader.from_stream(frame)
    return write_into(where, name, reader, parsed, primary_key=primary_key, properties=properties)


def create_table(
    ctx: SessionContext,
    name: str,
    query: Query,
    *,
    lake: Lake | str = "lake",
    primary_key: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
) -> Table:
    """Create a table from what a query or frame yields: `write` with mode `"create"`."""
    return write(
        ctx, query, lake, name, mode=WriteMode.CREATE, primary_key=primary_key, properties=properties
    )
