"""A filter over a lake's table finds what DuckDB finds in a table of its own: NaN, NULL and -0.0 included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
import vectorlake_duckdb
from filter_cases import COMPARISONS, VALUES, conditions, rows
from hypothesis import HealthCheck, given, settings

import vectorlake as vl

duckdb = pytest.importorskip("duckdb")

LITERALS = {
    "i": ["0", "1", "2", "7", "4611686018427387904", "1.5"],
    "t": ["0", "127", "-128", "300", "1.5"],
    "u": ["0", "5", "18446744073709551615", "-1"],
    "f": ["0", "-0.0::DOUBLE", "2.5", "4", "'nan'::DOUBLE", "'inf'::DOUBLE", "'-inf'::DOUBLE", "0.1::FLOAT"],
    "g": ["0", "0.1", "0.1::FLOAT", "4", "'nan'::FLOAT", "'-inf'::FLOAT"],
    "h": ["0", "0.5::FLOAT", "4", "'nan'::FLOAT"],
    "s": ["''", "'a'", "'ab'", "'é'", "'zz'"],
    "b": ["true", "false"],
    "d": ["DATE '2024-02-29'", "DATE '1969-07-20'", "TIMESTAMP '2024-02-29 12:00:00'"],
    "m": ["TIMESTAMP '2024-02-29 12:00:00.5'", "TIMESTAMP '2024-02-29 12:00:00.5001'", "DATE '2024-03-01'"],
    "n": ["TIMESTAMP '2024-02-29 12:00:00.5'", "TIMESTAMP '2024-02-29 12:00:00.500001'", "DATE '2024-02-29'"],
    "z": ["TIMESTAMPTZ '2024-02-29 12:00:00.5+00'", "TIMESTAMPTZ '2024-03-01 01:00:00+01'"],
    "x": ["0", "1.25", "1.255", "-7"],
    "k": ["''::BLOB", "'a'::BLOB", "'\\xFF\\x00'::BLOB"],
    "st.a": ["1", "3", "9"],
    "st.f": ["2.5", "'nan'::DOUBLE", "9"],
    "st['in'].w": ["'a'", "'q'"],
}


@pytest.fixture(scope="module")
def con(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    lake = vl.connect(tmp_path_factory.mktemp("lake"))
    data = rows()
    table = lake.create_table("ns.items", data.take(list(range(30))))
    for start, stop in ((30, 31), (31, 70), (70, 96)):
        table.append(data.take(list(range(start, stop))))
    table.delete("id = 40")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        vectorlake_duckdb.attach(connection, lake)
        native = data.set_column(data.schema.get_field_index("h"), "h", data["h"].cast(pa.float32()))
        connection.register("arrow_rows", native)
        connection.execute("CREATE TABLE native AS SELECT * FROM arrow_rows WHERE id <> 40")
        connection.unregister("arrow_rows")
        yield connection


def ids(
    con: duckdb.DuckDBPyConnection, table: str, condition: str, parameters: list[Any] | None = None
) -> list[int]:
    found = con.execute(f"SELECT id FROM {table} WHERE {condition} ORDER BY id", parameters).fetchall()
    return [row for (row,) in found]


def assert_same(con: duckdb.DuckDBPyConnection, conditions: list[str]) -> None:
    """All conditions in one statement for each table: each has a scan of its own."""
    found = []
    for table in ("lake.ns.items", "native"):
        parts = (f"SELECT {i} AS condition, id FROM {table} WHERE {c}" for i, c in enumerate(conditions))
        rows = con.execute(" UNION ALL ".join(parts)).fetchall()
        found.append({c: sorted(i for at, i in rows if at == index) for index, c in enumerate(conditions)})
    assert found[0] == found[1]


@pytest.mark.parametrize("column", list(LITERALS))
def test_each_comparison_with_each_literal(con: duckdb.DuckDBPyConnection, column: str) -> None:
    for literal in LITERALS[column]:
        plain = [f"{column} {comparison} {literal}" for comparison in COMPARISONS]
        assert_same(con, [*plain, *(f"NOT ({condition})" for condition in plain[2:3])])


@pytest.mark.parametrize("column", list(LITERALS))
def test_each_membership_range_and_null(con: duckdb.DuckDBPyConnection, column: str) -> None:
    literals = LITERALS[column]
    low, high = literals[0], literals[-1]
    conditions = [
        f"{column} IN ({', '.join(literals)})",
        f"{column} NOT IN ({', '.join(literals[:2])})",
        f"{column} IN ({literals[0]}, NULL)",
        f"{column} NOT IN ({literals[0]}, NULL)",
        f"{column} BETWEEN {low} AND {high}",
        f"{column} NOT BETWEEN {low} AND {high}",
        f"{column} IS NULL",
        f"{column} IS NOT NULL",
        f"NOT ({column} IS NULL OR {column} = {low})",
        f"coalesce({column} = {low}, true)",
        f"({column} = {low}) IS NOT TRUE",
    ]
    assert_same(con, conditions)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(condition=conditions(LITERALS))
def test_any_filter_finds_what_a_native_table_does(con: duckdb.DuckDBPyConnection, condition: str) -> None:
    assert_same(con, [condition, f"NOT ({condition})"])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_bound_parameters(con: duckdb.DuckDBPyConnection, data: st.DataObject) -> None:
    column = data.draw(st.sampled_from([name for name in VALUES if name != "st"]))
    comparison = data.draw(st.sampled_from(COMPARISONS))
    value = data.draw(st.sampled_from(VALUES[column][1]))
    condition = f"{column} {comparison} $1"
    assert ids(con, "lake.ns.items", condition, [value]) == ids(con, "native", condition, [value])


@pytest.mark.parametrize(
    "condition", ["f > 3", "f >= 4.0", "f <> 4", "NOT (f IN (4, 2.5))", "g > 0", "st.f >= 2"]
)
def test_nan_is_pushed_and_found(con: duckdb.DuckDBPyConnection, condition: str) -> None:
    plan = con.execute(f"EXPLAIN SELECT id FROM lake.ns.items WHERE {condition}").fetchall()[0][1]
    assert "Filter ─" not in plan  # no filter above the scan: it takes them all
    found = ids(con, "lake.ns.items", condition)
    assert found == ids(con, "native", condition)
    column = "st.f" if "st.f" in condition else condition.replace("NOT (", "")[0]
    assert set(ids(con, "native", f"isnan({column})")) <= set(found)


def test_conditions_that_stay_with_duckdb(con: duckdb.DuckDBPyConnection) -> None:
    assert_same(
        con,
        [
            "s LIKE 'a%'",
            "starts_with(s, 'a')",
            "i + 1 > 2",
            "f = 'nan'",
            "length(s) = 1",
            "i % 2 = 1",
            "h > 1",
        ],
    )
