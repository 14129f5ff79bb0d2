"""A table's metadata in SQL: snapshots, files, fragments and names of versions as table functions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
import vectorlake_duckdb

import vectorlake as vl

duckdb = pytest.importorskip("duckdb")

METADATA = ("snapshots", "files", "fragments", "refs")


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    return vl.connect(tmp_path / "lake", application="shop/1", principal="ann")


@pytest.fixture
def items(lake: vl.Lake, con: duckdb.DuckDBPyConnection) -> vl.Table:
    table = lake.create_table("ns.items", {"id": [1, 2, 3], "name": ["a", "b", None]}, primary_key=["id"])
    table.append({"id": [7], "name": ["z"]})
    table.delete("id = 1")
    table.tag("v1", 2)
    table.branch("dev").append({"id": [9], "name": [None]})
    vectorlake_duckdb.attach(con, lake)
    return table


def all_of(con: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[object, ...]]:
    return con.execute(sql).fetchall()


@pytest.mark.parametrize("name", METADATA)
def test_sql_sees_what_the_table_tells(name: str, con: duckdb.DuckDBPyConnection, items: vl.Table) -> None:
    wanted = getattr(items, name)()
    for prefix in ("", "lake."):
        relation = con.sql(f"SELECT * FROM {prefix}table_{name}('ns.items')")
        assert relation is not None
        assert relation.columns == wanted.schema.names
        assert relation.to_arrow_table().cast(wanted.schema).to_pylist() == wanted.to_pylist()
    assert all_of(con, f"SELECT count(*) FROM table_{name}('ns.items')") == [(len(wanted),)]


def test_versions_and_tags_have_metadata_of_their_own(
    con: duckdb.DuckDBPyConnection, items: vl.Table
) -> None:
    counts = "SELECT count(*) FROM table_fragments('ns.items', {}) WHERE deleted_rows > 0"
    assert [all_of(con, counts.format(at))[0][0] for at in ("3", "2", "'v1'", "version := 1")] == [1, 0, 0, 0]
    assert all_of(con, "SELECT version FROM table_snapshots('ns.items@v1')") == [(2,), (1,)]
    assert all_of(con, "SELECT max(version) FROM table_snapshots('ns.items', 'dev')") == [(4,)]


def test_each_statement_reads_the_newest_version(con: duckdb.DuckDBPyConnection, items: vl.Table) -> None:
    newest = "SELECT max(version), max_by(operation, version), max_by(principal, version) FROM table_snapshots('ns.items')"
    assert all_of(con, newest) == [(3, "delete", "ann")]
    items.update({"name": "upper(name)"}, "id = 7")
    assert all_of(con, newest) == [(4, "update", "ann")]
    assert all_of(con, "SELECT count(*) FROM table_refs('ns.items')") == [(3,)]
    items.tag("v2")
    assert all_of(con, "SELECT name FROM table_refs('ns.items') WHERE kind = 'tag'") == [("v1",), ("v2",)]


def test_metadata_is_queried_like_data(con: duckdb.DuckDBPyConnection, items: vl.Table) -> None:
    audit = all_of(
        con,
        """
        SELECT s.version, s.summary['application'], r.name
        FROM table_snapshots('ns.items') s LEFT JOIN table_refs('ns.items') r ON r.version = s.version AND r.kind = 'tag'
        ORDER BY s.version
        """,
    )
    assert audit == [(1, "shop/1", None), (2, "shop/1", "v1"), (3, "shop/1", None)]
    found = all_of(
        con,
        """
        SELECT f.fragment_id, f.bounds['id'].min::BIGINT, f.bounds['name'].nulls, sum(d.size)::BIGINT
        FROM table_fragments('ns.items') f JOIN table_files('ns.items') d USING (fragment_id)
        WHERE d.content = 'data' AND list_contains(d.columns, 'id') GROUP BY ALL ORDER BY 1
        """,
    )
    assert found == [
        (row["fragment_id"], low, nulls, row["bytes"])
        for row, low, nulls in zip(items.fragments().to_pylist(), (1, 7), (1, 0), strict=True)
    ]
    ((newest,),) = all_of(con, "SELECT max(timestamp) FROM table_snapshots('ns.items')")
    assert newest == dt.datetime.fromtimestamp(items.snapshot.timestamp_ms / 1000, dt.UTC)
    con.execute("PREPARE q AS SELECT count(*) FROM table_snapshots('ns.items') WHERE deleted_rows >= $1")
    assert all_of(con, "EXECUTE q(1)") == [(1,)]


def test_metadata_is_not_read_before_it_is_asked_for(lake: vl.Lake, tmp_path: Path, items: vl.Table) -> None:
    for manifest in tmp_path.glob("lake/ns/items/metadata/m-*.arrow"):
        manifest.unlink()
    with duckdb.connect() as con:
        vectorlake_duckdb.attach(con, vl.connect(tmp_path / "lake"), "again")
        assert all_of(con, "SELECT count(*) FROM again.table_snapshots('ns.items')") == [(3,)]
        with pytest.raises(duckdb.Error, match="is missing"):
            con.execute("SELECT * FROM again.table_files('ns.items')").fetchall()


def test_an_unknown_table_is_named(con: duckdb.DuckDBPyConnection, items: vl.Table) -> None:
    with pytest.raises(duckdb.Error, match=r"no table 'ns.itemz'.*did you mean 'ns.items'"):
        con.execute("SELECT * FROM table_files('ns.itemz')")
