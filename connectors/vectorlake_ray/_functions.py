"""Search in Ray: the nearest rows of a table for each row of a dataset, a batch of queries at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import Dataset

from vectorlake.extend import TableLike, TableRef, Version, found_columns, free_names, query_column
from vectorlake_ray._read import pinned
from vectorlake_ray._types import stored_table

BATCH_ROWS: Final = 65_536


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
) -> Dataset:
    """The `k` nearest rows of query vectors that are at hand, as a dataset; searched at once, in this process.

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
    at = pinned(table, version, storage_options=storage_options)
    found = at.knn(queries, column, k, columns=found_columns(at, columns), **options)
    return ray.data.from_arrow(stored_table([found]))


def knn_join(
    queries: Dataset,
    table: TableLike,
    k: int | None = 10,
    *,
    vec: str | None = None,
    column: str | None = None,
    columns: Sequence[str] | None = None,
    version: Version | None = None,
    storage_options: Mapping[str, str] | None = None,
    batch_size: int | None = BATCH_ROWS,
    num_cpus: int = 1,
    concurrency: int | None = None,
    **options: Any,
) -> Dataset:
    """The `k` nearest rows of a table for each row of a dataset: a lazy join, a step of the dataset's own pipeline.

    Each batch of rows is one search, on the worker that has them; a worker opens the table and its indexes once. The
    table is pinned, so all batches ask the same version.

    Args:
        queries: the dataset.
        table: a table, or the URI of its folder.
        k: neighbours a row; None for all within `max_distance`.
        vec: the dataset's column of query vectors (tensors, fixed-size lists or lists of numbers); may be left out if it
            has one such column only.
        column: the table's vector column; likewise.
        columns: columns of the table for the rows found; by default all that hold no vectors. Where the dataset has one
            of the same name, the table's is called `name_1`.
        version: a version number, tag, branch or time.
        storage_options: of a URI.
        batch_size: rows a search, at most. An exact search reads the vectors once for each.
        num_cpus: cores of a search; it uses as many threads.
        concurrency: searches at the same time, at most.
        options: as for `knn`.

    Returns:
        The dataset's columns, `rank`, `row_id`, `distance` and `columns`: a row for each match. Rows with a null vector,
        or without a match, are left out.

    Raises:
        InvalidInputError: unknown options; when it runs, queries of another dimension.
        NotFoundError: an unknown column.
        UnsupportedError: a table in memory.
    """
    at = pinned(table, version, storage_options=storage_options)
    asked = {"column": column, "k": k, "columns": tuple(found_columns(at, columns)), **options}
    at.knn(np.empty((0, 0), np.float32), **asked)  # says at once what is wrong with the options
    asked.setdefault("threads", max(1, int(num_cpus)))
    joined = queries.map_batches(
        _Join(at.ref, vec, asked),
        batch_format="pyarrow",
        batch_size=batch_size,
        num_cpus=num_cpus,
        concurrency=concurrency,
    )
    joined.context.raise_original_map_exception = True  # else Ray hides what was wrong behind "UDF failed"
    return joined


@dataclass(frozen=True)
class _Join:
    """The search for one batch of queries; on a worker."""

    table: TableRef
    vec: str | None
    options: Mapping[str, Any]

    def __call__(self, batch: pa.Table) -> pa.Table:
        queries = stored_table([batch])
        vectors = queries[query_column(queries.schema, self.vec)].combine_chunks()
        found = self.table.open().knn(vectors, **self.options)
        matches = stored_table([found.drop_columns("query")])
        names = free_names(queries.column_names, matches.column_names)
        asked = queries.take(found["query"])
        return pa.table([*asked.columns, *matches.columns], names=[*queries.column_names, *names])
