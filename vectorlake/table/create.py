"""A table's first version: from a schema, from data, or from files that exist already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from vectorlake.clock import Clock, system_clock
from vectorlake.errors import InvalidInputError
from vectorlake.ids import NewId, random_id
from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.snapshot import FORMAT_VERSION, Snapshot
from vectorlake.plan.commit import Delta
from vectorlake.plan.layout import check_properties
from vectorlake.schema import Schema, schema_from_arrow
from vectorlake.table.commit import Committer
from vectorlake.table.files import Resolve
from vectorlake.table.ingest import as_reader, conforming
from vectorlake.table.log import TableLog
from vectorlake.table.table import Table
from vectorlake.table.writer import write_fragments


def create_table(
    name: str,
    log: TableLog,
    data_or_schema: object,
    *,
    primary_key: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
    resolve: Resolve,
    clock: Clock = system_clock,
    new_id: NewId = random_id,
) -> Table:
    """Commit a table's first version, with the rows of `data_or_schema` if it is data (see `Lake.create_table`)."""
    reader = None if isinstance(data_or_schema, pa.Schema) else as_reader(data_or_schema)
    arrow = data_or_schema if reader is None else reader.schema
    schema, next_field_id = schema_from_arrow(arrow)
    if not schema.fields:
        raise InvalidInputError(f"table {name!r} needs at least one column")
    key = tuple(schema.field(column).id for column in primary_key)
    checked = check_properties(properties or {})
    fragments: list[Fragment] = []
    if reader is not None:
        batches = conforming(reader, schema.fields)
        fragments = write_fragments(log.store, batches, schema.fields, properties=checked, new_id=new_id)
    return register_table(
        name,
        log,
        schema,
        fragments,
        next_field_id=next_field_id,
        primary_key=key,
        properties=checked,
        resolve=resolve,
        clock=clock,
        new_id=new_id,
    )


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
    resolve: Resolve,
    clock: Clock = system_clock,
    new_id: NewId = random_id,
) -> Table:
    """Commit a table's first version from fragments that are written already, or lie in foreign files."""
    rows = sum(fragment.live_rows for fragment in fragments)
    empty = Snapshot(
        table_id=new_id(),
        version=0,
        commit_id="",
        timestamp_ms=clock() - 1,
        operation=operation,
        schema=schema,
        format_version=FORMAT_VERSION,
        properties=dict(properties or {}),
        primary_key=primary_key,
        next_field_id=next_field_id,
    )
    delta = Delta(operation, added=tuple(fragments), summary={"added_rows": rows, **(summary or {})})
    snapshot = Committer(log, clock=clock, new_id=new_id).create(empty, delta)
    return Table(name, log, snapshot, resolve=resolve, clock=clock, new_id=new_id)
