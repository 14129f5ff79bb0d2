"""Tables in Spark: read with push-down, versions and metadata, written by tasks with one commit, in frames and in SQL."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from spark_support import session

import vectorlake as vl

vectorlake_spark = pytest.importorskip("vectorlake_spark")
pytestmark = pytest.mark.slow


@pytest.fixture
def spark() -> Any:
    return session()


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    return vl.connect(tmp_path / "lake")


def rows_from(start: int, rows: int) -> pa.Table:
    ids = np.arange(start, start + rows)
    vectors = np.stack([ids, ids + 1, -ids], axis=1).astype("f4")
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 3)
    return pa.table({"id": ids, "name": [f"n{i}" for i in ids], "price": ids * 0.5, "vec": flat})


def items(lake: vl.Lake, rows: int = 10, *, name: str = "ns.items", **options: Any) -> vl.Table:
    return lake.create_table(name, rows_from(0, rows), **options)


def collected(frame: Any) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in frame.collect())


def load(spark: Any, place: vl.Table | str, /, **options: str) -> Any:
    uri = place if isinstance(place, str) else place.uri
    return spark.read.format("vectorlake").options(**options).load(uri)


# --- reading ---


def test_a_table_is_a_frame_with_all_its_columns(spark: Any, lake: vl.Lake) -> None:
    table = items(lake)
    frame = load(spark, table)
    assert [(f.name, f.dataType.simpleString()) for f in frame.schema] == [
        ("id", "bigint"),
        ("name", "string"),
        ("price", "double"),
        ("vec", "array<float>"),
    ]
    assert frame.schema["vec"].metadata["vectorlake.type"] == "vector(3, f32)"
    assert frame.orderBy("id").toArrow().to_pylist() == table.to_arrow().to_pylist()


def test_parts_of_a_table_are_read_by_several_tasks(spark: Any, lake: vl.Lake) -> None:
    table = items(lake, 1000)
    table.append(rows_from(1000, 500))
    table.delete("id % 7 = 0")
    frame = load(spark, table, rowsPerPartition="200")
    assert frame.rdd.getNumPartitions() == 8
    assert frame.select("id").toArrow()["id"].to_pylist() == table.to_arrow()["id"].to_pylist()


def test_columns_filter_and_row_ids_are_options(spark: Any, lake: vl.Lake) -> None:
    table = items(lake)
    frame = load(spark, table, columns="name, id", filter="price > 3 AND name <> 'n8'", rowIds="true")
    assert frame.columns == ["name", "id", "_row_id"]
    assert collected(frame) == [("n7", 7, 7), ("n9", 9, 9)]
    assert load(spark, table, columns='["id", "_row_id"]').columns == ["id", "_row_id"]
    named = vectorlake_spark.read(spark, table, columns=["id"], filter="id < 2", with_row_id=True)
    assert collected(named) == [(0, 0), (1, 1)]


def test_versions_tags_branches_and_times(spark: Any, lake: vl.Lake) -> None:
    table = items(lake)
    first = table.version
    table.tag("v1")
    time = dt.datetime.fromtimestamp(table.snapshot.timestamp_ms / 1000 + 0.001, dt.UTC)
    dev = table.branch("dev")
    dev.delete("id > 3")
    table.delete("id > 0")
    for options, expected in [
        ({}, 1),
        ({"version": str(first)}, 10),
        ({"tag": "v1"}, 10),
        ({"branch": "dev"}, 4),
        ({"timestamp": time.isoformat()}, 10),
    ]:
        assert load(spark, table, **options).count() == expected, options
    assert vectorlake_spark.read(spark, table.at("v1")).count() == 10
    assert vectorlake_spark.read(spark, dev).count() == 4


def test_a_frame_stays_at_its_version(spark: Any, lake: vl.Lake) -> None:
    table = items(lake)
    frame = load(spark, table)
    table.delete("id >= 4")
    assert (frame.count(), frame.where("id >= 0").count()) == (10, 10)
    assert load(spark, table).count() == 4


def test_a_lake_and_a_name_locate_a_table_too(spark: Any, lake: vl.Lake) -> None:
    items(lake)
    assert load(spark, lake.uri, table="ns.items").count() == 10


def test_metadata_tables(spark: Any, lake: vl.Lake) -> None:
    table = items(lake)
    table.tag("v1")
    table.delete("id = 1")
    for name in ("snapshots", "files", "fragments", "refs"):
        expected = getattr(table, name)()
        frame = load(spark, table, metadata=name)
        assert frame.columns == expected.column_names
        assert frame.count() == expected.num_rows
    audit = load(spark, table, metadata="snapshots", columns="version, operation")
    assert collected(audit) == [(1, "create"), (2, "delete")]


def test_an_empty_table_and_one_without_matches_have_no_rows(spark: Any, lake: vl.Lake) -> None:
    # Spark calls read() with no partition where there are none.
    empty = lake.create_table("ns.empty", pa.schema([("id", pa.int64()), ("vec", vl.vector(2))]))
    assert load(spark, empty).collect() == []
    assert load(spark, items(lake), filter="id > 100").count() == 0


# --- filters ---


def pushed_filters() -> Iterator[tuple[str, str]]:
    yield from [
        ("id = 3", "id = 3"),
        ("id <> 3", "id <> 3"),
        ("id >= 3 AND id < 7 AND name <> 'n5'", "id >= 3 AND id < 7 AND name <> 'n5'"),
        ("id IN (1, 2, 99)", "id IN (1, 2, 99)"),
        ("id NOT IN (1, 2)", "id NOT IN (1, 2)"),
        ("id < 2 OR id > 8", "id < 2 OR id > 8"),
        ("name LIKE 'n1%' OR name LIKE '%9'", "name LIKE 'n1%' OR name LIKE '%9'"),
        ("name LIKE 'n1%'", "name LIKE 'n1%'"),
        ("NOT (name LIKE '%1')", "NOT (name LIKE '%1')"),
        ("name LIKE '%1%'", "name LIKE '%1%'"),
        ("price IS NULL", "price IS NULL"),
        ("price IS NOT NULL AND price <= 3", "price <= 3"),
        ("price <=> 2.0", "price = 2.0"),
        ("NOT (price <=> 2.0)", "price IS NULL OR price <> 2.0"),
        ("s.a = 4", "s.a = 4"),
        ("day > DATE '2024-01-05'", "day > DATE '2024-01-05'"),
        ("at >= TIMESTAMP '2024-01-05 00:00:00Z'", "at >= TIMESTAMP '2024-01-05'"),
        ("cost > 2.5", "cost > 2.5"),
        ("small > 100", "small > 100"),
        ("half >= 0.5", "half >= 0.5"),
    ]


def typed_items(lake: vl.Lake) -> vl.Table:
    ids = range(12)
    start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    return lake.create_table(
        "ns.typed",
        pa.table(
            {
                "id": pa.array(ids, pa.int64()),
                "name": [f"n{i}" for i in ids],
                "price": pa.array([None if i % 4 == 3 else i / 2 for i in ids], pa.float64()),
                "s": pa.array([{"a": i, "b": str(i)} for i in ids]),
                "day": pa.array([(start + dt.timedelta(days=i)).date() for i in ids]),
                "at": pa.array([start + dt.timedelta(days=i) for i in ids], pa.timestamp("ms", "UTC")),
                "cost": pa.array([None if i == 5 else i for i in ids], pa.int64()).cast(pa.decimal128(21, 2)),
                "small": pa.array([i * 20 for i in ids], pa.uint8()),
                "half": pa.array(np.arange(12).astype("f2") / 8),
            }
        ),
    )


@pytest.fixture(params=["true", "false"])
def push_down(spark: Any, request: pytest.FixtureRequest) -> Iterator[bool]:
    """Spark's setting, which is off by default, and fails reads of sources that override `pushFilters` while it is."""
    spark.conf.set("spark.sql.python.filterPushdown.enabled", request.param)
    yield request.param == "true"
    spark.conf.unset("spark.sql.python.filterPushdown.enabled")


