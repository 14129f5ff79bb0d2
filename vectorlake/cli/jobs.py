"""Commands on jobs: those that start one of each kind, and list, status, cancel and drop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vectorlake.cli import job_models
from vectorlake.cli.command import Columns, Filter, Lake, TableName, command
from vectorlake.cli.indexing import IndexName, Options, Seed, parse_options
from vectorlake.cli.job_command import JobOptions, job_command, jobs_module
from vectorlake.cli.maintenance import told
from vectorlake.cli.output import facts, listing
from vectorlake.cli.session import Session, parse_names, parse_pairs
from vectorlake.cli.sources import Catalog, CatalogOptions, CatalogUri, Source, iceberg_source
from vectorlake.cli.writing import ColumnName, Function, Inputs, Sql, parse_json

Job = Annotated[str, typer.Argument(metavar="JOB", show_default=False, help="Id of the job")]


def register(app: typer.Typer) -> None:
    """Add `job` and its commands to the tree."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Heavy work in tasks that resume: start it, look at it, stop it (docs/jobs.md).",
    )
    job_command(group, "knn-join")(knn_join)
    job_command(group, "backfill")(backfill)
    job_command(group, "build-index")(build_index)
    job_command(group, "update-index")(update_index)
    job_models.register(group)
    job_command(group, "compact")(compact)
    job_command(group, "import")(import_)
    command(group, "list", rich_help_panel="Look and stop")(list_jobs)
    command(group, "status", rich_help_panel="Look and stop")(status)
    command(group, "cancel", rich_help_panel="Look and stop")(cancel)
    command(group, "drop", rich_help_panel="Look and stop")(drop)
    app.add_typer(group, name="job", rich_help_panel="Maintain")


def knn_join(
    session: Session,
    options: JobOptions,
    lake: Lake,
    table: TableName,
    queries: Annotated[
        str | None,
        typer.Option(
            "--queries",
            metavar="TABLE|FILE",
            help="Whose neighbours: a table of the lake, or a Parquet or Arrow file or folder [default: TABLE itself]",
        ),
    ] = None,
    into: Annotated[
        str | None, typer.Option("--into", metavar="TABLE", help="Create this table of the pairs")
    ] = None,
    as_column: Annotated[
        str | None,
        typer.Option("--as-column", metavar="COLUMN", help="Or fill this list column of the query table"),
    ] = None,
    query_column: Annotated[
        str | None, typer.Option("--query-column", help="The queries' vectors; needed if there are several")
    ] = None,
    query_columns: Annotated[
        str | None,
        typer.Option("--query-columns", metavar="A,B,…", help="Columns of the queries to carry along"),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Neighbours of each")] = 10,
    column: Annotated[
        str | None, typer.Option("--column", help="TABLE's vectors; needed if there are several")
    ] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="l2, cosine, dot or hamming")] = None,
    filter: Filter = None,
    columns: Columns = None,
    mode: Annotated[str | None, typer.Option("--mode", help="exact, index or auto")] = None,
    index: Annotated[str | None, typer.Option("--index", help="The index to use")] = None,
    nprobe: Annotated[int | None, typer.Option("--nprobe", help="Partitions of it to look at")] = None,
    target_recall: Annotated[float | None, typer.Option("--target-recall", help="Or by a recall")] = None,
) -> None:
    """The nearest rows of TABLE for each row of a table or file: as a new table, or as a list column."""
    opened = session.lake(lake)
    items = opened.table(table)
    source = queries if queries is None or _is_path(queries) else opened.table(queries)
    module = jobs_module()
    options.run(
        session,
        lambda **how: module.knn_join(
            source,
            items,
            into=into,
            lake=opened,
            as_column=as_column,
            query_column=query_column,
            query_columns=parse_names(query_columns) or (),
            k=k,
            column=column,
            metric=metric,
            filter=filter,
            columns=parse_names(columns) or (),
            mode=mode,
            index=index,
            nprobe=nprobe,
            target_recall=target_recall,
            **how,
        ),
    )


def backfill(
    session: Session,
    options: JobOptions,
    lake: Lake,
    table: TableName,
    column: ColumnName,
    function: Function = None,
    sql: Sql = None,
    kind: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help='Add the column, e.g. as "vector(384, f16)"')
    ] = None,
    inputs: Inputs = None,
    argument: Annotated[
        list[str] | None,
        typer.Option(
            "--argument", metavar="KEY=JSON", help="With which a class is made on each worker; repeatable"
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every row, instead of those where the column is null")
    ] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows a call")] = 1024,
    task_rows: Annotated[int, typer.Option("--task-rows", min=1, help="Rows of a task")] = 32_768,
) -> None:
    """A column computed by a function or a stateful class for the rows that lack it."""
    from vectorlake.cli.typewords import parse_type

    opened = session.table(lake, table)
    given = {key: parse_json(text) for key, text in parse_pairs(argument or [], "--argument").items()}
    module = jobs_module()
    options.run(
        session,
        lambda **how: module.backfill(
            opened,
            column,
            function,
            sql=sql,
            type=None if kind is None else parse_type(kind),
            inputs=parse_names(inputs),
            arguments=given,
            rows="all" if everything else "missing",
            batch_size=batch_size,
            task_rows=task_rows,
            **how,
        ),
    )


