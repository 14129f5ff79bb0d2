"""Every Arrow type that a table holds, as DuckDB shows it, and what DuckDB hands back."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import vectorlake_duckdb
from vectorlake_duckdb._types import shown_array, shown_type

import vectorlake as vl
from vectorlake.testing.columns import columns

duckdb = pytest.importorskip("duckdb")

SQL_TYPES = {
    "int8": "TINYINT", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT",
    "uint8": "UTINYINT", "uint16": "USMALLINT", "uint32": "UINTEGER", "uint64": "UBIGINT",
    "halffloat": "FLOAT", "float": "FLOAT", "double": "DOUBLE", "bool": "BOOLEAN",
    "decimal128": "DECIMAL(10,2)", "decimal128-wide": "DECIMAL(38,0)", "decimal256": "VARCHAR",
    "string": "VARCHAR", "large_string": "VARCHAR", "binary": "BLOB", "large_binary": "BLOB", "fixed_size_binary": "BLOB",
    "date32": "DATE", "date64": "DATE", "time32-s": "TIME", "time32-ms": "TIME", "time64-us": "TIME", "time64-ns": "TIME_NS",
    "timestamp-s": "TIMESTAMP_S", "timestamp-ms": "TIMESTAMP_MS", "timestamp-us": "TIMESTAMP", "timestamp-ns": "TIMESTAMP_NS",
    "timestamp-us-utc": "TIMESTAMP WITH TIME ZONE", "timestamp-ms-zone": "TIMESTAMP WITH TIME ZONE",
    "duration-us": "INTERVAL", "list": "INTEGER[]", "large_list": "INTEGER[]", "list-string": "VARCHAR[]",
    "fixed_size_list-int": "INTEGER[3]", "fixed_size_list-struct": "STRUCT(a TINYINT)[2]", "matrix": "FLOAT[2][2]",
    "map": "MAP(VARCHAR, BIGINT)", "struct": "STRUCT(\"name\" VARCHAR, age INTEGER, \"at\" TIMESTAMP WITH TIME ZONE)",
    "vector-float-3": "FLOAT[3]", "vector-halffloat-128": "FLOAT[128]", "vector-double-3": "DOUBLE[3]",
    "vector-int8-128": "TINYINT[128]", "vector-uint8-3": "UTINYINT[3]",
    "multivector-float32": "FLOAT[16][]", "multivector-float16": "FLOAT[128][]",
}  # fmt: skip


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> vl.Lake:
    made = vl.connect(tmp_path_factory.mktemp("lake"))
    for index, array in enumerate(columns().values()):
        made.create_table(f"t.c{index}", _finite(pa.table({"n": range(len(array)), "c": array})))
    return made


def _finite(data: pa.Table) -> pa.Table:
    """Without the vectors that tables refuse, and the times that are beyond Python's."""
    array = data["c"].combine_chunks()
    kind = array.type
    if pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type):
        rows = [
            None if row is None or any(x is None or x - x != 0 for x in row) else row
            for row in array.to_pylist()
        ]
        return data.set_column(1, "c", pa.array(rows, kind))
    if pa.types.is_duration(kind) or (pa.types.is_timestamp(kind) and kind.tz):
        ticks = [
            None if tick is None or abs(tick) > 10**10 else tick
            for tick in array.cast(pa.int64()).to_pylist()
        ]
        return data.set_column(1, "c", pa.array(ticks, pa.int64()).cast(kind))
    return data


