"""Rows written by many workers and committed by one: each stages fragments, and the driver commits all of them at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pyarrow as pa

from vectorlake.errors import AlreadyExistsError, InvalidInputError
from vectorlake.ids import NewId
from vectorlake.metadata.deletion import checksum_of
from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.manifest import Manifest, decode_manifest
from vectorlake.metadata.snapshot import ManifestRef, Snapshot
from vectorlake.plan.commit import Delta
from vectorlake.schema import Field
from vectorlake.table.ingest import as_reader, check_columns, conforming
from vectorlake.table.key_segments import KeyCollector
from vectorlake.table.keys import KeyGuard, enforced, key_fields
from vectorlake.table.scan import MORSEL_ROWS
from vectorlake.table.view import View, to_output
from vectorlake.table.writer import discard, write_fragments

if TYPE_CHECKING:
    from vectorlake.table.table import Table

_STREAM: Final = "stream."
"""Begins the names of the table properties that hold how far each stream has been committed."""


class StageMode(StrEnum):
    """What becomes of staged rows."""

    APPEND = "append"
    OVERWRITE = "overwrite"
    """They replace all rows."""
    UPSERT = "upsert"
    """They replace the rows that have their primary keys; the others are added."""

    @classmethod
    def parse(cls, mode: str | StageMode) -> StageMode:
        """The mode of a name.

        Raises:
            InvalidInputError: there is none.
        """
        try:
            return cls(mode)
        except ValueError as e:
            raise InvalidInputError(
                f"mode must be 'append', 'overwrite' or 'upsert', not {mode!r}; create_table makes a new table"
            ) from e


@dataclass(frozen=True)
class StreamPosition:
    """How far a stream of writes has come; what is committed with it is committed exactly once.

    Attributes:
        stream: names the stream, such as a streaming query's id.
        epoch: grows with each commit of the stream; one that is not greater than the last committed is passed over.
    """

    stream: str
    epoch: int

    @property
    def key(self) -> str:
        """The table property that holds the last epoch."""
        return f"{_STREAM}{self.stream}"

    @property
    def properties(self) -> dict[str, str]:
        """What a commit with this position sets."""
        return {self.key: str(self.epoch)}

    def committed_in(self, snapshot: Snapshot) -> bool:
        """Whether the snapshot holds what was committed with this position, or a later one."""
        last = snapshot.properties.get(self.key)
        return last is not None and int(last) >= self.epoch


@dataclass(frozen=True)
class StagedRows:
    """Rows that are written and durable, but referred to by nobody yet. Picklable, and JSON through msgspec.

    Attributes:
        content: the fragments, as a manifest.
        rows: how many.
        nbytes: of their files.
        columns: ids of the fields that the data had; an upsert leaves others as they are in rows that are there.
    """

    content: bytes
    rows: int
    nbytes: int
    columns: tuple[int, ...] = ()

    @classmethod
    def of(cls, fragments: Sequence[Fragment], *, columns: tuple[int, ...] = ()) -> StagedRows:
        """What was written as these fragments, numbered so that their order stays."""
        numbered = [msgspec.structs.replace(fragment, id=index) for index, fragment in enumerate(fragments)]
        return cls(
            encode_fragments(numbered),
            rows=sum(fragment.row_count for fragment in fragments),
            nbytes=sum(file.size for fragment in fragments for file in fragment.files),
            columns=columns,
        )

    def fragments(self) -> list[Fragment]:
        """The fragments, without ids."""
        return decode_fragments(self.content)

    def to_bytes(self) -> bytes:
        """The value as bytes."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> StagedRows:
        """The value of `to_bytes`."""
        return msgspec.msgpack.decode(data, type=cls)


def encode_fragments(fragments: Sequence[Fragment]) -> bytes:
    """Fragments as bytes: what a worker sends to who commits them."""
    return Manifest.of(fragments).encode()


def decode_fragments(data: bytes) -> list[Fragment]:
    """The fragments of `encode_fragments`, in order of their ids."""
    ref = ManifestRef(path="", size=len(data), checksum=checksum_of(data), fragments=0, rows=0)
    return decode_manifest(data, ref, "a worker's result").fragments()


def write_rows(
    view: View, data: object, *, new_id: NewId, progress: Any = None
) -> tuple[list[Fragment], KeyCollector | None]:
    """Rows as new fragments, and the hashes of their primary keys if the table enforces one.

    Raises:
        InvalidInputError: columns, types or values that don't fit; nothing is left.
    """
    snapshot = view.snapshot
    reader = as_reader(data)
    check_columns(reader.schema, snapshot.schema)
    keys = KeyCollector(key_fields(snapshot.schema, snapshot.primary_key)) if enforced(snapshot) else None
    fragments = write_fragments(
        view.store,
        conforming(reader, snapshot.schema.fields),
        snapshot.schema.fields,
        properties=snapshot.properties,
        new_id=new_id,
        keys=keys,
        progress=progress,
    )
    return fragments, keys


