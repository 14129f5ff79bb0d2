"""Nearest neighbours and versions in SQL: table functions, their likes for frames, and a scalar function.

A search is a plan that DataFusion runs: a function gives each query vector the list of its matches, the list is
unnested, and each column of the rows found is a function of the row id. DataFusion drops those that are not asked for,
and a filter on the queries goes below the search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Final, TypeVar

import pyarrow as pa
from datafusion import DataFrame, Expr, ScalarUDF, SessionContext, TableFunction, col, udf, udtf

from vectorlake import InvalidInputError, NotFoundError, Table, VectorlakeError
from vectorlake.extend import MetadataTable, did_you_mean, free_names
from vectorlake_datafusion._catalog import find_table
from vectorlake_datafusion._matches import MATCH, MATCHES, Search
from vectorlake_datafusion._read import MetadataDataset, TableDataset, apart, table_dataset

OPTIONS: Final = {
    "metric": "metric",
    "filter": "filter",
    "col": "column",
    "mode": "mode",
    "index": "index",
    "nprobe": "nprobe",
    "ef": "ef",
    "target_recall": "target_recall",
    "pool": "pool",
    "max_distance": "max_distance",
    "group_col": "group_by",
    "group_size": "group_size",
}
"""What the table functions take by name in a last argument, `{'metric': 'cosine'}`, and its name in `Table.knn`."""

T = TypeVar("T")

_FOUND: Final = "__vl_found"
_QUERY: Final = "__vl_query"


def knn(
    ctx: SessionContext,
    table: Table,
    queries: object,
    k: int | None = 10,
    *,
    columns: Sequence[str] = (),
    **options: Any,
) -> DataFrame:
    """The nearest rows of one vector or of several, as a frame: what `Table.knn` returns, to go on with in DataFusion.

    Args:
        ctx: the context that the frame belongs to.
        table: a table, or a version of it.
        queries: as `Table.knn` takes them.
        k: neighbours a query; None for all within `max_distance`.
        columns: further columns of the rows found.
        options: as `Table.knn` takes them: `column`, `metric`, `filter`, `mode`, `target_recall`, ….

    Returns:
        `query`, `rank`, `row_id`, `distance` and `columns`.

    Raises:
        InvalidInputError, NotFoundError: what `Table.knn` refuses.
    """
    found = table.knn(queries, k=k, columns=columns, **options)
    return ctx.read_batches(found.combine_chunks().to_batches() or [_empty(found.schema)])


def knn_join(
    queries: DataFrame, table: Table, k: int | None = 10, *, vec: str = "vec", **options: Any
) -> DataFrame:
    """The nearest rows of a table for every row of a frame, as a frame that searches when it is run.

    Each batch of the frame (8,192 rows by default) is one search.

    Args:
        queries: a frame with a column of vectors; a null vector has no matches.
        table: a table, or a version of it.
        k: neighbours a query; None for all within `max_distance`.
        vec: the column of vectors.
        options: as `Table.knn` takes them.

    Returns:
        The frame's columns, `rank`, `row_id`, `distance` and the table's columns without vectors, as far as they are asked
        for. A column whose name is taken gets `_1`. Rows come in no particular order.

    Raises:
        NotFoundError: the frame has no column `vec`.
        InvalidInputError: what `Table.knn` refuses, another dimension among it.
    """
    return _joined(queries, Search.of(table, k, options), vec)


def knn_udf(table: Table, name: str = "knn_matches", *, k: int | None = 10, **options: Any) -> ScalarUDF:
    """A function of a vector that gives the list of its matches: register it with `ctx.register_udf`.

    `SELECT id, unnest(knn_matches(vec)) AS m FROM queries` has a row for each match, with the fields `rank`, `row_id` and
    `distance`.

    Args:
        table: a table, or a version of it; later versions don't show.
        name: what the function is called in SQL.
        k: neighbours a query.
        options: as `Table.knn` takes them.

    Raises:
        InvalidInputError: what `Table.knn` refuses.
    """
    search = Search.of(table, k, options)
    return udf(search.matches, [pa.list_(pa.float64())], MATCHES, "volatile", name)


def _joined(queries: DataFrame, search: Search, vec: str, *, hidden: Sequence[str] = ()) -> DataFrame:
    schema = queries.schema()
    search.check(schema, vec)
    matches = udf(search.matches, [schema.field(vec).type], MATCHES, "volatile", "knn_matches")
    found = queries.with_column(_FOUND, matches(_column(vec))).unnest_columns(_FOUND, preserve_nulls=False)
    kept = [name for name in schema.names if name not in hidden]
    match = _column(_FOUND)
    names = free_names(kept, [field.name for field in MATCH])
    flat = found.select(
        *map(_column, kept),
        *(match[field.name].alias(name) for field, name in zip(MATCH, names, strict=True)),
    )
    taken = [*kept, *names]
    row_id = _column(names[1])
    fields = search.fields()
    looked_up = [
        udf(search.values(field), [pa.int64()], field.type, "volatile", f"value_of_{field.name}")(
            row_id
        ).alias(name)
        for field, name in zip(fields, free_names(taken, [field.name for field in fields]), strict=True)
    ]
    return flat.select(*map(_column, taken), *looked_up)


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def _column(name: str) -> Expr:
    return col('"' + name.replace('"', '""') + '"')


# --- in SQL ---


def table_functions() -> list[TableFunction]:
    """The functions that `attach` registers."""
    calls = {"knn": _knn, "knn_join": _knn_join, "table_at": _table_at}
    calls |= {f"table_{kind}": _metadata_function(kind) for kind in MetadataTable}
    return [udtf(_failing_briefly(call), name, with_session=True) for name, call in calls.items()]


def _failing_briefly(call: Callable[..., T]) -> Callable[..., T]:
    """The function; its errors lose most of their traceback, which DataFusion writes into the message."""

    @wraps(call)
    def brief(*args: Any, **kwargs: Any) -> T:
        try:
            return call(*args, **kwargs)
        except VectorlakeError as e:
            raise e.with_traceback(None) from None

    return brief


def _knn(*args: Any, session: SessionContext) -> DataFrame:
    """`knn(table, vec, k, {options})`."""
    name, vector, k, options = _arguments("knn", args, 2, ("table", "vec", "k"))
    query = _as_vector(vector)

    def plan() -> DataFrame:
        search = Search.of(find_table(session, name.as_py()), k, options)
        batch = pa.record_batch({_QUERY: query})
        found = _joined(session.read_batch(batch), search, _QUERY, hidden=(_QUERY,))
        return found.sort(_column("rank").sort())

    return apart(plan)


def _as_vector(value: pa.Scalar) -> pa.Array:
    """One query, as a vector of its length, so that another dimension than the table's is found while planning."""
    numbers = value.as_py()
    if not (isinstance(numbers, list) and pa.types.is_primitive(value.type.value_type)):
        return pa.array([numbers], value.type)
    return pa.array([numbers], pa.list_(value.type.value_type, len(numbers)))


