"""Search in SQL: the functions that DuckDB calls with Arrow arrays, and the table macros that users call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vectorlake import InvalidInputError, Table
from vectorlake.extend import MetadataTable

MATCH: Final = pa.struct([("rank", pa.int32()), ("row_id", pa.int64()), ("distance", pa.float64())])
MATCH_SQL: Final = "STRUCT(rank INTEGER, row_id BIGINT, distance DOUBLE)"

OPTIONS: Final = {
    "k": "10",
    "metric": "NULL",
    "filter": "NULL",
    "col": "NULL",
    "mode": "NULL",
    "index": "NULL",
    "nprobe": "NULL",
    "ef": "NULL",
    "target_recall": "NULL",
    "pool": "NULL",
    "max_distance": "NULL",
    "group_col": "NULL",
    "group_size": "1",
}
"""What the search macros take by name, and its default: NULL is as if it were not given, but for `k`."""
_PYTHON_NAMES: Final = {"col": "column", "group_col": "group_by"}

Call = Callable[..., pa.Array]


@dataclass(frozen=True)
class Function:
    """A function that DuckDB calls with Arrow arrays, one element a row."""

    name: str
    call: Call
    parameters: list[str] | None
    returns: str
    volatile: bool
    """Whether it runs with each execution; else DuckDB folds it once, while it binds or plans a statement."""


class Tables(Protocol):
    """What the functions ask of an attached lake."""

    def pin(self, key: str) -> str:
        """The name of the snapshot that the statement being planned has bound for a table or view."""

    def pinned(self, name: str) -> Table:
        """The table at a pinned snapshot."""

    def place(self, table: str, version: str | None, shown: str) -> str:
        """The quoted name of a view that shows a table or its metadata, for the statement being bound."""

    def write(self, table: str, rows: pa.StructArray, mode: str) -> dict[str, Any]:
        """Write rows into a table: what `write_table` returns of the commit."""


def _pin(tables: Tables) -> Call:
    """`pin(key)`: folded while a statement is planned."""

    def pin(keys: pa.ChunkedArray) -> pa.Array:
        return pa.array([tables.pin(key) for key in keys.to_pylist()], pa.string())

    return pin


def _place(tables: Tables) -> Call:
    """`place(table, version, shown)`: folded while a statement is bound."""

    def place(names: pa.ChunkedArray, versions: pa.ChunkedArray, shown: pa.ChunkedArray) -> pa.Array:
        rows = zip(names.to_pylist(), versions.to_pylist(), shown.to_pylist(), strict=True)
        return pa.array([tables.place(*row) for row in rows], pa.string())

    return place


def _knn(tables: Tables) -> Call:
    """`knn(pin, vec, OPTIONS…)`: a list of matches for each vector."""

    def knn(pins: pa.ChunkedArray, vectors: pa.ChunkedArray, *options: pa.ChunkedArray) -> pa.Array:
        queries = _combined(vectors)
        found: list[tuple[np.ndarray, pa.ListArray]] = []
        for key, rows in _groups(pins, *options):
            found.append((rows, _search(tables.pinned(key[0]), queries.take(pa.array(rows)), *key[1:])))
        if len(found) == 1:
            return found[0][1]
        order = np.argsort(np.concatenate([rows for rows, _ in found]), kind="stable")
        return pa.concat_arrays([lists for _, lists in found]).take(pa.array(order))

    return knn


def _knn_all(tables: Tables) -> Call:
    """`knn_all(pin, vecs, OPTIONS…)`: the same for lists of vectors, each list in one search."""

    def knn_all(pins: pa.ChunkedArray, lists: pa.ChunkedArray, *options: pa.ChunkedArray) -> pa.Array:
        batches = _combined(lists)
        keys = zip(pins.to_pylist(), *(option.to_pylist() for option in options), strict=True)
        parts, offsets = [pa.array([], pa.list_(MATCH))], [0]
        for index, key in enumerate(keys):
            if batches[index].is_valid:
                parts.append(_search(tables.pinned(key[0]), batches[index].values, *key[1:]))
            offsets.append(sum(map(len, parts)))
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.concat_arrays(parts))

    return knn_all


def _write(tables: Tables) -> Call:
    """`write(table, rows, mode)`: all rows in one commit.

    It returns a list, since DuckDB calls a volatile function once for each field taken out of a struct.
    """

    def write(names: pa.ChunkedArray, lists: pa.ChunkedArray, modes: pa.ChunkedArray) -> pa.Array:
        rows = _combined(lists)
        kind = pa.struct([("table", pa.string()), ("version", pa.int64()), ("rows", pa.int64())])
        calls = zip(names.to_pylist(), modes.to_pylist(), strict=True)
        done = [[tables.write(name, _values(rows, i), mode)] for i, (name, mode) in enumerate(calls)]
        return pa.array(done, pa.list_(kind))

    return write


def _values(lists: pa.ListArray, index: int) -> pa.StructArray:
    scalar = lists[index]
    return scalar.values if scalar.is_valid else pa.array([], lists.type.value_type)


def _combined(array: pa.ChunkedArray) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _groups(*columns: pa.ChunkedArray) -> Iterator[tuple[tuple[Any, ...], np.ndarray]]:
    """Rows that agree on all columns: their values and indices."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, key in enumerate(zip(*(column.to_pylist() for column in columns), strict=True)):
        groups.setdefault(key, []).append(index)
    for key, rows in groups.items():
        yield key, np.array(rows, np.int64)


