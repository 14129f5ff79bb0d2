"""Tables as sources that DuckDB scans: the newest version at each statement, with projections and filters pushed down.

DuckDB reads a `pyarrow.dataset.Dataset` that is one of its own scan sources as well just as it is. Such a source is
asked for its schema while a statement is bound, and for a stream of rows later, maybe on another thread, by column
index. What ties the two together is a pin: each view filters on a hidden column by a function that DuckDB folds to the
name of the snapshot just bound, and the stream finds that name among its filters.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from vectorlake import InvalidInputError, Lake, NotFoundError, Table, UnsupportedError, VectorlakeError
from vectorlake.extend import ROW_ID, MetadataTable, holds_vectors, inspect
from vectorlake_duckdb._types import shown_batches, shown_schema, shown_type

try:
    from duckdb._sources.arrow import ArrowScanSource
    from duckdb._sources.nodes import Binary, Col, Lit, Node, Untranslatable
    from duckdb._sources.to_arrow import to_arrow
except ImportError as e:
    raise UnsupportedError(
        "vectorlake_duckdb needs DuckDB 2.0, whose scan sources it builds on: pip install 'vectorlake[duckdb]'"
    ) from e

PIN: Final = "__vl_snapshot"
"""A hidden column that holds the snapshot's name, and that every view filters on."""

_PINS: Final = 1024


class Shown(Enum):
    """What of a table a source shows: rows with all columns, or without vectors, or one of its metadata tables."""

    ROWS = ""
    WITHOUT_VECTORS = " without vectors"
    SNAPSHOTS = " snapshots"
    FILES = " files"
    FRAGMENTS = " fragments"
    REFS = " refs"

    @property
    def metadata(self) -> MetadataTable | None:
        """The metadata table, if it is one."""
        return None if self in (Shown.ROWS, Shown.WITHOUT_VECTORS) else MetadataTable(self.value.strip())


@dataclass(frozen=True)
class Pin:
    """A table at one version, and what is shown of it; `table` is moved by nobody."""

    name: str
    table: Table
    shown: Shown
    filter: str | None = None
    """Of which rows alone, as `Table.scan` takes it."""

    def schema(self) -> pa.Schema:
        """The columns as DuckDB sees them: a cheap one first, since `count(*)` reads it, and the hidden one."""
        fields = self.table.snapshot.schema.fields
        if (metadata := self.shown.metadata) is not None:
            shown = list(metadata.schema)
        else:
            shown = [
                field.to_arrow()
                for field in fields
                if self.shown is Shown.ROWS or not holds_vectors(field.type)
            ]
        return pa.schema(
            [pa.field(ROW_ID, pa.int64()), pa.field(PIN, pa.string()), *shown_schema(pa.schema(shown))]
        )

    def rows(self) -> int | None:
        """How many rows there are, where that is known without reading."""
        if self.filter is not None:
            return None
        if self.shown is Shown.FRAGMENTS:
            return self.table.snapshot.num_fragments
        return self.table.snapshot.num_rows if self.shown.metadata is None else None

    def batches(self, names: list[str], mask: pc.Expression | None) -> Iterator[pa.RecordBatch]:
        """Some columns, of the rows that match; metadata tables have no row ids (null) and take no mask."""
        metadata = self.shown.metadata
        if metadata is None:
            if self.filter is None:
                yield from self.table.scan(names, filter=mask).to_batches()
            else:
                kept = self.table.scan(filter=self.filter, with_row_id=True).to_dataset()
                yield from kept.to_batches(names, filter=mask)
            return
        stored = [name for name in names if name != ROW_ID]
        # A batch of no columns would have no rows either.
        for batch in inspect(self.table.view, metadata, columns=stored or metadata.schema.names[:1]):
            missing = pa.nulls(batch.num_rows, pa.int64())
            columns = [missing if name == ROW_ID else batch.column(name) for name in names]
            yield pa.RecordBatch.from_arrays(columns, names=names) if names else batch