def _knn_join(*args: Any, session: SessionContext) -> DataFrame:
    """`knn_join(queries, table, k, {options})`, where `vec` is one more option."""
    queries, name, k, options = _arguments("knn_join", args, 2, ("queries", "table", "k"), ("vec",))
    vec = options.pop("vec", "vec")

    def plan() -> DataFrame:
        search = Search.of(find_table(session, name.as_py()), k, options)
        return _joined(_named_frame(session, queries.as_py()), search, vec)

    return apart(plan)


def _table_at(*args: Any, session: SessionContext) -> TableDataset:
    """`table_at(table, version)`."""
    name, version = _constants("table_at", args, 2, ("table", "version"))
    return apart(lambda: table_dataset(find_table(session, f"{name.as_py()}@{version.as_py()}")))


def _metadata_function(kind: MetadataTable) -> Callable[..., MetadataDataset]:
    """`table_snapshots(table)` and its kin."""

    def metadata(*args: Any, session: SessionContext) -> MetadataDataset:
        (name,) = _constants(f"table_{kind}", args, 1, ("table",))
        return apart(lambda: MetadataDataset(find_table(session, name.as_py()), kind))

    return metadata


def _named_frame(session: SessionContext, name: object) -> DataFrame:
    if not isinstance(name, str):
        raise InvalidInputError(
            f"knn_join takes the name of a table or view as text, such as 'queries', not {name!r}"
        )
    try:
        return session.table(name)
    except KeyError as e:
        raise NotFoundError(
            f"DataFusion has no table or view {name!r}: register one (a common table expression is not seen), or pass a "
            "frame to vectorlake_datafusion.knn_join in Python"
        ) from e


def _constants(function: str, args: Sequence[Any], least: int, names: Sequence[str]) -> list[pa.Scalar]:
    """The values of arguments, which DataFusion has folded where they are constant.

    Raises:
        InvalidInputError: too few or too many, or one that is not constant. It must not pass: DataFusion would call the
            function once, and join the result with every row.
    """
    if not least <= len(args) <= len(names):
        raise InvalidInputError(f"{function} takes {', '.join(names)}, not {len(args)} arguments")
    found = []
    for name, arg in zip(names, args, strict=False):
        try:
            found.append(arg.python_value())
        except (TypeError, ValueError) as e:
            raise InvalidInputError(
                f"{function} takes constants only, but {name} is {arg.canonical_name()}: join a table or view of vectors "
                "with knn_join, or make a frame in Python with vectorlake_datafusion.knn"
            ) from e
    return found


def _arguments(
    function: str, args: Sequence[Any], least: int, names: Sequence[str], more: Sequence[str] = ()
) -> tuple[pa.Scalar, pa.Scalar, int | None, dict[str, Any]]:
    """The arguments of a search; `k` may be left out, and options may follow as a struct or map."""
    values = _constants(function, args, least, (*names, "{options}"))
    given: Mapping[str, Any] = {}
    if len(values) > least and (pa.types.is_struct(values[-1].type) or pa.types.is_map(values[-1].type)):
        given = dict(values.pop().as_py())
    elif len(values) > len(names):
        raise InvalidInputError(
            f"the last argument of {function} must be options, such as {{'metric': 'cosine'}}, not {values[-1].as_py()!r}"
        )
    known = [*OPTIONS, *more]
    for option in given:
        if option not in known:
            raise InvalidInputError(
                f"{function} has no option {option!r}{did_you_mean(option, known)}; there are {', '.join(known)}"
            )
    options = {OPTIONS.get(option, option): value for option, value in given.items() if value is not None}
    k = values[2].as_py() if len(values) > 2 else 10
    return values[0], values[1], k, options
