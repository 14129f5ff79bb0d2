"""The result of a DuckDB statement as record batches, read as they are asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa

from vectorlake import errors
from vectorlake.errors import InvalidInputError, VectorlakeError

_PASSED_ON: Final = re.compile(r"Python exception occurred[^:]*: (\w+): (.*)", re.DOTALL)


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
        raise as_ours(str(e)) from e
    return _translated(reader)


def _translated(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except (OSError, pa.ArrowException) as e:
        raise as_ours(str(e)) from e


def as_ours(message: str) -> VectorlakeError:
    """An error of DuckDB's as one of ours: the one that it passes on from our functions, else wrong input."""
    if (found := _PASSED_ON.search(message)) and isinstance(kind := getattr(errors, found[1], None), type):
        # An outcome that is not known wants a commit id, which the text does not tell.
        kind = errors.StorageError if kind is errors.OutcomeUnknownError else kind
        if issubclass(kind, VectorlakeError):
            return kind(found[2])
    return InvalidInputError(f"DuckDB: {message}")
