"""Commands that start jobs on what rows are like: cluster, reduce, apply-model and dedup."""

from __future__ import annotations

from typing import Annotated

import typer

from vectorlake.cli.command import Lake, TableName
from vectorlake.cli.job_command import JobOptions, job_command, jobs_module
from vectorlake.cli.session import Session, parse_names

Column = Annotated[
    str | None, typer.Option("--column", help="The vectors; needed if there are several columns of them")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of everything random")]
TaskRows = Annotated[int, typer.Option("--task-rows", min=1, help="Rows of a task")]
Model = Annotated[
    str | None, typer.Option("--model", metavar="TABLE", help="Create this table that keeps the model")
]


def register(group: typer.Typer) -> None:
    """Add the commands to `job`."""
    job_command(group, "cluster")(cluster)
    job_command(group, "reduce")(reduce)
    job_command(group, "apply-model")(apply_model)
    job_command(group, "dedup")(dedup)


def cluster(
    session: Session,
    options: JobOptions,
    lake: Lake,
    table: TableName,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Clusters")],
    column: Column = None,
    as_column: Annotated[str, typer.Option("--as-column", help="The column of the clusters")] = "cluster",
    metric: Annotated[str, typer.Option("--metric", help="l2 or cosine")] = "l2",
    iterations: Annotated[int, typer.Option("--iterations", min=1, help="Passes, at most")] = 20,
    batch_share: Annotated[
        float, typer.Option("--batch-share", help="Of the table that a pass looks at (mini-batches)")
    ] = 1.0,
    model: Model = None,
    seed: Seed = 0,
    task_rows: TaskRows = 65_536,
    arrange: Annotated[
        bool, typer.Option("--arrange", help="Rewrite the rows in the order of their clusters, too")
    ] = False,
    target_rows: Annotated[
        int | None, typer.Option("--target-rows", help="Rows of a fragment that is written so")
    ] = None,
) -> None:
    """The cluster of each row, by k-means over all of them."""
    opened = session.lake(lake)
    items = opened.table(table)
    module = jobs_module()
    options.run(
        session,
        lambda **how: module.cluster(
            items,
            k=k,
            column=column,
            as_column=as_column,
            metric=metric,
            iterations=iterations,
            batch_share=batch_share,
            model=model,
            lake=opened,
            seed=seed,
            task_rows=task_rows,
            arrange=arrange,
            target_rows=target_rows,
            **how,
        ),
    )


def reduce(
    session: Session,
    options: JobOptions,
    lake: Lake,
    table: TableName,
    dimensions: Annotated[int, typer.Option("--dimensions", min=1, help="Of the new vectors")],
    method: Annotated[str, typer.Option("--method", help="pca, random, truncate or umap")] = "pca",
    column: Column = None,
    as_column: Annotated[str, typer.Option("--as-column", help="The column of the new vectors")] = "reduced",
    element: Annotated[str, typer.Option("--element", help="f32 or f16")] = "f32",
    metric: Annotated[str, typer.Option("--metric", help="Of umap: l2 or cosine")] = "l2",
    model: Model = None,
    seed: Seed = 0,
    task_rows: TaskRows = 65_536,
) -> None:
    """A shorter vector for each row: PCA, random projection, truncation, or UMAP for plots."""
    opened = session.lake(lake)
    items = opened.table(table)
    module = jobs_module()
    options.run(
        session,
        lambda **how: module.reduce(
            items,
            dimensions=dimensions,
            method=method,
            column=column,
            as_column=as_column,
            element=element,
            metric=metric,
            model=model,
            lake=opened,
            seed=seed,
            task_rows=task_rows,
            **how,
        ),
    )


def apply_model(
    session: Session,
    options: JobOptions,
    lake: Lake,
    table: TableName,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", show_default=False, help="The table that keeps the model")
    ],
    as_column: Annotated[str, typer.Option("--as-column", help="The column to fill")],
    column: Column = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every row, instead of those where the column is null")
    ] = False,
) -> None:
    """A column filled by a model that cluster or reduce kept, for rows that came later."""
    opened = session.lake(lake)
    items, kept = opened.table(table), opened.table(model)
    module = jobs_module()
    options.run(
        session,
        lambda **how: module.apply_model(
            items,
            kept,
            as_column=as_column,
            column=column,
            rows="all" if everything else "missing",
            **how,
        ),
    )


def dedup(
    session: Session,
    options: JobOptions,
    lake: Lake,
    table: TableName,
    by: Annotated[str, typer.Option("--by", help="vector, text or key")] = "vector",
    column: Annotated[
        str | None, typer.Option("--column", help="Of vectors or texts; needed if there are several")
    ] = None,
    keys: Annotated[str | None, typer.Option("--keys", metavar="A,B,…", help="Columns of the key")] = None,
    max_distance: Annotated[
        float | None, typer.Option("--max-distance", help="How far apart vectors of duplicates may be")
    ] = None,
    metric: Annotated[str, typer.Option("--metric", help="cosine, l2, dot or hamming")] = "cosine",
    mode: Annotated[str | None, typer.Option("--mode", help="exact or index")] = None,
    threshold: Annotated[float, typer.Option("--threshold", help="Jaccard similarity of texts")] = 0.8,
    shingle: Annotated[int, typer.Option("--shingle", min=1, help="Words that are compared together")] = 3,
    as_column: Annotated[
        str | None, typer.Option("--as-column", help="A column for the group of each row")
    ] = None,
    into: Annotated[
        str | None,
        typer.Option("--into", metavar="TABLE", help="Or create this table without the duplicates"),
    ] = None,
    task_rows: TaskRows = 65_536,
) -> None:
    """Groups of duplicate rows, by near vectors, similar texts or equal keys."""
    opened = session.lake(lake)
    items = opened.table(table)
    module = jobs_module()
    options.run(
        session,
        lambda **how: module.dedup(
            items,
            by=by,
            column=column,
            keys=parse_names(keys) or (),
            max_distance=max_distance,
            metric=metric,
            mode=mode,
            threshold=threshold,
            shingle=shingle,
            as_column=as_column,
            into=into,
            lake=opened,
            task_rows=task_rows,
            **how,
        ),
    )
