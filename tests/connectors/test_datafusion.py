"""A lake attached to DataFusion: names, versions, push-down, types, metadata, writing, and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from vectorlake.testing.columns import columns

datafusion = pytest.importorskip("datafusion")
vectorlake_datafusion = pytest.importorskip("vectorlake_datafusion")


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    return vl.connect(tmp_path / "lake")


@pytest.fixture
def ctx(lake: vl.Lake) -> Any:
    config = datafusion.SessionConfig().with_information_schema(True)
    context = datafusion.SessionContext(config)
    vectorlake_datafusion.attach(context, lake)
    return context


def rows_from(start: int, rows: int) -> pa.Table:
    ids = np.arange(start, start + rows)
    vectors = np.stack([ids, ids + 1], axis=1).astype("f4")
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 2)
    return pa.table({"id": ids, "name": [f"n{i}" for i in ids], "price": ids * 0.5, "vec": flat})


def all_of(ctx: Any, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ctx.sql(sql).to_pylist()
    return found


def value(ctx: Any, sql: str) -> object:
    """The only value of the only row."""
    ((found,),) = [list(row.values()) for row in all_of(ctx, sql)]
    return found


# --- names and versions ---


def test_tables_are_found_in_schemas_of_their_namespaces(ctx: Any, lake: vl.Lake) -> None:
    for name, rows in (("ns.items", 10), ("a.b.deep", 3), ("top", 2)):
        lake.create_table(name, rows_from(0, rows))
    assert value(ctx, "SELECT count(*) FROM lake.ns.items") == 10
    assert value(ctx, 'SELECT count(*) FROM lake."a.b".deep') == 3
    assert value(ctx, "SELECT count(*) FROM lake.main.top") == 2
    listed = all_of(
        ctx,
        "SELECT table_schema AS s, table_name AS t FROM information_schema.tables WHERE table_catalog = 'lake' "
        "AND table_schema <> 'information_schema'",
    )
    assert {(row["s"], row["t"]) for row in listed} == {("ns", "items"), ("a.b", "deep"), ("main", "top")}
    assert [row["column_name"] for row in all_of(ctx, "DESCRIBE lake.ns.items")] == [
        "id",
        "name",
        "price",
        "vec",
    ]


def test_versions_tags_and_branches_by_name(ctx: Any, lake: vl.Lake) -> None:
    table = lake.create_table("ns.items", rows_from(0, 10))
    table.tag("v1")
    table.append(rows_from(10, 5))
    table.branch("dev").append(rows_from(100, 1))
    table.drop_column("price")
    counted = {
        name: value(ctx, f'SELECT count(*) FROM lake.ns."items@{name}"') for name in ("1", "v1", "2", "dev")
    }
    assert counted == {"1": 10, "v1": 10, "2": 15, "dev": 16}
    assert value(ctx, 'SELECT max(price) FROM lake.ns."items@v1"') == 4.5
    assert value(ctx, "SELECT count(*) FROM table_at('ns.items', 'v1')") == 10
    assert value(ctx, "SELECT count(*) FROM table_at('ns.items', 2)") == 15
    with pytest.raises(NotFoundError, match="has no version 9; it has versions 1 to 3"):
        ctx.sql('SELECT * FROM lake.ns."items@9"')
    with pytest.raises(NotFoundError, match="no tag or branch 'v2'"):
        ctx.sql('SELECT * FROM lake.ns."items@v2"')


def test_a_statement_sees_one_version_and_the_next_one_the_newest(ctx: Any, lake: vl.Lake) -> None:
    table = lake.create_table("ns.items", rows_from(0, 10))
    planned = ctx.sql("SELECT count(*) AS n FROM lake.ns.items")
    ctx.sql("CREATE VIEW seen AS SELECT * FROM lake.ns.items")
    table.append(rows_from(10, 5))
    assert planned.to_pydict() == {"n": [10]}
    assert value(ctx, "SELECT count(*) FROM lake.ns.items") == 15
    assert value(ctx, "SELECT count(*) FROM seen") == 10  # a view keeps what it was planned with
    table.add_column("total", "price * 2")
    assert value(ctx, "SELECT max(total) FROM lake.ns.items") == 14.0


def test_row_ids_are_shown_where_asked_for(lake: vl.Lake) -> None:
    table = lake.create_table("ns.items", rows_from(0, 10))
    table.delete("id < 4")
    ctx = datafusion.SessionContext()
    vectorlake_datafusion.attach(ctx, lake, "plain")
    vectorlake_datafusion.attach(ctx, lake, "ids", with_row_id=True)
    assert "_row_id" not in ctx.sql("SELECT * FROM plain.ns.items").schema().names
    assert all_of(ctx, "SELECT id FROM ids.ns.items WHERE _row_id IN (3, 5) AND _row_id = id") == [{"id": 5}]


def test_two_lakes_and_names_that_are_taken(tmp_path: Path) -> None:
    first, second = vl.connect(tmp_path / "a"), vl.connect(tmp_path / "b")
    first.create_table("ns.items", rows_from(0, 4))
    second.create_table("ns.items", rows_from(0, 6))
    ctx = datafusion.SessionContext()
    vectorlake_datafusion.attach(ctx, first, "one")
    vectorlake_datafusion.attach(ctx, second, "two")
    assert value(ctx, "SELECT count(*) FROM knn('one.ns.items', [0.0, 0.0], 9)") == 4
    assert value(ctx, "SELECT count(*) FROM knn('two.ns.items', [0.0, 0.0], 9)") == 6
    with pytest.raises(ValueError, match=r"write 'one\.ns\.items' or 'two\.ns\.items'"):
        ctx.sql("SELECT * FROM knn('ns.items', [0.0, 0.0], 9)")
    with pytest.raises(AlreadyExistsError, match="catalog 'two' already"):
        vectorlake_datafusion.attach(ctx, first, "two")


def test_missing_tables_are_named(ctx: Any, lake: vl.Lake) -> None:
    lake.create_table("ns.items", rows_from(0, 1))
    with pytest.raises(ValueError, match=r"table 'lake\.ns\.itemz' not found"):
        ctx.sql("SELECT * FROM lake.ns.itemz")
    with pytest.raises(ValueError, match=r"table 'lake\.no\.items' not found"):
        ctx.sql("SELECT * FROM lake.no.items")
    with pytest.raises(ValueError, match=r"table .* not found"):
        ctx.sql('SELECT * FROM lake.ns."no such table"')


# --- push-down ---


def explained(ctx: Any, sql: str) -> str:
    return str(all_of(ctx, f"EXPLAIN {sql}")[-1]["plan"])


def test_explain_shows_what_is_pushed_down(ctx: Any, lake: vl.Lake) -> None:
    lake.create_table("ns.items", rows_from(0, 10))
    plan = explained(ctx, "SELECT name FROM lake.ns.items WHERE id > 3 AND price BETWEEN 2 AND 3")
    assert "projection=[name]" in plan
    assert "FilterExec" not in plan
    assert "(id > 3)" in plan
    kept = explained(ctx, "SELECT id FROM lake.ns.items WHERE name LIKE 'n%' AND id > 3")
    assert "FilterExec" in kept
    assert "(id > 3)" in kept


def test_a_filter_opens_only_the_fragments_that_may_match(ctx: Any, lake: vl.Lake) -> None:
    table = lake.create_table("ns.items", rows_from(0, 10))
    table.append(rows_from(10, 10))
    for fragment in list(table.view.fragments())[:1]:
        for file in fragment.files:
            (Path(table.uri.removeprefix("file://")) / file.path).unlink()
    assert value(ctx, "SELECT max(id) FROM lake.ns.items WHERE id > 12") == 19
    assert value(ctx, "SELECT count(*) FROM lake.ns.items") == 20  # from the metadata alone
    with pytest.raises(Exception, match=r"CorruptDataError: .*is missing"):
        ctx.sql("SELECT max(id) FROM lake.ns.items").collect()


def test_counting_reads_no_column(ctx: Any, lake: vl.Lake) -> None:
    """A batch without columns that forgot its rows would count 0."""
    table = lake.create_table("ns.items", rows_from(0, 10))
    table.delete("id = 2")
    assert value(ctx, "SELECT count(*) FROM lake.ns.items WHERE price > 2") == 5
    assert value(ctx, "SELECT count(1) FROM lake.ns.items") == 9
    assert len(all_of(ctx, "SELECT 1 FROM lake.ns.items")) == 9
    assert value(ctx, "SELECT count(*) FROM table_files('ns.items')") == 3


def test_limit_ends_the_scan_early(ctx: Any, lake: vl.Lake) -> None:
    lake.create_table("ns.items", rows_from(0, 20_000))
    assert len(all_of(ctx, "SELECT id FROM lake.ns.items LIMIT 7")) == 7


def test_a_read_goes_on_at_its_version_while_the_table_changes(ctx: Any, lake: vl.Lake) -> None:
    table = lake.create_table("ns.items", rows_from(0, 30_000))
    stream = ctx.sql("SELECT id FROM lake.ns.items").execute_stream()
    first = next(iter(stream)).to_pyarrow()
    table.delete("id >= 0")
    assert len(first) + sum(len(batch.to_pyarrow()) for batch in stream) == 30_000


def test_read_takes_versions_columns_and_filters(ctx: Any, lake: vl.Lake) -> None:
    table = lake.create_table("ns.items", rows_from(0, 10))
    table.append(rows_from(10, 5))
    frame = vectorlake_datafusion.read(ctx, table.at(1), columns=["name"], filter="id > 7", with_row_id=True)
    assert frame.to_pydict() == {"name": ["n8", "n9"], "_row_id": [8, 9]}
    with pytest.raises(NotFoundError, match="did you mean 'name'"):
        vectorlake_datafusion.read(ctx, table, columns=["nam"])


# --- types ---


@pytest.mark.parametrize("name", list(columns()))
def test_every_type_goes_through_and_back(name: str) -> None:
    array = columns()[name]
    if pa.types.is_fixed_size_list(array.type) and pa.types.is_floating(array.type.value_type):
        # Without the vectors that tables refuse.
        rows = [
            None if r is None or any(x is None or x - x != 0 for x in r) else r for r in array.to_pylist()
        ]
        array = pa.array(rows, array.type)
    lake = vl.connect(f"memory://datafusion-type-{name}")
    table = lake.create_table("t.c", pa.table({"n": range(len(array)), "c": array}))
    ctx = datafusion.SessionContext()
    vectorlake_datafusion.attach(ctx, lake)
    stored = table.scan(["c"]).to_dataset().to_table()["c"].combine_chunks()
    found = ctx.sql("SELECT c FROM lake.t.c").to_arrow_table()["c"].combine_chunks()
    assert found.type == stored.type
    assert str(found) == str(stored)
    assert value(ctx, "SELECT count(*) FROM lake.t.c WHERE c IS NULL") == stored.null_count
    written = vectorlake_datafusion.create_table(ctx, "t.again", "SELECT n, c FROM lake.t.c")
    assert written.schema.field("c").type == table.schema.field("c").type
    assert str(written.scan(["c"]).to_dataset().to_table()["c"].combine_chunks()) == str(stored)


def test_strings_as_views_and_literals_are_written(ctx: Any, lake: vl.Lake) -> None:
    sql = "SELECT arrow_cast('a', 'Utf8View') AS s, X'61' AS b, arrow_cast('c', 'Dictionary(Int32, Utf8)') AS d, [1.5] AS l"
    table = vectorlake_datafusion.create_table(ctx, "ns.t", sql)
    assert table.to_arrow().to_pylist() == [{"s": "a", "b": b"a", "d": "c", "l": [1.5]}]


# --- metadata ---


def test_metadata_tables(ctx: Any, lake: vl.Lake) -> None:
    table = lake.create_table("ns.items", rows_from(0, 10))
    table.tag("v1")
    table.delete("id < 3")
    audit = "SELECT version, operation FROM table_snapshots('ns.items') ORDER BY version"
    assert [tuple(row.values()) for row in all_of(ctx, audit)] == [(1, "create"), (2, "delete")]
    assert value(ctx, "SELECT count(*) FROM table_snapshots('lake.ns.items@v1')") == 1
    assert value(ctx, "SELECT count(*) FROM table_refs('ns.items') WHERE kind = 'tag' AND version = 1") == 1
    paths = ctx.sql("SELECT path FROM table_files('ns.items') WHERE size > 0").to_pydict()["path"]
    assert sorted(paths) == sorted(table.files()["path"].to_pylist())
    assert value(ctx, "SELECT sum(rows) FROM table_fragments('ns.items')") == 10
    with pytest.raises(ValueError, match="table_files takes table, not 0 arguments"):
        ctx.sql("SELECT * FROM table_files()")


# --- writing ---


def test_write_in_every_mode(ctx: Any, lake: vl.Lake) -> None:
    source = lake.create_table("ns.items", rows_from(0, 10))
    made = vectorlake_datafusion.create_table(
        ctx, "ns.new", "SELECT id, name, vec FROM lake.ns.items WHERE id < 4", primary_key=["id"]
    )
    assert (len(made), made.snapshot.primary_key) == (4, (1,))
    assert made.schema.field("vec").type == source.schema.field("vec").type
    frame = ctx.sql("SELECT id, 'changed' AS name, vec FROM lake.ns.items WHERE id BETWEEN 3 AND 5")
    assert len(vectorlake_datafusion.write(ctx, frame, lake, "ns.new", mode="upsert")) == 6
    assert len(vectorlake_datafusion.write(ctx, "SELECT 100 AS id", "lake", "ns.new")) == 7
    rewritten = vectorlake_datafusion.write(
        ctx, "SELECT * FROM lake.ns.new WHERE name = 'changed'", "lake", "ns.new", mode="overwrite"
    )
    assert (rewritten.version, sorted(rewritten.to_arrow()["id"].to_pylist())) == (4, [3, 4, 5])


def test_failures_write_nothing(ctx: Any, lake: vl.Lake) -> None:
    lake.create_table("ns.items", rows_from(0, 10))
    late = "SELECT 1 / (id - 9) AS id FROM lake.ns.items"
    for mode, name in (("append", "ns.items"), ("create", "ns.new")):
        with pytest.raises(Exception, match="Divide by zero"):
            vectorlake_datafusion.write(ctx, late, lake, name, mode=mode)
    with pytest.raises(InvalidInputError, match=r"no column 'nam'.*did you mean 'name'"):
        vectorlake_datafusion.write(ctx, "SELECT 1 AS id, 'a' AS nam", lake, "ns.items")
    with pytest.raises(InvalidInputError, match="row 0 has 3 numbers"):
        vectorlake_datafusion.write(ctx, "SELECT 1 AS id, [1.0, 2.0, 3.0] AS vec", lake, "ns.items")
    with pytest.raises(AlreadyExistsError, match=r"ns\.items"):
        vectorlake_datafusion.create_table(ctx, "ns.items", "SELECT 1 AS id")
    with pytest.raises(NotFoundError, match=r"no lake is attached as 'lakes'.*did you mean 'lake'"):
        vectorlake_datafusion.write(ctx, "SELECT 1 AS id", "lakes", "ns.items")
    with pytest.raises(InvalidInputError, match="mode must be"):
        vectorlake_datafusion.write(ctx, "SELECT 1 AS id", lake, "ns.items", mode="insert")
    assert lake.tables() == ["ns.items"]
    assert len(lake.table("ns.items").history()) == 1


def test_create_table_as_in_sql_commits_once(ctx: Any, lake: vl.Lake) -> None:
    table = lake.create_table("ns.items", rows_from(0, 10))
    ctx.sql("CREATE TABLE lake.fresh.some AS SELECT id, vec FROM lake.ns.items WHERE id > 6")
    made = lake.table("fresh.some")
    assert (made.version, made.to_arrow()["id"].to_pylist()) == (1, [7, 8, 9])
    assert made.schema.field("vec").type == table.schema.field("vec").type
    with pytest.raises(ValueError, match="already exists"):
        ctx.sql("CREATE TABLE lake.fresh.some AS SELECT 1 AS id")
    with pytest.raises(ValueError, match="can't be dropped in SQL"):
        ctx.sql("CREATE OR REPLACE TABLE lake.fresh.some AS SELECT 1 AS id")
    for sql in (
        "INSERT INTO lake.ns.items SELECT * FROM lake.ns.items",
        "DELETE FROM lake.ns.items",
        "DROP TABLE lake.ns.items",
    ):
        with pytest.raises(Exception, match=r"not implemented|not supported|doesn't exist"):
            ctx.sql(sql).collect()
    assert len(lake.table("ns.items")) == 10
