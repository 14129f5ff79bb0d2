"""Nearest neighbours in Spark: the answers of `Table.knn`, bit for bit, one search for a batch of queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from spark_support import session

import vectorlake as vl

vectorlake_spark = pytest.importorskip("vectorlake_spark")
pytestmark = pytest.mark.slow

DIMENSION = 8


@pytest.fixture
def spark() -> Any:
    return session()


@pytest.fixture
def items(tmp_path: Path) -> vl.Table:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, DIMENSION)).astype("f4")
    lake = vl.connect(tmp_path / "lake")
    table = lake.create_table(
        "ns.items",
        {
            "id": np.arange(300),
            "label": [f"l{i % 7}" for i in range(300)],
            "vec": pa.array(
                [None if i % 50 == 7 else row.tolist() for i, row in enumerate(vectors)], vl.vector(DIMENSION)
            ),
        },
    )
    table.delete("id % 11 = 0")
    return table


def asked(count: int = 40) -> pa.Table:
    vectors = np.random.default_rng(1).standard_normal((count, DIMENSION)).astype("f4")
    rows = [None if i % 9 == 4 else row.tolist() for i, row in enumerate(vectors)]
    return pa.table({"qid": pa.array(range(100, 100 + count)), "vec": pa.array(rows, vl.vector(DIMENSION))})


def expected(table: vl.Table, queries: pa.Table, **options: Any) -> list[tuple[Any, ...]]:
    found = table.knn(queries["vec"], **options).to_pylist()
    return [(100 + row["query"], row["rank"], row["row_id"], row["distance"]) for row in found]


def rows(frame: Any, *names: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(row[name] for name in names) for row in frame.collect())


@pytest.mark.parametrize(
    ("sql", "options"),
    [
        ("3", {"k": 3}),
        ("k => 3, metric => 'cosine'", {"k": 3, "metric": "cosine"}),
        ("4, filter => \"label <> 'l3' AND id > 50\"", {"k": 4, "filter": "label <> 'l3' AND id > 50"}),
        ("2, group_col => 'label'", {"k": 2, "group_by": "label"}),
        ("NULL, max_distance => 6.0", {"k": None, "max_distance": 6.0}),
        ("5, version => 1", {"k": 5, "version": 1}),
    ],
)
def test_knn_in_sql_answers_as_the_table_does(
    spark: Any, items: vl.Table, sql: str, options: dict[str, Any]
) -> None:
    queries = asked()
    spark.createDataFrame(queries).repartition(3).createOrReplaceTempView("queries")
    table = items.at(options.pop("version")) if "version" in options else items
    found = spark.sql(f"SELECT * FROM knn(TABLE(queries), '{items.uri}', {sql}, id => 'qid')")
    assert found.columns == ["query", "rank", "row_id", "distance", "id", "label"]
    assert rows(found, "query", "rank", "row_id", "distance") == expected(table, queries, **options)


def test_queries_without_names_are_counted(spark: Any, items: vl.Table) -> None:
    queries = asked()
    spark.createDataFrame(queries).createOrReplaceTempView("queries")
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "7")
    try:
        found = spark.sql(f"SELECT * FROM knn(TABLE(SELECT vec FROM queries ORDER BY qid), '{items.uri}', 3)")
        answer = [(100 + row[0], *row[1:]) for row in rows(found, "query", "rank", "row_id", "distance")]
    finally:
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")
    assert answer == expected(items, queries, k=3)


def test_one_query_is_an_array(spark: Any, items: vl.Table) -> None:
    found = spark.sql(
        f"SELECT * FROM knn(array(0.5, 1, 0, 0, -1, 0, 0.25, 0), '{items.uri}', 4, columns => 'label')"
    )
    answer = items.knn([0.5, 1, 0, 0, -1, 0, 0.25, 0], k=4, columns=["label"])
    assert found.columns == answer.column_names
    assert [tuple(row) for row in found.collect()] == [tuple(row.values()) for row in answer.to_pylist()]


def test_knn_join_keeps_the_queries_columns(spark: Any, items: vl.Table) -> None:
    queries = asked().append_column("id", pa.array([f"q{i}" for i in range(40)]))
    frame = spark.createDataFrame(queries).repartition(2)
    frame.createOrReplaceTempView("queries")
    found = spark.sql(
        f"SELECT * FROM knn_join(TABLE(queries), '{items.uri}', 2, columns => array('label', 'id'))"
    )
    assert found.columns == ["qid", "vec", "id", "rank", "row_id", "distance", "label", "id_1"]
    assert rows(found, "qid", "rank", "row_id", "distance") == expected(items, queries, k=2)
    same = vectorlake_spark.knn_join(frame, items, 2, columns=["id"])
    assert rows(same, "qid", "rank", "row_id", "distance", "id_1") == [
        (*row, row[2]) for row in expected(items, queries, k=2)
    ]


def test_searches_by_an_index(spark: Any, items: vl.Table) -> None:
    items.create_index("vec", "flat", name="by_vec")
    queries = asked()
    frame = spark.createDataFrame(queries)
    found = vectorlake_spark.knn(frame, items, 5, id="qid", mode="index", target_recall=0.99)
    assert rows(found, "query", "rank", "row_id", "distance") == expected(
        items, queries, k=5, mode="index", target_recall=0.99
    )


def test_all_tasks_search_the_version_that_was_planned(spark: Any, items: vl.Table) -> None:
    queries = asked()
    found = vectorlake_spark.knn(spark.createDataFrame(queries), items.uri, 3, id="qid")
    before = expected(items, queries, k=3)
    items.delete("id < 200")
    assert rows(found, "query", "rank", "row_id", "distance") == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("knn(TABLE(queries), '{uri}', 3, metrc => 'l2')", "no option 'metrc' .did you mean 'metric'"),
        ("knn(TABLE(queries), '{uri}/none', 3)", "none"),
        ("knn(TABLE(queries), '{uri}', 3, vec => 'nope')", "no column 'nope', which vec names"),
        ("knn(TABLE(queries), '{uri}', 3, id => 'nope')", "no column 'nope', which id names"),
        ("knn(TABLE(queries), '{uri}', 0)", "k must be"),
        ("knn(TABLE(queries), '{uri}', 3, metric => 'l3')", "l3"),
        ("knn(TABLE(queries), '{uri}', 3, mode => 'index')", "no index"),
        ("knn(TABLE(SELECT 1 AS a), '{uri}', 3)", "the queries have no column of vectors"),
        (
            "knn(TABLE(SELECT vec, vec AS other FROM queries), '{uri}', 3)",
            "say which column holds the query vectors",
        ),
        ("knn(TABLE(SELECT array(1.0f, 2.0f) AS vec), '{uri}', 3)", "dimension 2"),
        ("knn_join(array(1.0f), '{uri}', 3)", "knn_join takes a table of queries"),
    ],
)
def test_calls_that_mean_nothing_are_refused(spark: Any, items: vl.Table, call: str, message: str) -> None:
    spark.createDataFrame(asked(3)).createOrReplaceTempView("queries")
    with pytest.raises(Exception, match=message):
        spark.sql(f"SELECT * FROM {call.format(uri=items.uri)}").collect()
