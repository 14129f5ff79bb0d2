"""A table that many workers write and one creates: each stages fragments, and the table appears with all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from vectorlake.ids import NewId, random_id
from vectorlake.lake.lake import Lake
from vectorlake.plan.layout import check_properties
from vectorlake.schema import schema_from_arrow
from vectorlake.table.ingest import as_reader, conforming
from vectorlake.table.staging import StagedRows
from vectorlake.table.table import Table
from vectorlake.table.writer import write_fragments


def stage_new(
    lake: Lake,
    name: str,
    data: object,
    *,
    properties: Mapping[str, str] | None = None,
    new_id: NewId = random_id,
) -> StagedRows:
    """Write rows of a table that is not there yet, as `stage_rows` does for one that is.

    All workers must give data of the same Arrow schema. Until `create_staged` the files belong to no table.

    Raises:
        InvalidInputError: values that don't fit, or a bad property; nothing is left.
    """
    reader = as_reader(data)
    schema, _ = schema_from_arrow(reader.schema)
    fragments = write_fragments(
        lake.folder(name),
        conforming(reader, schema.fields),
        schema.fields,
        properties=check_properties(properties or {}),
        new_id=new_id,
    )
    return StagedRows.of(fragments)


def create_staged(
    lake: Lake,
    name: str,
    schema: pa.Schema,
    staged: Sequence[StagedRows],
    *,
    properties: Mapping[str, str] | None = None,
    summary: Mapping[str, Any] | None = None,
) -> Table:
    """Create a table of what workers staged for it, in the order given: one commit, after which it's there whole.

    Args:
        schema: of the data that was staged.
        summary: what the first snapshot is to say besides.

    Raises:
        AlreadyExistsError: there is a table of that name.
    """
    fields, next_field_id = schema_from_arrow(schema)
    return lake.register_table(
        name,
        fields,
        [fragment for part in staged for fragment in part.fragments()],
        next_field_id=next_field_id,
        operation="create",
        properties=properties,
        summary=summary,
    )
