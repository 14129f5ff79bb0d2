"""Commands on versions: tag, restore."""

from __future__ import annotations

from typing import Annotated

import typer

from vectorlake.cli.command import AtVersion, Lake, TableName, command
from vectorlake.cli.output import listing
from vectorlake.cli.session import Session, parse_version
from vectorlake.cli.values import from_ms

PANEL = "Versions"


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    tags = typer.Typer(no_args_is_help=True, help="Name versions: create, list and delete tags.")
    command(tags, "create", writes=True)(tag_create)
    command(tags, "list")(tag_list)
    command(tags, "delete", writes=True)(tag_delete)
    app.add_typer(tags, name="tag", rich_help_panel=PANEL)
    command(app, "restore", writes=True, rich_help_panel=PANEL)(restore)


TagName = Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="Name of the tag")]


def tag_create(
    session: Session, lake: Lake, table: TableName, name: TagName, version: AtVersion = None
) -> None:
    """Name a version (the latest, unless --version says another); it never expires."""
    opened = session.table(lake, table)
    tag = opened.tag(name, None if version is None else parse_version(version))
    if session.json:
        session.document({"tag": tag.name, "version": tag.version, "created": from_ms(tag.timestamp_ms)})
    else:
        session.out.print(f"version {tag.version} of {opened.name} is now called {tag.name}")


def tag_list(session: Session, lake: Lake, table: TableName) -> None:
    """List the tags of a table."""
    tags = session.table(lake, table).tags()
    records = [
        {"tag": tag.name, "version": tag.version, "created": from_ms(tag.timestamp_ms)} for tag in tags
    ]
    listing(session, records, {"tag": "left", "version": "right", "created": "fixed"}, empty="no tags")


def tag_delete(session: Session, lake: Lake, table: TableName, name: TagName) -> None:
    """Remove a tag; the version stays."""
    opened = session.table(lake, table)
    opened.delete_tag(name)
    if session.json:
        session.document({"deleted": name})
    else:
        session.out.print(f"{opened.name} has no tag {name} any more")


def restore(
    session: Session,
    lake: Lake,
    table: TableName,
    version: Annotated[
        str, typer.Argument(metavar="VERSION", show_default=False, help="A version number, a tag, or a time")
    ],
) -> None:
    """Make a table what it was at an earlier version, as a new version."""
    from vectorlake.cli.writing import committed

    opened = session.table(lake, table)
    before = opened.snapshot
    after = opened.restore(parse_version(version))
    committed(
        session,
        opened.name,
        before,
        after,
        f"restored version {after.summary['restored_version']} of {opened.name}",
    )
