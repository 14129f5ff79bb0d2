"""A scan: columns, filter and limit over a pinned snapshot, read in parallel, yielded in order, in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import pyarrow as pa

from vectorlake.errors import InvalidInputError
from vectorlake.expr import Expr, Semantics
from vectorlake.plan.scan import ROW_ID_COLUMN, fields_by_name
from vectorlake.schema import Field
from vectorlake.store.protocol import Store
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.frames import as_pandas, as_polars
from vectorlake.table.view import View, find_fragments, to_output
from vectorlake.tracing import Span, carried, span

if TYPE_CHECKING:
    import pandas
    import polars

    from vectorlake.table.dataset import ScanDataset
    from vectorlake.table.split import Split

MORSEL_BYTES: Final = 8 * 1024 * 1024
MORSEL_ROWS: Final = 131_072
_ALONE: Final = 3 * 1024 * 1024
"""Bytes that are read sooner than threads have started."""
_OPENING: Final = 512 * 1024
"""To open a file takes as long as to read so many bytes."""
_LATE: Final = 4
"""Columns that the filter does not need are read by position when fewer than one row in this many survives."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Morsel:
    """A range of rows of one fragment: what one thread reads at a time."""

    reader: FragmentReader
    start: int
    stop: int


@dataclass(frozen=True)
class RowRange:
    """Physical rows `[start, stop)` of a fragment."""

    fragment_id: int
    start: int
    stop: int


