"""Nearest neighbours in SQL: the same rows, order and distances as `Table.knn`, wherever a query may stand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import vectorlake_duckdb

import vectorlake as vl

duckdb = pytest.importorskip("duckdb")

ROWS, DIMENSION = 700, 24


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> vl.Lake:
    made = vl.connect(tmp_path_factory.mktemp("lake"))
    rng = np.random.default_rng(7)
    for name, element in (("f32", "f4"), ("f16", "f2"), ("f64", "f8"), ("i8", "i1")):
        vectors = (
            rng.integers(-5, 5, (ROWS, DIMENSION))
            if element == "i1"
            else rng.standard_normal((ROWS, DIMENSION))
        )
        vectors[5] = vectors[6] = vectors[7]  # ties, which are broken by row id
        flat = pa.array(vectors.astype(element).reshape(-1))
        mask = pa.array([i % 50 == 49 for i in range(ROWS)])
        data = {
            "id": np.arange(ROWS) * 10,
            "name": [f"n{i}" for i in range(ROWS)],
            "price": rng.random(ROWS),
            "vec": pa.FixedSizeListArray.from_arrays(flat, DIMENSION, mask=mask),
        }
        table = made.create_table(f"ns.{name}", pa.table(data))
        table.delete("id = 100")
        table.append(pa.table(data).slice(0, 40))
    return made


@pytest.fixture
def con(lake: vl.Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        vectorlake_duckdb.attach(connection, lake)
        yield connection


def queries(count: int = 5, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype("f4")


def as_sql(vector: np.ndarray) -> str:
    return f"[{', '.join(map(repr, vector.tolist()))}]::FLOAT[{DIMENSION}]"


def register(con: duckdb.DuckDBPyConnection, vectors: np.ndarray, nulls: tuple[int, ...] = ()) -> None:
    mask = pa.array([i in nulls for i in range(len(vectors))])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1], mask=mask)
    data = pa.table({"qid": np.arange(len(vectors)), "vec": flat})
    con.register("asked_arrow", data)
    con.execute("CREATE OR REPLACE TABLE asked AS SELECT * FROM asked_arrow")


COLUMNS = ["rank", "row_id", "distance"]


@pytest.mark.parametrize("name", ["f32", "f16", "f64", "i8"])
@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
def test_answers_are_those_of_the_table_bit_for_bit(
    con: duckdb.DuckDBPyConnection, lake: vl.Lake, name: str, metric: str
) -> None:
    asked = queries()
    register(con, asked)
    expected = lake.table(f"ns.{name}").knn(
        asked, k=13, metric=metric, filter="price > 0.2", columns=["id", "name"]
    )
    options = f"metric := '{metric}', filter := 'price > 0.2'"
    joined = con.sql(
        f"SELECT qid AS query, rank, row_id, distance, id, name FROM knn_join('asked', 'ns.{name}', 13, {options})"
    ).to_arrow_table()
    assert joined.to_pydict() == expected.to_pydict()
    for index, vector in enumerate(asked):
        one = con.sql(
            f"SELECT rank, row_id, distance, id, name FROM knn('ns.{name}', {as_sql(vector)}, 13, {options})"
        ).to_arrow_table()
        mine = expected.filter(pa.compute.equal(expected["query"], index)).drop_columns(["query"])
        assert one.to_pydict() == mine.to_pydict()


@pytest.mark.parametrize(
    ("vector", "value"),
    [
        (f"[{', '.join(['0.1'] * DIMENSION)}]", [0.1] * DIMENSION),  # DECIMAL(2,1)[]
        (f"[{', '.join(['0.1'] * DIMENSION)}]::DOUBLE[]", [0.1] * DIMENSION),
        (f"[{', '.join(['0.1'] * DIMENSION)}]::FLOAT[]", np.full(DIMENSION, 0.1, "f4")),
        (f"[{', '.join(['3'] * DIMENSION)}]", [3] * DIMENSION),
        (f"[{', '.join(['3'] * DIMENSION)}]::TINYINT[{DIMENSION}]", [3] * DIMENSION),
        (f"[{', '.join(['3'] * DIMENSION)}]::HUGEINT[]", [3] * DIMENSION),
        (f"list_transform(range({DIMENSION}), lambda x: x / 7)", [x / 7 for x in range(DIMENSION)]),
        (f"'[{', '.join(['1.5'] * DIMENSION)}]'::FLOAT[]", [1.5] * DIMENSION),
    ],
)
def test_vectors_of_any_number_type(
    con: duckdb.DuckDBPyConnection, lake: vl.Lake, vector: str, value: list[float]
) -> None:
    expected = lake.table("ns.f64").knn(value, k=4).select(COLUMNS)
    found = con.sql(f"SELECT rank, row_id, distance FROM knn('ns.f64', {vector}, 4)").to_arrow_table()
    assert found.to_pydict() == expected.to_pydict()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT row_id FROM knn('ns.f32', {v}, 5)",
        "SELECT row_id FROM lake.knn('ns.f32', {v}, k := 5)",
        "SELECT row_id FROM knn('lake.ns.f32', {v}, 5, col := 'vec')",
        "SELECT row_id FROM knn('ns.f32', (SELECT vec FROM asked WHERE qid = 0), 5)",
        "WITH one AS (FROM asked LIMIT 1) SELECT row_id FROM knn('ns.f32', (SELECT vec FROM one), 5)",
        "SELECT row_id FROM (SELECT * FROM knn('ns.f32', {v}, 5)) ORDER BY rank",
        "WITH found AS (SELECT * FROM knn('ns.f32', {v}, 5)) SELECT row_id FROM found ORDER BY rank",
        "SELECT n.row_id FROM asked AS q, LATERAL (SELECT * FROM knn('ns.f32', q.vec, 5)) AS n WHERE qid = 0 ORDER BY rank",
        "SELECT row_id FROM knn_join('asked', 'ns.f32', 5) WHERE qid = 0",
        "WITH one AS (FROM asked WHERE qid = 0) SELECT row_id FROM knn_join('one', 'ns.f32', 5)",
        "WITH one AS (SELECT vec AS v2 FROM asked LIMIT 1) SELECT row_id FROM knn_join('one', 'ns.f32', 5, vec := 'v2')",
        "SELECT unnest(found) FROM (SELECT list(row_id ORDER BY rank) AS found FROM knn('ns.f32', {v}, 5))",
    ],
)
def test_wherever_a_query_may_stand(con: duckdb.DuckDBPyConnection, lake: vl.Lake, sql: str) -> None:
    asked = queries()
    register(con, asked)
    expected = lake.table("ns.f32").knn(asked[0], k=5)["row_id"].to_pylist()
    text = sql.format(v=as_sql(asked[0]))
    assert [row for (row,) in con.execute(text).fetchall()] == expected
    assert [row for (row,) in con.cursor().execute(text).fetchall()] == expected
    con.execute(f"CREATE VIEW kept AS {text}")
    assert [row for (row,) in con.execute("FROM kept").fetchall()] == expected


def test_parameters_and_prepared_statements(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    table = lake.table("ns.f32")
    asked = queries()
    con.execute("PREPARE near AS SELECT row_id FROM knn('ns.f32', $1, $2, metric := $3)")
    for vector in asked[:2]:
        values, expected = vector.tolist(), table.knn(vector, k=3, metric="cosine")["row_id"].to_pylist()
        prepared = con.execute(f"EXECUTE near({as_sql(vector)}, 3, 'cosine')").fetchall()
        bound = con.execute(
            "SELECT row_id FROM knn('ns.f32', ?, ?, metric := ?)", [values, 3, "cosine"]
        ).fetchall()
        named = con.execute(
            "SELECT row_id FROM knn($t, $v, 3, metric := 'cosine', filter := $f)",
            {"t": "ns.f32", "v": values, "f": "id >= 0"},
        ).fetchall()
        assert [[row for (row,) in rows] for rows in (prepared, bound, named)] == [expected] * 3


def test_a_prepared_search_with_parameters_sees_the_newest_version(
    con: duckdb.DuckDBPyConnection, lake: vl.Lake
) -> None:
    table = lake.create_table("ns.grows", {"id": [1], "vec": np.array([[1, 0]], "f4")})
    con.execute("PREPARE near AS SELECT id FROM knn('ns.grows', [0, 0], $1)")
    con.execute("PREPARE fixed AS SELECT id FROM knn('ns.grows', [0, 0], 10)")
    assert con.execute("EXECUTE near(10)").fetchall() == [(1,)]
    table.append({"id": [2], "vec": np.array([[0.5, 0]], "f4")})
    assert con.execute("EXECUTE near(10)").fetchall() == [(2,), (1,)]
    # DuckDB 2.0.0 plans a statement without parameters once, 2.0.1 anew: either version is whole and consistent.
    assert con.execute("EXECUTE fixed").fetchall() in ([(1,)], [(2,), (1,)])
    lake.drop_table("ns.grows")


def test_a_versions_neighbours(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    asked = queries(1)[0]
    for version in (1, 2):
        expected = lake.table("ns.f32").at(version).knn(asked, k=700)["row_id"].to_pylist()
        found = con.execute(f"SELECT row_id FROM knn('ns.f32@{version}', {as_sql(asked)}, 700)").fetchall()
        assert [row for (row,) in found] == expected


def test_columns_of_the_answer(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    asked = queries()
    register(con, asked)
    one = con.sql(f"SELECT * FROM knn('ns.f32', {as_sql(asked[0])}, 2)").to_arrow_table()
    assert one.column_names == ["rank", "row_id", "distance", "id", "name", "price"]
    many = con.sql("SELECT * FROM knn_join('asked', 'ns.f32', 2)").to_arrow_table()
    assert many.column_names == ["qid", "vec", "rank", "row_id", "distance", "id", "name", "price"]
    assert [str(kind) for kind in one.schema.types[:3]] == ["int32", "int64", "double"]
    itself = con.execute(
        "SELECT DISTINCT id, id_1 FROM knn_join('lake.ns.f32', 'ns.f32', 1) WHERE id < 50 ORDER BY 1"
    ).fetchall()
    assert itself == [(0, 0), (10, 10), (20, 20), (30, 30), (40, 40)]


def test_columns_called_like_ours(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    lake.create_table(
        "ns.odd", {"rank": [7], "distance": ["far"], "row_id": [9], "vec": np.array([[1, 2]], "f4")}
    )
    found = con.sql("SELECT * FROM knn('ns.odd', [1, 2], 1)").to_arrow_table().to_pylist()
    lake.drop_table("ns.odd")
    assert found == [
        {"rank": 0, "row_id": 0, "distance": 0.0, "rank_1": 7, "distance_1": "far", "row_id_1": 9}
    ]


def test_several_vector_columns_need_a_name(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    vectors = {"a": np.array([[1], [2]], "f4"), "b": np.array([[2], [1]], "f4")}
    lake.create_table("ns.two", {"id": [1, 2], **vectors})
    try:
        with pytest.raises(duckdb.Error, match="several vector columns"):
            con.execute("SELECT * FROM knn('ns.two', [1], 1)")
        assert con.execute("SELECT id FROM knn('ns.two', [1], 1, col := 'a')").fetchall() == [(1,)]
        assert con.execute("SELECT id FROM knn('ns.two', [1], 1, col := 'b')").fetchall() == [(2,)]
        assert con.execute(
            "SELECT * EXCLUDE (rank, row_id, distance) FROM knn('ns.two', [1], 1, col := 'b')"
        ).fetchall() == [(2,)]
    finally:
        lake.drop_table("ns.two")


def test_null_queries_have_no_matches(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    asked = queries(4)
    register(con, asked, nulls=(0, 2))
    expected = lake.table("ns.f32").knn(asked[[1, 3]], k=3)
    joined = con.execute("SELECT qid, row_id, distance FROM knn_join('asked', 'ns.f32', 3)").fetchall()
    index = expected["query"].to_pylist()
    ids, distances = expected["row_id"].to_pylist(), expected["distance"].to_pylist()
    assert joined == [([1, 3][q], i, d) for q, i, d in zip(index, ids, distances, strict=True)]
    lateral = "SELECT qid, n.row_id FROM asked q, LATERAL (SELECT * FROM knn('ns.f32', q.vec, 3)) n ORDER BY qid, rank"
    assert con.execute(lateral).fetchall() == [(q, i) for q, i, _ in joined]
    assert con.execute("SELECT * FROM knn('ns.f32', NULL, 3)").fetchall() == []
    assert con.execute("SELECT * FROM knn('ns.f32', NULL::FLOAT[24], 3)").fetchall() == []
    con.execute("CREATE OR REPLACE TABLE asked AS SELECT qid, NULL::FLOAT[24] AS vec FROM asked")
    assert con.execute("SELECT * FROM knn_join('asked', 'ns.f32', 3)").fetchall() == []


def test_no_queries_and_no_rows(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    register(con, queries(1))
    con.execute("DELETE FROM asked")
    assert con.execute("SELECT * FROM knn_join('asked', 'ns.f32', 3)").fetchall() == []
    lake.create_table("ns.empty", pa.schema({"id": pa.int64(), "vec": vl.vector(DIMENSION)}))
    register(con, queries(2))
    assert con.execute("SELECT * FROM knn_join('asked', 'ns.empty', 3)").fetchall() == []
    lake.drop_table("ns.empty")


def test_ragged_and_wrong_queries_are_refused(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("CREATE TABLE ragged AS SELECT [1.0, 2.0]::FLOAT[] AS vec UNION ALL SELECT [1.0]")
    with pytest.raises(duckdb.Error, match="different lengths: 1, 2"):
        con.execute("SELECT * FROM knn_join('ragged', 'ns.f32', 3)")
    con.execute("CREATE TABLE short AS SELECT [1.0, 2.0]::FLOAT[2] AS vec")
    with pytest.raises(duckdb.Error, match="dimension 2, column 'vec' is vector\\(24"):
        con.execute("SELECT * FROM knn_join('short', 'ns.f32', 3)")


def test_lists_of_one_length_and_of_nulls(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    asked = queries(3)
    register(con, asked)
    con.execute(
        "CREATE TABLE lists AS SELECT qid, CASE WHEN qid <> 1 THEN vec::FLOAT[] END AS vec FROM asked"
    )
    expected = lake.table("ns.f32").knn(asked[[0, 2]], k=2)["row_id"].to_pylist()
    assert [
        i for (i,) in con.execute("SELECT row_id FROM knn_join('lists', 'ns.f32', 2)").fetchall()
    ] == expected


def test_many_queries_go_to_one_search(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    asked = queries(6000, seed=3)
    register(con, asked)
    expected = lake.table("ns.f32").knn(asked, k=2)
    joined = con.sql(
        "SELECT qid AS query, rank, row_id, distance FROM knn_join('asked', 'ns.f32', 2)"
    ).to_arrow_table()
    assert joined.to_pydict() == expected.to_pydict()
    lateral = con.sql(
        "SELECT qid AS query, n.rank, n.row_id, n.distance FROM asked q, LATERAL (SELECT * FROM knn('ns.f32', q.vec, 2)) n "
        "ORDER BY qid, n.rank"
    ).to_arrow_table()
    assert lateral.to_pydict() == expected.to_pydict()


def test_options_that_differ_by_row(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    asked = queries(4)
    register(con, asked)
    table = lake.table("ns.f32")
    found = con.execute(
        "SELECT qid, list(n.row_id ORDER BY n.rank) FROM asked q, LATERAL (SELECT * FROM knn('ns.f32', q.vec, (q.qid % 2 + 1)::INTEGER, "
        "metric := CASE q.qid % 2 WHEN 0 THEN 'l2' ELSE 'dot' END)) n GROUP BY qid ORDER BY qid"
    ).fetchall()
    expected = [
        (i, table.knn(vector, k=i % 2 + 1, metric="dot" if i % 2 else "l2")["row_id"].to_pylist())
        for i, vector in enumerate(asked)
    ]
    assert found == expected


def test_searches_from_several_threads(con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    asked = queries(8)
    expected = [lake.table("ns.f32").knn(vector, k=5)["row_id"].to_pylist() for vector in asked]
    found: dict[int, list[int]] = {}

    def work(number: int) -> None:
        with con.cursor() as cursor:
            for _ in range(3):
                rows = cursor.execute(
                    f"SELECT row_id FROM knn('ns.f32', {as_sql(asked[number])}, 5)"
                ).fetchall()
                found[number] = [row for (row,) in rows]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(8)] == expected


def test_an_attached_lake_on_a_path_with_a_quote(tmp_path: Path) -> None:
    lake = vl.connect(tmp_path / "it's a lake")
    lake.create_table("ns.items", {"id": [1], "it's": ['a"b'], "vec": np.array([[1, 2]], "f4")})
    with duckdb.connect() as con:
        vectorlake_duckdb.attach(con, lake, 'my "lake"')
        sql = 'SELECT "it\'s" FROM "my ""lake""".knn(\'ns.items\', [1, 2], 1)'
        assert con.execute(sql).fetchall() == [('a"b',)]
        vectorlake_duckdb.detach(con, 'my "lake"')
