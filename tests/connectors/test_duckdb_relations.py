"""Tables and matches as relations of DuckDB: the rows of `Table.scan` and `Table.knn`, pinned to the handle's version."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import vectorlake_duckdb

import vectorlake as vl

duckdb = pytest.importorskip("duckdb")


@pytest.fixture
def table() -> vl.Table:
    return vl.connect("memory://").create_table(
        "ns.items",
        {
            "id": np.arange(100),
            "a b": [f"n{i}" for i in range(100)],
            "price": [float("nan") if i == 3 else i / 2 for i in range(100)],
            "vec": np.random.default_rng(1).standard_normal((100, 4)).astype("f4"),
        },
    )


@pytest.fixture
def con() -> Any:
    with duckdb.connect() as made:
        yield made


@pytest.mark.parametrize(
    ("columns", "filter"),
    [(None, None), (["price", "a b"], None), (["a b"], "price > 40"), (["id"], "price > 40 AND id < 95"), ([], "id = 3")],
)  # fmt: skip
def test_reads_what_a_scan_does(
    con: Any, table: vl.Table, columns: list[str] | None, filter: str | None
) -> None:
    found = vectorlake_duckdb.read(con, table, columns=columns, filter=filter, with_row_id=True)
    expected = table.scan(columns, filter, with_row_id=True).to_arrow()
    assert found.columns == expected.column_names
    # As text, in which NaN is like itself.
    assert str(found.to_arrow_table().to_pylist()) == str(expected.to_pylist())


def test_duckdb_goes_on_with_it(con: Any, table: vl.Table) -> None:
    found = vectorlake_duckdb.read(con, table, columns=["id", "price"], filter="price > 40")
    table.delete("id = 90")
    assert found.filter("id >= 90").aggregate("count(*), min(id)").fetchall() == [(10, 90)]
    assert vectorlake_duckdb.read(con, table).aggregate("count(*)").fetchall() == [(99,)]
    assert vectorlake_duckdb.read(con, table.at(1)).aggregate("count(*)").fetchall() == [(100,)]
    # A filter of ours leaves NaN out, as Table.scan does; one of DuckDB's takes it for the greatest number.
    everything = vectorlake_duckdb.read(con, table)
    assert everything.filter("price > 49").aggregate("count(*)").fetchall() == [(2,)]
    assert vectorlake_duckdb.read(con, table, filter="price > 49").aggregate("count(*)").fetchall() == [(1,)]


def test_nearest_rows(con: Any, table: vl.Table) -> None:
    queries = np.eye(4, dtype="f4")[:2]
    found = vectorlake_duckdb.knn(con, table, queries, 3, columns=["a b", "vec"], filter="id < 50")
    expected = table.knn(queries, k=3, columns=["a b", "vec"], filter="id < 50")
    assert found.columns == expected.column_names
    assert found.order("query, rank").to_arrow_table().to_pylist() == expected.to_pylist()
    none = vectorlake_duckdb.knn(con, table, queries, 3, filter="id < 0")
    assert none.aggregate("count(*)").fetchall() == [(0,)]


def test_a_join_has_the_columns_of_both_sides(con: Any, table: vl.Table) -> None:
    asked = "SELECT id, 'q' AS name, [id, 1, 0, -1]::FLOAT[4] AS v FROM range(3) AS r(id) ORDER BY id DESC"
    found = vectorlake_duckdb.knn_join(con, asked, table, 2, filter="id < 50")
    vectors = np.array([[i, 1, 0, -1] for i in (2, 1, 0)], "f4")
    expected = table.knn(vectors, k=2, columns=["id", "a b", "price"], filter="id < 50")
    assert found.columns == ["id", "name", "v", "rank", "row_id", "distance", "id_1", "a b", "price"]
    beside = found.select('rank, row_id, distance, id_1 AS id, "a b", price').to_arrow_table()
    assert str(beside.to_pylist()) == str(expected.drop_columns("query").to_pylist())
    assert [row[0] for row in found.select("id").fetchall()] == [2, 2, 1, 1, 0, 0]
    lists = con.sql("SELECT * FROM (VALUES ([1, 0.5, 0, 0]), (NULL)) AS t(v)")
    assert vectorlake_duckdb.knn_join(con, lists, table, 1, columns=[]).columns == [
        *("v", "rank", "row_id", "distance")
    ]
    for given, error, message in [
        (
            {"queries": "SELECT 1 AS id"},
            vl.InvalidInputError,
            "must have one column of vectors, but have none",
        ),
        ({"queries": lists, "vec": "w"}, vl.NotFoundError, "no column 'w'"),
        ({"queries": "SELECT [1, 2] AS v"}, vl.InvalidInputError, "have dimension 2"),
        ({"queries": "SELECT nothing"}, duckdb.BinderException, "nothing"),
    ]:
        with pytest.raises(error, match=message):
            vectorlake_duckdb.knn_join(con, table=table, **given)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"columns": ["prise"]}, vl.NotFoundError, "did you mean 'price'"),
        ({"filter": "prise > 3"}, vl.InvalidInputError, "no column 'prise'"),
    ],
)
def test_mistakes(
    con: Any, table: vl.Table, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        vectorlake_duckdb.read(con, table, **given)