def stage_rows(table: Table, data: object) -> StagedRows:
    """Write rows for a commit that somebody else makes: the part of a distributed write that a worker does.

    Args:
        table: may be pinned (`TableRef.open`); the rows are conformed to its version's schema.
        data: as for `Table.append`.

    Returns:
        What `commit_staged` takes. Until then the files are orphans: those of a worker that died are removed by
        `collect_orphans`, those of a write that is given up by `discard_staged`.

    Raises:
        InvalidInputError: columns, types or values that don't fit; nothing is left.
    """
    view = table.view
    reader = as_reader(data)
    names = frozenset(reader.schema.names)
    fragments, _ = write_rows(view, reader, new_id=view.files.context.new_id)
    given = tuple(field.id for field in view.snapshot.schema.fields if field.name in names)
    return StagedRows.of(fragments, columns=given)


def commit_staged(
    table: Table,
    staged: Sequence[StagedRows],
    *,
    mode: str | StageMode = StageMode.APPEND,
    position: StreamPosition | None = None,
    summary: Mapping[str, Any] | None = None,
) -> Snapshot:
    """Commit what workers staged, in the order given, as one version: all of it, or nothing.

    Args:
        table: a handle that can be written to; it moves to the new version.
        staged: of all workers.
        mode: what becomes of the rows.
        position: makes the commit happen once, however often it is tried: if the table has this position already,
            nothing is committed, and the files staged again are left to `collect_orphans`.
        summary: what the snapshot is to say besides.

    Returns:
        The snapshot committed; the newest one if the position was committed before.

    Raises:
        InvalidInputError: an unknown mode; a primary key twice among the rows; an upsert without primary key.
        AlreadyExistsError: appended rows have primary keys that the table has. After both the files are removed.
        ConflictError: as for `Table.append`, `overwrite` and `upsert`.
    """
    chosen = StageMode.parse(mode)
    fragments = [fragment for part in staged for fragment in part.fragments()]
    if chosen is StageMode.UPSERT:
        return _upsert(table, fragments, _columns(staged), position)
    rows = sum(fragment.row_count for fragment in fragments)
    guard = _guard(table.view, fragments)
    properties = {} if position is None else position.properties

    def build(head: Snapshot) -> Delta | None:
        if position is not None and position.committed_in(head):
            return None
        counted = {"added_rows": rows, **(summary or {})}
        if chosen is StageMode.OVERWRITE:
            counted["deleted_rows"] = head.num_rows
        elif guard is not None:
            guard.check(View(head, table.view.log, table.view.files))
        return Delta(
            chosen,
            added=tuple(fragments),
            removes_all=chosen is StageMode.OVERWRITE,
            properties=properties,
            summary=counted,
        )

    try:
        return table.commit(build)
    except AlreadyExistsError:
        discard(table.store, fragments)
        raise


def discard_staged(table: Table, staged: Sequence[StagedRows]) -> None:
    """Remove the files of a write that is given up, as far as that works: the rest are orphans.

    Never call this after a `commit_staged` that may have taken place.
    """
    for part in staged:
        discard(table.store, part.fragments())


def _guard(view: View, fragments: Sequence[Fragment]) -> KeyGuard | None:
    """What keeps the rows' primary keys unique, if the table enforces one; hashes the keys as they were written."""
    if not enforced(view.snapshot):
        return None
    fields = key_fields(view.snapshot.schema, view.snapshot.primary_key)
    guard = KeyGuard.of([view.reader(fragment) for fragment in fragments], fields)
    try:
        guard.check_distinct()
    except InvalidInputError:
        discard(view.store, fragments)
        raise
    return guard


def _columns(staged: Sequence[StagedRows]) -> frozenset[int]:
    """The fields that the data of all workers had.

    Raises:
        InvalidInputError: some had other columns than others.
    """
    columns = {frozenset(part.columns) for part in staged if part.rows}
    if len(columns) > 1:
        raise InvalidInputError(
            "the workers staged rows with different columns: an upsert needs the same of all"
        )
    return columns.pop() if columns else frozenset()


def _upsert(
    table: Table, fragments: Sequence[Fragment], columns: frozenset[int], position: StreamPosition | None
) -> Snapshot:
    view = table.view
    fields = [field for field in view.snapshot.schema.fields if field.id in columns or not columns]
    rows = pa.RecordBatchReader.from_batches(
        pa.schema([field.to_arrow() for field in fields]),
        (to_output(batch, fields) for batch in _batches(view, fragments, fields)),
    )
    if position is None:
        snapshot = table.upsert(rows)
    elif position.committed_in(table.refresh().snapshot):
        return table.snapshot
    else:
        with table.transaction() as tx:
            tx.upsert(rows)
            tx.set_properties(position.properties)
        snapshot = table.snapshot
    # An upsert writes the rows that it changes anew: of the staged files it keeps none.
    discard(table.store, fragments)
    return snapshot


def _batches(view: View, fragments: Sequence[Fragment], fields: list[Field]) -> Iterator[pa.RecordBatch]:
    """Some columns of fragments that are not committed, as they are stored."""
    for fragment in fragments:
        reader = view.reader(fragment)
        for start in range(0, fragment.row_count, MORSEL_ROWS):
            yield reader.read(fields, start, min(start + MORSEL_ROWS, fragment.row_count))