class Pins:
    """Pins by name, the most recent ones."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Pin] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, handle: Handle, table: Table, shown: Shown) -> Pin:
        """The pin of a table that a handle has bound."""
        pin = Pin(f"{handle.name}@{table.version}{shown.value}", table, shown, handle.filter)
        with self._lock:
            self._known[pin.name] = pin
            self._known.move_to_end(pin.name)
            while len(self._known) > _PINS:
                self._known.popitem(last=False)
        return pin

    def get(self, name: str) -> Pin:
        """A pin by name; it is there unless a thousand versions were bound since."""
        with self._lock:
            if name not in self._known:
                raise NotFoundError(f"snapshot {name} is not at hand any more: run the statement again")
            return self._known[name]


class Handle(Protocol):
    """A table as statements bind it."""

    name: str
    filter: str | None

    def bind(self) -> Table:
        """The table at the version that a statement is to see."""

    def bound(self) -> Table:
        """What was bound last."""


class TableHandle:
    """One table of a lake, or one version of it, as statements bind it."""

    filter: str | None = None

    def __init__(self, lake: Lake, name: str, version: str | None, at: Callable[[Table, str], Table]) -> None:
        self.name = name
        self.version = version
        self._lake = lake
        self._at = at
        self._newest: Table | None = None
        self._bound: dict[int, Table] = {}

    def bind(self) -> Table:
        """The table at its version, or at its newest one; remembered for this thread.

        Raises:
            NotFoundError: there is no such table or version (any more).
        """
        known = self._newest
        if known is None or self.version is None:
            latest = self._lake.table(self.name)
            if self.version is not None:
                latest = self._at(latest, self.version)
            elif known is not None and known.snapshot.table_id == latest.snapshot.table_id:
                # Another handle on the same table keeps what it has read of the metadata.
                latest = known if known.version == latest.version else known.at(latest.version)
            self._newest = known = latest
        self._bound[threading.get_ident()] = known
        return known

    def bound(self) -> Table:
        """What this thread bound last, else what any did; bound now if none did."""
        found = self._bound.get(threading.get_ident(), self._newest)
        return self.bind() if found is None else found


class FixedHandle:
    """A table that nobody moves, and maybe only the rows that a filter keeps: the same for every statement."""

    def __init__(self, table: Table, filter: str | None) -> None:
        self.name = table.name
        self.filter = filter
        self._table = table

    def bind(self) -> Table:
        """The table at its version."""
        return self._table

    bound = bind


class TableSource(ds.Dataset, ArrowScanSource):  # type: ignore[misc]
    """What DuckDB scans for one view."""

    schema_is_stable = False

    def __init__(self, pins: Pins, handle: Handle | None, *, owner: object) -> None:
        # The base class wraps a C++ dataset and offers no constructor; DuckDB only checks that it is one.
        self.obj: Any = self
        # DuckDB keeps a source while its view is there, which keeps the functions that the view calls.
        self._owner = owner
        self._pins = pins
        self._shown = (handle, Shown.ROWS)
        self._asked: dict[int, tuple[Handle, Shown]] = {}
        self._bound: dict[int, tuple[Handle | None, Shown]] = {}

    def show(self, handle: Handle, shown: Shown) -> None:
        """Show another table, to the statement that this thread is binding at least."""
        self._shown = self._asked[threading.get_ident()] = (handle, shown)

    @property
    def schema(self) -> pa.Schema:
        """The newest version's columns."""
        thread = threading.get_ident()
        self._bound[thread] = handle, shown = self._asked.get(thread, self._shown)
        if handle is None:
            return pa.schema([pa.field(ROW_ID, pa.int64()), pa.field(PIN, pa.string())])
        return self._pins.put(handle, handle.bind(), shown).schema()

    def pin(self) -> Pin:
        """What this thread bound last."""
        handle, shown = self._bound.get(threading.get_ident(), self._shown)
        if handle is None:
            raise InvalidInputError(
                "this view is a placeholder, which holds no table: read the lake's own views"
            )
        return self._pins.put(handle, handle.bound(), shown)

    # --- what DuckDB's scan asks ---

    def __arrow_c_schema__(self) -> object:
        return self.schema.__arrow_c_schema__()

    def rows(self) -> int | None:
        """How many rows the version has, for the order of joins."""
        handle, shown = self._bound.get(threading.get_ident(), self._shown)
        return None if handle is None else self._pins.put(handle, handle.bound(), shown).rows()

    def accepts(self, predicate: Node) -> bool:
        """Whether the table's own planner evaluates a predicate as DuckDB does, NaN and NULL included."""
        if pinned(predicate) is not None:
            return True
        try:
            pin = self.pin()
            if pin.shown.metadata is not None:
                return False
            pin.table.scan([], filter=_expression(predicate, pin))
        except (Untranslatable, InvalidInputError, NotFoundError, UnsupportedError):
            return False
        return True

    def stream(self, columns: Sequence[int] | None, filters: Sequence[Node]) -> tuple[object, bool]:
        """The rows of the pinned version for which all filters are true, narrowed to some columns by index."""
        names = [name for name in map(pinned, filters) if name is not None]
        pin = self._pins.get(names[0]) if names else self.pin()
        if any(name != pin.name for name in names):
            return _reader(pin, columns, iter(())), columns is not None
        conditions = [_expression(node, pin) for node in filters if pinned(node) is None]
        mask: pc.Expression | None = None
        for condition in conditions:
            mask = condition if mask is None else mask & condition
        stored = [name for name in _names(pin, columns) if name != PIN]
        return _reader(pin, columns, pin.batches(stored, mask)), columns is not None