def test_filters_find_the_same_rows_pushed_down_or_not(spark: Any, lake: vl.Lake, push_down: bool) -> None:
    table = typed_items(lake)
    for asked, condition in pushed_filters():
        expected = table.scan(["id"], filter=condition).to_arrow()["id"].to_pylist()
        frame = load(spark, table, pushFilters="true")
        assert sorted(row.id for row in frame.where(asked).select("id").collect()) == expected, asked


def test_a_frame_is_scanned_with_several_filters(spark: Any, lake: vl.Lake, push_down: bool) -> None:
    """Spark keeps one plan for all scans of a frame, which must not be narrowed by the filters of one of them."""
    frame = load(spark, items(lake))
    both = frame.where("id < 2").union(frame.where("id > 8")).select("id")
    assert collected(both) == [(0,), (1,), (9,)]
    assert collected(frame.where("id < 1").select("id").union(frame.select("id").where("id <> 3"))) == [
        (i,) for i in (0, 0, 1, 2, 4, 5, 6, 7, 8, 9)
    ]
    assert frame.count() == 10


def test_pushed_filters_skip_fragments(spark: Any, lake: vl.Lake, push_down: bool) -> None:
    table = items(lake, 100)
    for start in (100, 200, 300):
        table.append(rows_from(start, 100))

    def parts(**options: str) -> int:
        frame = load(spark, table, rowsPerPartition="100", **options)
        return int(frame.where("id >= 250 AND name <> 'x'").rdd.getNumPartitions())

    assert parts() == 4
    assert parts(pushFilters="true") == (2 if push_down else 4)
    assert parts(filter="id >= 250") == 2
    assert load(spark, table, pushFilters="true").where("id = 1000").collect() == []


