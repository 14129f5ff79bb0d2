"""What a DuckDB query returns, written into a table: whole and once, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import vectorlake_duckdb

import vectorlake as vl
from vectorlake.errors import AlreadyExistsError, InvalidInputError, NotFoundError

duckdb = pytest.importorskip("duckdb")


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    return vl.connect(tmp_path / "lake")


@pytest.fixture
def con(lake: vl.Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        vectorlake_duckdb.attach(connection, lake)
        yield connection


NUMBERS = "SELECT range AS id, 'n' || range AS name, [range, range + 1]::FLOAT[2] AS vec FROM range({})"


def test_create_append_and_overwrite(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    made = vectorlake_duckdb.create_table(con, "ns.items", NUMBERS.format(10), primary_key=["id"])
    assert (made.version, len(made)) == (1, 10)
    assert made.schema.field("vec").type == pa.list_(pa.field("", pa.float32()), 2)
    assert con.execute("SELECT count(*) FROM lake.ns.items").fetchall() == [(10,)]
    assert con.execute("SELECT id FROM knn('ns.items', [3, 4], 1)").fetchall() == [(3,)]
    with pytest.raises(vl.AlreadyExistsError, match="upsert"):
        vectorlake_duckdb.write(con, NUMBERS.format(5), lake, "ns.items")
    more = NUMBERS.format(15) + " WHERE id >= 10"
    appended = vectorlake_duckdb.write(con, more, lake, "ns.items")
    assert (appended.version, len(appended)) == (2, 15)
    replaced = vectorlake_duckdb.write(con, con.sql(NUMBERS.format(3)), "lake", "ns.items", mode="overwrite")
    assert (replaced.version, len(replaced)) == (3, 3)
    assert len(lake.table("ns.items").at(2)) == 15


def test_upsert_replaces_rows_of_the_same_key(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    vectorlake_duckdb.create_table(con, "ns.items", NUMBERS.format(4), primary_key=["id"])
    changed = "SELECT id + 2 AS id, 'new' AS name, vec FROM lake.ns.items"
    assert len(vectorlake_duckdb.write(con, changed, lake, "ns.items", mode="upsert")) == 6
    found = con.execute("SELECT id, name FROM lake.ns.items ORDER BY id").fetchall()
    assert found == [(0, "n0"), (1, "n1"), *((i, "new") for i in range(2, 6))]


def test_a_relation_and_the_callers_variables(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    frame = pa.table({"id": [1, 2], "price": [0.5, 1.5]})
    relation = con.sql("SELECT id, price * 2 AS price FROM frame WHERE id > 1")
    assert vectorlake_duckdb.create_table(con, "ns.t", relation).to_arrow().to_pydict() == {
        "id": [2],
        "price": [3.0],
    }
    table = lake.table("ns.t")
    table.append(con.sql("SELECT 9 AS id, 9.5::DOUBLE AS price"))
    assert table.count() == 2
    assert len(frame) == 2


def test_lists_of_the_right_length_become_vectors(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    table = lake.create_table("ns.v", pa.schema({"id": pa.int64(), "vec": vl.vector(2, "f16")}))
    table.append(con.sql("SELECT 1 AS id, [0.5, 1.5]::DOUBLE[] AS vec UNION ALL SELECT 2, NULL"))
    table.append(con.sql("SELECT 3 AS id, [0.5, 1.5]::FLOAT[2] AS vec"))
    assert table.to_arrow()["vec"].to_pylist() == [[0.5, 1.5], None, [0.5, 1.5]]
    with pytest.raises(InvalidInputError, match="row 0 has 3 numbers"):
        table.append(con.sql("SELECT 4 AS id, [1, 2, 3]::FLOAT[] AS vec"))
    assert table.count() == 3


def test_a_table_rewritten_from_itself(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    vectorlake_duckdb.create_table(con, "ns.items", NUMBERS.format(1000))
    sql = "SELECT id, name || '!' AS name, vec FROM lake.ns.items WHERE id % 2 = 0"
    vectorlake_duckdb.write(con, sql, "lake", "ns.items", mode="overwrite")
    assert con.execute("SELECT count(*), max(name) FROM lake.ns.items").fetchall() == [(500, "n998!")]


def test_more_rows_than_a_batch(con: duckdb.DuckDBPyConnection) -> None:
    table = vectorlake_duckdb.create_table(con, "ns.many", "SELECT range AS id FROM range(300000)")
    assert len(table) == 300_000
    assert con.execute("SELECT count(*), sum(id) FROM lake.ns.many").fetchall() == [(300_000, 44_999_850_000)]


def test_failures_write_nothing_and_free_the_connection(
    con: duckdb.DuckDBPyConnection, lake: vl.Lake
) -> None:
    vectorlake_duckdb.create_table(con, "ns.items", NUMBERS.format(10))
    late = "SELECT range AS id, CASE WHEN range = 200000 THEN error('late')::VARCHAR ELSE 'x' END AS name FROM range(300000)"
    for mode, name in (("append", "ns.items"), ("create", "ns.new")):
        with pytest.raises((duckdb.Error, vl.VectorlakeError, OSError), match="late"):
            vectorlake_duckdb.write(con, late, lake, name, mode=mode)
    with pytest.raises(InvalidInputError, match=r"no column 'nam'.*did you mean 'name'"):
        vectorlake_duckdb.write(con, "SELECT 1 AS id, 'a' AS nam", lake, "ns.items")
    with pytest.raises(AlreadyExistsError, match=r"ns\.items"):
        vectorlake_duckdb.create_table(con, "ns.items", NUMBERS.format(1))
    with pytest.raises(NotFoundError, match=r"did you mean 'ns\.items'"):
        vectorlake_duckdb.write(con, NUMBERS.format(1), lake, "ns.item")
    with pytest.raises(NotFoundError, match=r"no lake is attached as 'lakes'.*did you mean 'lake'"):
        vectorlake_duckdb.write(con, NUMBERS.format(1), "lakes", "ns.items")
    with pytest.raises(InvalidInputError, match="mode must be"):
        vectorlake_duckdb.write(con, NUMBERS.format(1), lake, "ns.items", mode="insert")
    with pytest.raises(InvalidInputError, match="settings of a new table"):
        vectorlake_duckdb.write(con, NUMBERS.format(1), lake, "ns.items", primary_key=["id"])
    assert lake.tables() == ["ns.items"]
    assert len(lake.table("ns.items").history()) == 1
    assert con.execute("SELECT count(*) FROM lake.ns.items").fetchall() == [(10,)]


def test_a_column_may_be_called_like_an_alias_of_ours(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("CREATE TEMP TABLE short AS SELECT range AS q, range + 1 AS w FROM range(3)")
    assert con.execute("SELECT rows FROM write_table('ns.s', 'short', mode := 'create')").fetchall() == [(3,)]
    vectorlake_duckdb.refresh(con)
    assert con.execute("FROM lake.ns.s ORDER BY q").fetchall() == [(0, 1), (1, 2), (2, 3)]


def test_write_table_in_sql_commits_once(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    vectorlake_duckdb.create_table(con, "ns.items", NUMBERS.format(4))
    con.execute(f"CREATE TEMP TABLE more AS {NUMBERS.format(3)}")
    assert con.execute("SELECT * FROM write_table('ns.items', 'more')").fetchall() == [("ns.items", 2, 3)]
    assert con.execute(
        "SELECT rows FROM lake.write_table('ns.items', 'more', mode := 'overwrite')"
    ).fetchall() == [(3,)]
    with_cte = "WITH chosen AS (FROM more WHERE id > 0) SELECT version FROM write_table('ns.new', 'chosen', mode := 'create')"
    assert con.execute(with_cte).fetchall() == [(1,)]
    con.execute("EXPLAIN SELECT * FROM write_table('ns.items', 'more')")
    con.execute("PREPARE again AS SELECT version FROM write_table('ns.items', 'more')")
    assert lake.table("ns.items").version == 3
    assert con.execute("EXECUTE again").fetchall() == [(4,)]
    assert con.execute("EXECUTE again").fetchall() == [(5,)]
    assert [len(lake.table("ns.items").at(version)) for version in range(1, 6)] == [4, 7, 3, 6, 9]
    assert len(lake.table("ns.new")) == 2
    with pytest.raises(duckdb.Error, match=r"did you mean 'ns\.items'"):
        con.execute("SELECT * FROM write_table('ns.item', 'more')")
    con.execute("CREATE TEMP TABLE none AS FROM more LIMIT 0")
    assert con.execute("SELECT rows FROM write_table('ns.items', 'none')").fetchall() == [(0,)]
