"""Write rows as new fragments: column groups side by side, each to its own file, durable before anyone can refer to it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

import msgspec
import pyarrow as pa

from vectorlake.errors import StorageError
from vectorlake.formats.protocol import ColumnStats, FileWriter, WriteOptions, WrittenFile
from vectorlake.formats.registry import format_named
from vectorlake.ids import NewId
from vectorlake.metadata.fragment import BallSegment, DataFile, FieldBounds, Fragment, KeySegment, Layout
from vectorlake.plan.layout import (
    DEFAULTS,
    FRAGMENT_BYTES,
    FRAGMENT_ROWS,
    SMALL_ROWS,
    ColumnGroup,
    column_groups,
    small_properties,
)
from vectorlake.schema import Field
from vectorlake.store.protocol import Store
from vectorlake.table.balls import BallCollector
from vectorlake.table.key_segments import KeyCollector
from vectorlake.tracing import span

FOLDER: Final = "data"
_SMALL_BYTES: Final = 16 * 1024 * 1024


def unsupported(format_name: str, schema: pa.Schema) -> Sequence[str]:
    """Which columns a format can't hold."""
    return format_named(format_name).unsupported(schema)


class ColumnGroupWriter:
    """One file with some columns of one fragment."""

    def __init__(self, store: Store, group: ColumnGroup, *, new_id: NewId) -> None:
        chosen = format_named(group.format)
        self._group = group
        self._schema = pa.schema([field.to_storage() for field in group.fields])
        self.path = f"{FOLDER}/{new_id()}{chosen.suffix}"
        self._stack = ExitStack()
        local = self._stack.enter_context(store.staged(self.path))
        try:
            self._writer: FileWriter = chosen.create(
                local, self._schema, WriteOptions(blob_columns=group.blob_columns)
            )
        except BaseException as e:
            self._stack.__exit__(type(e), e, e.__traceback__)
            raise

    @property
    def field_ids(self) -> tuple[int, ...]:
        """Of the group's columns."""
        return tuple(field.id for field in self._group.fields)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append the group's columns of a batch."""
        columns = [batch.column(field.name) for field in self._group.fields]
        self._writer.write(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> tuple[DataFile, Mapping[int, FieldBounds]]:
        """Finish the file under its final name."""
        try:
            written: WrittenFile = self._writer.close()
        except BaseException as e:
            self._stack.__exit__(type(e), e, e.__traceback__)
            raise
        self._stack.close()
        file = DataFile(
            path=self.path,
            format=self._group.format,
            layout=Layout(self._group.fields),
            row_start=0,
            row_stop=written.rows,
            size=written.size,
            checksum=written.checksum,
        )
        return file, {
            field.id: _bounds(written.stats.get(field.name))
            for field in self._group.fields
            if field.name in written.stats
        }

    def abort(self, error: BaseException) -> None:
        """Leave nothing behind."""
        try:
            self._writer.abort()
        finally:
            self._stack.__exit__(type(error), error, error.__traceback__)


def _bounds(stats: ColumnStats | None) -> FieldBounds:
    if stats is None:
        return FieldBounds()
    return FieldBounds(stats.min, stats.max, stats.null_count, stats.nan_count)


class FragmentWriter:
    """All column groups of one fragment, written in parallel."""

    def __init__(
        self, store: Store, groups: Sequence[ColumnGroup], *, new_id: NewId, pool: ThreadPoolExecutor
    ) -> None:
        self._store = store
        self._writers: list[ColumnGroupWriter] = []
        self._pool = pool
        self.rows = 0
        self.nbytes = 0
        try:
            for group in groups:
                self._writers.append(ColumnGroupWriter(store, group, new_id=new_id))
        except BaseException as e:
            self.abort(e)
            raise

    @property
    def sources(self) -> dict[int, str]:
        """The path of the file of each column, by field id."""
        return {number: writer.path for writer in self._writers for number in writer.field_ids}

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch to every group."""
        list(self._pool.map(lambda writer: writer.write(batch), self._writers))
        self.rows += batch.num_rows
        self.nbytes += batch.nbytes

    def close(self) -> Fragment:
        """The finished fragment, without ids."""
        finished = list(self._pool.map(lambda writer: writer.close(), self._writers))
        bounds: dict[int, FieldBounds] = {}
        for _, known in finished:
            bounds.update(known)
        return Fragment(row_count=self.rows, files=tuple(file for file, _ in finished), bounds=bounds)

    def abort(self, error: BaseException) -> None:
        """Leave nothing behind."""
        for writer in self._writers:
            writer.abort(error)
        with contextlib.suppress(StorageError):  # what can't be removed now is an orphan, and collected
            self._store.delete([writer.path for writer in self._writers])


def write_fragments(
    store: Store,
    batches: Iterable[pa.RecordBatch],
    fields: Sequence[Field],
    *,
    properties: Mapping[str, str],
    new_id: NewId,
    keys: KeyCollector | None = None,
    balls: BallCollector | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Fragment]:
    """Write conforming batches as fragments of bounded size, durable when this returns, referred to by nobody yet.

    `keys` collects the primary keys of the rows, for tables that have one, `balls` the bounding balls of vectors. Holds
    about one batch in memory (and eight bytes a row for the keys). After an error nothing is left; after Ctrl-C finished
    fragments stay behind as orphans, which collection removes.
    """
    with span("write", table=store.uri) as told:
        fragments = _write(
            store,
            batches,
            fields,
            properties=properties,
            new_id=new_id,
            keys=keys,
            balls=balls,
            progress=progress,
        )
        if told.recording:
            told.set(rows=sum(fragment.row_count for fragment in fragments), fragments=len(fragments))
            told.set(bytes=sum(file.size for fragment in fragments for file in fragment.files))
        return fragments


def _write(
    store: Store,
    batches: Iterable[pa.RecordBatch],
    fields: Sequence[Field],
    *,
    properties: Mapping[str, str],
    new_id: NewId,
    keys: KeyCollector | None,
    balls: BallCollector | None,
    progress: Callable[[int], None] | None,
) -> list[Fragment]:
    limits = {
        key: int(properties.get(key, DEFAULTS[key])) for key in (FRAGMENT_ROWS, FRAGMENT_BYTES, SMALL_ROWS)
    }
    batches, small = _peek(batches, limits[SMALL_ROWS])
    groups = column_groups(fields, small_properties(properties) if small else properties, unsupported)
    fragments: list[Fragment] = []
    current: FragmentWriter | None = None

    beside = (keys is not None) + (balls is not None)
    with ThreadPoolExecutor(max(1, min(4, len(groups))) + beside) as pool:
        collecting = _Collecting(keys, balls, store, new_id=new_id, pool=pool)
        try:
            for batch in batches:
                while batch.num_rows:
                    if current is None:
                        current = FragmentWriter(store, groups, new_id=new_id, pool=pool)
                    part = batch.slice(0, limits[FRAGMENT_ROWS] - current.rows)
                    batch = batch.slice(part.num_rows)
                    collecting.add(part)
                    current.write(part)
                    if progress:
                        progress(part.num_rows)
                    if current.rows == limits[FRAGMENT_ROWS] or current.nbytes >= limits[FRAGMENT_BYTES]:
                        fragments.append(collecting.close(current))
                        current = None
            if current is not None:
                fragments.append(collecting.close(current))
        except BaseException as e:
            if current is not None:
                current.abort(e)
            if isinstance(e, Exception):  # on Ctrl-C leave at once: finished fragments are collectable
                discard(store, fragments)
            raise
    store.sync_folders(paths_of(fragments))
    return fragments


class _Collecting:
    """Hashes keys and bounds vectors beside the writing of the rows themselves, at most one batch behind it."""

    def __init__(
        self,
        keys: KeyCollector | None,
        balls: BallCollector | None,
        store: Store,
        *,
        new_id: NewId,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._keys = keys
        self._balls = balls
        self._store = store
        self._new_id = new_id
        self._pool = pool
        self._running: list[Future[None]] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """The next rows."""
        self._wait()
        collectors = [one for one in (self._keys, self._balls) if one is not None]
        self._running = [self._pool.submit(one.add, batch) for one in collectors]

    def close(self, writer: FragmentWriter) -> Fragment:
        """The finished fragment, with what belongs to it."""
        if self._keys is None and self._balls is None:
            return writer.close()
        sealing = self._pool.submit(self._seal, writer.sources)
        try:
            fragment = writer.close()
        except BaseException:
            with contextlib.suppress(StorageError):
                self._store.delete(list(_paths_beside(*sealing.result())))
            raise
        keys, balls = sealing.result()
        return msgspec.structs.replace(fragment, keys=keys, balls=balls)

    def _seal(self, sources: Mapping[int, str]) -> tuple[KeySegment | None, tuple[BallSegment, ...]]:
        self._wait()
        keys = None if self._keys is None else self._keys.finish(self._store, new_id=self._new_id)
        if self._balls is None:
            return keys, ()
        return keys, self._balls.finish(self._store, sources, new_id=self._new_id)

    def _wait(self) -> None:
        for one in self._running:
            one.result()


def _peek(batches: Iterable[pa.RecordBatch], most_rows: int) -> tuple[Iterable[pa.RecordBatch], bool]:
    """The same batches, and whether they are fewer rows than that, and not large ones."""
    iterator = iter(batches)
    held: list[pa.RecordBatch] = []
    rows = nbytes = 0
    for batch in iterator:
        held.append(batch)
        rows += batch.num_rows
        nbytes += batch.nbytes
        if rows >= most_rows or nbytes > _SMALL_BYTES:
            return itertools.chain(held, iterator), False
    return held, True


def paths_of(fragments: Iterable[Fragment]) -> list[str]:
    """The files of some new fragments: column groups, key segments and balls."""
    return [
        path
        for fragment in fragments
        for path in (*(file.path for file in fragment.files), *_paths_beside(fragment.keys, fragment.balls))
    ]


def _paths_beside(keys: KeySegment | None, balls: Iterable[BallSegment]) -> Iterator[str]:
    if keys is not None:
        yield keys.path
    yield from (segment.path for segment in balls)


def discard(store: Store, fragments: Iterable[Fragment]) -> None:
    """Remove the files of fragments that will not be committed, as far as that works: the rest are orphans."""
    with contextlib.suppress(StorageError):
        store.delete(paths_of(fragments))
