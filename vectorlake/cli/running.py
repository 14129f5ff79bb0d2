"""Commands that run something over everything: demo, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vectorlake.cli.command import AtVersion, Lake, TableName, command
from vectorlake.cli.failure import ExitCode
from vectorlake.cli.progress import progress_bar
from vectorlake.cli.session import Session


def register_demo(app: typer.Typer) -> None:
    """Add `demo` to the tree: it comes first."""
    command(app, "demo", rich_help_panel="Start here")(demo)


def register_verify(app: typer.Typer) -> None:
    """Add `verify` to the tree, below the commands that look."""
    command(app, "verify", rich_help_panel="Look")(verify)


def verify(session: Session, lake: Lake, table: TableName, version: AtVersion = None) -> int:
    """Check every file of a version: there, of the recorded length and checksum. Exits with 1 on findings."""
    from vectorlake.table.verify import verify as check

    opened = session.table(lake, table, version)
    checked: list[str] = []
    with progress_bar(session, "checking files") as advance:

        def told(path: str) -> None:
            checked.append(path)
            advance(len(checked), None)

        findings = list(check(opened.view, progress=told))
    if session.json:
        records = [{"path": finding.path, "problem": finding.problem} for finding in findings]
        session.document(
            {
                "table": opened.name,
                "version": opened.version,
                "ok": not findings,
                "files": len(checked),
                "findings": records,
            }
        )
    else:
        for finding in findings:
            session.out.print(f"[red]{finding.path}[/red] {finding.problem}", soft_wrap=True)
        outcome = f"[red]{len(findings)} findings[/red]" if findings else "[green]all is well[/green]"
        session.out.print(
            f"{opened.name}, version {opened.version}: {len(checked):,} data files checked, {outcome}",
            soft_wrap=True,
        )
    return ExitCode.FINDINGS if findings else ExitCode.OK


def demo(
    session: Session,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Where it lies; made anew each time [default: demo-lake]"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Harvest at most so many docstrings [default: 20000]")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep/--no-keep", help="Keep the folder afterwards")] = True,
) -> None:
    """From an Iceberg table to a searchable vector lake, step by step, on this machine's docstrings."""
    from vectorlake.demo.run import run_demo

    summary = run_demo(folder, limit=limit, keep=keep, console=None if session.json else session.out)
    if session.json:
        session.document(summary)
