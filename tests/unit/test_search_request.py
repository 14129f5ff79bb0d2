"""Requests that are settled once and kept: a search never answers what another one asked, or from another version."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import vectorlake as vl
from vectorlake.errors import InvalidInputError, NotFoundError
from vectorlake.expr import Expr
from vectorlake.kernels import Metric
from vectorlake.search.request import Options, request

ROWS, DIMENSION = 400, 8
VECTORS = np.random.default_rng(3).standard_normal((ROWS, DIMENSION)).astype(np.float32)
QUERY = VECTORS[7] + np.float32(0.01)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> vl.Lake:
    lake = vl.connect(tmp_path_factory.mktemp("requests"))
    table = lake.create_table(
        "items", {"part": np.arange(ROWS) % 4, "also": VECTORS[::-1].copy(), "vec": VECTORS}
    )
    table.create_index("vec", "ivf", name="by_l2", nlist=8)
    table.create_index("vec", "ivf", name="by_cosine", metric="cosine", nlist=8)
    return lake


ASKED: list[dict[str, Any]] = [
    {},
    {"k": 1},
    {"k": 3},
    {"k": None, "max_distance": 9.0},
    {"max_distance": 4.0},
    {"metric": "cosine"},
    {"metric": Metric.DOT},
    {"column": "also"},
    {"columns": ["part"]},
    {"columns": ("part", "also")},
    {"mode": "exact"},
    {"mode": "index"},
    {"mode": "index", "metric": "l2"},
    {"index": "by_l2"},
    {"index": "by_cosine"},
    {"nprobe": 1},
    {"nprobe": 8},
    {"nprobe": 1, "pool": 10},
    {"target_recall": 0.5},
    {"target_recall": 1.0},
    {"target_recall": 1},
    {"filter": "part = 1"},
    {"filter": "part = 2"},
    {"filter": "part = 2", "nprobe": 8},
    {"include": [1, 2, 3]},
    {"exclude": [7]},
    {"offset": 0},
    {"offset": 5},
    {"group_by": "part"},
    {"group_by": "part", "group_size": 2},
]


def test_each_search_is_answered_as_if_it_were_the_first(lake: vl.Lake) -> None:
    table = lake.table("items")
    for _ in range(2):
        for asked in ASKED:
            options = {"column": "vec", **asked}
            assert table.knn(QUERY, **options) == lake.table("items").knn(QUERY, **options), asked


@pytest.mark.parametrize(
    ("fine", "wrong"),
    [
        ({"k": 1}, {"k": True}),
        ({"k": 2}, {"k": 2.0}),
        ({"offset": 0}, {"offset": False}),
        ({"threads": 1}, {"threads": True}),
        ({"target_recall": 1}, {"target_recall": True}),
        ({"max_distance": 1}, {"max_distance": True}),
        ({"group_by": "part", "group_size": 1}, {"group_by": "part", "group_size": True}),
        ({"mode": "index"}, {"mode": ["index"]}),
    ],
)
def test_what_equals_a_good_argument_is_still_refused(
    lake: vl.Lake, fine: dict[str, Any], wrong: dict[str, Any]
) -> None:
    table = lake.table("items")
    table.knn(QUERY, "vec", **fine)
    for _ in range(2):
        with pytest.raises(InvalidInputError):
            table.knn(QUERY, "vec", **wrong)


def test_equal_requests_are_settled_once_and_others_apart(lake: vl.Lake) -> None:
    view = lake.table("items").view
    asked = Options(column="vec", filter="part = 1", columns=("part",))
    assert request(view, asked) is request(view, Options(column="vec", filter="part = 1", columns=["part"]))
    assert request(view, asked) is not request(lake.table("items").view, asked)


@pytest.mark.parametrize("kind", ["rows", "expression"])
def test_what_may_change_or_has_no_hash_is_not_kept(lake: vl.Lake, kind: str) -> None:
    view = lake.table("items").view
    rows = np.array([1, 2])
    bound = view.bind("part = 1")
    assert isinstance(bound, Expr)
    asked = Options(column="vec", include=rows) if kind == "rows" else Options(column="vec", filter=bound)
    first = request(view, asked)
    rows[:] = [3, 4]
    second = request(view, asked)
    assert first is not second
    if kind == "rows":
        assert second.selection.include is not None
        assert second.selection.include.tolist() == [3, 4]


def test_a_new_version_and_a_dropped_index_show_at_once(tmp_path: Any) -> None:
    table = vl.connect(tmp_path).create_table("items", {"vec": VECTORS})
    table.create_index("vec", "ivf", nlist=8)
    before = table.version
    old = table.knn(QUERY, mode="index")
    table.append({"vec": QUERY[None]})
    assert table.knn(QUERY, mode="index")["row_id"][0].as_py() == ROWS
    assert table.at(before).knn(QUERY, mode="index") == old
    table.drop_index("vec_ivf")
    with pytest.raises(InvalidInputError, match="has no index"):
        table.knn(QUERY, mode="index")
    with pytest.raises(NotFoundError):
        table.knn(QUERY, index="vec_ivf")
    assert table.at(before).knn(QUERY, mode="index") == old


def test_threads_with_different_requests_share_a_handle(lake: vl.Lake) -> None:
    table = lake.table("items")
    fresh = {k: lake.table("items").knn(QUERY, "vec", k, nprobe=8) for k in range(1, 9)}
    with ThreadPoolExecutor(4) as pool:
        asked = [k for k in fresh for _ in range(8)]
        for k, found in zip(
            asked, pool.map(lambda k: table.knn(QUERY, "vec", k, nprobe=8), asked), strict=True
        ):
            assert found == fresh[k]


def test_a_searcher_finds_as_many_as_knn_where_partitions_are_small(lake: vl.Lake) -> None:
    table = lake.table("items")
    found = table.knn(QUERY, index="by_l2", nprobe=1, k=200)
    row_ids, distances = table.searcher(index="by_l2", nprobe=1, k=200).search(QUERY)
    assert row_ids[0].tolist() == found["row_id"].to_pylist()
    assert distances[0].tolist() == found["distance"].to_pylist()


@pytest.mark.parametrize("most", [0.01, 2.0, 1e9])
def test_a_single_query_within_a_distance(lake: vl.Lake, most: float) -> None:
    table = lake.table("items")
    found = table.knn(QUERY, index="by_l2", nprobe=8, pool=ROWS, k=20, max_distance=most)
    assert found == table.knn(QUERY, "vec", k=20, max_distance=most)