def test_nan_is_the_greatest_number_in_pushed_filters_too(spark: Any, lake: vl.Lake, push_down: bool) -> None:
    nan = float("nan")
    table = lake.create_table("ns.nan", {"id": [0, 1, 2, 3], "x": pa.array([1.0, nan, None, 5.0])})
    for asked, expected in [
        ("x > 3", [1, 3]),
        ("x >= 5", [1, 3]),
        ("x < 3", [0]),
        ("NOT (x > 3)", [0]),
        ("NOT (x < 3)", [1, 3]),
        ("x = double('NaN')", [1]),
        ("x <> 1", [1, 3]),
        ("x <= double('NaN')", [0, 1, 3]),
        ("x IN (1, double('NaN'))", [0, 1]),
        ("x NOT IN (1, 5)", [1]),
    ]:
        frame = load(spark, table, pushFilters="true")
        assert sorted(row.id for row in frame.where(asked).collect()) == expected, asked


# --- writing ---


def test_a_frame_is_appended_and_overwritten_in_one_commit(spark: Any, lake: vl.Lake) -> None:
    table = items(lake)
    more = spark.createDataFrame(rows_from(10, 30)).repartition(3)
    more.write.format("vectorlake").mode("append").save(table.uri)
    assert (table.refresh().version, table.count(), table.snapshot.summary["added_rows"]) == (2, 40, 30)
    assert table.schema.field("vec").type == vl.vector(3)
    more.where("id < 12").write.format("vectorlake").mode("overwrite").save(table.uri)
    assert (table.refresh().version, table.snapshot.operation) == (3, "overwrite")
    assert sorted(table.to_arrow()["id"].to_pylist()) == [10, 11]
    assert table.verify() == []


def test_columns_are_matched_by_name_and_missing_ones_are_null(spark: Any, lake: vl.Lake) -> None:
    table = items(lake)
    spark.sql("SELECT 'x' AS name, 50 AS id").write.format("vectorlake").mode("append").save(table.uri)
    assert table.refresh().scan(filter="id = 50").to_arrow().to_pylist() == [
        {"id": 50, "name": "x", "price": None, "vec": None}
    ]


