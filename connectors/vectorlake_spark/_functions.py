"""Nearest neighbours in Spark: `knn` and `knn_join`, table functions over the batches of a table of queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
from pyspark.sql.types import ArrayType, IntegerType, LongType, NumericType, StructField, StructType
from pyspark.sql.types import DoubleType as Double
from pyspark.sql.udtf import AnalyzeArgument, AnalyzeResult, UserDefinedTableFunction
from pyspark.util import PythonEvalType

from vectorlake import InvalidInputError, NotFoundError, Table
from vectorlake.extend import TableRef, did_you_mean, found_columns
from vectorlake_spark._failing import failing_briefly
from vectorlake_spark._options import Options
from vectorlake_spark._types import arrow_schema, shown_array, spark_field

SEARCH: Final = {
    "metric": "metric", "filter": "filter", "col": "column", "mode": "mode", "index": "index", "nprobe": "nprobe",
    "ef": "ef", "target_recall": "target_recall", "pool": "pool", "max_distance": "max_distance",
    "group_col": "group_by", "group_size": "group_size", "threads": "threads",
}  # fmt: skip
"""What the functions take by name, as in DuckDB, and what `Table.knn` calls it."""
LOCATE: Final = ("name", "version", "tag", "timestamp", "branch", "storage")
"""What says which table, besides its path."""
FRAME: Final = ("vec", "id", "columns")
"""The queries' vector column, the column that names a query in the answer, and the columns of the rows found."""

_MATCH: Final = (
    StructField("rank", IntegerType(), False),
    StructField("row_id", LongType(), False),
    StructField("distance", Double(), False),
)


@dataclass
class Search(AnalyzeResult):
    """A search, planned while Spark analyzes the statement: all tasks search the version that was the newest then."""

    table: TableRef | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    vectors: str | None = None
    """The queries' vector column; None where the query is an array and no table."""
    label: str | None = None
    """The queries' column that names them."""


def plan(
    queries: AnalyzeArgument,
    table: AnalyzeArgument,
    k: AnalyzeArgument | None,
    options: Mapping[str, Any],
    *,
    join: bool,
) -> Search:
    """What a call's arguments ask for, and the columns of the answer.

    Raises:
        InvalidInputError: an unknown option, one that is no constant, queries without vectors.
        NotFoundError: no such table, version or column.
    """
    given = {name: _constant(name, argument) for name, argument in options.items()}
    for name in given:
        known = [*SEARCH, *LOCATE, *FRAME, "k"]
        if name not in known:
            raise InvalidInputError(
                f"there is no option {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}"
            )
    found = _table(str(_constant("table", table)), given)
    arguments: dict[str, Any] = {SEARCH[name]: value for name, value in given.items() if name in SEARCH}
    arguments |= {"k": 10 if k is None else _constant("k", k)}
    if join and not queries.isTable:
        raise InvalidInputError("knn_join takes a table of queries: knn_join(TABLE(queries), 'path', 10)")
    asked = queries.dataType.fields if isinstance(queries.dataType, StructType) and queries.isTable else None
    vectors = None if asked is None else _vector_column(asked, given.get("vec"), arguments.get("column"))
    label = given.get("id")
    columns = _columns(found, given.get("columns"))
    if join:
        leading = list(asked or ())
    elif label is None:
        leading = [StructField("query", LongType(), False)]
    else:
        named = next((one for one in asked or () if one.name == label), None)
        if named is None:
            raise NotFoundError(f"the queries have no column {label!r}, which id names")
        leading = [StructField("query", named.dataType, named.nullable)]
    # Without a name, queries are counted: by one task, in the order in which they come.
    alone = not join and label is None and asked is not None
    arguments.setdefault("threads", 1 if asked is not None and not alone else None)
    shown = [spark_field(one) for one in found.scan(list(columns)).schema]
    return Search(
        schema=StructType(_distinct([*leading, *_MATCH, *shown])),
        withSinglePartition=alone,
        table=found.ref,
        arguments=arguments,
        columns=columns,
        vectors=vectors,
        label=label,
    )


