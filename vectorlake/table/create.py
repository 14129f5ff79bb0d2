"""A table's first version: from a schema, from data, or from files that exist already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa
from pyroaring import BitMap64

from vectorlake.errors import InvalidInputError
from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.snapshot import FORMAT_VERSION, PRIMARY_KEY, Snapshot
from vectorlake.plan.commit import Delta
from vectorlake.plan.keys import check_key
from vectorlake.plan.layout import check_properties
from vectorlake.schema import Field, Schema, schema_from_arrow
from vectorlake.store.protocol import Store
from vectorlake.table.commit import Committer
from vectorlake.table.context import Context
from vectorlake.table.files import DataFiles
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.ingest import as_reader, conforming
from vectorlake.table.key_segments import KeyCollector
from vectorlake.table.keys import KeyGuard
from vectorlake.table.log import TableLog
from vectorlake.table.table import Table
from vectorlake.table.writer import discard, write_fragments


def create_table(
    name: str,
    log: TableLog,
    data_or_schema: object,
    *,
    primary_key: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
    context: Context,
) -> Table:
    """Commit a table's first version, with the rows of `data_or_schema` if it is data (see `Lake.create_table`)."""
    reader = None if isinstance(data_or_schema, pa.Schema) else as_reader(data_or_schema)
    arrow = data_or_schema if reader is None else reader.schema
    schema, next_field_id, key = planned(name, arrow, primary_key)
    checked = check_properties(properties or {})
    fragments: list[Fragment] = []
    if reader is not None:
        keys = KeyCollector(key) if key else None
        fragments = write_fragments(
            log.store,
            conforming(reader, schema.fields),
            schema.fields,
            properties=checked,
            new_id=context.new_id,
            keys=keys,
        )
        if keys is not None:
            check_distinct(log.store, fragments, key, context, keys=keys)
    return register_table(
        name,
        log,
        schema,
        fragments,
        next_field_id=next_field_id,
        primary_key=tuple(field.id for field in key),
        properties=checked,
        context=context,
    )


def planned(name: str, arrow: pa.Schema, primary_key: Sequence[str]) -> tuple[Schema, int, list[Field]]:
    """What a new table's schema will be, the next free field id, and the columns of its primary key.

    Raises:
        NotFoundError, InvalidInputError: columns that make no table, or a key that can't be one.
    """
    schema, next_field_id = schema_from_arrow(arrow)
    if not schema.fields:
        raise InvalidInputError(f"table {name!r} needs at least one column")
    schema = with_key(schema, primary_key)
    return schema, next_field_id, [schema.field(column) for column in primary_key]


def with_key(schema: Schema, primary_key: Sequence[str]) -> Schema:
    """The schema with the columns of a primary key made non-null.

    Raises:
        NotFoundError: a key column that is not there.
        InvalidInputError: a column twice, or of a type that can't identify rows.
    """
    if isinstance(primary_key, str) or len(set(primary_key)) != len(primary_key):
        raise InvalidInputError(f"primary_key must be a list of different columns, not {primary_key!r}")
    chosen = {schema.field(column).id for column in primary_key}
    check_key([field for field in schema.fields if field.id in chosen])
    fields = tuple(
        msgspec.structs.replace(field, nullable=False) if field.id in chosen else field
        for field in schema.fields
    )
    return msgspec.structs.replace(schema, fields=fields)


def check_distinct(
    store: Store,
    fragments: Sequence[Fragment],
    key: Sequence[Field],
    context: Context,
    *,
    keys: KeyCollector | None = None,
) -> None:
    """Refuse fragments of a new table in which a primary key occurs twice, and remove their files.

    `keys` has hashed the keys while they were written; without it they are read again.

    Raises:
        InvalidInputError: names some.
    """
    files = DataFiles(store, context)
    readers = [
        FragmentReader(fragment, files=files, load_deletes=lambda _: BitMap64()) for fragment in fragments
    ]
    guard = KeyGuard.of(readers, key) if keys is None else KeyGuard(readers, key, keys.hashes)
    try:
        guard.check_distinct()
    except InvalidInputError:
        discard(store, fragments)
        raise


def register_table(
    name: str,
    log: TableLog,
    schema: Schema,
    fragments: Sequence[Fragment],
    *,
    next_field_id: int,
    operation: str = "create",
    primary_key: tuple[int, ...] = (),
    properties: Mapping[str, str] | None = None,
    summary: Mapping[str, Any] | None = None,
    context: Context,
) -> Table:
    """Commit a table's first version from fragments that are written already, or lie in foreign files."""
    rows = sum(fragment.live_rows for fragment in fragments)
    empty = Snapshot(
        table_id=context.new_id(),
        version=0,
        commit_id="",
        timestamp_ms=context.clock() - 1,
        operation=operation,
        schema=schema,
        format_version=FORMAT_VERSION,
        properties=dict(properties or {}),
        primary_key=primary_key,
        required_features=(PRIMARY_KEY,) if primary_key else (),
        next_field_id=next_field_id,
    )
    delta = Delta(operation, added=tuple(fragments), summary={"added_rows": rows, **(summary or {})})
    committer = Committer(log, clock=context.clock, new_id=context.new_id, audit=context.audit)
    snapshot = committer.create(empty, delta)
    return Table(name, log, snapshot, context=context)
