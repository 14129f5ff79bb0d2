"""Exact nearest neighbours over tables: equal to a float64 scan, whatever the query came as and however rows are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.extend import query_column
from vectorlake.kernels import Metric, pairwise_distances

ROWS, DIMENSION = 300, 12


def make_table(
    element: str = "f32", vector_format: str = "lance", nulls: bool = False, rows: int = ROWS
) -> tuple[vl.Table, np.ndarray, np.ndarray]:
    """A table with fragments of 70 rows, its vectors, and which of them are not null."""
    rng = np.random.default_rng(1)
    kind = vl.vector(DIMENSION, element)
    if element in ("int8", "uint8"):
        vectors: np.ndarray = rng.integers(-120 if element == "int8" else 0, 120, (rows, DIMENSION)).astype(
            element
        )
    else:
        vectors = rng.standard_normal((rows, DIMENSION)).astype(kind.value_type.to_pandas_dtype())
    vectors[rows // 2] = vectors[3 % rows]
    valid = rng.random(rows) > 0.2 if nulls else np.ones(rows, bool)
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, DIMENSION, mask=pa.array(~valid))
    data = pa.table({"id": np.arange(rows) * 10, "group": np.arange(rows) % 5, "vec": column})
    table = vl.connect("memory://").create_table(
        "t", data, properties={"write.fragment-rows": "70", "write.vector-format": vector_format}
    )
    return table, vectors, valid


def expected(
    queries: np.ndarray, vectors: np.ndarray, keep: np.ndarray, k: int, metric: Metric
) -> list[tuple[int, int, int, float]]:
    distances = pairwise_distances(queries, vectors, metric)
    rows = []
    for query in range(len(queries)):
        order = sorted((distances[query, row], row) for row in np.flatnonzero(keep))[:k]
        rows += [(query, rank, int(row), float(distance)) for rank, (distance, row) in enumerate(order)]
    return rows


def found(table: pa.Table) -> list[tuple[int, int, int, float]]:
    return list(
        zip(*(table[name].to_pylist() for name in ("query", "rank", "row_id", "distance")), strict=True)
    )


@pytest.mark.parametrize("metric", [Metric.L2, Metric.COSINE, Metric.DOT])
@pytest.mark.parametrize("element", ["f32", "f16", "f64", "int8", "uint8"])
@pytest.mark.parametrize("vector_format", ["lance", "parquet", "vortex", "arrow"])
def test_knn_equals_a_float64_scan(metric: Metric, element: str, vector_format: str) -> None:
    table, vectors, valid = make_table(element, vector_format, nulls=True)
    queries = vectors[:7] if element != "f16" else vectors[:7].astype(np.float32)
    assert found(table.knn(queries, "vec", 9, metric)) == expected(queries, vectors, valid, 9, metric)


@pytest.mark.parametrize("vector_format", ["lance", "parquet", "vortex", "arrow"])
def test_hamming_of_binary_vectors(vector_format: str) -> None:
    bits = np.random.default_rng(3).integers(0, 256, (300, 8), "u1")
    data = pa.table({"vec": pa.FixedSizeListArray.from_arrays(pa.array(bits.reshape(-1)), 8)})
    assert data.schema.field("vec").type.list_size * 8 == 64
    table = vl.connect("memory://").create_table("t", data, properties={"write.vector-format": vector_format})
    wanted = expected(bits[:4], bits, np.ones(300, bool), 9, Metric.HAMMING)
    for queries in (bits[:4], bits[:4].tolist(), bits[:4].astype("f8")):
        assert found(table.knn(queries, "vec", 9, "hamming")) == wanted
    for wrong in (bits[:4] / 2, bits[:4] * 2.0 - 300):
        with pytest.raises(vl.InvalidInputError, match="packed bits"):
            table.knn(wrong, "vec", 9, "hamming")


@pytest.mark.parametrize("element", ["f32", "f16", "f64", "int8"])
def test_hamming_says_which_column_has_no_bits(element: str) -> None:
    table, vectors, _ = make_table(element)
    with pytest.raises(vl.InvalidInputError, match=r"column .vec. is vector\(12, .*choose l2, cosine or dot"):
        table.knn(vectors[:1], "vec", 3, "hamming")


@pytest.mark.parametrize("k", [1, 5, 299, 300, 301, 100_000])
def test_k_up_to_and_beyond_the_rows(k: int) -> None:
    table, vectors, valid = make_table()
    assert found(table.knn(vectors[:2], k=k)) == expected(vectors[:2], vectors, valid, k, Metric.L2)


FILTERS: list[tuple[str, Any]] = [
    ('"group" = 2', lambda ids: (ids // 10) % 5 == 2),
    ("id < 30", lambda ids: ids < 30),
    ("id >= 2980", lambda ids: ids >= 2980),
    ("id IN (100, 700, 1500)", lambda ids: np.isin(ids, [100, 700, 1500])),
    ("_row_id % 3 = 0", lambda ids: (ids // 10) % 3 == 0),
    ("id < 0", lambda ids: ids < 0),
]


@pytest.mark.parametrize(("sql", "keep"), FILTERS)
@pytest.mark.parametrize("vector_format", ["lance", "parquet"])
def test_filters_apply_before_the_search(sql: str, keep: Any, vector_format: str) -> None:
    table, vectors, valid = make_table(vector_format=vector_format)
    table.delete("id = 1500")
    live = valid & keep(np.arange(ROWS) * 10) & (np.arange(ROWS) != 150)
    assert found(table.knn(vectors[:3], k=6, filter=sql)) == expected(
        vectors[:3], vectors, live, 6, Metric.L2
    )


def test_ties_go_to_the_smaller_row_id() -> None:
    table = vl.connect("memory://").create_table("t", {"vec": np.ones((50, 4), np.float32)})
    assert table.knn(np.ones(4), k=3)["row_id"].to_pylist() == [0, 1, 2]


def test_columns_come_along_and_names_that_clash_get_a_suffix() -> None:
    table, vectors, _ = make_table()
    table.rename_column("group", "rank")
    got = table.knn(vectors[[5, 2]], k=1, columns=["id", "rank"])
    assert got.column_names == ["query", "rank", "row_id", "distance", "id", "rank_right"]
    assert got.select(["query", "row_id", "id", "rank_right"]).to_pylist() == [
        {"query": 0, "row_id": 5, "id": 50, "rank_right": 0},
        {"query": 1, "row_id": 2, "id": 20, "rank_right": 2},
    ]
    assert [got.schema.field(i).type for i in range(4)] == [pa.int64(), pa.int32(), pa.int64(), pa.float64()]


QUERY_FORMS: dict[str, Any] = {
    "numpy f32": lambda q: q,
    "numpy f64": lambda q: q.astype(np.float64),
    "lists": lambda q: q.tolist(),
    "list of arrays": list,
    "fixed size lists": lambda q: pa.FixedSizeListArray.from_arrays(pa.array(q.reshape(-1)), DIMENSION),
    "sliced fixed size lists": lambda q: pa.FixedSizeListArray.from_arrays(
        pa.array(np.concatenate([q[:1], q]).reshape(-1)), DIMENSION)[1:],
    "lists of double": lambda q: pa.array(q.tolist(), pa.list_(pa.float64())),
    "chunked": lambda q: pa.chunked_array([pa.array(q[:2].tolist()), pa.array(q[2:].tolist())]),
    "arrow table": lambda q: pa.table({"id": range(len(q)), "vec": pa.array(q.tolist())}),
    "record batch": lambda q: pa.record_batch({"other": pa.array(q.tolist())}),
    "polars": lambda q: pl.DataFrame({"vec": q}),
    "polars series": lambda q: pl.Series("x", q),
    "pandas series": lambda q: pd.Series(q.tolist()),
    "pandas": lambda q: pd.DataFrame({"vec": q.tolist()}),
    "a scan": lambda q: make_table()[0].scan(columns=["id", "vec"], filter="_row_id < 4"),
}  # fmt: skip


@pytest.mark.parametrize("form", QUERY_FORMS)
def test_queries_in_any_form_give_the_same_answer(form: str) -> None:
    table, vectors, _ = make_table()
    assert table.knn(QUERY_FORMS[form](vectors[:4]), k=3).equals(table.knn(vectors[:4], k=3))


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        (pa.list_(pa.float32(), 2), True),
        (pa.large_list(pa.int8()), True),
        (pa.list_(pa.decimal128(3, 1)), True),
        (vl.vector(2), True),
        (pa.list_(pa.string()), False),
        (pa.list_(pa.list_(pa.float32())), False),
        (pa.float32(), False),
    ],
)
def test_which_column_of_a_frame_holds_the_queries(kind: pa.DataType, counts: bool) -> None:
    """Frames of engines and tables given to `knn` go by one rule."""
    one = pa.table({"vec": pa.array([[1.0, 0.0]], vl.vector(2))})
    table = vl.connect("memory://").create_table("t", one)
    asked = pa.table({"tags": pa.array([["a"]]), "a": pa.array([[1.0, 2.0]]), "b": pa.nulls(1, kind)})
    schema = pa.schema([pa.field("tags", pa.list_(pa.string())), pa.field("b", kind)])
    if counts:
        assert query_column(schema, None) == "b"
        with pytest.raises(vl.InvalidInputError, match="one vector column, it has a, b"):
            table.knn(asked, "vec", k=1)
    else:
        with pytest.raises(vl.InvalidInputError, match="one column of vectors, but have none"):
            query_column(schema, None)
        assert table.knn(asked, "vec", k=1)["distance"].to_pylist() == [4.0]


def test_one_vector_and_none_and_null_queries() -> None:
    table, vectors, _ = make_table()
    assert table.knn(vectors[8], k=2)["row_id"][0].as_py() == 8
    assert table.knn(vectors[8].tolist(), k=2).equals(table.knn(vectors[8], k=2))
    assert table.knn(np.empty((0, DIMENSION), np.float32)).num_rows == 0
    assert table.knn([]).num_rows == 0
    assert table.knn([None, None]).num_rows == 0
    with pytest.raises(vl.InvalidInputError, match="dimension 0"):
        table.knn([[]])
    with_null = pa.array([None, vectors[8].tolist(), None], vl.vector(DIMENSION))
    got = table.knn(with_null, k=2, columns=["id"])
    assert (got["query"].to_pylist(), got["id"][0].as_py()) == ([1, 1], 80)
    assert table.knn([None, vectors[8].tolist()], k=1)["query"].to_pylist() == [1]


def test_empty_tables_and_columns_of_nulls_match_nothing() -> None:
    lake = vl.connect("memory://")
    empty = lake.create_table("empty", pa.schema([("vec", vl.vector(3))]))
    assert empty.knn([1, 2, 3]).num_rows == 0
    assert empty.knn([1, 2, 3], columns=["vec"]).column_names[-1] == "vec"
    nulls = lake.create_table("nulls", pa.table({"vec": pa.nulls(5, vl.vector(3))}))
    assert nulls.knn([1, 2, 3]).num_rows == 0
    nulls.add_column("late", type=vl.vector(2))
    assert nulls.knn([1, 2], "late").num_rows == 0


def test_time_travel_and_widened_vectors() -> None:
    table, vectors, _ = make_table("f16")
    before = table.knn(vectors[:2].astype("f4"), k=3)
    table.alter_column("vec", type=vl.vector(DIMENSION))
    assert table.knn(vectors[:2].astype("f4"), k=3).equals(before)
    table.delete("id < 1000")
    assert table.at(1).knn(vectors[:2].astype("f4"), k=3).equals(before)


def test_thread_counts_do_not_change_a_bit() -> None:
    table, vectors, _ = make_table()
    assert table.knn(vectors, k=20, threads=1).equals(table.knn(vectors, k=20, threads=3))


def test_search_builder() -> None:
    table, vectors, _ = make_table()
    got = (
        table.search(vectors[8])
        .where("id > 80")
        .where('"group" = 3')
        .metric("cosine")
        .select(["id"])
        .limit(4)
        .to_arrow()
    )
    plain = table.knn(vectors[8], k=4, metric="cosine", filter='id > 80 AND "group" = 3', columns=["id"])
    assert got.column_names == ["id", "row_id", "distance"]
    assert got.equals(plain.select(["id", "row_id", "distance"]))
    assert list(table.search(vectors[8]).limit(1).to_list()[0]) == ["id", "group", "row_id", "distance"]
    assert len(table.search(vectors[8]).to_pandas()) == table.search(vectors[8]).to_polars().height == 10
    with pytest.raises(vl.InvalidInputError, match="one query"):
        table.search(vectors[:2]).to_arrow()
    with pytest.raises(vl.NotFoundError, match="did you mean 'id'"):
        table.search(vectors[8]).select(["idd"]).to_arrow()
