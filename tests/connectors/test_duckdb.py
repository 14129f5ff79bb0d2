"""A lake attached to DuckDB: names, versions, push-down, several connections, errors, and how it goes away again."""

from __future__ import annotations

import gc
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import vectorlake_duckdb
from vectorlake_duckdb._catalog import _attached

import vectorlake as vl
from vectorlake.errors import AlreadyExistsError, NotFoundError

duckdb = pytest.importorskip("duckdb")


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    return vl.connect(tmp_path / "lake")


def add_items(lake: vl.Lake, rows: int = 10, *, name: str = "ns.items", start: int = 0) -> vl.Table:
    data = rows_from(start, rows)
    if lake.exists(name):
        table = lake.table(name)
        table.append(data)
        return table
    return lake.create_table(name, data)


def rows_from(start: int, rows: int) -> pa.Table:
    ids = np.arange(start, start + rows)
    vectors = np.stack([ids, ids + 1], axis=1).astype("f4")
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 2)
    return pa.table({"id": ids, "name": [f"n{i}" for i in ids], "price": ids * 0.5, "vec": flat})


def data_files(table: vl.Table, column: str, fragment: int) -> list[Path]:
    """The files that hold a column of a fragment."""
    field = table.snapshot.schema.field(column)
    found = list(table.view.fragments())[fragment].file_of(field.id)
    assert found is not None
    return [Path(table.uri.removeprefix("file://")) / found.path]


def all_of(con: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[object, ...]]:
    return con.execute(sql).fetchall()


# --- names ---


def test_tables_are_views_in_schemas_of_their_namespaces(
    con: duckdb.DuckDBPyConnection, lake: vl.Lake
) -> None:
    add_items(lake)
    add_items(lake, 3, name="a.b.deep")
    add_items(lake, 2, name="top")
    vectorlake_duckdb.attach(con, lake)
    assert all_of(con, "SELECT count(*) FROM lake.ns.items") == [(10,)]
    assert all_of(con, 'SELECT count(*) FROM lake."a.b".deep') == [(3,)]
    assert all_of(con, "SELECT count(*) FROM lake.top") == [(2,)]
    listed = all_of(
        con, "SELECT table_schema, table_name FROM information_schema.tables WHERE table_catalog = 'lake'"
    )
    assert set(listed) == {("ns", "items"), ("a.b", "deep"), ("main", "top")}
    columns = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'items'"
    expected = [("id", "BIGINT"), ("name", "VARCHAR"), ("price", "DOUBLE"), ("vec", "FLOAT[2]")]
    assert all_of(con, columns) == expected
    assert ("lake", "ns", "items") in [row[:3] for row in all_of(con, "SHOW ALL TABLES")]
    assert [row[:2] for row in all_of(con, "DESCRIBE lake.ns.items")] == expected