@dataclass(frozen=True)
class Scan:
    """A query over one snapshot, run each time it is asked for: `to_arrow()`, `to_batches()`, `to_pandas()`, ….

    Speaks the Arrow C stream protocol, so pyarrow, polars, DuckDB and others take it as it is. Rows come in the order
    of fragments and positions. Reads pinned data only: commits by others do not show.
    """

    view: View
    fields: tuple[Field, ...]
    predicate: Expr | None = None
    limit: int | None = None
    batch_size: int | None = None
    threads: int | None = None
    ranges: tuple[RowRange, ...] | None = None
    """Only these rows, in this order (a split); None for the whole table."""

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the batches."""
        return pa.schema([field.to_arrow() for field in self.fields])

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """The rows as record batches of at most `batch_size` rows, read ahead by a few batches only."""
        told = span("scan", table=self.view.store.uri, version=self.view.snapshot.version)
        if not told.recording:
            yield from self._batches(told)
            return
        told.set(columns=[field.name for field in self.fields], filtered=self.predicate is not None)
        rows = nbytes = 0
        error: BaseException | None = None
        try:
            for batch in self._batches(told):
                rows += batch.num_rows
                nbytes += batch.nbytes
                yield batch
        except BaseException as e:
            error = e
            raise
        finally:
            told.set(rows=rows, bytes=nbytes)
            told.end(error)

    def _batches(self, told: Span) -> Iterator[pa.RecordBatch]:
        left = self.limit
        if left == 0:
            return
        morsels = told.over(self._morsels(told))
        for batch in ordered_map(
            told.carried(self._read), morsels, threads=self._threads(), first_alone=left is not None
        ):
            if batch is None or not batch.num_rows:
                continue
            if left is not None:
                batch = batch.slice(0, left)
                left -= batch.num_rows
            step = self.batch_size or max(batch.num_rows, 1)
            for start in range(0, batch.num_rows, step):
                yield batch.slice(start, step)
            if left == 0:
                return

    def to_reader(self) -> pa.RecordBatchReader:
        """The rows as an Arrow reader."""
        return pa.RecordBatchReader.from_batches(self.schema, self.to_batches())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.to_reader().__arrow_c_stream__(requested_schema)

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table."""
        batches = list(self.to_batches())
        if not self.fields:
            rows = sum(batch.num_rows for batch in batches)
            return pa.table({"x": pa.nulls(rows)}).select([])
        return pa.Table.from_batches(batches, schema=self.schema)

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a pandas frame."""
        return as_pandas(self.to_arrow())

    def to_polars(self) -> polars.DataFrame:
        """The rows as a polars frame."""
        return as_polars(self.to_arrow())

    def to_dataset(self, *, semantics: str | Semantics = Semantics.ARROW) -> ScanDataset:
        """The scan as a `pyarrow.dataset.Dataset`, into which DuckDB and DataFusion push projections and filters.

        Args:
            semantics: how pushed filters are meant: `"arrow"`, as pyarrow evaluates them, or `"sql"`, as DataFusion means
                those that it makes of SQL: NaN equals itself and is greater than every number, and null in a list is null.
        """
        from vectorlake.table.dataset import ScanDataset

        return ScanDataset(self, Semantics.parse(semantics))

    def splits(self, rows: int | None = None) -> list[Split]:
        """The scan in parts for other threads, processes or machines: in order and together exactly this scan.

        Args:
            rows: physical rows of a part, at most (131,072 by default). Larger fragments are cut, small ones put together.

        Returns:
            Small picklable values. None for an empty table, or where no fragment can have a match: planned by the
            metadata alone, no data file is opened.

        Raises:
            UnsupportedError: the scan has a limit, which parts can't keep, or is of an open transaction.
        """
        from vectorlake.table.split import split_scan

        return split_scan(self, MORSEL_ROWS if rows is None else rows)

    def count(self) -> int:
        """How many rows there are; from the metadata alone when there is no filter."""
        if self.predicate is None and self.ranges is None:
            rows = self.view.snapshot.num_rows
            return rows if self.limit is None else min(rows, self.limit)
        return sum(batch.num_rows for batch in self.replace(fields=()).to_batches())

    def replace(self, **changes: Any) -> Scan:
        """The scan with some of its attributes changed."""
        import dataclasses

        return dataclasses.replace(self, **changes)

    def _threads(self) -> int:
        if self.threads is not None:
            return self.threads
        alone = self.view.store.local_path("") is not None and self._work() <= _ALONE
        return 1 if alone else default_threads(self.view.store)

    def _work(self) -> int:
        """About how many bytes there are to read if nothing is pruned, files to be opened among them."""
        if self.ranges is None:
            rows, parts = self.view.snapshot.num_rows, self.view.snapshot.num_fragments
        else:
            rows, parts = sum(known.stop - known.start for known in self.ranges), len(self.ranges)
        width = self._width(fields_by_name(self.view.snapshot.schema))
        return rows * width + parts * _OPENING if width else 0

    def _width(self, fields: dict[str, Field]) -> int:
        """About how many bytes are read of a row."""
        names = {field.name for field in self.fields} | (
            self.predicate.columns() if self.predicate else frozenset()
        )
        return sum(width_of(fields[name].to_storage().type) for name in names)

    def _morsels(self, told: Span) -> Iterator[Morsel]:
        fields = fields_by_name(self.view.snapshot.schema)
        rows = self._morsel_rows(fields)
        planned = 0
        for reader, first, last in self._readers():
            planned += 1
            pruned = [(first, last)] if self.predicate is None else reader.prune(self.predicate, fields)
            for low, high in pruned:
                end = min(high, last)
                for start in range(max(low, first), end, rows):
                    yield Morsel(reader, start, min(start + rows, end))
        # Only here, since a scan that ends early does not learn how many fragments there would have been.
        told.set(fragments=planned, pruned=self.view.snapshot.num_fragments - planned)

    def _readers(self) -> Iterator[tuple[FragmentReader, int, int]]:
        """The fragments to read, and which of their rows."""
        if self.ranges is None:
            for reader in self.view.readers(self.predicate):
                yield reader, 0, reader.fragment.row_count
            return
        wanted = {known.fragment_id for known in self.ranges}
        fragments = find_fragments(self.view.log, self.view.snapshot, wanted)
        for known in self.ranges:
            yield self.view.reader(fragments[known.fragment_id]), known.start, known.stop

    def _morsel_rows(self, fields: dict[str, Field]) -> int:
        """Rows a thread reads at a time, so that wide columns do not add up to much memory."""
        width = self._width(fields)
        spread = _LATE if self.predicate else 1  # most rows of a filtered morsel never carry the wide columns
        rows = max(512, min(MORSEL_ROWS, spread * MORSEL_BYTES // max(width, 1)))
        # A small limit should not read (and pay for) much more than it returns.
        return rows if self.limit is None or self.predicate else max(64, min(rows, self.limit))

    def _read(self, morsel: Morsel) -> pa.RecordBatch | None:
        reader, start, stop = morsel.reader, morsel.start, morsel.stop
        fields = list(self.fields)
        positions, read = self.view.matches(reader, self.predicate, start, stop)
        if positions is None:
            return to_output(reader.read(fields, start, stop), fields)
        if not len(positions):
            return None
        if not fields:
            return reader.read([], 0, len(positions))
        indices = pa.array(positions - start)
        columns = (
            {} if read is None else {name: read.column(name).take(indices) for name in read.schema.names}
        )
        late = [field for field in fields if field.name not in columns]
        if late:
            few = len(positions) * _LATE < stop - start
            rest = reader.take(late, positions) if few else reader.read(late, start, stop).take(indices)
            columns |= {field.name: rest.column(index) for index, field in enumerate(late)}
        schema = pa.schema([field.to_storage().with_nullable(True) for field in fields])
        return to_output(
            pa.RecordBatch.from_arrays([columns[field.name] for field in fields], schema=schema), fields
        )


def make_scan(
    view: View,
    *,
    columns: list[str] | None = None,
    filter: str | Expr | object | None = None,
    limit: int | None = None,
    with_row_id: bool = False,
    batch_size: int | None = None,
    threads: int | None = None,
) -> Scan:
    """A scan of a view, its arguments checked (see `Table.scan`)."""
    if isinstance(columns, str):
        raise InvalidInputError(f"columns must be a list of names: write [{columns!r}]")
    if columns is not None and len(set(columns)) != len(list(columns)):
        raise InvalidInputError(f"a column is asked for twice in {list(columns)}")
    for name, value, least in (("limit", limit, 0), ("batch_size", batch_size, 1), ("threads", threads, 1)):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least
        ):
            raise InvalidInputError(f"{name} must be an integer of at least {least}, not {value!r}")
    fields = view.select(None if columns is None else list(columns))
    if with_row_id and ROW_ID_COLUMN not in fields:
        fields = [*fields, ROW_ID_COLUMN]
    return Scan(view, tuple(fields), view.bind(filter), limit, batch_size, threads)


def default_threads(store: Store) -> int:
    """How many threads read where nobody says: one a core, and more on a remote store."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # A remote store answers slowly rather than keeping a core busy: more reads in flight help there.
    return max(1, cores if store.local_path("") is not None else 4 * cores)