class Knn:
    """`knn(TABLE(queries), 'path', 10)`: the nearest rows of each query: `query`, `rank`, `row_id`, `distance`, columns."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._schema = arrow_schema(search.schema)
        self._counted = 0

    @staticmethod
    def analyze(
        queries: AnalyzeArgument,
        table: AnalyzeArgument,
        k: AnalyzeArgument | None = None,
        **options: AnalyzeArgument,
    ) -> Search:
        with failing_briefly():
            return plan(queries, table, k, options, join=False)

    def eval(
        self, queries: pa.RecordBatch | pa.Array, *constants: pa.Array, **options: pa.Array
    ) -> Iterator[pa.Table]:
        """One search for a batch of queries. (The constants are those that were planned with.)"""
        with failing_briefly():
            found = _found(self._search, queries)
        numbers = found.column("query")
        if self._search.label is not None:
            label = queries.column(self._search.label).take(numbers)
        else:
            label = pa.compute.add(numbers, self._counted)
            self._counted += len(queries)
        yield _answer([label, *_results(found)], self._schema)


class KnnJoin:
    """`knn_join(TABLE(queries), 'path', 10)`: the columns of each query, `rank`, `row_id`, `distance`, columns."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._schema = arrow_schema(search.schema)

    @staticmethod
    def analyze(
        queries: AnalyzeArgument,
        table: AnalyzeArgument,
        k: AnalyzeArgument | None = None,
        **options: AnalyzeArgument,
    ) -> Search:
        with failing_briefly():
            return plan(queries, table, k, options, join=True)

    def eval(self, queries: pa.RecordBatch, *constants: pa.Array, **options: pa.Array) -> Iterator[pa.Table]:
        """One search for a batch of queries."""
        with failing_briefly():
            found = _found(self._search, queries)
        asked = [column.take(found.column("query").combine_chunks()) for column in queries.columns]
        yield _answer([*asked, *_results(found)], self._schema)


def table_function(handler: type, name: str) -> UserDefinedTableFunction:
    """A function over Arrow batches whose columns depend on its arguments.

    `pyspark.sql.functions.arrow_udtf` refuses those, though Spark runs them; it checks no more than that.
    """
    return UserDefinedTableFunction(handler, None, name=name, evalType=PythonEvalType.SQL_ARROW_UDTF)


def _found(search: Search, queries: pa.RecordBatch | pa.Array) -> pa.Table:
    assert search.table is not None
    vectors = queries if search.vectors is None else queries.column(search.vectors)
    return search.table.open().knn(_numbers(vectors), columns=list(search.columns), **search.arguments)


def _numbers(vectors: pa.Array) -> pa.Array:
    """Query vectors; SQL's decimal constants, such as `array(0.5, 1.0)`, as floats."""
    kind = vectors.type
    if pa.types.is_list(kind) and pa.types.is_decimal(kind.value_type):
        return vectors.cast(pa.list_(pa.float64()))
    return vectors


def _results(found: pa.Table) -> list[pa.ChunkedArray]:
    return [
        found.column(index) for index, name in enumerate(found.column_names) if index > 0 or name != "query"
    ]


def _answer(columns: Sequence[Any], schema: pa.Schema) -> pa.Table:
    arrays = [
        shown_array(
            column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column,
            schema.field(index).type,
        )
        for index, column in enumerate(columns)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _constant(name: str, argument: AnalyzeArgument) -> Any:
    if not argument.isConstantExpression:
        raise InvalidInputError(f"{name} must be a constant")
    return argument.value


def _table(path: str, given: Mapping[str, Any]) -> Table:
    options = {"path": path}
    for name in LOCATE:
        if given.get(name) is None:
            continue
        if name == "storage":
            options |= {f"storage.{key}": value for key, value in given[name].items()}
        else:
            options["table" if name == "name" else name] = str(given[name])
    return Options.parse(options).open()


def _vector_column(fields: Sequence[StructField], named: str | None, searched: str | None) -> str:
    """The queries' vector column: the one that is named, else that of the searched column's name, else the only one."""
    arrays = [
        one.name
        for one in fields
        if isinstance(one.dataType, ArrayType) and isinstance(one.dataType.elementType, NumericType)
    ]
    if named is not None:
        if named not in [one.name for one in fields]:
            raise NotFoundError(f"the queries have no column {named!r}, which vec names")
        return named
    if searched in arrays:
        return str(searched)
    if len(arrays) == 1:
        return arrays[0]
    raise InvalidInputError(
        f"say which column holds the query vectors, as vec => 'name': {', '.join(arrays)}"
        if arrays
        else "the queries have no column of vectors, which are arrays of numbers"
    )


def _columns(table: Table, named: Any) -> tuple[str, ...]:
    """The columns of the rows found: those named, by default all that hold no vectors."""
    if isinstance(named, str):
        named = [name.strip() for name in named.split(",") if name.strip()]
    return tuple(found_columns(table, named))


def _distinct(fields: Sequence[StructField]) -> list[StructField]:
    """The fields, of which a later one with a name that is taken is called `name_1`."""
    taken: set[str] = set()
    found = []
    for one in fields:
        name, count = one.name, 0
        while name.lower() in taken:
            count += 1
            name = f"{one.name}_{count}"
        taken.add(name.lower())
        found.append(StructField(name, one.dataType, one.nullable, one.metadata))
    return found
