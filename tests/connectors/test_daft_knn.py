"""Nearest rows in Daft: the core's, to the last bit, for frames of queries of every form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.errors import InvalidInputError, NotFoundError

daft = pytest.importorskip("daft")

import vectorlake_daft  # noqa: E402
from daft import DataType, col  # noqa: E402

DIMENSION = 8
RNG = np.random.default_rng(0)
QUERIES = RNG.standard_normal((5, DIMENSION)).astype("f4")


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> vl.Table:
    ids = np.arange(3000)
    rows = {
        "id": ids,
        "name": [f"n{i}" for i in ids],
        "vec": RNG.standard_normal((len(ids), DIMENSION)).astype("f4"),
    }
    table = vl.connect(tmp_path_factory.mktemp("lake")).create_table("items", rows)
    table.create_index("vec", kind="ivf")
    table.append({"id": [3000, 3001], "name": ["new", None], "vec": QUERIES[:2]})
    table.delete("id % 10 = 0")
    return table


def _queries(kind: DataType | None = None) -> daft.DataFrame:
    vectors = [None, *QUERIES.tolist()]
    frame = daft.from_pydict({"id": list("abcdef"), "q": vectors})
    return frame if kind is None else frame.with_column("q", col("q").cast(kind))


@pytest.mark.parametrize(
    "kind",
    [
        None,
        DataType.embedding(DataType.float32(), DIMENSION),
        DataType.fixed_size_list(DataType.float32(), DIMENSION),
        DataType.tensor(DataType.float32(), (DIMENSION,)),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"filter": "id < 500", "metric": "cosine"},
        {"mode": "index", "nprobe": 4},
        {"k": None, "max_distance": 4.0},
    ],
    ids=str,
)
def test_a_join_is_the_search_of_the_core(items: vl.Table, kind: DataType | None, options: dict) -> None:
    k = options.get("k", 3)
    rest = {name: value for name, value in options.items() if name != "k"}
    found = vectorlake_daft.knn_join(_queries(kind), items, k, columns=["id", "name"], **rest)
    assert found.column_names == ["id", "q", "rank", "row_id", "distance", "id_1", "name"]
    expected = items.knn(QUERIES, k=k, columns=["id", "name"], **rest)
    rows = found.to_pydict()
    assert rows["id"] == ["bcdef"[i] for i in expected["query"].to_pylist()]
    for mine, core in [(name, name) for name in ("rank", "row_id", "distance", "name")] + [("id_1", "id")]:
        assert rows[mine] == expected[core].to_pylist()


def test_columns_without_vectors_by_default(items: vl.Table) -> None:
    found = vectorlake_daft.knn_join(_queries().select("q"), items, 1)
    assert found.column_names == ["q", "rank", "row_id", "distance", "id", "name"]
    assert vectorlake_daft.knn(items, QUERIES[0], 2).column_names == [
        "query", "rank", "row_id", "distance", "id", "name",
    ]  # fmt: skip


def test_in_sql_with_other_frames(items: vl.Table) -> None:
    matches = vectorlake_daft.knn_join(_queries().select("q"), items, 1).where(col("distance") == 0.0)  # noqa: F841
    found = daft.sql("SELECT name FROM matches WHERE rank = 0 ORDER BY id")
    assert found.to_pydict() == {"name": [None]}, "3000 is deleted"


def test_the_table_is_pinned(tmp_path: Path) -> None:
    table = vl.connect(tmp_path).create_table("t", {"id": [1], "vec": np.zeros((1, 2), "f4")})
    join = vectorlake_daft.knn_join(daft.from_pydict({"q": [[0.0, 0.0]]}), table, 1)
    table.delete("id = 1")
    assert join.to_pydict()["row_id"] == [0]
    again = vectorlake_daft.knn_join(daft.from_pydict({"q": [[0.0, 0.0]]}), table, 1)
    assert again.to_pydict()["row_id"] == []
    assert vectorlake_daft.knn(table.uri, [0.0, 0.0], version=1).to_pydict()["row_id"] == [0]


def test_only_nulls_and_no_rows(items: vl.Table) -> None:
    for frame in (_queries().limit(1), _queries().where(col("id") == "z")):
        assert vectorlake_daft.knn_join(frame, items, 3).count_rows() == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"vec": "w"}, NotFoundError, "no column 'w'"),
        ({"metric": "l9"}, InvalidInputError, "unknown metric 'l9'"),
        ({"k": 0}, InvalidInputError, "k"),
        ({"columns": ["nam"]}, NotFoundError, "did you mean 'name'"),
        ({"filter": "idd = 3"}, InvalidInputError, "idd"),
        ({"metrik": "l2"}, TypeError, "metrik"),
    ],
)
def test_bad_arguments_are_told_before_anything_runs(
    items: vl.Table, options: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        vectorlake_daft.knn_join(_queries(), items, **options)


def test_bad_queries(items: vl.Table) -> None:
    two = _queries().with_column("r", col("q"))
    with pytest.raises(InvalidInputError, match=r"have 2 \(q, r\): name it, vec="):
        vectorlake_daft.knn_join(two, items)
    with pytest.raises(InvalidInputError, match="have none"):
        vectorlake_daft.knn_join(_queries().select("id"), items)
    short = daft.from_pydict({"q": [[1.0, 2.0]]})
    with pytest.raises(Exception, match="the queries have dimension 2, column 'vec' is vector"):
        vectorlake_daft.knn_join(short, items).collect()
    taken = daft.from_pydict({"q": QUERIES.tolist(), "id": [1] * 5, "id_1": [1] * 5})
    names = vectorlake_daft.knn_join(taken, items, vec="q").column_names
    assert [name for name in names if name.startswith("id")] == ["id", "id_1", "id_2"]


def test_extension_columns_of_the_rows_found(tmp_path: Path) -> None:
    rows = pa.table(
        {"j": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}'])), "vec": [[0.0, 1.0]]}
    ).cast(pa.schema([("j", pa.json_()), ("vec", vl.vector(2))]))
    table = vl.connect(tmp_path).create_table("t", rows)
    assert vectorlake_daft.knn_join(daft.from_pydict({"q": [[0.0, 0.0]]}), table).to_pydict()["j"] == [
        '{"a": 1}'
    ]
