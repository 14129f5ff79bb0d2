"""The change feed: the rows that were inserted, deleted and updated between two versions, as a stream of Arrow batches.

Only fragments in which two versions differ are opened, and of those that stay only the columns that got new files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from vectorlake.errors import InvalidInputError, NotFoundError, UnsupportedError
from vectorlake.expr import Expr, bind
from vectorlake.metadata.deletion import to_positions
from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.changes import By, ChangeType, RowIndex, differing, may_share_ids
from vectorlake.plan.conflict import LAYOUT_ONLY
from vectorlake.plan.evolution import widened_to
from vectorlake.plan.scan import COMPUTED, ROW_ID_COLUMN, VERSION_COLUMN
from vectorlake.schema import ROW_ID, Field, ScalarType, Schema
from vectorlake.table.branches import Version, not_staged, resolve
from vectorlake.table.differ import difference
from vectorlake.table.files import DataFiles
from vectorlake.table.follow import newly_deleted
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.frames import as_pandas, as_polars
from vectorlake.table.log import TableLog
from vectorlake.table.scan import MORSEL_BYTES, MORSEL_ROWS, default_threads, ordered_map, width_of
from vectorlake.table.view import View, to_output

if TYPE_CHECKING:
    import pandas
    import polars

CHANGE_TYPE: Final = Field(-3, "_change_type", ScalarType("string"), nullable=False)
COMMIT_VERSION: Final = Field(-4, "_commit_version", ScalarType("int64"), nullable=False)
COMMIT_TIMESTAMP: Final = Field(-5, "_commit_timestamp", ScalarType("timestamp(ms, UTC)"), nullable=False)
LEADING: Final = (CHANGE_TYPE, COMMIT_VERSION, COMMIT_TIMESTAMP, ROW_ID_COLUMN)
"""The columns that come before the table's."""
_DENSE: Final = 4
"""A range is read whole where at least one row in so many is wanted."""

Task: TypeAlias = Callable[[], pa.RecordBatch | None]