def pinned(predicate: Node) -> str | None:
    """The snapshot that a predicate pins, if it is one on the hidden column."""
    match predicate:
        case Binary(op="=", left=Col(parts=(name,)), right=Lit(value=str() as value)) if name == PIN:
            return str(value)
    return None


def _expression(predicate: Node, pin: Pin) -> pc.Expression:
    """A predicate as a pyarrow expression over the table's own columns.

    Raises:
        Untranslatable: pyarrow has none that is true for the same rows, or a column is shown as another type.
    """
    schema = pin.schema()
    stored = {field.name: field.to_arrow().type for field in pin.table.snapshot.schema.fields}
    for name in _columns(predicate):
        if name == PIN or (name in stored and shown_type(stored[name]) is not stored[name]):
            raise Untranslatable(predicate)
    return to_arrow(predicate, schema)


def _columns(predicate: Node) -> Iterator[str]:
    pending = [predicate]
    while pending:
        node = pending.pop()
        if isinstance(node, Col):
            yield node.parts[0]
        pending.extend(node._children())


def _names(pin: Pin, columns: Sequence[int] | None) -> list[str]:
    names: list[str] = pin.schema().names
    return names if columns is None else [names[i] for i in columns]


def _reader(pin: Pin, columns: Sequence[int] | None, batches: Iterator[pa.RecordBatch]) -> object:
    schema, names = pin.schema(), _names(pin, columns)
    batches = _failing_briefly(batches)
    narrowed = pa.schema([schema.field(name) for name in names])
    if PIN in names:
        batches = _with_pin(batches, names.index(PIN), pin.name)
    shown = batches if narrowed.names == [ROW_ID] else shown_batches(batches, narrowed)
    return pa.RecordBatchReader.from_batches(narrowed, shown).__arrow_c_stream__()


def _failing_briefly(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches; an error loses its traceback, which pyarrow would write into the message that DuckDB shows."""
    try:
        yield from batches
    except VectorlakeError as e:
        raise e.with_traceback(None) from None


def _with_pin(batches: Iterator[pa.RecordBatch], index: int, name: str) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        column = pa.repeat(pa.scalar(name), batch.num_rows)
        columns, names = list(batch.columns), list(batch.schema.names)
        columns.insert(index, column)
        names.insert(index, PIN)
        yield pa.RecordBatch.from_arrays(columns, names=names)
