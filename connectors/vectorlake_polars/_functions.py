"""Nearest neighbours of vectors and of frames, as frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import polars as pl
import pyarrow as pa

from vectorlake import NotFoundError, Table
from vectorlake.extend import did_you_mean, found_columns, free_names
from vectorlake_polars._types import schema_of

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)

_MATCH = ("rank", "row_id", "distance")


def knn(
    table: Table, queries: object, k: int | None = 10, *, columns: Sequence[str] = (), **options: Any
) -> pl.DataFrame:
    """The nearest rows of one vector or of several: what `Table.knn` returns, as a frame.

    Args:
        table: a table, or a version of it.
        queries: as `Table.knn` takes them; a polars series too.
        k: neighbours a query; None for all within `max_distance`.
        columns: further columns of the rows found.
        options: as `Table.knn` takes them: `column`, `metric`, `filter`, `mode`, `target_recall`, ….

    Returns:
        `query`, `rank`, `row_id`, `distance` and `columns`.

    Raises:
        InvalidInputError, NotFoundError: what `Table.knn` refuses.
    """
    found = pl.from_arrow(_storage(_knn(table, queries, k, columns, options)))
    assert isinstance(found, pl.DataFrame)
    return found


def knn_join(
    frame: Frame,
    table: Table,
    k: int | None = 10,
    *,
    vec: str = "vec",
    columns: Sequence[str] | None = None,
    **options: Any,
) -> Frame:
    """The nearest rows of a table for every row of a frame; a lazy frame searches when it is collected.

    Args:
        frame: queries, with a column of vectors (`pl.Array`, or lists of one length); a null vector has no matches. All
            of them are one search.
        table: a table, or a version of it, which later commits don't change.
        k: neighbours a query; None for all within `max_distance`.
        vec: the column of vectors.
        columns: columns of the rows found; all but vectors by default.
        options: as `Table.knn` takes them.

    Returns:
        The frame's columns, `rank`, `row_id`, `distance`, and `columns`, in the order of queries and ranks. A column whose
        name is taken gets `_1`.

    Raises:
        NotFoundError: the frame has no column `vec`, or the table none of `columns`.
        InvalidInputError: what `Table.knn` refuses, another dimension among it.
    """
    pinned = table.at(table.version)
    wanted: list[str] = found_columns(pinned, columns)
    schema = frame.collect_schema()
    if vec not in schema:
        raise NotFoundError(
            f"the frame has no column {vec!r}{did_you_mean(vec, schema.names())}: name the one that holds vectors with vec"
        )
    # Before a lazy frame is computed.
    shown = schema_of(_storage(_knn(pinned, pa.array([], pa.list_(pa.float32())), k, wanted, options)).schema)
    names = free_names(schema.names(), [*_MATCH, *wanted])
    found_schema = {name: shown[column] for name, column in zip(names, (*_MATCH, *wanted), strict=True)}

    def search(queries: pl.DataFrame) -> pl.DataFrame:
        found = _storage(_knn(pinned, queries[vec].to_arrow(), k, wanted, options))
        matches = pl.from_arrow(found)
        assert isinstance(matches, pl.DataFrame)
        beside = matches.drop("query").rename(dict(zip((*_MATCH, *wanted), names, strict=True)))
        return pl.concat([queries[matches["query"]], beside], how="horizontal")

    if isinstance(frame, pl.DataFrame):
        return search(frame)
    return frame.map_batches(
        search,
        # Rows multiply, so nothing moves across but what the frame itself computes.
        predicate_pushdown=False,
        projection_pushdown=False,
        slice_pushdown=False,
        schema={**schema, **found_schema},
    )


def _knn(
    table: Table, queries: object, k: int | None, columns: Sequence[str], options: dict[str, Any]
) -> pa.Table:
    if isinstance(queries, pl.Series):
        queries = queries.to_arrow()
    return table.knn(queries, k=k, columns=columns, **options)


def _storage(found: pa.Table) -> pa.Table:
    """Matches with columns as what they are stored as: polars knows few extension types."""
    for index, field in enumerate(found.schema):
        if isinstance(field.type, pa.BaseExtensionType):
            chunks = [chunk.storage for chunk in found.column(index).chunks]
            found = found.set_column(index, field.name, pa.chunked_array(chunks, field.type.storage_type))
    return found
