"""Tables and metadata tables as what DataFusion scans, with projections and filters pushed down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from datafusion import DataFrame, SessionContext

from vectorlake import Table
from vectorlake.extend import MetadataTable, Semantics, inspect

TableDataset: TypeAlias = ds.Dataset

T = TypeVar("T")


def read(
    ctx: SessionContext,
    table: Table,
    *,
    columns: Sequence[str] | None = None,
    filter: str | None = None,
    with_row_id: bool = False,
) -> DataFrame:
    """A table, at the version that its handle shows, as a frame; nothing is read before the frame is.

    What DataFusion then selects and filters is pushed into the table's own planner as well.

    Args:
        ctx: the context that the frame belongs to.
        table: a table, or a version of it: `table.at("v1")`.
        columns: names, in the order wanted; all by default.
        filter: an SQL condition as `Table.scan` takes it, in which NaN is unordered.
        with_row_id: add the column `_row_id`.

    Raises:
        NotFoundError: an unknown column.
        InvalidInputError: a filter that does not fit.
    """
    return ctx.read_table(table_dataset(table, columns=columns, filter=filter, with_row_id=with_row_id))


def table_dataset(
    table: Table,
    *,
    columns: Sequence[str] | None = None,
    filter: str | None = None,
    with_row_id: bool = False,
) -> TableDataset:
    """A version of a table, in which pushed comparisons treat NaN and null as DataFusion does."""
    scan = table.scan(columns, filter, with_row_id=with_row_id)
    return scan.to_dataset(semantics=Semantics.SQL)


class MetadataDataset(ds.Dataset):  # type: ignore[misc]
    """A metadata table of one version, read when it is scanned."""

    def __init__(self, table: Table, kind: MetadataTable) -> None:
        # The base class wraps a C++ dataset and offers no constructor; DataFusion calls nothing but what is here.
        self._table = table
        self._kind = kind

    @property
    def schema(self) -> pa.Schema:
        """The columns, the same for every table."""
        return self._kind.schema

    def scanner(
        self, columns: list[str] | None = None, filter: pc.Expression | None = None, **options: Any
    ) -> ds.Scanner:
        """A scanner of pyarrow's over the rows, which are asked for when it runs."""
        return ds.Scanner.from_batches(self._batches(), schema=self.schema, columns=columns, filter=filter)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        yield from inspect(self._table.view, self._kind)

    def get_fragments(self, filter: pc.Expression | None = None) -> Iterator[_Whole]:
        """The dataset as one fragment."""
        yield _Whole(self)


class _Whole:
    """A dataset as its own only fragment."""

    def __init__(self, dataset: MetadataDataset) -> None:
        self._dataset = dataset

    def scanner(self, schema: pa.Schema, **options: Any) -> ds.Scanner:
        return self._dataset.scanner(**options)


def apart(call: Callable[[], T]) -> T:
    """What a call returns, made on a thread of its own: where DataFusion asks Python, its own calls panic."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()
