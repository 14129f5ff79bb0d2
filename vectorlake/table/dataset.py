"""A scan as a `pyarrow.dataset.Dataset`: the door through which DuckDB, DataFusion and polars push work into a table.

An accepted filter is not checked again by the engine, so the scanner applies it exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from vectorlake.expr import from_pyarrow
from vectorlake.expr.build import and_
from vectorlake.plan.scan import COMPUTED
from vectorlake.table.scan import Scan


class ScanDataset(ds.Dataset):  # type: ignore[misc]
    """A pinned snapshot behind pyarrow's Dataset interface; every scanner reads the same version."""

    def __init__(self, scan: Scan) -> None:
        # The base class wraps a C++ dataset and offers no constructor: all that engines call is overridden here.
        self._scan = scan

    @property
    def schema(self) -> pa.Schema:
        return self._scan.schema

    @property
    def partition_expression(self) -> pc.Expression:
        return pc.scalar(True)

    def scanner(
        self,
        columns: list[str] | None = None,
        filter: pc.Expression | None = None,  # noqa: A002
        batch_size: int | None = None,
        **options: Any,
    ) -> ScanScanner:
        """A scanner with a projection and a filter pushed into the table's own planner."""
        scan = self._scan
        names = list(scan.schema.names) if columns is None else list(columns)
        fields = tuple(scan.view.select(names))
        predicate = scan.predicate
        if filter is not None:
            bindable = pa.schema([f.to_storage() for f in (*scan.view.snapshot.schema.fields, *COMPUTED.values())])
            pushed = from_pyarrow(filter, bindable)
            predicate = pushed if predicate is None else and_(predicate, pushed)
        return ScanScanner(scan.replace(fields=fields, predicate=predicate, batch_size=batch_size or scan.batch_size), self.schema)

    def get_fragments(self, filter: pc.Expression | None = None) -> Iterator[ScanFragment]:  # noqa: A002
        """The dataset as one fragment: the scan parallelises over its own."""
        yield ScanFragment(self)

    def count_rows(self, filter: pc.Expression | None = None, **options: Any) -> int:  # noqa: A002
        return self.scanner(columns=[], filter=filter).count_rows()

    def to_table(self, columns: list[str] | None = None, filter: pc.Expression | None = None, **options: Any) -> pa.Table:  # noqa: A002
        return self.scanner(columns=columns, filter=filter).to_table()

    def to_batches(self, columns: list[str] | None = None, filter: pc.Expression | None = None, **options: Any) -> Iterator[pa.RecordBatch]:  # noqa: A002
        return self.scanner(columns=columns, filter=filter).to_batches()

    def head(self, num_rows: int, columns: list[str] | None = None, filter: pc.Expression | None = None, **options: Any) -> pa.Table:  # noqa: A002
        scanner = self.scanner(columns=columns, filter=filter)
        return scanner.scan.replace(limit=num_rows).to_arrow()


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
        return self.scan.schema

    def to_reader(self) -> pa.RecordBatchReader:
        return self.scan.to_reader()

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        return self.scan.to_batches()

    def to_table(self) -> pa.Table:
        return self.scan.to_arrow()

    def count_rows(self) -> int:
        return self.scan.count()
