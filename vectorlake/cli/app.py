"""The command's tree: every command is a function in one of the modules imported here."""

from __future__ import annotations

from typing import Annotated

import typer

from vectorlake.cli import (
    describing,
    indexing,
    inspecting,
    jobs,
    maintenance,
    reading,
    running,
    sources,
    versions,
    writing,
)
from vectorlake.cli.command import Debug, Json, LakeOption, StorageOptions

app = typer.Typer(
    name="vectorlake",
    help="Vector data lakes without a server: import Iceberg tables without copying, "
    "add embeddings, search them in SQL.",
    epilog="Start with: vectorlake demo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(value: bool) -> None:
    if value:
        import vectorlake

        print(f"vectorlake {vectorlake.__version__}")  # noqa: T201
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit"),
    ] = False,
    lake_option: LakeOption = None,
    storage_option: StorageOptions = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    ctx.obj = {"lake_option": lake_option, "storage_option": storage_option, "json": json, "debug": debug}


running.register_demo(app)
sources.register(app)
describing.register(app)
inspecting.register(app)
running.register_verify(app)
reading.register(app)
writing.register(app)
versions.register(app)
maintenance.register(app)
indexing.register(app)
jobs.register(app)
