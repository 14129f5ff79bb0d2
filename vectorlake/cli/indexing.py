"""Commands on vector indexes: create, list, describe, evaluate, optimize, rebuild and drop."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vectorlake.cli.command import AtVersion, Lake, TableName, command
from vectorlake.cli.maintenance import DryRun, told, told_commit
from vectorlake.cli.output import listing
from vectorlake.cli.progress import progress_bar
from vectorlake.cli.session import Session, parse_pairs

if TYPE_CHECKING:
    from vectorlake.table.index_info import IndexInfo

_MIB = 1 << 20

IndexName = Annotated[str, typer.Argument(metavar="INDEX", show_default=False, help="Name of the index")]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option", metavar="KEY=VALUE", help="An option of the kind; repeatable. The rest is chosen"
    ),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="How many may work; one a core by default")
]
Memory = Annotated[int, typer.Option("--memory-mib", min=32, help="MiB to use, roughly")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of everything random")]


def register(app: typer.Typer) -> None:
    """Add `index` and its commands to the tree."""
    indexes = typer.Typer(no_args_is_help=True, help="Vector indexes: create, look at, keep in shape, drop.")
    command(indexes, "create", writes=True)(create)
    command(indexes, "list")(list_indexes)
    command(indexes, "describe")(describe)
    command(indexes, "evaluate")(evaluate)
    command(indexes, "optimize", writes=True)(optimize)
    command(indexes, "rebuild", writes=True)(rebuild)
    command(indexes, "drop", writes=True)(drop)
    app.add_typer(indexes, name="index", rich_help_panel="Maintain")


def create(
    session: Session,
    lake: Lake,
    table: TableName,
    column: Annotated[
        str | None, typer.Option("--column", help="The vector column; needed if there are several")
    ] = None,
    kind: Annotated[str, typer.Option("--kind", help="ivf, graph, flat, …")] = "ivf",
    metric: Annotated[str, typer.Option("--metric", help="l2, cosine, dot or hamming")] = "l2",
    name: Annotated[
        str | None, typer.Option("--name", help="Of the index; column and kind by default")
    ] = None,
    option: Options = None,
    memory_mib: Memory = 1024,
    threads: Threads = None,
    seed: Seed = 0,
    calibrate: Annotated[
        bool, typer.Option(help="Measure recall, so that searches can be asked for a recall")
    ] = True,
) -> None:
    """Build an index over a vector column. What others write meanwhile is no conflict, and is scanned until `optimize`."""
    opened = session.table(lake, table)
    before = opened.snapshot
    with progress_bar(session, "indexing") as advance:
        opened.create_index(
            column,
            kind,
            name=name,
            metric=metric,
            memory_limit=memory_mib * _MIB,
            threads=threads,
            seed=seed,
            calibrate=calibrate,
            progress=advance,
            **parse_options(option),
        )
    made = opened.snapshot.summary["index"]
    told_commit(session, opened, before, f"indexed {opened.name}: {made}")


def list_indexes(session: Session, lake: Lake, table: TableName, version: AtVersion = None) -> None:
    """List the indexes of a table: how much they cover, how large they are."""
    records = [_record(info) for info in session.table(lake, table, version).indexes()]
    columns: dict[str, Any] = {
        "index": "left",
        "column": "left",
        "kind": "fixed",
        "metric": "fixed",
        "covered_rows": "right",
        "uncovered_rows": "right",
        "dead_rows": "right",
        "segments": "right",
        "bytes": "right",
    }
    listing(session, records, columns, empty="no indexes")


def describe(
    session: Session, lake: Lake, table: TableName, index: IndexName, version: AtVersion = None
) -> None:
    """Show an index: its options and why they are so, coverage, segments, size, recall, faults."""
    info = session.table(lake, table, version).describe_index(index)
    details = {
        "element": info.element,
        "dimension": info.dimension,
        "options": dict(info.options),
        "chosen": dict(info.chosen),
        "trained_rows": info.trained_rows,
        "recall": [{"effort": effort, "recall": recall} for effort, recall in info.recall],
        "parts": [dataclasses.asdict(segment) for segment in info.segments],
        "faults": list(info.faults),
    }
    told(session, str(info), _record(info) | details)


def evaluate(
    session: Session,
    lake: Lake,
    table: TableName,
    index: IndexName,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Recall of so many neighbours")] = 10,
    sample: Annotated[int, typer.Option("--sample", min=1, help="How many rows are asked for")] = 200,
    target_recall: Annotated[
        float | None, typer.Option("--target-recall", help="Search for this recall; 0.95 by default")
    ] = None,
    nprobe: Annotated[
        int | None, typer.Option("--nprobe", min=1, help="Partitions to look at instead")
    ] = None,
    threads: Threads = None,
) -> None:
    """Measure an index's recall against the exact answer, and its speed."""
    opened = session.table(lake, table)
    found = opened.evaluate_index(
        index, k=k, sample=sample, target_recall=target_recall, nprobe=nprobe, threads=threads
    )
    told(session, str(found), dataclasses.asdict(found))


def optimize(
    session: Session,
    lake: Lake,
    table: TableName,
    index: Annotated[str | None, typer.Option("--index", help="Only this one")] = None,
    memory_mib: Memory = 1024,
    threads: Threads = None,
    dry_run: DryRun = False,
) -> None:
    """Take new rows into the indexes, merge small segments, leave out dead rows."""
    opened = session.table(lake, table)
    before = opened.snapshot
    if dry_run:
        plans = opened.optimize_indexes(index, dry_run=True)
        assert isinstance(plans, list)
        record = {"plans": [dataclasses.asdict(plan) for plan in plans]}
        told(session, "\n".join(map(str, plans)) or "no indexes", record)
        return
    with progress_bar(session, "indexing") as advance:
        opened.optimize_indexes(index, memory_limit=memory_mib * _MIB, threads=threads, progress=advance)
    told_commit(session, opened, before, f"optimized the indexes of {opened.name}")


def rebuild(
    session: Session,
    lake: Lake,
    table: TableName,
    index: IndexName,
    option: Options = None,
    memory_mib: Memory = 1024,
    threads: Threads = None,
    seed: Seed = 0,
) -> None:
    """Make an index anew, as it was made but for the options given."""
    opened = session.table(lake, table)
    before = opened.snapshot
    with progress_bar(session, "indexing") as advance:
        opened.rebuild_index(
            index,
            memory_limit=memory_mib * _MIB,
            threads=threads,
            seed=seed,
            progress=advance,
            **parse_options(option),
        )
    told_commit(session, opened, before, f"rebuilt index {index} of {opened.name}")


def drop(session: Session, lake: Lake, table: TableName, index: IndexName) -> None:
    """Take an index away; earlier versions have it yet."""
    opened = session.table(lake, table)
    before = opened.snapshot
    opened.drop_index(index)
    told_commit(session, opened, before, f"dropped index {index} of {opened.name}")


def parse_options(pairs: list[str] | None) -> dict[str, Any]:
    """Options of a kind: numbers, true and false as JSON has them, anything else as text."""
    return {key: _value(text) for key, text in parse_pairs(pairs or [], "--option").items()}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _record(info: IndexInfo) -> dict[str, Any]:
    return {
        "index": info.name,
        "column": info.column,
        "kind": info.kind,
        "metric": info.metric,
        "rows": info.rows,
        "covered_rows": info.covered_rows,
        "uncovered_rows": info.uncovered_rows,
        "dead_rows": info.dead_rows,
        "segments": len(info.segments),
        "bytes": info.bytes,
    }
