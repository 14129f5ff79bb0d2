"""Searches by index in SQL: the same answers as from Python, with every option that the macros take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import vectorlake_duckdb

import vectorlake as vl

duckdb = pytest.importorskip("duckdb")

ROWS, DIMENSION = 600, 8


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> vl.Lake:
    made = vl.connect(tmp_path_factory.mktemp("lake"))
    vectors = np.random.default_rng(3).standard_normal((ROWS, DIMENSION)).astype("f4")
    table = made.create_table(
        "ns.items", {"id": np.arange(ROWS), "kind": np.arange(ROWS) % 4, "vec": vectors}
    )
    table.create_index("vec", "flat", name="by_vec", metric="cosine")
    table.delete("id = 7")
    table.append({"id": [9000], "kind": [1], "vec": vectors[:1]})
    return made


@pytest.fixture
def con(lake: vl.Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        vectorlake_duckdb.attach(connection, lake)
        yield connection


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "by index": ("mode := 'index'", {"mode": "index"}),
    "by name": ("index := 'by_vec', pool := 50", {"index": "by_vec", "pool": 50}),
    "nprobe": ("nprobe := 1, pool := 40", {"nprobe": 1, "pool": 40}),
    "target": ("target_recall := 0.9", {"target_recall": 0.9}),
    "auto": ("mode := 'auto', metric := 'cosine'", {"mode": "auto", "metric": "cosine"}),
    "a filter": ("mode := 'index', filter := 'kind = 2'", {"mode": "index", "filter": "kind = 2"}),
    "a range": ("mode := 'index', max_distance := 0.3", {"mode": "index", "max_distance": 0.3}),
    "all in a range": ("k := NULL, max_distance := 4.5", {"k": None, "max_distance": 4.5}),
    "groups": ("mode := 'index', group_col := 'kind', group_size := 2",
               {"mode": "index", "group_by": "kind", "group_size": 2}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_equal_to_python(case: str, con: duckdb.DuckDBPyConnection, lake: vl.Lake) -> None:
    sql, options = CASES[case]
    queries = np.random.default_rng(4).standard_normal((3, DIMENSION)).astype("f4")
    wanted = lake.table("ns.items").knn(queries, **options)
    assert wanted.num_rows > 3
    values = ", ".join(f"({i}, {query.tolist()}::FLOAT[{DIMENSION}])" for i, query in enumerate(queries))
    con.execute(f"CREATE TEMP TABLE asked AS SELECT * FROM (VALUES {values}) AS v(number, vec)")
    joined = con.execute(
        f"SELECT number, rank, row_id, distance FROM knn_join('asked', 'ns.items', {sql})"
    ).fetchall()
    names = ("query", "rank", "row_id", "distance")
    assert joined == list(zip(*(wanted[name].to_pylist() for name in names), strict=True))
    single = con.execute(
        f"SELECT rank, row_id, distance FROM knn('ns.items', {queries[0].tolist()}, {sql})"
    ).fetchall()
    assert single == [row[1:] for row in joined if row[0] == 0]


def test_refusals_are_those_of_python(con: duckdb.DuckDBPyConnection) -> None:
    vector = [0.5] * DIMENSION
    for sql, message in (
        ("mode := 'index', metric := 'l2'", "is for metric 'cosine', not 'l2'"),
        ("index := 'by_vek'", "did you mean 'by_vec'"),
        ("ef := 3", "nprobe="),
    ):
        with pytest.raises(duckdb.Error, match=message):
            con.execute(f"SELECT * FROM knn('ns.items', {vector}, {sql})").fetchall()


@pytest.mark.parametrize("kind", ["FLOAT[][]", "FLOAT[2][]", "DOUBLE[][]"])
def test_a_multivector_is_asked_for_as_a_list_of_lists(kind: str) -> None:
    lake = vl.connect("memory://")
    documents = [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0]], [[-1.0, 0.0], [0.0, -1.0]]]
    tokens = pa.array(documents, vl.multivector(2))
    texts = lake.create_table("texts", {"name": ["a", "b", "c"], "tokens": tokens})
    con = duckdb.connect()
    vectorlake_duckdb.attach(con, lake, name="lake")
    found = con.execute(
        f"SELECT row_id, distance FROM knn('texts', [[-1, 0.5], [0, -2]]::{kind}, 2, col := 'tokens')"
    ).fetchall()
    wanted = texts.knn(np.array([[-1, 0.5], [0, -2]], "f4"), "tokens", 2)
    assert found == list(zip(wanted["row_id"].to_pylist(), wanted["distance"].to_pylist(), strict=True))
