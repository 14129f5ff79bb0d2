"""Search in Ray: the nearest rows of a table for each row of a dataset, a batch of queries at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import Dataset

from vectorlake import InvalidInputError, NotFoundError, Table
from vectorlake.extend import ListType, TableRef, Type, did_you_mean, is_vector
from vectorlake_ray._read import TableLike, Version, pinned
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
    found = at.knn(queries, column, k, columns=_found_columns(at, columns), **options)
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
    asked = {"column": column, "k": k, "columns": tuple(_found_columns(at, columns)), **options}
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
        vectors = queries[_vector_column(queries.schema, self.vec)].combine_chunks()
        found = self.table.open().knn(vectors, **self.options)
        matches = stored_table([found.drop_columns("query")])
        names = _renamed(matches.column_names, queries.column_names)
        asked = queries.take(found["query"])
        return pa.table([*asked.columns, *matches.columns], names=[*queries.column_names, *names])


def _found_columns(table: Table, columns: Sequence[str] | None) -> list[str]:
    """The columns of the rows found: by default those that hold no vectors."""
    if columns is not None:
        return list(columns)
    return [field.name for field in table.snapshot.schema.fields if not _holds_vectors(field.type)]


def _holds_vectors(kind: Type) -> bool:
    return is_vector(kind) or (isinstance(kind, ListType) and is_vector(kind.element.type))


def _vector_column(schema: pa.Schema, vec: str | None) -> str:
    """The column of query vectors."""
    if vec is not None:
        if vec not in schema.names:
            known = list(schema.names)
            raise NotFoundError(f"the queries have no column {vec!r}{did_you_mean(vec, known)}")
        return vec
    vectors: list[str] = [field.name for field in schema if _holds_numbers(field.type)]
    if len(vectors) != 1:
        found = f"{len(vectors)} ({', '.join(vectors)})" if vectors else "none"
        raise InvalidInputError(
            f"the queries must have one column of vectors, but have {found}: name it, vec=…"
        )
    return vectors[0]


def _holds_numbers(kind: pa.DataType) -> bool:
    t = pa.types
    if not (t.is_fixed_size_list(kind) or t.is_list(kind) or t.is_large_list(kind)):
        return False
    return bool(t.is_floating(kind.value_type) or t.is_integer(kind.value_type))


def _renamed(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """The names of the matches' columns beside those of the queries."""
    renamed = [f"{name}_1" if name in taken else name for name in names]
    for name in renamed:
        if name in taken or renamed.count(name) > 1:
            raise InvalidInputError(f"the join would have column {name!r} twice: rename it in the queries")
    return renamed