def test_writing_where_no_table_is_creates_one_with_its_rows(spark: Any, lake: vl.Lake) -> None:
    uri = lake.uri

    def before(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            assert not vl.connect(uri).exists("made.items")
            yield batch

    frame = spark.createDataFrame(rows_from(0, 5)).repartition(2)
    (
        frame.mapInArrow(before, frame.schema)
        .write.format("vectorlake")
        .mode("append")
        .option("vector.vec", "3, f16")
        .option("primaryKey", "id")
        .option("property.write.scalar-format", "parquet")
        .save(f"{lake.uri}/made/items")
    )
    table = lake.table("made.items")
    assert table.schema.field("vec").type == vl.vector(3, "f16")
    assert table.snapshot.primary_key == (table.snapshot.schema.field("id").id,)
    assert table.properties["write.scalar-format"] == "parquet"
    assert sorted(table.to_arrow()["id"].to_pylist()) == [0, 1, 2, 3, 4]
    assert [(one.version, one.operation) for one in table.history()] == [(1, "create")]
    assert table.verify() == []


def test_the_calls_of_the_other_connectors(spark: Any, lake: vl.Lake) -> None:
    frame = spark.createDataFrame(rows_from(0, 5))
    table = vectorlake_spark.create_table(frame, lake, "ns.new", primary_key=["id"], vectors={"vec": 3})
    assert (table.version, table.count(), table.schema.field("vec").type) == (1, 5, vl.vector(3))
    with pytest.raises(Exception, match=r"there is a table at .* already"):
        vectorlake_spark.create_table(frame, lake, "ns.new")
    with pytest.raises(Exception, match="a new one needs a primary key"):
        vectorlake_spark.upsert(frame, lake, "x.keyless")
    with pytest.raises(Exception, match="5 primary keys occur more than once in the data"):
        vectorlake_spark.create_table(frame.union(frame), lake, "x.twice", primary_key=["id"])
    assert (lake.tables(), list(lake.store.list("x"))) == (["ns.new"], [])
    assert vectorlake_spark.write(spark.createDataFrame(rows_from(5, 2)), lake, "ns.new").count() == 7
    changed = spark.createDataFrame([(6, "changed"), (7, "new")], "id long, name string").repartition(2)
    table = vectorlake_spark.upsert(changed, lake, "ns.new")
    assert table.scan(["id", "name", "price"], filter="id >= 6").to_arrow().to_pylist() == [
        {"id": 6, "name": "changed", "price": 3.0},
        {"id": 7, "name": "new", "price": None},
    ]
    assert vectorlake_spark.write(frame, lake, "ns.new", mode="overwrite").count() == 5
    with pytest.raises(vl.InvalidInputError, match="mode must be 'create', 'append'"):
        vectorlake_spark.write(frame, lake, "ns.new", mode="replace")


def test_a_vector_keeps_its_dimension_through_a_projection(spark: Any, lake: vl.Lake) -> None:
    source = lake.create_table(
        "ns.source", pa.table({"id": [1], "vec": pa.array([[1, 2]], vl.vector(2, "f16"))})
    )
    frame = load(spark, source).selectExpr("id + 1 AS id", "vec AS embedding").where("id > 0")
    table = vectorlake_spark.write(frame, lake, "ns.copy")
    assert table.schema.field("embedding").type == vl.vector(2, "f16")
    marked = vectorlake_spark.as_vector(spark.sql("SELECT 1L AS id, array(1.0f, 2.0f) AS v"), "v", 2, "int8")
    assert vectorlake_spark.write(marked, lake, "ns.marked").schema.field("v").type == vl.vector(2, "int8")


def test_a_failed_write_leaves_nothing(spark: Any, lake: vl.Lake) -> None:
    table = items(lake)
    before = {info.path for info in table.store.list()}
    source = spark.createDataFrame([(0,), (1,)], "id long").repartitionByRange(2, "id")

    def write(uri: str) -> None:
        """In two tasks, of which the second fails as soon as the first has staged its row."""
        folder = str(lake.store.local_path(""))
        files = sum(len(names) for _, _, names in os.walk(folder))

        def bad(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                if batch.column("id")[0].as_py() == 1:
                    until = time.monotonic() + 20
                    while sum(len(names) for _, _, names in os.walk(folder)) <= files:
                        assert time.monotonic() < until
                        time.sleep(0.05)
                    time.sleep(4)  # and has told so, however busy the machine is
                    raise ValueError("no such luck")
                yield batch

        source.mapInArrow(bad, "id long").write.format("vectorlake").mode("append").save(uri)

    with pytest.raises(Exception, match="no such luck"):
        write(table.uri)
    assert table.refresh().version == 1
    assert {info.path for info in table.store.list()} == before
    with pytest.raises(Exception, match="no such luck"):
        write(f"{lake.uri}/x/y")
    assert (lake.tables(), list(lake.store.list("x"))) == (["ns.items"], [])


def test_rows_that_do_not_fit_are_refused_with_the_reason(spark: Any, lake: vl.Lake) -> None:
    table = items(lake, primary_key=["id"])
    for frame, message in [
        (
            spark.sql("SELECT 50L AS id, array(1.0f, 2.0f) AS vec"),
            r"vector\(3, f32\), but row 0 has 2 numbers",
        ),
        (spark.sql("SELECT 50L AS id, 'x' AS nam"), "no column 'nam' .did you mean 'name'"),
        (spark.sql("SELECT 50L AS id, 3 AS name"), "column 'name' is string, the data has int32"),
        (spark.sql("SELECT 3L AS id"), r"\(id=3\)"),
        (spark.sql("SELECT CAST(NULL AS BIGINT) AS id"), "column 'id' must not be null"),
    ]:
        with pytest.raises(Exception, match=message):
            frame.write.format("vectorlake").mode("append").save(table.uri)
    assert table.refresh().version == 1


# --- SQL ---


def test_a_table_of_sparks_catalog_shows_the_newest_version(spark: Any, lake: vl.Lake) -> None:
    table = items(lake)
    spark.sql(f"CREATE TABLE catalog_items USING vectorlake OPTIONS (path '{table.uri}')")
    try:
        assert spark.sql("SELECT count(*) FROM catalog_items").first()[0] == 10
        table.delete("id > 4")
        assert spark.sql("SELECT count(*) FROM catalog_items WHERE id >= 2").first()[0] == 3
        assert spark.sql("SELECT count(*) FROM catalog_items WITH (version = '1')").first()[0] == 10
        spark.sql("INSERT INTO catalog_items VALUES (20, 'a', 1.5, array(1, 2, 3)), (21, 'b', NULL, NULL)")
        assert table.refresh().count() == 7
        target = f"WITH (path = '{table.uri}')"
        spark.sql(f"INSERT INTO catalog_items {target} SELECT id + 100, name, price, vec FROM catalog_items")
        assert table.refresh().count() == 14
        spark.sql("INSERT OVERWRITE catalog_items VALUES (1, 'only', 0, array(0, 0, 1))")
        assert table.refresh().to_arrow()["name"].to_pylist() == ["only"]
    finally:
        spark.sql("DROP TABLE catalog_items")
    assert lake.table("ns.items").count() == 1


def test_a_table_of_sparks_catalog_is_not_created_from_a_query(spark: Any, lake: vl.Lake) -> None:
    """Spark hands neither options nor path to a source of which it asks a writer for a CREATE TABLE … AS SELECT."""
    with pytest.raises(Exception, match="doesn't tell a Python data source which table it inserts into"):
        spark.sql(f"CREATE TABLE made USING vectorlake OPTIONS (path '{lake.uri}/ns/made') AS SELECT 1 AS id")
    assert (lake.tables(), spark.catalog.tableExists("made")) == ([], False)


def test_an_insert_never_goes_into_the_table_that_it_reads(spark: Any, lake: vl.Lake) -> None:
    """Spark hands on the source's column metadata where names and types are equal, and no name of the target."""
    one, other = items(lake, name="ns.one"), items(lake, name="ns.other")
    for table, name in ((one, "spark_one"), (other, "spark_other")):
        spark.sql(f"CREATE TABLE {name} USING vectorlake OPTIONS (path '{table.uri}')")
    load(spark, one).createOrReplaceTempView("loaded")
    try:
        for select in (
            "SELECT * FROM spark_other",
            "SELECT * FROM spark_other WHERE id > 3",
            "SELECT * FROM loaded",
        ):
            with pytest.raises(Exception, match="which table it inserts into: name it once more"):
                spark.sql(f"INSERT INTO spark_one {select}")
        assert (one.refresh().version, other.refresh().version) == (1, 1)
        spark.sql(f"INSERT INTO spark_one WITH (path = '{one.uri}') SELECT * FROM spark_other")
        spark.table("spark_other").writeTo("spark_one").option("path", one.uri).append()
        assert (one.refresh().count(), other.refresh().count()) == (30, 10)
    finally:
        spark.sql("DROP TABLE spark_one")
        spark.sql("DROP TABLE spark_other")


def test_an_attached_lake_is_read_and_inserted_into_by_name(spark: Any, lake: vl.Lake) -> None:
    one, other = items(lake, name="shop.one"), items(lake, name="shop.other")
    items(lake, name="a.b-c.deep")
    assert vectorlake_spark.attach(spark, lake) == ["`a_b_c`.`deep`", "`shop`.`one`", "`shop`.`other`"]
    try:
        assert spark.sql("SELECT count(*) FROM shop.one JOIN shop.other USING (id)").first()[0] == 10
        spark.sql("INSERT INTO shop.one SELECT * FROM shop.other WHERE id < 3")
        assert (one.refresh().count(), other.refresh().version) == (13, 1)
        spark.sql("INSERT OVERWRITE shop.one SELECT * FROM shop.other WHERE id < 3")
        spark.table("shop.other").writeTo("shop.one").append()
        assert one.refresh().count() == 13
        assert spark.sql("SELECT count(*) FROM shop.one WITH (version = '1')").first()[0] == 10
        one.add_column("stock", type=pa.int32())
        vectorlake_spark.attach(spark, lake, include=["shop.*"])
        assert "stock" in spark.table("shop.one").columns
        with pytest.raises(vl.NotFoundError, match=r"no table 'shop.none'"):
            vectorlake_spark.attach(spark, lake, include=["shop.none"])
    finally:
        vectorlake_spark.detach(spark, lake)
    assert not spark.catalog.tableExists("shop.one")
    assert lake.tables() == ["a.b-c.deep", "shop.one", "shop.other"]


def test_a_temporary_view_is_inserted_into_and_stays_at_its_version(spark: Any, lake: vl.Lake) -> None:
    table = items(lake)
    spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW v USING vectorlake OPTIONS (path '{table.uri}')")
    spark.sql("INSERT INTO v SELECT id + 10, name, price, vec FROM v")
    assert spark.sql("SELECT count(*) FROM v").first()[0] == 10
    assert table.refresh().count() == 20


def test_what_sparks_catalog_remembers_wrongly_is_told(spark: Any, lake: vl.Lake) -> None:
    table = items(lake)
    spark.sql(f"CREATE TABLE stale USING vectorlake OPTIONS (path '{table.uri}')")
    spark.sql("CREATE TABLE bare (id BIGINT) USING vectorlake")
    try:
        table.drop_column("price")
        with pytest.raises(Exception, match="no column 'price' at version 2: load it again, or DROP"):
            spark.sql("SELECT * FROM stale").collect()
        with pytest.raises(Exception, match="takes no columns: they come from the table"):
            spark.sql("SELECT * FROM bare").collect()
    finally:
        spark.sql("DROP TABLE stale")
        spark.sql("DROP TABLE bare")


# --- errors ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"versoin": "3"}, "no option 'versoin' .did you mean 'version'"),
        ({"version": "3", "tag": "x"}, "options 'version' and 'tag' exclude each other"),
        ({"version": "three"}, "option 'version' is a number, not 'three'"),
        ({"version": "77"}, "version 77"),
        ({"tag": "none"}, "none"),
        ({"timestamp": "soon"}, "option 'timestamp' is a time such as"),
        ({"columns": "id,pric"}, "did you mean 'price'"),
        ({"columns": "[1"}, "or a JSON list"),
        ({"filter": "prise > 3"}, "no column 'prise'; did you mean price"),
        ({"rowIds": "yes"}, "option 'rowIds' is true or false, not 'yes'"),
        ({"rowsPerPartition": "0"}, "a whole number of at least 1, not '0'"),
        ({"metadata": "snapshot"}, "no metadata table 'snapshot' .did you mean 'snapshots'"),
        ({"changes": "all"}, "changes are read as a stream"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    spark: Any, lake: vl.Lake, options: dict[str, str], message: str
) -> None:
    table = items(lake)
    with pytest.raises(Exception, match=message):
        load(spark, table, **options).collect()


def test_places_that_are_no_tables_are_refused(spark: Any, lake: vl.Lake, tmp_path: Path) -> None:
    frame = spark.range(1)
    for action, message in [
        (lambda: load(spark, f"{lake.uri}/ns/none"), "ns/none"),
        (lambda: spark.read.format("vectorlake").load(), "say where the table lies"),
        (lambda: spark.read.format("vectorlake").load(["/a", "/b"]), "a read takes one table"),
        (lambda: load(spark, "memory://lake/ns/items"), "in the memory of one process"),
        (
            lambda: (
                frame.write.format("vectorlake").mode("append").option("version", "1").save(f"{lake.uri}/a/b")
            ),
            "writes go to the newest version",
        ),
        (
            lambda: (
                frame.write.format("vectorlake")
                .mode("overwrite")
                .option("mode", "upsert")
                .save(f"{lake.uri}/a/b")
            ),
            "Spark was told to overwrite",
        ),
        (
            lambda: (
                frame.write.format("vectorlake")
                .mode("append")
                .option("vector.vec", "3")
                .save(f"{lake.uri}/a/b")
            ),
            "option 'vector.vec' names no column",
        ),
    ]:
        with pytest.raises(Exception, match=message) as caught:
            action()
        assert "vectorlake_spark/_options.py" not in str(caught.value)
    assert lake.tables() == []
