"""A table's first version: from a schema, from data, or from files that exist already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from vectorlake.errors import InvalidInputError
from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.snapshot import FORMAT_VERSION, Snapshot
from vectorlake.plan.commit import Delta
from vectorlake.plan.layout import check_properties
from vectorlake.schema import Schema, schema_from_arrow
from vectorlake.table.commit import Committer
from vectorlake.table.context import Context
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
    context: Context,
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
        fragments = write_fragments(
            log.store, batches, schema.fields, properties=checked, new_id=context.new_id
        )
    return register_table(
        name,
        log,
        schema,
        fragments,
        next_field_id=next_field_id,
        primary_key=key,
        properties=checked,
        context=context,
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
        next_field_id=next_field_id,
    )
    delta = Delta(operation, added=tuple(fragments), summary={"added_rows": rows, **(summary or {})})
    snapshot = Committer(log, clock=context.clock, new_id=context.new_id).create(empty, delta)
    return Table(name, log, snapshot, context=context)
