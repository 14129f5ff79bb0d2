"""Search in Daft: the nearest rows of a table for each row of a frame, a batch of queries at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import daft
import numpy as np
import pyarrow as pa
from daft import DataFrame, DataType, Series, col, from_arrow

from vectorlake.extend import (
    TableLike,
    TableRef,
    Version,
    found_columns,
    free_names,
    pinned_table,
    query_column,
)
from vectorlake_daft._types import shown_batches, shown_schema, stored_array, stored_table, stored_type

_MATCHES: Final = "__vl_matches"


def knn(
    table: TableLike,
    queries: object,
    k: int | None = 10,
    *,
    column: str | None = None,
    columns: Sequence[str] | None = None,
    version: Version | None = None,
    storage_options: Mapping[str, str] | None = None,
    **options: Any,
) -> DataFrame:
    """The `k` nearest rows of query vectors that are at hand, as a frame; searched at once, in this process.

    Args:
        table: a table, or the URI of its folder.
        queries: one vector or many, as for `Table.knn`.
        k: neighbours a query; None for all within `max_distance`.
        column: the vector column; may be left out if there is one only.
        columns: columns of the rows found; by default all that hold no vectors.
        version: a version number, tag, branch or time.
        storage_options: of a URI.
        options: what else `Table.knn` takes: `metric`, `filter`, `mode`, `index`, `nprobe`, `target_recall`, ….

    Returns:
        `query` (index), `rank`, `row_id`, `distance` and `columns`, in the order of queries and ranks.

    Raises:
        InvalidInputError: as for `Table.knn`.
        NotFoundError: as for `Table.knn`.
    """
    at = pinned_table(table, version, storage_options=storage_options)
    found = at.knn(queries, column, k, columns=found_columns(at, columns), **options)
    return from_arrow(_shown_table(found, _shown(found.schema)))


def knn_join(
    queries: DataFrame,
    table: TableLike,
    k: int | None = 10,
    *,
    vec: str | None = None,
    column: str | None = None,
    columns: Sequence[str] | None = None,
    version: Version | None = None,
    storage_options: Mapping[str, str] | None = None,
    **options: Any,
) -> DataFrame:
    """The `k` nearest rows of a table for each row of a frame: a lazy join, which Daft runs where it runs the frame.

    Each batch of rows is one search. The table is pinned, so all batches ask the same version.

    Args:
        queries: the frame.
        table: a table, or the URI of its folder.
        k: neighbours a row; None for all within `max_distance`.
        vec: the frame's column of query vectors (embeddings, fixed-size lists, lists or tensors of numbers); may be left
            out if it has one such column only.
        column: the table's vector column; likewise.
        columns: columns of the table for the rows found; by default all that hold no vectors. Where the frame has one of
            the same name, the table's is called `name_1`.
        version: a version number, tag, branch or time.
        storage_options: of a URI.
        options: as for `knn`.

    Returns:
        The frame's columns, `rank`, `row_id`, `distance` and `columns`: a row for each match. Rows with a null vector, or
        without a match, are left out.

    Raises:
        InvalidInputError: unknown options; when it runs, queries of another dimension.
        NotFoundError: an unknown column.
    """
    shown = queries.schema().to_pyarrow_schema()
    vec = query_column(pa.schema([field.with_type(stored_type(field.type)) for field in shown]), vec)
    at = pinned_table(table, version, storage_options=storage_options)
    asked = {"column": column, "k": k, "columns": found_columns(at, columns), **options}
    # Says at once what is wrong with the options, and which columns the matches have.
    found = at.knn(np.empty((0, 0), np.float32), **asked)
    match = _shown(found.drop_columns("query").schema)
    names = free_names(queries.column_names, match.names)
    searched = _searcher(match)(at.ref, asked).matches(col(vec)).alias(_MATCHES)
    fields = [col(_MATCHES).get(name).alias(shown) for name, shown in zip(match.names, names, strict=True)]
    exploded = queries.with_column(_MATCHES, searched).explode(_MATCHES)
    # A row without matches is exploded to a null.
    return exploded.where(col(_MATCHES).not_null()).select(*queries.column_names, *fields)


def _searcher(match: pa.Schema) -> Any:
    """The class that Daft makes an instance of wherever it searches."""
    kind = pa.list_(pa.struct(list(match)))

    # A search uses all cores and holds no lock: another process would only have to load the table again.
    @daft.cls(use_process=False)
    class Search:
        def __init__(self, ref: TableRef, options: Mapping[str, Any]) -> None:
            self.table = ref.open()
            self.options = options

        @daft.method.batch(return_dtype=DataType.from_arrow_type(kind))
        def matches(self, vectors: Series) -> pa.Array:
            queries = stored_array(vectors.to_arrow())
            found = self.table.knn(queries, **self.options)
            counts = np.bincount(found["query"].to_numpy(), minlength=len(queries))
            offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
            rows = _shown_table(found.drop_columns("query"), match).to_struct_array().combine_chunks()
            return pa.ListArray.from_arrays(offsets, rows)

    return Search


def _shown(schema: pa.Schema) -> pa.Schema:
    return shown_schema(
        pa.schema(
            [
                field.with_type(field.type.storage_type)
                if isinstance(field.type, pa.BaseExtensionType)
                else field
                for field in schema
            ]
        )
    )


def _shown_table(found: pa.Table, schema: pa.Schema) -> pa.Table:
    """Matches as Daft is given them."""
    return pa.Table.from_batches(shown_batches(iter(stored_table(found).to_batches()), schema), schema=schema)