@dataclass(frozen=True)
class Changes:
    """The changes between two versions, computed each time they are asked for; speaks the Arrow C stream protocol.

    The columns are `_change_type` (`insert`, `delete`, `update_preimage`, `update_postimage`), `_commit_version`,
    `_commit_timestamp`, `_row_id`, and the table's. Within a version deletes come first, and an update's two images are
    neighbours.
    """

    log: TableLog
    files: DataFiles
    steps: tuple[tuple[Snapshot, Snapshot], ...]
    fields: tuple[Field, ...]
    """The table's columns asked for."""
    read: tuple[Field, ...]
    """These, and further ones that the filter needs."""
    predicate: Expr | None = None
    threads: int | None = None

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the batches."""
        return pa.schema([field.to_arrow() for field in (*LEADING, *self.fields)])

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """The changes as record batches, read ahead by a few only."""
        threads = default_threads(self.log.store) if self.threads is None else self.threads
        for batch in ordered_map(lambda task: task(), self._tasks(), threads=threads):
            if batch is not None and (wanted := self._filtered(batch)).num_rows:
                yield wanted

    def to_reader(self) -> pa.RecordBatchReader:
        """The changes as an Arrow reader."""
        return pa.RecordBatchReader.from_batches(self.schema, self.to_batches())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.to_reader().__arrow_c_stream__(requested_schema)

    def to_arrow(self) -> pa.Table:
        """The changes as an Arrow table."""
        return pa.Table.from_batches(self.to_batches(), schema=self.schema)

    def to_pandas(self) -> pandas.DataFrame:
        """The changes as a pandas frame."""
        return as_pandas(self.to_arrow())

    def to_polars(self) -> polars.DataFrame:
        """The changes as a polars frame."""
        return as_polars(self.to_arrow())

    def _tasks(self) -> Iterator[Task]:
        for before, after in self.steps:
            yield from _Step(View(before, self.log, self.files), after, self.read).tasks()

    def _filtered(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self.predicate is not None:
            batch = batch.filter(pa.array(np.asarray(self.predicate.mask(batch), bool)))
        return to_output(batch.select(list(range(len(LEADING) + len(self.fields)))), [*LEADING, *self.fields])


def make_changes(
    log: TableLog,
    files: DataFiles,
    start: Version,
    stop: Version | Snapshot,
    *,
    columns: Sequence[str] | None = None,
    filter: str | Expr | object | None = None,
    by: str | By = By.COMMIT,
    threads: int | None = None,
) -> Changes:
    """The changes between two versions of one line, the arguments checked (see `Table.changes`)."""
    try:
        mode = By(by)
    except ValueError as e:
        raise InvalidInputError(f"by must be 'commit' or 'net', not {by!r}") from e
    line, last = (log, stop) if isinstance(stop, Snapshot) else resolve(log, stop)
    not_staged(last, "tell changes")
    first = _first(line, start, last)
    between = _between(line, first.version, last) if mode is By.COMMIT else [last]
    schema = widened_to(last.schema, [first.schema, *(snapshot.schema for snapshot in between)])
    fields = _select(schema, columns)
    predicate = _bound(filter, schema)
    used = predicate.columns() if predicate is not None else frozenset[str]()
    named = {field.name for field in (*LEADING, *fields)}
    further = [field for field in (*schema.fields, VERSION_COLUMN) if field.name in used - named]
    steps = [
        (before, after)
        for before, after in zip([first, *between], between, strict=False)
        if mode is By.NET or after.operation not in LAYOUT_ONLY
    ]
    return Changes(line, files, tuple(steps), tuple(fields), (*fields, *further), predicate, threads)


def _first(line: TableLog, start: Version, last: Snapshot) -> Snapshot:
    """The snapshot after which the changes begin; version 0 is the table before it was created."""
    if start == 0 and not isinstance(start, bool):
        return msgspec.structs.replace(last, version=0, manifests=())
    at, first = resolve(line, start)
    if at.folder != line.folder:
        raise UnsupportedError(
            f"{start!r} lies on another line than version {last.version}: changes are told along one line; diff() compares "
            "any two versions"
        )
    if first.version > last.version:
        raise InvalidInputError(
            f"changes are told forwards, and version {first.version} is later than {last.version}: swap them"
        )
    return first


def _between(line: TableLog, first: int, last: Snapshot) -> list[Snapshot]:
    """The snapshots after one version up to another.

    Raises:
        NotFoundError: one of them has expired.
    """
    numbers = range(first + 1, last.version)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(line.find, numbers))
    missing = [number for number, snapshot in zip(numbers, found, strict=True) if snapshot is None]
    if missing:
        raise NotFoundError(
            f"version {missing[0]} of the table at {line.store.uri} has expired, so it can't be told which change came "
            f"with which version; ask for by='net', the difference between versions {first} and {last.version}"
        )
    snapshots = [snapshot for snapshot in found if snapshot is not None]
    return [*snapshots, last] if last.version > first else []


def _select(schema: Schema, columns: Sequence[str] | None) -> list[Field]:
    if isinstance(columns, str):
        raise InvalidInputError(f"columns must be a list of names: write [{columns!r}]")
    leading = {field.name for field in LEADING}
    if columns is None:
        fields = list(schema.fields)
    else:
        known = {**{field.name: field for field in schema.fields}, **COMPUTED}
        fields = [known.get(name) or schema.field(name) for name in columns if name != ROW_ID]
    if len({field.id for field in fields}) < len(fields):
        raise InvalidInputError(f"a column is asked for twice in {list(columns or ())}")
    if clash := sorted(leading & {field.name for field in fields}):
        raise InvalidInputError(
            f"the column {clash[0]!r} has the name of one of the change feed's own: rename it, or leave it out with columns="
        )
    return fields


def _bound(filter: str | Expr | object | None, schema: Schema) -> Expr | None:
    own = [*LEADING, VERSION_COLUMN]
    names = {field.name for field in own}
    fields = [*own, *(field for field in schema.fields if field.name not in names)]
    return bind(filter, pa.schema([field.to_storage() for field in fields]))


@dataclass(frozen=True)
class _Rows:
    """Live rows of one fragment: those at some positions, or all."""

    reader: FragmentReader
    positions: np.ndarray | None = None

    def chunks(self, rows: int) -> Iterator[np.ndarray]:
        """Their positions, ascending, at most so many at a time."""
        stop = self.reader.fragment.row_count if self.positions is None else len(self.positions)
        for start in range(0, stop, rows):
            end = min(start + rows, stop)
            if self.positions is not None:
                yield self.positions[start:end]
                continue
            live = self.reader.live(start, end)
            if live is None:
                yield np.arange(start, end)
            elif len(live):
                yield live


class _Step:
    """The changes from one snapshot to a later one, as tasks that can run side by side."""

    def __init__(self, view: View, after: Snapshot, fields: Sequence[Field]) -> None:
        self._view = view
        self._after = after
        self._fields = list(fields)
        self._compared = [index for index, field in enumerate(fields) if field.id >= 0]
        self._lacking = _lacking(view.snapshot, fields), _lacking(after, fields)
        self._returned = sorted(self._lacking[0] ^ self._lacking[1])
        """Indices of columns that came back, or went to come back later: all rows are compared in them."""
        width = sum(width_of(field.to_storage().type) for field in fields)
        self._morsel = max(512, min(MORSEL_ROWS, MORSEL_BYTES // max(width, 1)))

    def tasks(self) -> Iterator[Task]:
        """Deletes, then updates in place, then rows that came: updated elsewhere, or inserted."""
        between = difference(self._view.log, self._view.snapshot, self._after)
        left = [_Rows(self._view.reader(fragment)) for fragment in between.removed]
        came = [_Rows(self._view.reader(fragment)) for fragment in between.added]
        stayed: list[tuple[FragmentReader, FragmentReader, list[int]]] = []
        for old, new in between.changed:
            before, after = self._view.reader(old), self._view.reader(new)
            if gone := newly_deleted(self._view, old, new):
                left.append(_Rows(before, to_positions(gone)))
            if back := newly_deleted(self._view, new, old):
                came.append(_Rows(after, to_positions(back)))
            if written := self._written(old, new):
                stayed.append((before, after, written))
        if self._returned:
            touched = {one.id for one in (*between.removed, *(old for old, _ in between.changed))}
            others = (one for one in self._view.readers() if one.fragment.id not in touched)
            stayed += [(one, one, self._returned) for one in others]
        apart = ~may_share_ids(_fragments(left), _fragments(came))
        matched = [rows for rows, alone in zip(left, apart.tolist(), strict=True) if not alone]
        index = self._index(matched)
        shared = may_share_ids(_fragments(came), _fragments(matched)).tolist()
        for rows, meets in zip(came, shared, strict=True):
            for positions in rows.chunks(MORSEL_ROWS) if meets else ():
                index.mark(_row_ids(rows.reader, positions))
        unmatched = [_Rows(matched[source].reader, positions) for source, positions in index.unmarked()]
        for rows in (*(r for r, alone in zip(left, apart.tolist(), strict=True) if alone), *unmatched):
            for positions in rows.chunks(self._morsel):
                yield partial(self._whole, ChangeType.DELETE, rows.reader, positions)
        for before, after, written in stayed:
            yield from self._replaced(before, after, written)
        readers = [rows.reader for rows in matched]
        for rows, meets in zip(came, shared, strict=True):
            for positions in rows.chunks(self._morsel):
                if meets:
                    yield partial(self._arrived, index, readers, rows.reader, positions)
                else:
                    yield partial(self._whole, ChangeType.INSERT, rows.reader, positions)

    def _replaced(self, before: FragmentReader, after: FragmentReader, written: list[int]) -> Iterator[Task]:
        both = np.union1d(before.deleted, after.deleted)
        for start in range(0, before.fragment.row_count, self._morsel):
            stop = min(start + self._morsel, before.fragment.row_count)
            low, high = np.searchsorted(both, [start, stop])
            positions = np.setdiff1d(np.arange(start, stop), both[low:high], assume_unique=True)
            if len(positions):
                yield partial(self._in_place, before, after, written, positions)

    def _written(self, old: Fragment, new: Fragment) -> list[int]:
        """Indices of the columns that another file holds than before, or that only one of the versions has."""
        found: list[int] = []
        for index in self._compared:
            one, other = (fragment.file_of(self._fields[index].id) for fragment in (old, new))
            moved = (one.path if one else None) != (other.path if other else None)
            if moved or index in self._returned:
                found.append(index)
        return found

    @staticmethod
    def _index(matched: Sequence[_Rows]) -> RowIndex:
        ids: list[np.ndarray] = []
        positions: list[np.ndarray] = []
        for rows in matched:
            chunks = list(rows.chunks(MORSEL_ROWS))
            positions.append(np.concatenate([np.empty(0, np.int64), *chunks]))
            parts = [_row_ids(rows.reader, chunk) for chunk in chunks]
            ids.append(np.concatenate([np.empty(0, np.int64), *parts]))
        return RowIndex(ids, positions)

    def _whole(self, kind: ChangeType, reader: FragmentReader, positions: np.ndarray) -> pa.RecordBatch:
        """Rows that were inserted or deleted."""
        columns = self._image(kind is ChangeType.INSERT, _read(reader, self._fields, positions).columns)
        return self._batch(np.full(len(positions), kind), _row_ids(reader, positions), columns)

    def _in_place(
        self, before: FragmentReader, after: FragmentReader, written: list[int], positions: np.ndarray
    ) -> pa.RecordBatch | None:
        """Rows of which the values in some columns were replaced by others."""
        fields = [self._fields[index] for index in written]
        old, new = (_read(reader, fields, positions) for reader in (before, after))
        differ = np.zeros(len(positions), bool)
        olds, news = (self._image(later, read.columns, written) for later, read in enumerate((old, new)))
        for one, other in zip(olds, news, strict=True):
            differ |= differing(one, other)
        changed = np.flatnonzero(differ)
        if not len(changed):
            return None
        at = positions[changed]
        images: list[list[pa.Array]] = []
        for later, (reader, known) in enumerate(((before, olds), (after, news))):
            rest = [field for index, field in enumerate(self._fields) if index not in written]
            read = dict(zip((field.id for field in rest), _read(reader, rest, at).columns, strict=True))
            taken = pa.array(changed)
            read |= {field.id: column.take(taken) for field, column in zip(fields, known, strict=True)}
            images.append(self._image(later, [read[field.id] for field in self._fields]))
        return self._updates(_row_ids(after, at), *images)

    def _arrived(
        self,
        index: RowIndex,
        readers: Sequence[FragmentReader],
        reader: FragmentReader,
        positions: np.ndarray,
    ) -> pa.RecordBatch | None:
        """Rows of a fragment that were elsewhere before, with the same values or others, or were not there."""
        ids = _row_ids(reader, positions)
        slots = index.find(ids)
        fresh, known = np.flatnonzero(slots < 0), np.flatnonzero(slots >= 0)
        batches: list[pa.RecordBatch] = []
        if len(known):
            gathered = _Gathered(readers, index.sources[slots[known]], index.positions[slots[known]])
            # The version at which a row last changed tells its values: those that were only moved are not read.
            if not self._returned:
                moved = gathered.versions() == reader.versions_at(positions[known])
                known, gathered = known[~moved], gathered.at(~moved)
        if len(known):
            before = self._image(False, gathered.columns(self._fields))
            after = self._image(True, _read(reader, self._fields, positions[known]).columns)
            differ = np.zeros(len(known), bool)
            for column in self._compared:
                differ |= differing(before[column], after[column])
            chosen = pa.array(np.flatnonzero(differ))
            if len(chosen):
                images = [[column.take(chosen) for column in image] for image in (before, after)]
                batches.append(self._updates(ids[known][differ], *images))
        if len(fresh):
            batches.append(self._whole(ChangeType.INSERT, reader, positions[fresh]))
        if len(batches) < 2:
            return batches[0] if batches else None
        return _joined(batches)

    def _image(
        self, later: int, columns: Sequence[pa.Array], which: Sequence[int] | None = None
    ) -> list[pa.Array]:
        """Values of some columns, by default of all, as the earlier or the later version has them: null in those that it
        lacks, of which files of the rows may hold values all the same."""
        lacking = self._lacking[later]
        indices = range(len(self._fields)) if which is None else which
        return [
            pa.nulls(len(column), column.type) if index in lacking else column
            for index, column in zip(indices, columns, strict=True)
        ]

    def _updates(
        self, ids: np.ndarray, before: Sequence[pa.Array], after: Sequence[pa.Array]
    ) -> pa.RecordBatch:
        """Both images of some rows, one below the other."""
        kinds = np.tile([ChangeType.BEFORE, ChangeType.AFTER], len(ids))
        in_turn = pa.array(np.arange(2 * len(ids)).reshape(2, -1).T.ravel())
        columns = [
            pa.concat_arrays([one, other]).take(in_turn) for one, other in zip(before, after, strict=True)
        ]
        return self._batch(kinds, np.repeat(ids, 2), columns)

    def _batch(self, kinds: np.ndarray, ids: np.ndarray, columns: Sequence[pa.Array]) -> pa.RecordBatch:
        leading = [
            pa.array(kinds.astype(str), pa.string()),
            pa.array(np.full(len(ids), self._after.version), pa.int64()),
            pa.array(np.full(len(ids), self._after.timestamp_ms), pa.timestamp("ms", "UTC")),
            pa.array(ids, pa.int64()),
        ]
        schema = pa.schema([field.to_storage().with_nullable(True) for field in (*LEADING, *self._fields)])
        return pa.RecordBatch.from_arrays([*leading, *columns], schema=schema)


@dataclass(frozen=True)
class _Gathered:
    """Rows that lie in several fragments, in an order of their own."""

    readers: Sequence[FragmentReader]
    sources: np.ndarray
    positions: np.ndarray

    def at(self, chosen: np.ndarray) -> _Gathered:
        return replace(self, sources=self.sources[chosen], positions=self.positions[chosen])

    def versions(self) -> np.ndarray:
        """The version at which each row last changed."""
        found = np.empty(len(self.sources), np.int64)
        for reader, rows in self._parts():
            found[rows] = reader.versions_at(self.positions[rows])
        return found

    def columns(self, fields: Sequence[Field]) -> list[pa.Array]:
        """The rows' values."""
        batches, order = [], []
        for reader, rows in self._parts():
            batches.append(_read(reader, fields, self.positions[rows]))
            order.append(rows)
        together = np.concatenate(order)
        back = np.empty(len(together), np.int64)
        back[together] = np.arange(len(together))
        indices = pa.array(back)
        return [
            pa.concat_arrays([batch.column(column) for batch in batches]).take(indices)
            for column in range(len(fields))
        ]

    def _parts(self) -> Iterator[tuple[FragmentReader, np.ndarray]]:
        """Fragment by fragment, the rows that lie there, by position."""
        order = np.lexsort((self.positions, self.sources))
        sources, starts = np.unique(self.sources[order], return_index=True)
        for source, rows in zip(sources.tolist(), np.split(order, starts[1:]), strict=True):
            yield self.readers[source], rows