def build_index(
    session: Session,
    options: JobOptions,
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
    seed: Seed = 0,
    task_rows: Annotated[int, typer.Option("--task-rows", min=1, help="Rows of a task")] = 131_072,
    calibrate: Annotated[
        bool, typer.Option(help="Measure recall, so that searches can be asked for a recall")
    ] = True,
) -> None:
    """Build an index over a vector column: train once, encode parts side by side, merge, commit once."""
    opened = session.table(lake, table)
    module = jobs_module()
    options.run(
        session,
        lambda **how: module.build_index(
            opened,
            column,
            kind,
            name=name,
            metric=metric,
            seed=seed,
            task_rows=task_rows,
            calibrate=calibrate,
            index_options=parse_options(option),
            **how,
        ),
    )


def update_index(
    session: Session,
    options: JobOptions,
    lake: Lake,
    table: TableName,
    index: IndexName,
    seed: Seed = 0,
    task_rows: Annotated[int, typer.Option("--task-rows", min=1, help="Rows of a task")] = 131_072,
) -> None:
    """Take rows that an index lacks into it, merge small segments, leave out dead rows."""
    opened = session.table(lake, table)
    module = jobs_module()
    options.run(
        session,
        lambda **how: module.update_index(opened, index, seed=seed, task_rows=task_rows, **how),
    )


def compact(
    session: Session,
    options: JobOptions,
    lake: Lake,
    table: TableName,
    sort_by: Annotated[
        str | None, typer.Option("--sort-by", metavar="A,B,…", help="Rewrite all rows in this order")
    ] = None,
    target_rows: Annotated[int | None, typer.Option("--target-rows", help="Rows of a fragment")] = None,
) -> None:
    """Rewrite small fragments as few large ones, groups of them side by side."""
    opened = session.table(lake, table)
    module = jobs_module()
    options.run(
        session,
        lambda **how: module.compact(opened, sort_by=parse_names(sort_by), target_rows=target_rows, **how),
    )


def import_(
    session: Session,
    options: JobOptions,
    source: Source,
    lake: Lake,
    table: TableName,
    catalog: Catalog = None,
    uri: CatalogUri = None,
    catalog_option: CatalogOptions = None,
) -> None:
    """Import an Iceberg table without copying: its data files stay where they are."""
    opened = session.lake(lake)
    found = iceberg_source(source, catalog, uri, catalog_option)
    module = jobs_module()
    options.run(session, lambda **how: module.import_iceberg(found, opened, table, **how))


def _is_path(name: str) -> bool:
    return "/" in name or Path(name).suffix in (".parquet", ".arrow", ".feather")


def list_jobs(session: Session, lake: Lake, table: TableName) -> None:
    """List the jobs that write a table, the newest first."""
    from vectorlake.jobs import list_jobs as find

    records = [
        {
            "job": one.record.id,
            "kind": one.record.name,
            "state": str(one.state),
            "stage": "" if one.stage is None else one.stage[0],
            "done": 0 if one.stage is None else one.stage[1],
            "tasks": 0 if one.stage is None else one.stage[2],
            "touched": one.touched,
        }
        for one in find(session.lake(lake).folder(table))
    ]
    listing(
        session,
        records,
        {
            "job": "left",
            "kind": "left",
            "state": "left",
            "stage": "left",
            "done": "right",
            "tasks": "right",
            "touched": "fixed",
        },
        empty="no jobs",
    )


def status(session: Session, lake: Lake, table: TableName, job: Job) -> None:
    """Tell how far a job is, with which parameters, and why tasks failed."""
    from vectorlake.cli.values import to_json
    from vectorlake.jobs import job_status

    found = job_status(session.lake(lake).folder(table), job)
    record = {
        "job": found.record.id,
        "kind": found.record.name,
        "state": str(found.state),
        "parameters": found.record.parameters,
        "stage": None if found.stage is None else found.stage[0],
        "done": None if found.stage is None else found.stage[1],
        "tasks": None if found.stage is None else found.stage[2],
        "outcome": found.outcome,
        "failures": [str(failure) for failure in found.failures],
    }
    shown = {name: value if isinstance(value, str) else to_json(value) for name, value in record.items()}
    facts(session, record, {name: text for name, text in shown.items() if record[name] not in (None, [])})


def cancel(session: Session, lake: Lake, table: TableName, job: Job) -> None:
    """Ask a job to stop, on whatever machine it runs; started again under its id, it goes on."""
    from vectorlake.jobs import cancel_job

    cancel_job(session.lake(lake).folder(table), job)
    told(session, f"asked job {job} to stop", {"cancelled": job})


def drop(session: Session, lake: Lake, table: TableName, job: Job) -> None:
    """Forget a job that does not run: what it has not committed becomes orphans."""
    from vectorlake.jobs import drop_job

    drop_job(session.lake(lake).folder(table), job)
    told(session, f"dropped job {job}", {"dropped": job})