def _search(table: Table, queries: pa.Array, *values: Any) -> pa.ListArray:
    """The matches of each query, nearest first; none for a null one. The values are those of `OPTIONS`."""
    options: dict[str, Any] = {
        _PYTHON_NAMES.get(name, name): float(value) if isinstance(value, Decimal) else value
        for name, value in zip(OPTIONS, values, strict=True)
        if value is not None or name == "k"
    }
    valid = np.flatnonzero(queries.is_valid().to_numpy(zero_copy_only=False))
    counts = np.zeros(len(queries), np.int64)
    found = table.knn(query_vectors(queries), **options)
    matched = found["query"].to_numpy()
    counts[valid] = np.bincount(matched, minlength=len(valid))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    fields = [found[field.name].combine_chunks() for field in MATCH.fields]
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.StructArray.from_arrays(fields, fields=list(MATCH.fields))
    )


def query_vectors(queries: pa.Array) -> np.ndarray | pa.Array:
    """The queries that are not null: vectors [queries, dimension] of a DuckDB array or list column of numbers.

    Lists of lists are multivectors, and left as they are.

    Raises:
        InvalidInputError: no numbers, lists of several lengths, or NULL inside a vector.
    """
    t = pa.types
    kind = queries.type
    if t.is_null(kind):
        return np.empty((0, 0), np.float32)
    if not (t.is_fixed_size_list(kind) or t.is_list(kind) or t.is_large_list(kind)):
        raise InvalidInputError(
            f"a query must be a list or array of numbers, such as [0.1, 0.2]::FLOAT[2], not {kind}"
        )
    dense = queries.drop_null()
    flat = dense.flatten()
    if t.is_list(flat.type) or t.is_fixed_size_list(flat.type):
        return dense
    if t.is_decimal(flat.type) or t.is_null(flat.type):
        flat = flat.cast(pa.float64())
    if not (t.is_integer(flat.type) or t.is_floating(flat.type)):
        raise InvalidInputError(f"a query must be a list or array of numbers, not of {flat.type}")
    if flat.null_count:
        raise InvalidInputError("a query vector holds NULL: a vector needs all its numbers")
    lengths = pc.unique(pc.list_value_length(dense)).to_pylist()
    if len(lengths) > 1:
        raise InvalidInputError(
            f"the query vectors have different lengths: {', '.join(map(str, sorted(lengths)[:5]))}"
        )
    numbers: np.ndarray = flat.to_numpy(zero_copy_only=False)
    return numbers.reshape(len(dense), lengths[0] if lengths else 0)


def make_functions(tables: Tables) -> tuple[Function, ...]:
    """The functions that the macros and views call."""
    written = 'STRUCT("table" VARCHAR, version BIGINT, "rows" BIGINT)[]'
    return (
        Function("pin", _pin(tables), ["VARCHAR"], "VARCHAR", volatile=False),
        Function("place", _place(tables), ["VARCHAR"] * 3, "VARCHAR", volatile=False),
        Function("knn", _knn(tables), None, f"{MATCH_SQL}[]", volatile=True),
        Function("knn_all", _knn_all(tables), None, f"{MATCH_SQL}[][]", volatile=True),
        Function("write", _write(tables), None, written, volatile=True),
    )


def macros(prefix: str, *, with_row_id: bool) -> dict[str, str]:
    """The parameters and body of each macro, whose functions are called `prefix…`; versions show row ids, or don't."""

    def call(function: str, *arguments: str) -> str:
        return f"{quoted_name(prefix + function)}({', '.join(arguments)})"

    first, *others = [f"{name} := {default}" for name, default in OPTIONS.items()]
    found = call("knn", call("pin", "tbl"), "vec", *OPTIONS)
    vec = "vec := 'vec'"
    found_all = call(
        "knn_all",
        call("pin", "tbl"),
        "list_transform(rows, lambda r: struct_extract(r, vec))",
        *OPTIONS,
    )
    items = f"query_table({call('place', 'tbl', 'NULL', quoted_text('without vectors'))})"

    def at(shown: str, more: str = "") -> str:
        place = call("place", "tbl", "version::VARCHAR", quoted_text(shown))
        return f"SELECT * EXCLUDE (_row_id){more} FROM query_table({place})"

    # A column of the query's table would hide an alias of its name: `q` is not rare.
    return {
        "knn": f"""(tbl, vec, {", ".join([first, *others])}) AS TABLE
            SELECT m.rank, m.row_id, m.distance, i.* EXCLUDE (_row_id)
            FROM (SELECT unnest({found}) AS m) JOIN {items} AS i ON i._row_id = m.row_id
            ORDER BY m.rank""",
        "knn_join": f"""(queries, tbl, {", ".join([first, vec, *others])}) AS TABLE
            WITH asked AS MATERIALIZED (SELECT list(__vl_row) AS rows FROM query_table(queries) AS __vl_row),
            found AS (
                SELECT unnest(rows) AS q, generate_subscripts(rows, 1) AS number, unnest({found_all}) AS matches
                FROM asked
            ),
            flat AS (SELECT q, number, unnest(matches) AS m FROM found)
            SELECT unnest(f.q), f.m.rank AS rank, f.m.row_id AS row_id, f.m.distance AS distance,
                i.* EXCLUDE (_row_id)
            FROM flat AS f JOIN {items} AS i ON i._row_id = f.m.row_id
            ORDER BY f.number, f.m.rank""",
        "table_at": f"(tbl, version) AS TABLE {at('', ', _row_id' if with_row_id else '')}",
        **{f"table_{table}": f"(tbl, version := NULL) AS TABLE {at(table)}" for table in MetadataTable},
        "write_table": f"""(tbl, source, mode := 'append') AS TABLE
            SELECT w.* FROM (
                SELECT unnest({call("write", "tbl", "list(__vl_row)", "mode")}) AS w FROM query_table(source) AS __vl_row
            )""",
    }


def quoted_text(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("'", "''") + "'"


def quoted_name(*parts: str) -> str:
    """An identifier, quoted, of one part or several."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)