def _lacking(snapshot: Snapshot, fields: Sequence[Field]) -> frozenset[int]:
    """Indices of the columns that a version does not have, but an earlier one had."""
    there = {field.id for field in snapshot.schema.fields}
    return frozenset(
        index
        for index, field in enumerate(fields)
        if 0 <= field.id < snapshot.next_field_id and field.id not in there
    )


def _fragments(rows: Sequence[_Rows]) -> list[Fragment]:
    return [part.reader.fragment for part in rows]


def _dense(positions: np.ndarray) -> bool:
    return len(positions) * _DENSE >= int(positions[-1]) - int(positions[0]) + 1


def _row_ids(reader: FragmentReader, positions: np.ndarray) -> np.ndarray:
    """The row ids at some ascending positions, of which there is at least one."""
    if not _dense(positions):
        return reader.row_ids_at(positions)
    start = int(positions[0])
    return np.asarray(reader.row_ids(start, int(positions[-1]) + 1)[positions - start])


def _read(reader: FragmentReader, fields: Sequence[Field], positions: np.ndarray) -> pa.RecordBatch:
    """The rows at some ascending positions, of which there is at least one, in storage types."""
    start, stop = int(positions[0]), int(positions[-1]) + 1
    if not _dense(positions):
        return reader.take(fields, positions)
    batch = reader.read(fields, start, stop)
    return batch if len(positions) == stop - start else batch.take(pa.array(positions - start))


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    columns = [
        pa.concat_arrays([batch.column(index) for batch in batches])
        for index in range(batches[0].num_columns)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batches[0].schema)
