"""Write the corpus into a real Iceberg table, as a user's jobs would: some appends, then more and deletes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from vectorlake.errors import AlreadyExistsError, InvalidInputError, UnsupportedError

CATALOG = "demo"
NAMESPACE = "docs"
TABLE = f"{NAMESPACE}.docstrings"


@dataclass(frozen=True)
class Source:
    """A SQLite catalog (pyiceberg's `SqlCatalog`) and the Iceberg table (pyiceberg's `Table`) in it."""

    catalog: Any
    table: Any
    rows: int
    data_files: int


@dataclass(frozen=True)
class Growth:
    """What `grow_source` changed: rows appended, rows deleted, and data files then in the table."""

    appended: int
    deleted: int
    data_files: int


def build_source(folder: Path, batches: Iterable[pa.RecordBatch], *, appends: int = 4) -> Source:
    """Make an Iceberg table `docs.docstrings`, partitioned by `kind`, with a SQLite catalog in `folder`.

    Each append is one snapshot, with a data file for each kind of definition in it.

    Args:
        folder: where the catalog and the warehouse go; made if it is not there.
        batches: record batches of one schema, with a string column `kind`.
        appends: how many appends to spread the rows over.

    Raises:
        AlreadyExistsError: the folder holds such a table already.
        InvalidInputError: there are no rows.
        UnsupportedError: pyiceberg is not installed.
    """
    rows = [batch for batch in batches if batch.num_rows]
    if not rows:
        raise InvalidInputError("No rows to build the Iceberg table from")
    catalog = open_catalog(folder)
    catalog.create_namespace_if_not_exists(NAMESPACE)
    if catalog.table_exists(TABLE):
        raise AlreadyExistsError(
            f"{folder} holds the Iceberg table {TABLE} already: remove it or name another folder"
        )
    table = catalog.create_table(TABLE, schema=rows[0].schema)
    with table.update_spec() as spec:
        spec.add_identity("kind")
    data = pa.Table.from_batches(rows)
    step = -(-data.num_rows // appends)
    for start in range(0, data.num_rows, step):
        table.append(data.slice(start, step))
    return Source(catalog, table, data.num_rows, count_data_files(table))


def grow_source(
    table: Any, batches: Iterable[pa.RecordBatch], *, delete: str = "deprecated = true"
) -> Growth:
    """Append rows to an Iceberg table and delete those that match a filter, each as a snapshot of its own.

    pyiceberg deletes by writing anew the files that held the deleted rows.

    Args:
        table: the table of `build_source`.
        batches: record batches of the table's schema; none appends nothing.
        delete: an Iceberg row filter; the rows just appended count too.
    """
    before = _count_rows(table)
    rows = [batch for batch in batches if batch.num_rows]
    appended = sum(batch.num_rows for batch in rows)
    if rows:
        table.append(pa.Table.from_batches(rows))
    table.delete(delete_filter=delete)
    return Growth(appended, before + appended - _count_rows(table), count_data_files(table))


def open_catalog(folder: Path) -> Any:
    """The SQLite catalog in `folder` (pyiceberg's `SqlCatalog`), made with its warehouse if not there.

    Raises:
        UnsupportedError: pyiceberg is not installed.
    """
    try:
        from pyiceberg.catalog.sql import SqlCatalog
    except ImportError as error:
        message = "The demo's source table needs pyiceberg: pip install 'vectorlake[demo]'"
        raise UnsupportedError(message) from error
    folder = folder.resolve()
    warehouse = folder / "warehouse"
    warehouse.mkdir(parents=True, exist_ok=True)
    return SqlCatalog(CATALOG, uri=f"sqlite:///{folder / 'catalog.db'}", warehouse=f"file://{warehouse}")


def count_data_files(table: Any) -> int:
    """How many data files the current snapshot of an Iceberg table (pyiceberg's `Table`) has."""
    return len(list(table.scan().plan_files()))


def split(batches: Iterable[pa.RecordBatch], rows: int) -> tuple[list[pa.RecordBatch], list[pa.RecordBatch]]:
    """Divide batches after that many rows: the first for `build_source`, the rest for `grow_source`."""
    first: list[pa.RecordBatch] = []
    remaining = iter(batches)
    missing = rows
    for batch in remaining:
        first.append(batch.slice(0, missing))
        if batch.num_rows >= missing:
            return first, list(itertools.chain([batch.slice(missing)], remaining))
        missing -= batch.num_rows
    return first, []


def _count_rows(table: Any) -> int:
    return int(table.scan().count())
