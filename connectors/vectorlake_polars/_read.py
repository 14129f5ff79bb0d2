"""Tables as lazy frames: projections, conditions and limits are pushed into the table's own planner."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

import polars as pl
from polars.io.plugins import register_io_source

from vectorlake import Table, open_table
from vectorlake.extend import Semantics, table_at
from vectorlake_polars._predicate import pushed
from vectorlake_polars._types import schema_of, to_frame


def scan_vectorlake(
    source: Table | str | os.PathLike[str],
    *,
    version: int | str | None = None,
    columns: Sequence[str] | None = None,
    filter: str | None = None,
    with_row_id: bool = False,
    storage_options: Mapping[str, str] | None = None,
) -> pl.LazyFrame:
    """A table as a lazy frame, at the version that it has now, which later commits don't change.

    Args:
        source: a table, or where one lies (a folder or URI).
        version: another version: a number, a tag, a branch, or a time as text.
        columns: only these, in this order. What a query selects is pushed down without it.
        filter: an SQL condition as `Table.scan` takes it, in which NaN is unordered.
        with_row_id: add the column `_row_id`.
        storage_options: for a source that is opened here.

    Raises:
        NotFoundError: no table there, no such version, an unknown column.
        InvalidInputError: a filter that does not fit.
        UnsupportedError: a column of a type that polars does not have; leave it out with `columns`.
    """
    table = source if isinstance(source, Table) else open_table(source, storage_options=storage_options)
    if version is not None:
        table = table_at(table, str(version))
    scan = table.scan(columns, filter, with_row_id=with_row_id)
    schema = schema_of(scan.to_dataset().schema)

    def rows(
        names: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        limited = scan if n_rows is None else scan.replace(limit=n_rows)
        # polars means the condition to be applied to the first rows, not to find so many that match.
        condition = None if predicate is None or n_rows is not None else pushed(predicate, schema)
        wanted = list(schema) if names is None else names
        needed = wanted
        if predicate is not None:
            needed = [*wanted, *(name for name in predicate.meta.root_names() if name not in wanted)]
        dataset = limited.to_dataset(semantics=Semantics.SQL)
        for batch in dataset.scanner(needed, condition, batch_size).to_batches():
            frame = to_frame(batch)
            if predicate is not None:
                frame = frame.filter(predicate).select(wanted)
            yield frame

    return register_io_source(
        rows,
        schema=schema,
        is_pure=True,  # a version never changes
        explain_name="vectorlake",
        explain_detail=f"{table.name}, version {table.version}",
    )
