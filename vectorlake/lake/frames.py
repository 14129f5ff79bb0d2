"""Frames of engines beside tables: which column holds the query vectors, and which columns a join has, by what names."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from vectorlake.errors import InvalidInputError, NotFoundError
from vectorlake.schema import did_you_mean, lists_of_numbers, plain_columns
from vectorlake.table.table import Table


def free_names(taken: Sequence[str], names: Sequence[str]) -> list[str]:
    """Names for columns beside others: each as it is, or with the lowest number that tells it apart, `id_1`."""
    used, free = set(taken), []
    for name in names:
        number = 0
        while (candidate := f"{name}_{number}" if number else name) in used:
            number += 1
        used.add(candidate)
        free.append(candidate)
    return free


def found_columns(table: Table, columns: Sequence[str] | None) -> list[str]:
    """The columns of the rows that a search finds: those named, by default all that hold no vectors."""
    return plain_columns(table.snapshot.schema) if columns is None else list(columns)


def query_column(schema: pa.Schema, vec: str | None) -> str:
    """The column of query vectors of a frame: the one that is named, or the only list of numbers.

    Args:
        schema: the frame's columns.
        vec: the name, if one was given.

    Raises:
        NotFoundError: no column of that name.
        InvalidInputError: none is named, and there is not exactly one.
    """
    if vec is not None:
        if vec not in schema.names:
            raise NotFoundError(f"the queries have no column {vec!r}{did_you_mean(vec, schema.names)}")
        return vec
    vectors = lists_of_numbers(schema)
    if len(vectors) != 1:
        found = f"{len(vectors)} ({', '.join(vectors)})" if vectors else "none"
        raise InvalidInputError(
            f"the queries must have one column of vectors, but have {found}: name it, vec=…"
        )
    return vectors[0]