def test_include_chooses_tables_and_versions(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    add_items(lake)
    add_items(lake, name="other.items")
    add_items(lake, 5, start=10)
    vectorlake_duckdb.attach(con, lake, "l2", include=["ns.*", "ns.items@1"])
    assert {row[1:3] for row in all_of(con, "SHOW ALL TABLES") if row[0] == "l2"} == {
        ("ns", "items"),
        ("ns", "items@1"),
    }
    assert all_of(con, 'SELECT count(*) FROM l2.ns."items@1"') == [(10,)]


def test_a_name_is_attached_once_and_free_again_after_detach(
    con: duckdb.DuckDBPyConnection, lake: vl.Lake
) -> None:
    add_items(lake)
    before = all_of(con, "SELECT function_name FROM duckdb_functions() WHERE function_name LIKE '%knn%'")
    vectorlake_duckdb.attach(con, lake)
    with pytest.raises(AlreadyExistsError, match="catalog 'lake' already"):
        vectorlake_duckdb.attach(con, lake)
    assert all_of(con, "SELECT count(*) FROM lake.ns.items") == [(10,)]
    vectorlake_duckdb.detach(con)
    assert all_of(con, "SHOW ALL TABLES") == []
    assert (
        all_of(con, "SELECT function_name FROM duckdb_functions() WHERE function_name LIKE '%knn%'") == before
    )
    with pytest.raises(NotFoundError, match="no lake is attached as 'lake'"):
        vectorlake_duckdb.detach(con)
    vectorlake_duckdb.attach(con, lake)
    assert all_of(con, "SELECT count(*) FROM lake.ns.items") == [(10,)]


def test_attach_and_detach_through_different_cursors(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    add_items(lake)
    con.execute("SET python_enable_replacements = false")
    for _ in range(2):
        vectorlake_duckdb.attach(con.cursor(), lake)
        assert all_of(con, "SELECT count(*) FROM knn('ns.items', [0, 0], 4)") == [(4,)]
        vectorlake_duckdb.detach(con.cursor())
    assert all_of(con, "SHOW ALL TABLES") == []


def test_a_lake_goes_away_with_its_database(lake: vl.Lake) -> None:
    add_items(lake)
    gc.collect()  # what other tests left goes now, and not in between
    before = len(_attached)
    with duckdb.connect() as con:
        vectorlake_duckdb.attach(con, lake)
        assert len(_attached) == before + 1
    del con
    gc.collect()
    assert len(_attached) == before


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE copied AS SELECT * FROM lake.ns.items",
        "COPY (SELECT * FROM lake.ns.items) TO '{folder}/out.parquet'",
        "EXPLAIN ANALYZE SELECT * FROM lake.ns.items WHERE id > 3",
        "SUMMARIZE lake.ns.items",
        "SELECT * FROM lake.ns.items USING SAMPLE 3",
        "SELECT id, row_number() OVER (ORDER BY price DESC) FROM lake.ns.items QUALIFY row_number() OVER () < 3",
        "WITH RECURSIVE r AS (SELECT 0 AS id UNION ALL SELECT i.id FROM lake.ns.items i, r WHERE i.id = r.id + 1) FROM r",
        "SELECT a.id, b.name FROM lake.ns.items a LEFT JOIN lake.ns.items b ON a.id = b.id + 1 WHERE b.id IS NULL",
        "SELECT (SELECT max(b.price) FROM lake.ns.items b WHERE b.id < a.id) FROM lake.ns.items a",
        "FROM lake.ns.items UNION FROM lake.ns.items",
        "PIVOT (SELECT id % 2 AS odd, price FROM lake.ns.items) ON odd USING sum(price)",
    ],
)
def test_statements_of_all_kinds(
    con: duckdb.DuckDBPyConnection, lake: vl.Lake, tmp_path: Path, sql: str
) -> None:
    add_items(lake)
    vectorlake_duckdb.attach(con, lake)
    found = con.execute(sql.format(folder=tmp_path)).fetchall()
    con.execute("CREATE SCHEMA IF NOT EXISTS ns; CREATE TABLE ns.items AS SELECT * FROM lake.ns.items")
    native = (
        sql.replace("lake.ns.items", "ns.items")
        .replace("TABLE copied", "TABLE native")
        .format(folder=tmp_path)
    )
    expected = con.execute(native).fetchall()
    if "ANALYZE" not in sql and "SAMPLE" not in sql and "SUMMARIZE" not in sql:
        assert sorted(found, key=repr) == sorted(expected, key=repr)
    assert len(found) == len(expected)


