"""Commands that tidy up: compact, rewrite-manifests, expire, collect-orphans, repair; and those on branches."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vectorlake.cli.command import Lake, TableName, command
from vectorlake.cli.output import listing
from vectorlake.cli.progress import progress_bar
from vectorlake.cli.session import Session, parse_names
from vectorlake.cli.values import from_ms
from vectorlake.cli.writing import committed
from vectorlake.errors import InvalidInputError

if TYPE_CHECKING:
    from vectorlake.metadata.snapshot import Snapshot
    from vectorlake.table.table import Table

PANEL = "Maintain"
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done")]


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    for name, body in (
        ("compact", compact),
        ("rewrite-manifests", rewrite_manifests),
        ("expire", expire),
        ("collect-orphans", collect_orphans),
        ("repair", repair),
    ):
        command(app, name, writes=True, rich_help_panel=PANEL)(body)
    branches = typer.Typer(no_args_is_help=True, help="Branches: create, list, take over and delete.")
    command(branches, "create", writes=True)(branch_create)
    command(branches, "list")(branch_list)
    command(branches, "fast-forward", writes=True)(branch_forward)
    command(branches, "delete", writes=True)(branch_delete)
    app.add_typer(branches, name="branch", rich_help_panel="Versions")


def compact(
    session: Session,
    lake: Lake,
    table: TableName,
    sort_by: Annotated[
        str | None, typer.Option("--sort-by", metavar="A,B,…", help="Rewrite all rows in this order")
    ] = None,
    target_rows: Annotated[int | None, typer.Option("--target-rows", help="Rows of a fragment")] = None,
    dry_run: DryRun = False,
) -> None:
    """Rewrite small fragments as few large ones, and leave out deleted rows."""
    opened = session.table(lake, table)
    before = opened.snapshot
    names = parse_names(sort_by)
    if dry_run:
        plan = opened.compact(sort_by=names, target_rows=target_rows, dry_run=True)
        told(session, str(plan), {"plan": str(plan), "rows": getattr(plan, "rows", 0)})
        return
    with progress_bar(session, "compacting") as advance:
        opened.compact(sort_by=names, target_rows=target_rows, progress=advance)
    told_commit(session, opened, before, f"compacted {opened.name}")


def rewrite_manifests(
    session: Session,
    lake: Lake,
    table: TableName,
    by: Annotated[
        str | None, typer.Option("--by", metavar="COLUMN", help="Order them by a column's statistics")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Merge small manifests, or order all of them by a column, so that planning stays fast."""
    opened = session.table(lake, table)
    before = opened.snapshot
    if dry_run:
        plan = opened.rewrite_manifests(by, dry_run=True)
        told(session, str(plan), {"plan": str(plan)})
        return
    opened.rewrite_manifests(by)
    told_commit(session, opened, before, f"rewrote the manifests of {opened.name}")


def expire(
    session: Session,
    lake: Lake,
    table: TableName,
    days: Annotated[float, typer.Option("--older-than-days", help="Keep younger versions")] = 5.0,
    keep_last: Annotated[int, typer.Option("--keep-last", help="Keep so many of the newest")] = 1,
    dry_run: DryRun = False,
) -> None:
    """Let old versions expire; tagged ones and what branches need stay."""
    opened = session.table(lake, table)
    done = opened.expire_snapshots(older_than=_age(days), keep_last=keep_last, dry_run=dry_run)
    what = "would expire" if dry_run else "expired"
    told(
        session,
        f"{opened.name}: {len(done.versions):,} versions {what}",
        {"table": opened.name, "versions": list(done.versions), "dry_run": dry_run},
    )


def collect_orphans(
    session: Session,
    lake: Lake,
    table: TableName,
    days: Annotated[float, typer.Option("--older-than-days", help="Leave younger files alone")] = 3.0,
    dry_run: DryRun = False,
) -> None:
    """Remove files that no version refers to."""
    opened = session.table(lake, table)
    paths = opened.collect_orphans(older_than=_age(days), dry_run=dry_run)
    what = "would be removed" if dry_run else "removed"
    told(
        session,
        f"{opened.name}: {len(paths):,} files of {paths.size:,} bytes {what}",
        {"table": opened.name, "files": list(paths), "bytes": paths.size, "dry_run": dry_run},
    )


def repair(
    session: Session,
    lake: Lake,
    table: TableName,
    allow: Annotated[
        str | None,
        typer.Option("--allow", metavar="A,B", help="What may be given up: lose-values, lose-rows"),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Mend what verify finds: rebuild key segments, and give up lost files where that is allowed."""
    opened = session.table(lake, table)
    before = opened.snapshot
    if dry_run:
        plan = opened.repair(allow=parse_names(allow) or ())
        assert isinstance(plan, list)
        records = [
            {"path": one.finding.path, "problem": one.finding.problem, "remedy": str(one.remedy)}
            for one in plan
        ]
        columns: dict[str, Any] = {"path": "left", "problem": "left", "remedy": "left"}
        listing(session, records, columns, empty="nothing to repair")
        return
    opened.repair(allow=parse_names(allow) or (), dry_run=False)
    told_commit(session, opened, before, f"repaired {opened.name}")


BranchName = Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="Name of the branch")]


def branch_create(session: Session, lake: Lake, table: TableName, name: BranchName) -> None:
    """Begin a branch at the latest version."""
    opened = session.table(lake, table)
    made = opened.branch(name)
    told(
        session,
        f"branch {name} of {opened.name} begins at version {made.version}",
        {"branch": name, "version": made.version},
    )


def branch_list(session: Session, lake: Lake, table: TableName) -> None:
    """List the branches of a table."""
    records = [
        {
            "branch": one.name,
            "version": one.version,
            "fork_version": one.fork_version,
            "created": from_ms(one.timestamp_ms),
        }
        for one in session.table(lake, table).branches()
    ]
    columns: dict[str, Any] = {
        "branch": "left",
        "version": "right",
        "fork_version": "right",
        "created": "fixed",
    }
    listing(session, records, columns, empty="no branches")


def branch_forward(session: Session, lake: Lake, table: TableName, name: BranchName) -> None:
    """Take a branch over into the table, as one version."""
    opened = session.table(lake, table)
    before = opened.snapshot
    after = opened.fast_forward(name)
    committed(session, opened.name, before, after, f"{opened.name} holds what {name} does")


def branch_delete(session: Session, lake: Lake, table: TableName, name: BranchName) -> None:
    """Remove a branch and its versions."""
    opened = session.table(lake, table)
    opened.delete_branch(name)
    told(session, f"{opened.name} has no branch {name} any more", {"deleted": name})


def _age(days: float) -> dt.timedelta:
    if days < 0:
        raise InvalidInputError(f"--older-than-days must not be negative: {days}")
    return dt.timedelta(days=days)


def told_commit(session: Session, opened: Table, before: Snapshot, text: str) -> None:
    """Tell what a commit did, or that there was nothing to do."""
    done = opened.version != before.version
    text = text if done else f"there was nothing to do for {opened.name}"
    committed(session, opened.name, before, opened.snapshot, text)


def told(session: Session, text: str, record: dict[str, Any]) -> None:
    """Tell one thing: a text for people, or a JSON object."""
    if session.json:
        session.document(record)
    else:
        session.out.print(text, soft_wrap=True)
