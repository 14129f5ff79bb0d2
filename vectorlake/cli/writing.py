"""Commands that change tables: create, append, delete, add-column, backfill, drop-column, drop."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vectorlake.cli.command import Lake, TableName, command
from vectorlake.cli.progress import progress_bar
from vectorlake.cli.session import Session, parse_names, parse_pairs
from vectorlake.errors import InvalidInputError

if TYPE_CHECKING:
    from vectorlake.metadata.snapshot import Snapshot
    from vectorlake.table.columns import BatchFunction

PANEL = "Write"
File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        show_default=False,
        help="Parquet, Arrow, CSV, JSON lines or .npy; or a folder of Parquet files",
    ),
]
ColumnName = Annotated[str, typer.Argument(metavar="COLUMN", show_default=False, help="Name of the column")]
Sql = Annotated[str | None, typer.Option("--sql", metavar="EXPRESSION", help='Compute it, e.g. "price * 2"')]
Function = Annotated[
    str | None,
    typer.Option(
        "--function",
        metavar="MODULE:NAME",
        help="Compute it by a Python function over record batches (a .py file works as well)",
    ),
]
Inputs = Annotated[
    str | None,
    typer.Option("--inputs", metavar="A,B,…", help="Columns that the function is given [default: all]"),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Rows a call of the function [default: 8192]")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    for name, body in (
        ("create", create),
        ("append", append),
        ("delete", delete),
        ("add-column", add_column),
        ("backfill", backfill),
        ("drop-column", drop_column),
        ("drop", drop),
    ):
        command(app, name, writes=name != "drop", rich_help_panel=PANEL)(body)


def committed(session: Session, name: str, before: Snapshot | None, after: Snapshot, told: str) -> None:
    """Tell what a commit did."""
    if session.json:
        record = {
            "table": name,
            "version": after.version,
            "operation": after.operation,
            "rows": after.num_rows,
            "summary": after.summary,
        }
        session.document({**record, "committed": before is None or after.version != before.version})
    else:
        session.out.print(f"{told}: version {after.version}, {after.num_rows:,} rows", soft_wrap=True)


def create(
    session: Session,
    lake: Lake,
    table: TableName,
    file: File,
    primary_key: Annotated[
        str | None, typer.Option("--primary-key", metavar="A,B,…", help="Columns that identify a row")
    ] = None,
    properties: Annotated[
        list[str] | None,
        typer.Option(
            "--property",
            metavar="KEY=VALUE",
            help="A table property, e.g. write.scalar-format=vortex; repeatable",
        ),
    ] = None,
) -> None:
    """Create a table from a file."""
    from vectorlake.cli.datafiles import open_data

    opened = session.lake(lake).create_table(
        table,
        open_data(file),
        primary_key=parse_names(primary_key) or (),
        properties=parse_pairs(properties or [], "--property"),
    )
    committed(session, opened.name, None, opened.snapshot, f"created {opened.name}")


def append(session: Session, lake: Lake, table: TableName, file: File) -> None:
    """Add the rows of a file to a table; columns are matched by name."""
    from vectorlake.cli.datafiles import open_data

    opened = session.table(lake, table)
    before = opened.snapshot
    data = open_data(file)
    with progress_bar(session, "appending") as advance:
        after = opened.append(data, progress=lambda rows: advance(rows, None))
    committed(
        session, opened.name, before, after, f"appended {after.summary['added_rows']:,} rows to {opened.name}"
    )


def delete(
    session: Session,
    lake: Lake,
    table: TableName,
    filter: Annotated[
        str, typer.Option("--filter", metavar="SQL", help='The rows to delete, e.g. "price > 3"')
    ],
) -> None:
    """Delete the rows that a filter keeps; earlier versions still have them."""
    opened = session.table(lake, table)
    before = opened.snapshot
    after = opened.delete(filter)
    gone = before.num_rows - after.num_rows
    committed(session, opened.name, before, after, f"deleted {gone:,} rows of {opened.name}")


def add_column(
    session: Session,
    lake: Lake,
    table: TableName,
    column: ColumnName,
    kind: Annotated[
        str | None,
        typer.Option(
            "--type", metavar="TYPE", help='Its type, e.g. "vector(384, f16)"; --sql can tell it by itself'
        ),
    ] = None,
    sql: Sql = None,
    function: Function = None,
    inputs: Inputs = None,
    default: Annotated[
        str | None,
        typer.Option("--default", metavar="JSON", help="What rows without a value of their own read as"),
    ] = None,
    batch_size: BatchSize = None,
) -> None:
    """Add a column: empty, with a default, or computed. Only its own files are written."""
    from vectorlake.cli.typewords import parse_type
    from vectorlake.table.columns import BATCH_ROWS

    definition = _definition(sql, function)
    parsed = None if kind is None else parse_type(kind)
    if definition is None and parsed is None:
        raise InvalidInputError(f"column {column!r} needs a --type, or --sql that tells it")
    opened = session.table(lake, table)
    before = opened.snapshot
    with progress_bar(session, f"computing {column}") as advance:
        after = opened.add_column(
            column,
            definition,
            type=parsed,
            inputs=parse_names(inputs),
            default=parse_json(default),
            batch_size=batch_size or BATCH_ROWS,
            progress=advance,
        )
    committed(session, opened.name, before, after, f"added column {column} to {opened.name}")


def backfill(
    session: Session,
    lake: Lake,
    table: TableName,
    column: ColumnName,
    sql: Sql = None,
    function: Function = None,
    inputs: Inputs = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every row, instead of those where the column is null")
    ] = False,
    batch_size: BatchSize = None,
) -> None:
    """Compute a column for the rows that lack it, such as those that a sync brought."""
    from vectorlake.table.columns import BATCH_ROWS, Rows

    definition = _definition(sql, function)
    if definition is None:
        raise InvalidInputError("say how to compute the column: --sql or --function")
    opened = session.table(lake, table)
    before = opened.snapshot
    with progress_bar(session, f"computing {column}") as advance:
        after = opened.backfill_column(
            column,
            definition,
            inputs=parse_names(inputs),
            rows=Rows.ALL if everything else Rows.MISSING,
            batch_size=batch_size or BATCH_ROWS,
            progress=advance,
        )
    committed(session, opened.name, before, after, f"filled column {column} of {opened.name}")


def drop_column(session: Session, lake: Lake, table: TableName, column: ColumnName) -> None:
    """Drop a column; no file is touched, and earlier versions still have it."""
    opened = session.table(lake, table)
    before = opened.snapshot
    after = opened.drop_column(column)
    committed(session, opened.name, before, after, f"dropped column {column} of {opened.name}")


def drop(
    session: Session,
    lake: Lake,
    table: TableName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask")] = False,
) -> None:
    """Remove a table with all its versions; files of an imported source are left alone."""
    opened = session.lake(lake)
    name = opened.table(table).name
    if not yes:
        import sys

        if not sys.stdin.isatty():
            raise InvalidInputError(f"this removes {name} with all its versions: say --yes")
        typer.confirm(f"Remove {name} with all its versions?", abort=True, err=True)
    opened.drop_table(table)
    if session.json:
        session.document({"dropped": name})
    else:
        session.out.print(f"dropped {name}")


def _definition(sql: str | None, function: str | None) -> BatchFunction | str | None:
    if sql is not None and function is not None:
        raise InvalidInputError("a column is computed by --sql or by --function, not by both")
    if function is None:
        return sql
    from vectorlake.jobs.functions import load_function

    return load_function(function)


def parse_json(text: str | None) -> Any:
    """A value given as JSON.

    Raises:
        InvalidInputError: it is none.
    """
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as e:
        raise InvalidInputError(
            f"a value is given as JSON, such as 0 or '\"none\"', not {text!r}: {e}"
        ) from e