def width_of(kind: pa.DataType) -> int:
    """About how many bytes a value of a type takes in memory."""
    t = pa.types
    if t.is_fixed_size_list(kind):
        return int(kind.list_size) * width_of(kind.value_type)
    if t.is_struct(kind):
        return sum(width_of(child.type) for child in kind.fields)
    if t.is_large_binary(kind):
        return 4096
    if t.is_map(kind) or t.is_list(kind) or t.is_large_list(kind):
        return 16 * sum(width_of(kind.field(i).type) for i in range(kind.num_fields))
    try:
        return max(int(kind.bit_width) // 8, 1)
    except ValueError:
        return 48


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, threads: int, first_alone: bool = False
) -> Iterator[R]:
    """`function` over `items` on some threads, results in order, at most a few items ahead of the consumer.

    `first_alone` computes the first result before any thread starts: the consumer of a limited scan may not need more.
    """
    function = carried(function)
    iterator = iter(items)
    if threads <= 1:
        yield from map(function, iterator)
        return
    head: list[T] = []
    for item in iterator:
        head.append(item)
        if first_alone or len(head) == 2:
            break
    if len(head) < 2:
        yield from map(function, head)
    if not head or (len(head) < 2 and not first_alone):
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="vectorlake-scan")
    waiting: deque[Future[R]] = deque()
    try:
        if len(head) == 2:
            waiting.extend(pool.submit(function, item) for item in head)
        for item in iterator:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads + 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown(wait=True)