def test_two_lakes_side_by_side(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    first, second = vl.connect(tmp_path / "a"), vl.connect(tmp_path / "b")
    add_items(first, 4)
    add_items(second, 6)
    vectorlake_duckdb.attach(con, first, "one")
    vectorlake_duckdb.attach(con, second, "two")
    assert all_of(con, "SELECT (SELECT count(*) FROM one.ns.items), (SELECT count(*) FROM two.ns.items)") == [
        (4, 6)
    ]
    nearest = "SELECT count(*) FROM {}.knn('ns.items', [0, 0], 100)"
    assert all_of(con, nearest.format("one")) == [(4,)]
    assert all_of(con, nearest.format("two")) == [(6,)]
    vectorlake_duckdb.detach(con, "one")
    assert all_of(con, nearest.format("two")) == [(6,)]


def test_a_file_database_keeps_nothing_of_the_lake(lake: vl.Lake, tmp_path: Path) -> None:
    add_items(lake)
    with duckdb.connect(tmp_path / "db.duckdb") as con:
        vectorlake_duckdb.attach(con, lake)
        con.execute("CREATE TABLE mine AS SELECT id FROM knn('ns.items', [0, 0], 3)")
    with duckdb.connect(tmp_path / "db.duckdb") as con:
        assert all_of(con, "FROM mine ORDER BY id") == [(0,), (1,), (2,)]
        kept = "SELECT function_name FROM duckdb_functions() WHERE function_name IN ('knn', 'knn_join', 'table_at')"
        assert all_of(con, kept) == []
        vectorlake_duckdb.attach(con, lake)
        assert all_of(con, "SELECT count(*) FROM lake.ns.items") == [(10,)]


def test_row_ids_are_shown_where_asked_for(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    table = add_items(lake)
    table.delete("id < 4")
    add_items(lake, 3, start=10)
    vectorlake_duckdb.attach(con, lake, with_row_id=True)
    assert [row[0] for row in all_of(con, "DESCRIBE lake.ns.items")] == [
        "id",
        "name",
        "price",
        "vec",
        "_row_id",
    ]
    assert all_of(con, "SELECT id FROM lake.ns.items WHERE _row_id BETWEEN 2 AND 5") == [(4,), (5,)]
    assert all_of(con, "SELECT max(_row_id) FROM lake.table_at('ns.items', 1)") == [(9,)]
    beside = """
        SELECT count(*), bool_and(k.id = i.id) FROM knn('ns.items', [0, 0], 100) k
        JOIN lake.ns.items i ON i._row_id = k.row_id
    """
    assert all_of(con, beside) == [(9, True)]


def test_matches_join_with_other_tables(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    """Hybrid queries: a condition on the search, its matches beside a table of DuckDB's and one of the lake, ranked anew."""
    add_items(lake, 100)
    lake.create_table("ns.stock", {"item": np.arange(0, 100, 2), "left": np.arange(50)})
    vectorlake_duckdb.attach(con, lake)
    con.execute("CREATE TABLE clicks AS SELECT range AS id, range % 7 AS n FROM range(100)")
    con.execute("CREATE TABLE asked AS SELECT 1 AS q, [10, 11]::FLOAT[2] AS vec UNION ALL SELECT 2, [50, 51]")
    found = all_of(
        con,
        """
        SELECT k.q, k.id, 1 / (60 + k.rank) + c.n / 100 AS score
        FROM knn_join('asked', 'ns.items', 9, filter := 'price > 3') k
        JOIN lake.ns.stock s ON s.item = k.id JOIN clicks c USING (id)
        WHERE s.left > 3 QUALIFY row_number() OVER (PARTITION BY k.q ORDER BY score DESC, k.id) = 1 ORDER BY k.q
        """,
    )
    expected = []
    for number, at in ((1, 10), (2, 50)):
        near = (
            lake.table("ns.items")
            .knn([float(at), at + 1.0], k=9, filter="price > 3", columns=["id"])
            .to_pylist()
        )
        scored = [
            (1 / (60 + m["rank"]) + m["id"] % 7 / 100, m["id"])
            for m in near
            if m["id"] % 2 == 0 and m["id"] > 7
        ]
        best = min(scored, key=lambda pair: (-pair[0], pair[1]))
        expected.append((number, best[1], pytest.approx(best[0])))
    assert found == expected


def test_rows_are_exported_as_streams_one_cursor_each(
    con: duckdb.DuckDBPyConnection, lake: vl.Lake, tmp_path: Path
) -> None:
    table = add_items(lake, 10_000)
    vectorlake_duckdb.attach(con, lake)
    query = "SELECT id, vec FROM lake.ns.items WHERE id % 2 = 1"
    readers = [cursor.sql(query).to_arrow_reader(1000) for cursor in (con.cursor(), con.cursor())]
    first = [next(reader) for reader in readers]
    table.delete("id >= 0")  # what is being read stays
    ids = [
        batch["id"].to_pylist() + [i for rest in reader for i in rest["id"].to_pylist()]
        for batch, reader in zip(first, readers, strict=True)
    ]
    assert ids == [list(range(1, 10_000, 2))] * 2
    assert readers[0].schema.field("vec").type == pa.list_(pa.float32(), 2)
    con.execute(f"COPY (SELECT * FROM lake.table_at('ns.items', 1)) TO '{tmp_path / 'out.parquet'}'")
    assert all_of(con, f"SELECT count(*), typeof(any_value(vec)) FROM '{tmp_path / 'out.parquet'}'") == [
        (10_000, "FLOAT[]")
    ]


# --- versions ---


def test_each_statement_sees_the_newest_version(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    table = add_items(lake)
    vectorlake_duckdb.attach(con, lake)
    con.execute("PREPARE counted AS SELECT count(*) FROM lake.ns.items WHERE id >= $1")
    assert all_of(con, "EXECUTE counted(5)") == [(5,)]
    table.append(rows_from(10, 5))
    assert all_of(con, "EXECUTE counted(5)") == [(10,)]
    table.delete("id < 8")
    assert all_of(con, "EXECUTE counted(5)") == [(7,)]
    con.execute("CREATE VIEW mine AS SELECT * FROM lake.ns.items WHERE id > 100")
    table.append(rows_from(200, 3))
    assert all_of(con, "SELECT count(*) FROM mine") == [(3,)]


def test_schema_changes_show_without_a_refresh(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    table = add_items(lake)
    vectorlake_duckdb.attach(con, lake)
    table.add_column("double_price", "price * 2")
    assert all_of(con, "SELECT double_price FROM lake.ns.items WHERE id = 3") == [(3.0,)]
    table.rename_column("name", "title")
    table.drop_column("vec")
    table.reorder_columns(["title"])
    described = [row[0] for row in all_of(con, "DESCRIBE lake.ns.items")]
    assert described == ["title", "id", "price", "double_price"]
    assert all_of(con, "SELECT * FROM lake.ns.items WHERE id = 3") == [("n3", 3, 1.5, 3.0)]
    with pytest.raises(duckdb.BinderException, match="name"):
        con.execute("SELECT name FROM lake.ns.items")


def test_tags_and_versions_by_name(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    table = add_items(lake)
    table.tag("v1")
    vectorlake_duckdb.attach(con, lake)
    table.append(rows_from(10, 5))
    table.drop_column("price")
    assert all_of(con, 'SELECT count(*), max(price) FROM lake.ns."items@v1"') == [(10, 4.5)]
    table.tag("later")
    with pytest.raises(duckdb.CatalogException):
        con.execute('SELECT * FROM lake.ns."items@later"')
    vectorlake_duckdb.refresh(con)
    assert all_of(con, 'SELECT count(*) FROM lake.ns."items@later"') == [(15,)]
    table.delete_tag("v1")
    vectorlake_duckdb.refresh(con)
    with pytest.raises(duckdb.CatalogException):
        con.execute('SELECT * FROM lake.ns."items@v1"')


def test_table_at_shows_a_version_as_it_was(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    table = add_items(lake)
    table.tag("v1")
    table.append(rows_from(10, 5))
    table.drop_column("price")
    vectorlake_duckdb.attach(con, lake)
    for version in ("1", "'1'", "'v1'"):
        assert all_of(con, f"SELECT count(*), max(price) FROM lake.table_at('ns.items', {version})") == [
            (10, 4.5)
        ]
    assert all_of(con, "SELECT count(*) FROM table_at('ns.items', 2)") == [(15,)]
    time = f"make_timestamp_ms({table.history()[-2].timestamp_ms})"
    assert all_of(con, f"SELECT count(*) FROM table_at('ns.items', {time})") == [(15,)]
    added = (
        "SELECT id FROM table_at('ns.items', $1) EXCEPT SELECT id FROM table_at('ns.items', $2) ORDER BY 1"
    )
    assert con.execute(added, [2, 1]).fetchall() == [(i,) for i in range(10, 15)]
    with pytest.raises(duckdb.InvalidInputException, match="has no version 9; it has versions 1 to 3"):
        con.execute("SELECT * FROM table_at('ns.items', 9)")
    with pytest.raises(
        duckdb.InvalidInputException, match="no tag or branch 'v2'; the tags and branches are v1"
    ):
        con.execute("SELECT * FROM table_at('ns.items', 'v2')")


def test_more_versions_than_macros_have_places_for(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    table = add_items(lake, 1)
    for start in range(1, 20):
        table.append(rows_from(start, 1))
    vectorlake_duckdb.attach(con, lake)
    found = [all_of(con, f"SELECT count(*) FROM table_at('ns.items', {v})")[0][0] for v in range(1, 21)]
    assert found == list(range(1, 21))
    assert all_of(con, "SELECT count(*) FROM table_at('ns.items', 2)") == [(2,)]


def test_a_statement_with_more_versions_than_places_is_refused(
    con: duckdb.DuckDBPyConnection, lake: vl.Lake
) -> None:
    table = add_items(lake, 1)
    for start in range(1, 18):
        table.append(rows_from(start, 1))
    vectorlake_duckdb.attach(con, lake)

    def counted(last: int) -> str:
        parts = (f"SELECT {v} AS v, count(*) FROM table_at('ns.items', {v})" for v in range(1, last + 1))
        return " UNION ALL ".join(parts)

    for _ in range(2):
        assert all_of(con, f"FROM ({counted(16)}) ORDER BY v") == [(v, v) for v in range(1, 17)]
        with pytest.raises(duckdb.Error, match="at most 16 tables and versions"):
            con.execute(counted(18))
    vectorlake_duckdb.detach(con)
    vectorlake_duckdb.attach(con, lake, include=[f"ns.items@{v}" for v in range(1, 19)])
    views = (f'SELECT {v} AS v, count(*) FROM lake.ns."items@{v}"' for v in range(1, 19))
    assert all_of(con, " UNION ALL ".join(views)) == [(v, v) for v in range(1, 19)]


def test_a_version_that_is_read_stays_while_another_takes_its_place(
    con: duckdb.DuckDBPyConnection, lake: vl.Lake
) -> None:
    table = add_items(lake, 1)
    for start in range(1, 20):
        table.append(rows_from(start, 1))
    vectorlake_duckdb.attach(con, lake)
    first = con.cursor()
    first.execute("PREPARE p AS SELECT count(*) FROM table_at('ns.items', 1)")
    for version in range(2, 21):
        con.execute(f"SELECT count(*) FROM table_at('ns.items', {version})")
    assert all_of(first, "EXECUTE p") == [(1,)]


def test_new_and_dropped_tables_after_refresh(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    add_items(lake)
    vectorlake_duckdb.attach(con, lake)
    add_items(lake, 4, name="new.one")
    assert all_of(con, "SELECT count(*) FROM knn('new.one', [0, 0], 100)") == [(4,)]  # macros need no refresh
    lake.drop_table("ns.items")
    with pytest.raises(duckdb.Error, match=r"no table .ns\.items"):
        con.execute("SELECT * FROM lake.ns.items")
    vectorlake_duckdb.refresh(con)
    assert all_of(con, "SELECT count(*) FROM lake.new.one") == [(4,)]
    with pytest.raises(duckdb.CatalogException):
        con.execute("SELECT * FROM lake.ns.items")
    add_items(lake, 7)
    vectorlake_duckdb.refresh(con)
    assert all_of(con, "SELECT count(*) FROM lake.ns.items") == [(7,)]


def test_a_table_dropped_and_created_again_is_the_new_one(
    con: duckdb.DuckDBPyConnection, lake: vl.Lake
) -> None:
    add_items(lake)
    vectorlake_duckdb.attach(con, lake)
    assert all_of(con, "SELECT count(*) FROM lake.ns.items") == [(10,)]
    lake.drop_table("ns.items")
    add_items(lake, 3, start=50)
    assert all_of(con, "SELECT min(id), count(*) FROM lake.ns.items") == [(50, 3)]


def test_one_statement_reads_one_snapshot(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    table = add_items(lake)
    vectorlake_duckdb.attach(con, lake)

    def append(values: pa.ChunkedArray) -> pa.ChunkedArray:
        table.append(rows_from(table.snapshot.num_rows, len(values)))
        return values

    con.create_function("append_one", append, ["BIGINT"], "BIGINT", type="arrow", side_effects=True)
    counted = (
        "SELECT (SELECT count(*) FROM lake.ns.items WHERE id >= 0), count(*) FROM knn('ns.items', [0, 0], 99)"
    )
    mixed = f"SELECT appended, x.* FROM (SELECT append_one(1) AS appended) CROSS JOIN ({counted}) AS x"
    assert all_of(con, mixed) == [(1, 10, 10)]
    assert all_of(con, counted) == [(11, 11)]


# --- several connections ---


def test_cursors_and_threads_share_the_catalog(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    add_items(lake, 100)
    vectorlake_duckdb.attach(con, lake)
    with con.cursor() as cursor:
        assert all_of(cursor, "SELECT count(*) FROM lake.ns.items") == [(100,)]
        assert all_of(cursor, "SELECT count(*) FROM knn('ns.items', [0, 0], 5)") == [(5,)]
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with con.cursor() as cursor:
                for i in range(10):
                    value = number * 10 + i
                    assert all_of(cursor, f"SELECT name FROM lake.ns.items WHERE id = {value}") == [
                        (f"n{value}",)
                    ]
        except Exception as e:  # noqa: BLE001  (handed to the test's own thread)
            failed.append(e)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_schema_changes_between_statements_of_many_threads(
    con: duckdb.DuckDBPyConnection, lake: vl.Lake
) -> None:
    data = {"a": list(range(500)), "b": [i + 1000 for i in range(500)]}
    table = lake.create_table("ns.t", data)
    vectorlake_duckdb.attach(con, lake)
    stop = threading.Event()
    failed: list[BaseException] = []

    def read() -> None:
        try:
            with con.cursor() as cursor:
                while not stop.is_set():
                    low, high = all_of(cursor, "SELECT max(a), min(b) FROM lake.ns.t")[0]
                    assert (low, high) == (499, 1000)
        except Exception as e:  # noqa: BLE001  (handed to the test's own thread)
            failed.append(e)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(12):
        table.reorder_columns(["b", "a"] if i % 2 else ["a", "b"])
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed


# --- push-down: what is not needed may be missing ---


def test_a_filter_prunes_fragments(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    table = add_items(lake)
    add_items(lake, 10, start=10)
    table.refresh()
    vectorlake_duckdb.attach(con, lake)
    for file in data_files(table, "id", 1):
        file.unlink()
    assert all_of(con, "SELECT count(*) FROM lake.ns.items WHERE id < 10") == [(10,)]
    assert con.execute("SELECT name FROM lake.ns.items WHERE id BETWEEN $1 AND $2", [3, 3]).fetchall() == [
        ("n3",)
    ]
    assert all_of(con, "SELECT name FROM lake.ns.items WHERE id IN (2, 5) ORDER BY 1") == [("n2",), ("n5",)]
    assert all_of(con, "SELECT max(id) FROM lake.ns.items WHERE price < 4") == [(7,)]
    with pytest.raises(duckdb.Error, match="missing"):
        con.execute("SELECT max(name) FROM lake.ns.items").fetchall()


def test_columns_that_are_not_asked_for_are_not_read(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    table = add_items(lake)
    vectorlake_duckdb.attach(con, lake)
    for file in data_files(table, "vec", 0):
        file.unlink()
    assert all_of(con, "SELECT count(*), sum(id) FROM lake.ns.items WHERE price > 1") == [(7, 42)]
    with pytest.raises(duckdb.Error, match="missing"):
        con.execute("SELECT vec FROM lake.ns.items").fetchall()


def test_count_reads_no_file(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    table = add_items(lake)
    vectorlake_duckdb.attach(con, lake)
    for column in ("id", "vec"):
        for file in data_files(table, column, 0):
            file.unlink()
    assert all_of(con, "SELECT count(*) FROM lake.ns.items") == [(10,)]


def test_a_limit_stops_the_reading(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    table = add_items(lake, 3)
    for start in range(3, 90, 3):
        table.append(rows_from(start, 3))
    vectorlake_duckdb.attach(con, lake)
    for fragment in range(20, 30):
        for file in data_files(table, "id", fragment):
            file.unlink()
    assert len(all_of(con, "SELECT id FROM lake.ns.items LIMIT 2")) == 2
    with pytest.raises(duckdb.Error, match="missing"):
        con.execute("SELECT sum(id) FROM lake.ns.items").fetchall()


def test_explain_shows_projection_filters_snapshot_and_row_count(
    con: duckdb.DuckDBPyConnection, lake: vl.Lake
) -> None:
    add_items(lake, 5000)
    vectorlake_duckdb.attach(con, lake)
    plan = con.execute("EXPLAIN SELECT id FROM lake.ns.items WHERE price >= 2 AND name = 'n7'").fetchall()[0][
        1
    ]
    for shown in ('"price" >= 2.0', "\"name\" = 'n7'", "'ns.items@1'", "Projections: id", "5,000 rows"):
        assert shown in plan, plan
    assert "FILTER" not in plan.upper().replace("FILTERS:", "")


def test_without_an_optimizer_answers_are_the_same(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    add_items(lake)
    vectorlake_duckdb.attach(con, lake)
    con.execute("PRAGMA disable_optimizer")
    assert all_of(con, "SELECT name FROM lake.ns.items WHERE id = 4") == [("n4",)]
    assert all_of(con, "SELECT count(*) FROM lake.ns.items") == [(10,)]
    assert all_of(con, "SELECT id FROM knn('ns.items', [3, 4], 2)") == [(3,), (2,)]


def test_transactions_and_joins(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    add_items(lake)
    add_items(lake, 5, name="ns.other", start=5)
    vectorlake_duckdb.attach(con, lake)
    con.begin()
    assert all_of(con, "SELECT count(*) FROM lake.ns.items JOIN lake.ns.other USING (id)") == [(5,)]
    versions = "SELECT (SELECT count(*) FROM table_at('ns.items', 1)), (SELECT count(*) FROM knn('ns.other', [0, 0], 2))"
    assert all_of(con, versions) == [(10, 2)]
    con.rollback()
    semi = "SELECT count(*) FROM lake.ns.items WHERE id IN (SELECT id FROM lake.ns.other)"
    assert all_of(con, semi) == [(5,)]


# --- errors ---


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT * FROM knn('ns.itms', [0, 0], 2)", "no table 'ns.itms' .* \\(did you mean 'ns.items'"),
        ("SELECT * FROM table_at('ns.itms', 1)", "did you mean 'ns.items'"),
        ("SELECT * FROM knn('ns.items', [0, 0, 0], 2)", "dimension 3, column 'vec' is vector\\(2"),
        ("SELECT * FROM knn('ns.items', [0, 0], 0)", "k must be an integer of at least 1, not 0"),
        ("SELECT * FROM knn('ns.items', [0, 0], 1, metric := 'l3')", "l3"),
        ("SELECT * FROM knn('ns.items', [0, 0], 1, filter := 'prize > 3')", "did you mean .?price"),
        ("SELECT * FROM knn('ns.items', [0, 0], 1, filter := 'price >')", "price >"),
        ("SELECT * FROM knn('ns.items', [0, 0], 1, col := 'vek')", "did you mean 'vec'"),
        ("SELECT * FROM knn('ns.items', [0, 'NaN'::FLOAT], 1)", "NaN or infinity"),
        ("SELECT * FROM knn('ns.items', [0, NULL], 1)", "holds NULL"),
        ("SELECT * FROM knn('ns.items', 'text', 1)", "must be a list or array of numbers"),
        ("SELECT * FROM knn('ns.items', ['a', 'b'], 1)", "must be a list or array of numbers"),
        ("SELECT * FROM knn_join('nope', 'ns.items', 1)", "nope does not exist"),
        ("SELECT * FROM knn_join('lake.ns.items', 'ns.items', 1, vec := 'v')", 'Could not find key "v"'),
        ("SELECT * FROM lake.ns.itms", "Did you mean .*items"),
        ("INSERT INTO lake.ns.items SELECT * FROM lake.ns.items", "items is not an table"),
    ],
)
def test_errors_read_well(con: duckdb.DuckDBPyConnection, lake: vl.Lake, sql: str, message: str) -> None:
    add_items(lake)
    vectorlake_duckdb.attach(con, lake)
    with pytest.raises(duckdb.Error) as caught:
        con.execute(sql).fetchall()
    text = str(caught.value)
    assert re.search(message, text), text
    assert "Traceback" not in text
    assert len(text.splitlines()) <= 8, text
    assert all_of(con, "SELECT count(*) FROM lake.ns.items") == [(10,)]


def test_a_damaged_file_is_named(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    table = add_items(lake)
    vectorlake_duckdb.attach(con, lake)
    (file,) = data_files(table, "id", 0)
    file.write_bytes(file.read_bytes()[:-20])
    for sql in ("SELECT sum(id) FROM lake.ns.items", "SELECT * FROM knn('ns.items', [0, 0], 1)"):
        with pytest.raises(duckdb.Error) as caught:
            con.execute(sql).fetchall()
        assert file.name in str(caught.value)
        assert len(str(caught.value).splitlines()) <= 8, str(caught.value)


def test_unknown_include_and_names_that_differ_by_case(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    add_items(lake)
    with pytest.raises(NotFoundError, match="has no version 7"):
        vectorlake_duckdb.attach(con, lake, include=["ns.items@7"])
    assert all_of(con, "SHOW ALL TABLES") == []
    add_items(lake, name="ns.Items")
    with pytest.raises(AlreadyExistsError, match="without regard to case"):
        vectorlake_duckdb.attach(con, lake)
    vectorlake_duckdb.attach(con, lake, include=["ns.items"])
    assert all_of(con, "SELECT count(*) FROM lake.ns.items") == [(10,)]
