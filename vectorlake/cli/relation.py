"""The result of a DuckDB statement as record batches, read as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from vectorlake.errors import InvalidInputError


def batches(con: Any, sql: str, limit: int | None) -> Iterator[pa.RecordBatch] | None:
    """The rows of the last statement in `sql`, at most `limit`; None for a statement that has no rows.

    Raises:
        InvalidInputError: DuckDB refuses the statement.
    """
    import duckdb

    try:
        relation = con.sql(sql)
        if relation is None:
            return None
        if limit is not None:
            relation = relation.limit(limit)
        reader = relation.to_arrow_reader(2048)
    except duckdb.Error as e:
        raise InvalidInputError(str(e)) from e
    return _translated(reader)


def _translated(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except (OSError, pa.ArrowException) as e:
        raise InvalidInputError(f"DuckDB could not run the query: {e}") from e
