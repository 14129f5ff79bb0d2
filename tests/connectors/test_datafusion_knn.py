"""Nearest neighbours in DataFusion are those of `Table.knn`, bit for bit, wherever the query vectors come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.errors import InvalidInputError, NotFoundError

datafusion = pytest.importorskip("datafusion")
vectorlake_datafusion = pytest.importorskip("vectorlake_datafusion")

DIMENSION = 8
RNG = np.random.default_rng(7)
QUERIES = RNG.standard_normal((40, DIMENSION)).astype("f4")


def vectors(rows: np.ndarray, mask: list[int] = ()) -> pa.Array:  # type: ignore[assignment]
    flat = pa.array(rows.reshape(-1))
    nulls = pa.array([i in mask for i in range(len(rows))])
    return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1], mask=nulls)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> vl.Lake:
    made = vl.connect(tmp_path_factory.mktemp("lake"))
    base = RNG.standard_normal((3000, DIMENSION)).astype("f4")
    data = pa.table(
        {
            "id": np.arange(3000) * 10,
            "name": [f"n{i}" for i in range(3000)],
            "Price": RNG.random(3000),
            "vec": vectors(base, [5, 17]),
        }
    )
    table = made.create_table("ns.items", data.slice(0, 2000))
    table.append(data.slice(2000))
    table.tag("whole")
    table.delete("id % 70 = 0")
    table.create_index("vec", "flat", name="by_vec")
    return made


@pytest.fixture
def ctx(lake: vl.Lake) -> Any:
    context = datafusion.SessionContext(datafusion.SessionConfig().with_batch_size(16))
    vectorlake_datafusion.attach(context, lake)
    asked = pa.table(
        {"qid": np.arange(len(QUERIES)), "id": np.arange(len(QUERIES)), "vec": vectors(QUERIES, [3])}
    )
    context.from_arrow(asked, name="queries")
    return context


def literal(vector: np.ndarray) -> str:
    return f"[{', '.join(map(repr, vector.tolist()))}]"


def expected(table: vl.Table, **options: Any) -> set[tuple[int, int, int, float]]:
    found = table.knn(vectors(QUERIES, [3]), **options)
    return set(
        zip(*(found[name].to_pylist() for name in ("query", "rank", "row_id", "distance")), strict=True)
    )


def joined(ctx: Any, options: str = "") -> set[tuple[int, int, int, float]]:
    sql = f"SELECT qid, rank, row_id, distance FROM knn_join('queries', 'ns.items', 7{options})"
    return {tuple(row.values()) for row in ctx.sql(sql).to_pylist()}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ("", {}),
        (", {'metric': 'cosine'}", {"metric": "cosine"}),
        (", {'metric': 'dot', 'filter': 'Price > 0.7'}", {"metric": "dot", "filter": "Price > 0.7"}),
        (", MAP {'max_distance': 4.0}", {"max_distance": 4.0}),
        (", {'group_col': 'name', 'group_size': 1, 'col': 'vec'}", {"group_by": "name", "column": "vec"}),
        (", {'mode': 'index', 'target_recall': 0.9}", {"mode": "index", "target_recall": 0.9}),
        (", {'index': 'by_vec', 'pool': 100, 'metric': NULL}", {"index": "by_vec", "pool": 100}),
    ],
)
def test_join_is_knn(ctx: Any, lake: vl.Lake, options: str, given: dict[str, Any]) -> None:
    assert joined(ctx, options) == expected(lake.table("ns.items"), k=7, **given)


def test_one_vector_and_the_columns_of_rows_found(ctx: Any, lake: vl.Lake) -> None:
    table = lake.table("ns.items")
    direct = table.knn(QUERIES[:1], k=5, columns=["id", "name", "Price"]).drop_columns(["query"]).to_pylist()
    assert ctx.sql(f"SELECT * FROM knn('ns.items', {literal(QUERIES[0])}, 5)").to_pylist() == direct
    frame = vectorlake_datafusion.knn(ctx, table, QUERIES[0], 5, columns=["id", "name", "Price"])
    assert frame.drop("query").to_pylist() == direct
    least = ctx.sql(f"SELECT name FROM knn('ns.items', {literal(QUERIES[0])}) WHERE rank = 0").to_pydict()
    assert least == {"name": [direct[0]["name"]]}


def test_a_version_is_searched_as_it_was(ctx: Any, lake: vl.Lake) -> None:
    sql = "SELECT count(*) AS n, max(distance) AS d FROM knn('{}', [0, 0, 0, 0, 0, 0, 0, 0], 5000)"
    now, before = (ctx.sql(sql.format(name)).to_pylist()[0] for name in ("ns.items", "ns.items@whole"))
    assert (now["n"], before["n"]) == (len(lake.table("ns.items")) - 2, 2998)


def test_columns_of_one_name_get_a_number(ctx: Any) -> None:
    frame = ctx.sql("SELECT * FROM knn_join('queries', 'ns.items', 2)")
    assert frame.schema().names == ["qid", "id", "vec", "rank", "row_id", "distance", "id_1", "name", "Price"]
    rows = frame.to_pylist()
    assert len(rows) == 2 * (len(QUERIES) - 1)  # the null query has no matches
    assert all(row["name"] == f"n{row['id_1'] // 10}" for row in rows)
    twice = ctx.sql("SELECT qid AS rank, qid AS distance, vec FROM queries")
    ctx.register_view("twice", twice)
    names = ctx.sql("SELECT * FROM knn_join('twice', 'ns.items', 1)").schema().names
    assert names[:6] == ["rank", "distance", "vec", "rank_1", "row_id", "distance_1"]


def test_results_join_with_other_tables(ctx: Any, lake: vl.Lake) -> None:
    ctx.from_arrow(
        pa.table({"name": [f"n{i}" for i in range(0, 3000, 2)], "stock": range(1500)}), name="stock"
    )
    sql = """
        SELECT k.qid, s.stock FROM knn_join('queries', 'ns.items', 9) k JOIN stock s ON s.name = k.name
        WHERE k.qid < 5 AND s.stock > 10
    """
    found = {(row["qid"], row["stock"]) for row in ctx.sql(sql).to_pylist()}
    direct = lake.table("ns.items").knn(vectors(QUERIES, [3]), k=9, columns=["id"])
    pairs = zip(direct["query"].to_pylist(), (i // 10 for i in direct["id"].to_pylist()), strict=True)
    assert found == {(q, i // 2) for q, i in pairs if q < 5 and i % 2 == 0 and i // 2 > 10}


def test_a_filter_on_the_queries_goes_below_the_search(ctx: Any) -> None:
    plan = ctx.sql(
        "EXPLAIN SELECT qid, name FROM knn_join('queries', 'ns.items', 9) WHERE qid < 5"
    ).to_pylist()
    text = plan[0]["plan"]
    assert text.index("knn_matches") < text.index("qid < Int64(5)")
    assert "value_of_name" in text
    assert "value_of_Price" not in text  # a column that nobody asks for is not fetched


@pytest.mark.parametrize("kind", [pa.float16(), pa.float64(), pa.int8(), pa.int64()], ids=str)
@pytest.mark.parametrize("fixed", [True, False])
def test_query_vectors_of_any_number_type(ctx: Any, lake: vl.Lake, kind: pa.DataType, *, fixed: bool) -> None:
    whole = np.round(QUERIES * 3)
    listed = [None if i == 3 else row for i, row in enumerate(whole.tolist())]
    numbers = pa.array(listed, pa.list_(pa.float32(), DIMENSION))
    values = numbers.cast(pa.list_(kind, DIMENSION) if fixed else pa.list_(kind))
    frame = ctx.from_arrow(pa.table({"q": np.arange(len(QUERIES)), "v": values}))
    found = vectorlake_datafusion.knn_join(frame, lake.table("ns.items"), 4, vec="v").to_pylist()
    direct = lake.table("ns.items").knn(numbers, k=4)
    assert {(row["q"], row["row_id"], row["distance"]) for row in found} == set(
        zip(*(direct[name].to_pylist() for name in ("query", "row_id", "distance")), strict=True)
    )


def test_a_function_of_a_vector(ctx: Any, lake: vl.Lake) -> None:
    table = lake.table("ns.items")
    ctx.register_udf(vectorlake_datafusion.knn_udf(table, k=7, metric="cosine"))
    sql = "SELECT qid, m['rank'] AS r, m['row_id'] AS i, m['distance'] AS d FROM (SELECT qid, unnest(knn_matches(vec)) AS m FROM queries)"
    found = {tuple(row.values()) for row in ctx.sql(sql).to_pylist()}
    assert found == expected(table, k=7, metric="cosine")


def test_a_frame_searches_the_version_it_was_made_for(tmp_path: Any) -> None:
    lake = vl.connect(tmp_path)
    table = lake.create_table("ns.items", {"id": [1], "vec": np.eye(2, dtype="f4")[:1]})
    ctx = datafusion.SessionContext()
    asked = ctx.from_arrow(pa.table({"vec": [[1.0, 0.0]]}))
    frame = vectorlake_datafusion.knn_join(asked, table)
    table.append({"id": [2], "vec": np.eye(2, dtype="f4")[:1]})
    assert frame.to_pydict()["id"] == [1]
    assert vectorlake_datafusion.knn_join(asked, table).to_pydict()["id"] == [1, 2]


ERRORS = [
    ("knn('ns.items', [1.0, 2.0], 3)", r"dimension 2, the vectors of ns\.items have 8"),
    ("knn('ns.items', [1, 2, 3, 4, 5, 6, 7, 'NaN'::double], 3)", "holds NaN or infinity"),
    ("knn('ns.items', 'near', 3)", "must hold vectors, not string"),
    ("knn('ns.items', vec, 3) AS k, queries", "takes constants only, but vec is vec"),
    ("queries q, LATERAL knn('ns.items', q.vec, 3)", r"takes constants only, but vec is q\.vec"),
    ("knn('ns.items', (SELECT vec FROM queries WHERE qid = 1), 3)", "takes constants only"),
    ("knn('ns.itemz', [1.0], 3)", r"did you mean 'ns\.items'"),
    ("knn('ns.items@9', [1.0], 3)", "has no version 9"),
    ("knn('ns.items', [1.0], 0)", "k must be an integer of at least 1, not 0"),
    ("knn('ns.items', [1.0], 3, {'metrik': 'dot'})", "no option 'metrik'.*did you mean 'metric'"),
    ("knn('ns.items', [1.0], 3, {'metric': 'dod'})", "unknown metric 'dod'"),
    ("knn('ns.items', [1.0], 3, {'filter': 'prise > 3'})", "there is no column 'prise'"),
    ("knn('ns.items', [1.0], 3, 'dot')", "last argument of knn must be options"),
    ("knn('ns.items')", "knn takes table, vec, k"),
    ("knn_join('querys', 'ns.items')", "no table or view 'querys'"),
    ("knn_join('queries', 'ns.items', 3, {'vec': 'v'})", "the queries have no column 'v'"),
    ("knn_join('queries', 'ns.items', 3, {'vec': 'qid'})", "must hold vectors, not int64"),
    ("knn_join('queries', 'ns.items', 3, {'mode': 'index', 'index': 'none'})", "no index 'none'"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "message"), ERRORS)
def test_errors_say_what_and_where(ctx: Any, source: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        ctx.sql(f"SELECT * FROM {source}").collect()


def test_errors_for_frames_are_our_own(ctx: Any, lake: vl.Lake) -> None:
    table = lake.table("ns.items")
    short = ctx.from_arrow(pa.table({"vec": vectors(QUERIES[:, :3].copy())}))
    with pytest.raises(InvalidInputError, match="dimension 3"):
        vectorlake_datafusion.knn_join(short, table)
    with pytest.raises(NotFoundError, match="did you mean 'vec'"):
        vectorlake_datafusion.knn_join(short, table, vec="vek")
    with pytest.raises(InvalidInputError, match="select the columns"):
        vectorlake_datafusion.knn_udf(table, columns=["id"])
