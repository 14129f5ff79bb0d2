"""Commands on tables that live elsewhere: import, sync."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vectorlake.cli.command import Lake, TableName, command
from vectorlake.cli.session import Session, parse_pairs
from vectorlake.cli.writing import committed
from vectorlake.errors import InvalidInputError, NotFoundError, UnsupportedError

if TYPE_CHECKING:
    from types import ModuleType

PANEL = "Sources"
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        show_default=False,
        help="A metadata.json (path or URI), or with --catalog a table's name there",
    ),
]
Catalog = Annotated[
    str | None,
    typer.Option(
        "--catalog",
        metavar="NAME",
        help="The Iceberg catalog, as pyiceberg is configured or --catalog-option says",
    ),
]
CatalogUri = Annotated[
    str | None, typer.Option("--uri", metavar="URI", help="The catalog's address, e.g. sqlite:///catalog.db")
]
CatalogOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--catalog-option", metavar="KEY=VALUE", help="A property of the catalog, e.g. type=rest; repeatable"
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    command(app, "import", writes=True, rich_help_panel=PANEL)(import_)
    command(app, "sync", writes=True, rich_help_panel=PANEL)(sync)


def import_(
    session: Session,
    source: Source,
    lake: Lake,
    table: TableName,
    catalog: Catalog = None,
    uri: CatalogUri = None,
    catalog_option: CatalogOptions = None,
) -> None:
    """Import an Iceberg table without copying: its data files stay where they are.

    Example: vectorlake import warehouse/docs/t/metadata/00004-….metadata.json my-lake docs.t
    """
    iceberg = _iceberg()
    found = iceberg_source(source, catalog, uri, catalog_option)
    opened = iceberg.import_table(found, session.lake(lake), table)
    committed(session, opened.name, None, opened.snapshot, f"imported {opened.name}")


def sync(
    session: Session,
    lake: Lake,
    table: TableName,
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="SOURCE",
            help="The newer metadata.json, or with --catalog the table's name there",
        ),
    ] = None,
    catalog: Catalog = None,
    uri: CatalogUri = None,
    catalog_option: CatalogOptions = None,
    updated: Annotated[
        str,
        typer.Option(
            "--updated", metavar="clear|keep", help="What becomes of our own columns in rows that changed"
        ),
    ] = "clear",
    lost: Annotated[
        str,
        typer.Option(
            "--lost", metavar="refuse|renew", help="What to do when rewritten rows can't be found again"
        ),
    ] = "refuse",
) -> None:
    """Follow what happened to the source since the import or the last sync; our own columns stay."""
    iceberg = _iceberg()
    opened = session.table(lake, table)
    before = opened.snapshot
    found = None if source is None else iceberg_source(source, catalog, uri, catalog_option)
    iceberg.sync(opened, found, updated=updated, lost=lost)
    after = opened.refresh().snapshot
    told = (
        f"synced {opened.name}" if after.version != before.version else f"{opened.name} is what its source is"
    )
    committed(session, opened.name, before, after, told)


def _iceberg() -> ModuleType:
    try:
        import pyiceberg  # noqa: F401
        import vectorlake_iceberg
    except ImportError as e:
        raise UnsupportedError("Iceberg tables need pyiceberg: pip install 'vectorlake[iceberg]'") from e
    return vectorlake_iceberg


def iceberg_source(source: str, catalog: str | None, uri: str | None, options: list[str] | None) -> Any:
    """A metadata file's address as it is, or a table loaded from a catalog."""
    properties = parse_pairs(options or [], "--catalog-option")
    if uri is not None:
        properties["uri"] = uri
    if catalog is None:
        if properties:
            raise InvalidInputError("--uri and --catalog-option belong to a catalog: name it with --catalog")
        return source
    from pyiceberg.catalog import load_catalog
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    try:
        return load_catalog(catalog, **properties).load_table(source)
    except (NoSuchTableError, NoSuchNamespaceError) as e:
        raise NotFoundError(f"catalog {catalog!r} has no table {source!r}") from e
    except (ValueError, KeyError, TypeError) as e:
        raise InvalidInputError(f"catalog {catalog!r} can't be opened: {e}") from e