@pytest.fixture(scope="module")
def attached(lake: vl.Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        vectorlake_duckdb.attach(connection, lake)
        yield connection


@pytest.mark.parametrize("name", list(columns()))
def test_every_type_shows_its_values(attached: duckdb.DuckDBPyConnection, lake: vl.Lake, name: str) -> None:
    con, index = attached, list(columns()).index(name)
    if name in SQL_TYPES:
        described = con.execute(f"SELECT typeof(c) FROM lake.t.c{index} LIMIT 1").fetchall()
        assert described[0][0].replace('"', "") == SQL_TYPES[name].replace('"', "")
    sql = f"SELECT c FROM lake.t.c{index}"
    found = con.sql(sql).to_arrow_table()["c"].combine_chunks()
    stored = lake.table(f"t.c{index}").scan(["c"]).to_arrow()["c"].combine_chunks()
    shown = shown_array(stored, shown_type(stored.type))
    assert same(found, shown), (found, shown)
    nulls = con.execute(f"SELECT count(*) FROM lake.t.c{index} WHERE c IS NULL").fetchall()
    assert nulls == [(stored.null_count,)]


def same(found: pa.Array, shown: pa.Array) -> bool:
    if pa.types.is_duration(shown.type):
        shown = shown.cast(pa.duration("us"), safe=False)  # DuckDB's resolution
    with contextlib.suppress(pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError):
        shown = shown.cast(found.type, safe=False)
    return repr(_plain(found.to_pylist())) == repr(_plain(shown.to_pylist()))


def _plain(value: Any) -> Any:
    """Values with DuckDB's intervals, and durations at its resolution, as one type."""
    match value:
        case pa.MonthDayNano():
            return dt.timedelta(days=value.days, microseconds=value.nanoseconds // 1000)
        case dt.timedelta() if hasattr(value, "nanoseconds"):
            return dt.timedelta(days=value.days, seconds=value.seconds, microseconds=value.microseconds)
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    return value


@pytest.mark.parametrize("element", [pa.float16(), pa.decimal256(20, 2), pa.decimal256(60, 2)], ids=str)
@pytest.mark.parametrize("sliced", [False, True])
def test_types_that_duckdb_lacks_inside_others(
    con: duckdb.DuckDBPyConnection, element: pa.DataType, *, sliced: bool
) -> None:
    one, two = (1.0, 2.0) if pa.types.is_floating(element) else (Decimal(1), Decimal(2))
    nested = pa.list_(pa.struct([("m", pa.map_(pa.string(), element))]))
    cases: list[tuple[pa.DataType, list[Any]]] = [
        (pa.list_(element), [[one, two], None, [], [two, None]]),
        (pa.large_list(element), [[one, two], None, [], [two, None]]),
        (pa.list_(element, 2), [[one, two], None, [two, None]]),
        (pa.map_(pa.string(), element), [[("a", one)], None, [], [("b", None)]]),
        (pa.struct([("a", element), ("b", pa.int8())]), [{"a": one, "b": 1}, None, {"a": None, "b": 2}]),
        (nested, [[{"m": [("k", two)]}, None], None, [], [{"m": None}]]),
    ]
    for kind, values in cases:
        array = pa.array(values, kind).slice(1 if sliced else 0)
        shown = shown_array(array, shown_type(kind))
        shown.validate(full=True)
        data = pa.table({"c": shown})
        con.register("data", data)
        found = con.sql("SELECT c FROM data").to_arrow_table()["c"].to_pylist()
        assert found == shown.to_pylist()
        if element != pa.decimal256(60, 2):
            assert found == array.to_pylist()


def test_a_slice_of_nested_structs_is_rebased(con: duckdb.DuckDBPyConnection) -> None:
    array = pa.array([{"in": {"b": i}} for i in range(5)]).slice(2)
    data = pa.table({"c": shown_array(array, array.type)})
    con.register("data", data)
    assert con.execute("SELECT c['in'].b FROM data").fetchall() == [(2,), (3,), (4,)]


def test_logical_and_extension_types_are_plain_or_duckdbs_own(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    lake = vl.connect(tmp_path)
    kinds = {
        "t": vl.text(),
        "b": vl.blob(),
        "g": vl.geo(),
        "u": pa.uuid(),
        "j": pa.json_(),
        "v": vl.vector(2, "f16"),
    }
    table = lake.create_table("ns.x", pa.schema(kinds))
    values = {
        "t": ["a"],
        "b": [b"x"],
        "g": [b"y"],
        "u": [b"0123456789abcdef"],
        "j": ['{"k": 1}'],
        "v": [[1.0, 2.0]],
    }
    storage = {
        "t": pa.string(),
        "b": pa.large_binary(),
        "g": pa.binary(),
        "u": pa.binary(16),
        "j": pa.string(),
        "v": kinds["v"],
    }
    table.append(pa.table({name: pa.array(values[name], storage[name]) for name in values}))
    vectorlake_duckdb.attach(con, lake)
    shown = [row[1] for row in con.execute("DESCRIBE lake.ns.x").fetchall()]
    assert shown == ["VARCHAR", "BLOB", "BLOB", "UUID", "JSON", "FLOAT[2]"]
    row = con.execute("SELECT t, b, u::VARCHAR, j->>'k', v FROM lake.ns.x").fetchall()
    assert row == [("a", b"x", "30313233-3435-3637-3839-616263646566", "1", (1.0, 2.0))]
    assert con.execute(
        "SELECT count(*) FROM lake.ns.x WHERE u = '30313233-3435-3637-3839-616263646566'"
    ).fetchall() == [(1,)]
    assert con.execute("SELECT count(*) FROM lake.ns.x WHERE t = 'a' AND b = 'x'::BLOB").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("expression", "stored"),
    [
        ("1::TINYINT", "int8"), ("1::BIGINT", "int64"), ("1::UBIGINT", "uint64"), ("1::HUGEINT", "decimal128(38, 0)"),
        ("1.5::FLOAT", "float"), ("1.5::DOUBLE", "double"), ("1.5::DECIMAL(10,2)", "decimal128(10, 2)"), ("true", "bool"),
        ("'a'", "string"), ("'x'::BLOB", "binary"), ("uuid()", "string"), ("'a'::ENUM('a', 'b')", "string"), ("'{}'::JSON", "string"),
        ("DATE '2020-01-01'", "date32[day]"), ("TIME '01:02:03'", "time64[us]"),
        ("TIMESTAMP '2020-01-01'", "timestamp[us]"), ("TIMESTAMP_NS '2020-01-01'", "timestamp[ns]"),
        ("TIMESTAMP_S '2020-01-01'", "timestamp[s]"), ("TIMESTAMPTZ '2020-01-01 00:00:00+00'", "timestamp[us, tz=UTC]"),
        ("[1.0]::FLOAT[]", "list<l: float>"), ("[1.0, 2.0]::FLOAT[2]", "fixed_size_list<: float>[2]"),
        ("[[1.0]::FLOAT[1]]", "list<l: fixed_size_list<: float>[1]>"), ("{'a': 1}", "struct<a: int32>"), ("map{'a': 1}", "map<string, int32>"),
    ],
)  # fmt: skip
def test_what_duckdb_returns_can_be_written(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, expression: str, stored: str
) -> None:
    lake = vl.connect(tmp_path)
    vectorlake_duckdb.attach(con, lake)
    table = vectorlake_duckdb.create_table(con, "ns.x", f"SELECT {expression} AS c UNION ALL SELECT NULL")
    assert str(table.schema.field("c").type) == stored
    back = con.execute("SELECT c::VARCHAR FROM lake.ns.x").fetchall()
    assert len(back) == 2
    assert (None,) in back


@pytest.mark.parametrize(
    ("expression", "named"),
    [("INTERVAL 1 DAY", "interval"), ("union_value(num := 2)", "union"), ("NULL", "null")],
)
def test_what_no_table_can_hold_is_refused_by_name(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, expression: str, named: str
) -> None:
    lake = vl.connect(tmp_path)
    with pytest.raises(vl.UnsupportedError, match=f"'odd'.*{named}"):
        vectorlake_duckdb.write(con, f"SELECT {expression} AS odd", lake, "ns.x", mode="create")
    assert lake.tables() == []
    assert con.execute("SELECT 1").fetchall() == [(1,)]  # the connection is free again
