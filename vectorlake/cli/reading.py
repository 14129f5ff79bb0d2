"""Commands that answer questions: scan, count, query, knn."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vectorlake.cli.command import AtVersion, Columns, Filter, Lake, TableName, command
from vectorlake.cli.output import stream
from vectorlake.cli.session import Session, parse_names
from vectorlake.errors import InvalidInputError, UnsupportedError

PANEL = "Ask"
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", min=0, show_default=False, help="At most so many rows [default: 20, or all with --json]"
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    command(app, "scan", rich_help_panel=PANEL)(scan)
    command(app, "count", rich_help_panel=PANEL)(count)
    command(app, "query", rich_help_panel=PANEL)(query)
    command(app, "knn", rich_help_panel=PANEL)(knn)


def scan(
    session: Session,
    lake: Lake,
    table: TableName,
    columns: Columns = None,
    filter: Filter = None,
    limit: Limit = None,
    version: AtVersion = None,
    row_id: Annotated[bool, typer.Option("--row-id", help="Add the column _row_id")] = False,
) -> None:
    """Show rows: some columns, those that a filter keeps."""
    opened = session.table(lake, table, version)
    found = opened.scan(parse_names(columns), filter, limit, with_row_id=row_id)
    total = opened.snapshot.num_rows if filter is None else None
    if not session.json and limit is None:
        # One row more than is shown tells whether there are more.
        found = opened.scan(parse_names(columns), filter, 21, with_row_id=row_id)
    stream(session, found.to_batches(), limited=limit is not None, total=total)


def count(
    session: Session,
    lake: Lake,
    table: TableName,
    filter: Filter = None,
    version: AtVersion = None,
) -> None:
    """Count rows: all, or those that a filter keeps."""
    rows = session.table(lake, table, version).count(filter)
    if session.json:
        session.document({"rows": rows})
    else:
        session.out.print(f"{rows:,}")


def query(
    session: Session,
    lake: Lake,
    sql: Annotated[
        str,
        typer.Argument(metavar="SQL", show_default=False, help="DuckDB SQL; tables are lake.NAMESPACE.TABLE"),
    ],
    limit: Limit = None,
) -> None:
    """Run SQL in DuckDB with the lake attached as "lake".

    Example: vectorlake query demo-lake "SELECT kind, count(*) FROM lake.docs.docstrings GROUP BY ALL"
    """
    try:
        import duckdb
        import vectorlake_duckdb
    except ImportError as e:
        raise UnsupportedError("query needs DuckDB: pip install 'vectorlake[duckdb]'") from e
    from vectorlake.cli.relation import batches

    with duckdb.connect() as con:
        vectorlake_duckdb.attach(con, session.lake(lake), name="lake")
        found = batches(con, sql, limit)
        if found is not None:
            stream(session, found, limited=limit is not None)


def knn(
    session: Session,
    lake: Lake,
    table: TableName,
    query: Annotated[
        str | None,
        typer.Option(
            "--query",
            metavar="JSON|FILE",
            help="A vector as JSON, or a .npy or .json file of one or many; - reads JSON from standard input",
        ),
    ] = None,
    like: Annotated[
        int | None,
        typer.Option("--like", metavar="ROW_ID", help="Instead: the nearest to this row, itself left out"),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Neighbours of each query")] = 10,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            show_default=False,
            help="l2, cosine, dot or hamming [default: the index's, else l2]",
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option("--column", help="The vector column, where there are several")
    ] = None,
    filter: Filter = None,
    columns: Columns = None,
    version: AtVersion = None,
    mode: Annotated[
        str | None,
        typer.Option(
            "--mode", show_default=False, help="exact, index, or auto [default: exact, or as asked below]"
        ),
    ] = None,
    index: Annotated[str | None, typer.Option("--index", help="Search by this index")] = None,
    nprobe: Annotated[int | None, typer.Option("--nprobe", min=1, help="Partitions to look at (IVF)")] = None,
    ef: Annotated[int | None, typer.Option("--ef", min=1, help="Rows to visit in the mean (graph)")] = None,
    target_recall: Annotated[
        float | None,
        typer.Option("--target-recall", help="Look at as much of the index as reaches this recall"),
    ] = None,
    max_distance: Annotated[
        float | None, typer.Option("--max-distance", help="Only rows within this distance")
    ] = None,
    offset: Annotated[int | None, typer.Option("--offset", min=0, help="Skip so many of the nearest")] = None,
    group_by: Annotated[
        str | None, typer.Option("--group-by", help="A column of which each value may occur once")
    ] = None,
    group_size: Annotated[int, typer.Option("--group-size", min=1, help="Or so often")] = 1,
    explain: Annotated[bool, typer.Option("--explain", help="Tell how it was searched instead")] = False,
) -> None:
    """Find the nearest neighbours of a vector or of a row: exactly, or by an index."""
    from vectorlake.cli.vectors import read_queries, vector_of_row
    from vectorlake.schema import plain_columns
    from vectorlake.search.queries import vector_column

    if (query is None) == (like is None):
        raise InvalidInputError(
            "say what to search for: either --query with a vector, or --like with a row id"
        )
    opened = session.table(lake, table, version)
    vector = vector_column(opened.snapshot.schema, column).name
    if like is not None:
        queries = vector_of_row(opened, like, vector)
    else:
        assert query is not None
        queries = read_queries(query)
    wanted = parse_names(columns)
    if wanted is None:
        wanted = plain_columns(opened.snapshot.schema)
    options: dict[str, Any] = {
        "metric": metric,
        "filter": filter,
        "columns": wanted,
        "mode": mode,
        "index": index,
        "nprobe": nprobe,
        "ef": ef,
        "target_recall": target_recall,
        "max_distance": max_distance,
        "offset": offset,
        "exclude": None if like is None else [like],
        "group_by": group_by,
        "group_size": group_size,
    }
    if explain:
        told = opened.explain_knn(queries, vector, k, **options)
        if session.json:
            session.document(told.document())
        else:
            session.out.print(str(told), highlight=False, markup=False)
        return
    found = opened.knn(queries, vector, k, **options)
    many = found.num_rows and found["query"][-1].as_py() > 0
    if not session.json:
        found = found.drop_columns(["rank"] if many else ["query", "rank"])
    stream(session, found.to_batches(), limited=True)
