"""A scan as a `pyarrow.dataset.Dataset`: the door through which DuckDB, DataFusion and polars push work into a table.

An accepted filter is not checked again by the engine, so the scanner applies it exactly. Extension types show as what
they are stored as, since engines differ in which of them they know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from vectorlake.errors import InvalidInputError, UnsupportedError
from vectorlake.expr import Expr, Semantics, bind
from vectorlake.expr.build import and_
from vectorlake.plan.scan import COMPUTED
from vectorlake.schema import storage_array
from vectorlake.table.scan import Scan


class ScanDataset(ds.Dataset):  # type: ignore[misc]
    """A pinned snapshot behind pyarrow's Dataset interface; every scanner reads the same version."""

    def __init__(self, scan: Scan, semantics: Semantics = Semantics.ARROW) -> None:
        # The base class wraps a C++ dataset and offers no constructor: all of its methods are overridden here.
        self._scan = scan
        self._semantics = semantics

    def __repr__(self) -> str:
        return f"ScanDataset({self.schema})"

    def __reduce__(self) -> NoReturn:
        raise UnsupportedError("a dataset of a table can't be pickled: open the table in the other process")

    @property
    def schema(self) -> pa.Schema:
        """The columns, extension types replaced by their storage."""
        return pa.schema([field.to_storage() for field in self._scan.fields])

    @property
    def partition_expression(self) -> pc.Expression:
        """Nothing is known of all rows."""
        return pc.scalar(True)

    def scanner(
        self,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> ScanScanner:
        """A scanner with a projection and a filter pushed into the table's own planner.

        Args:
            columns: names, in the order wanted; `_row_id` may be among them. All by default.
            filter: a pyarrow expression; it may name columns that are not asked for.
            batch_size: at most so many rows a batch.
            options: what else pyarrow's own scanners take (readahead, memory pool, …) does not apply.

        Raises:
            NotFoundError: an unknown column.
            UnsupportedError: columns computed by expressions.
        """
        if isinstance(columns, Mapping):
            raise UnsupportedError(
                "columns computed by expressions can't be pushed down: pass a list of names"
            )
        scan = self._scan
        fields = scan.fields if columns is None else tuple(scan.view.select(list(columns)))
        size = batch_size or scan.batch_size
        return ScanScanner(
            scan.replace(fields=fields, predicate=self._narrowed(filter), batch_size=size), self.schema
        )

    def _narrowed(self, filter: pc.Expression | None) -> Expr | None:
        view, known = self._scan.view, self._scan.predicate
        fields = (*view.snapshot.schema.fields, *COMPUTED.values())
        pushed = bind(filter, pa.schema([field.to_storage() for field in fields]), self._semantics)
        if known is None or pushed is None:
            return pushed if known is None else known
        return and_(known, pushed)

    def get_fragments(self, filter: pc.Expression | None = None) -> Iterator[ScanFragment]:
        """The dataset as one fragment: the scan parallelises over its own."""
        yield ScanFragment(self)

    def filter(self, expression: pc.Expression) -> ScanDataset:
        """The dataset narrowed to the rows for which an expression is true."""
        return ScanDataset(self._scan.replace(predicate=self._narrowed(expression)), self._semantics)

    def count_rows(self, filter: pc.Expression | None = None, **options: Any) -> int:
        """How many rows there are."""
        return self.scanner(columns=[], filter=filter).count_rows()

    def to_table(
        self,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
        **options: Any,
    ) -> pa.Table:
        """The rows as an Arrow table."""
        return self.scanner(columns=columns, filter=filter).to_table()

    def to_batches(
        self,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
        **options: Any,
    ) -> Iterator[pa.RecordBatch]:
        """The rows as record batches."""
        return self.scanner(columns=columns, filter=filter).to_batches()

    def head(
        self,
        num_rows: int,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
        **options: Any,
    ) -> pa.Table:
        """The first rows; no more of the table is read than they need."""
        return self.scanner(columns=columns, filter=filter).head(num_rows)

    def take(
        self,
        indices: object,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
        **options: Any,
    ) -> pa.Table:
        """The rows at some positions of the scan, which is read for it; `Table.take` finds rows by id quickly."""
        return self.to_table(columns, filter).take(pa.array(np.asarray(indices, dtype=np.int64)))

    def sort_by(self, sorting: str | list[tuple[str, str]], **options: Any) -> ds.InMemoryDataset:
        """The rows sorted, in memory."""
        return ds.InMemoryDataset(self.to_table().sort_by(sorting))

    def join(self, *args: Any, **options: Any) -> NoReturn:
        """Not offered: the base class would join a C++ dataset that is not there."""
        raise UnsupportedError(
            "a dataset of a table offers no joins: read it with to_table(), or join in an engine"
        )

    join_asof = join

    def replace_schema(self, schema: pa.Schema) -> NoReturn:
        """Not offered: `Table.alter_column` changes types."""
        raise UnsupportedError("a dataset of a table can't replace its schema: cast the result instead")


class ScanFragment:
    """What DataFusion asks a dataset's fragment for."""

    def __init__(self, dataset: ScanDataset) -> None:
        self._dataset = dataset

    @property
    def physical_schema(self) -> pa.Schema:
        return self._dataset.schema

    @property
    def partition_expression(self) -> pc.Expression:
        return pc.scalar(True)

    def scanner(self, schema: pa.Schema | None = None, **options: Any) -> ScanScanner:
        return self._dataset.scanner(**options)


class ScanScanner:
    """What engines ask a scanner for: `to_reader` (DuckDB), `to_batches` (DataFusion)."""

    def __init__(self, scan: Scan, dataset_schema: pa.Schema) -> None:
        self.scan = scan
        self.dataset_schema = dataset_schema

    @property
    def projected_schema(self) -> pa.Schema:
        """The columns asked for, in storage types."""
        return pa.schema([field.to_storage() for field in self.scan.fields])

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """The rows; closing the iterator stops the reading."""
        schema = self.projected_schema
        for batch in self.scan.to_batches():
            if batch.schema.equals(schema, check_metadata=True) or not self.scan.fields:
                yield batch
            else:
                arrays = [
                    _plain(column, field.type) for column, field in zip(batch.columns, schema, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def to_reader(self) -> pa.RecordBatchReader:
        """The rows as an Arrow reader."""
        return pa.RecordBatchReader.from_batches(self.projected_schema, self.to_batches())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.to_reader().__arrow_c_stream__(requested_schema)

    def to_table(self) -> pa.Table:
        """The rows as an Arrow table."""
        if not self.scan.fields:
            return self.scan.to_arrow()
        return pa.Table.from_batches(self.to_batches(), schema=self.projected_schema)

    def head(self, num_rows: int) -> pa.Table:
        """The first rows."""
        if num_rows < 0:
            raise InvalidInputError(f"num_rows must not be negative, but is {num_rows}")
        limit = num_rows if self.scan.limit is None else min(num_rows, self.scan.limit)
        return ScanScanner(self.scan.replace(limit=limit), self.dataset_schema).to_table()

    def count_rows(self) -> int:
        """How many rows there are."""
        return self.scan.count()


def _plain(array: pa.Array, kind: pa.DataType) -> pa.Array:
    plain = storage_array(array)
    return plain if plain.type == kind else plain.cast(kind)
