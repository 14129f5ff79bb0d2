"""The command on a table's metadata as rows: inspect."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from vectorlake.cli.command import AtVersion, Columns, Lake, TableName, command
from vectorlake.cli.output import stream
from vectorlake.cli.session import Session, parse_names
from vectorlake.cli.values import rows, to_json

if TYPE_CHECKING:
    import pyarrow as pa

    from vectorlake.table.inspect import MetadataTable
    from vectorlake.table.view import View


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    command(app, "inspect", rich_help_panel="Look")(inspect)


def inspect(
    session: Session,
    lake: Lake,
    table: TableName,
    what: Annotated[
        str,
        typer.Argument(metavar="WHAT", show_default=False, help="snapshots, files, fragments or refs"),
    ],
    columns: Columns = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many rows")] = None,
    version: AtVersion = None,
) -> None:
    """Show a table's metadata: its snapshots (the audit log), files, fragments, or branches and tags."""
    import pyarrow as pa

    from vectorlake.table.inspect import MetadataTable

    kind = MetadataTable.parse(what)
    names = parse_names(columns)
    opened = session.table(lake, table, version)
    batches = _batches(opened.view, kind, names, limit)
    if session.json:
        maps = [field.name for field in kind.schema if pa.types.is_map(field.type)]
        for batch in batches:
            for row in rows(batch):
                # Their keys are names: an object says more than a list of pairs.
                sys.stdout.write(
                    to_json(row | {name: dict(row[name]) for name in maps if name in row}) + "\n"
                )
    else:
        stream(session, batches, limited=limit is not None)


def _batches(
    view: View, kind: MetadataTable, names: list[str] | None, limit: int | None
) -> Iterator[pa.RecordBatch]:
    from vectorlake.table.inspect import inspect

    left = limit
    for batch in inspect(view, kind, columns=names):
        yield batch if left is None else batch.slice(0, left)
        if left is not None:
            left -= batch.num_rows
            if left <= 0:
                return
