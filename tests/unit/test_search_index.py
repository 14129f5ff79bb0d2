"""Searching by an index: equal to the exact search where all is looked at; filters, pages, groups, ranges, faults."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.errors import DamagedIndexWarning
from vectorlake.search.plan import Strategy

ROWS, DIMENSION = 600, 16
ALL: dict[str, Any] = {"mode": "index", "pool": ROWS}


def make_table(
    where: str,
    *,
    vector_format: str = "lance",
    nulls: bool = False,
    element: str = "f32",
    metric: str = "l2",
    kind: str = "flat",
    rows: int = ROWS,
) -> tuple[vl.Table, np.ndarray]:
    """A table with an index on its first 500 rows; 40 rows were deleted since, 20 updated, the others appended."""
    rng = np.random.default_rng(1)
    vectors = (rng.standard_normal((rows, DIMENSION)) * 20).astype(
        vl.vector(2, element).value_type.to_pandas_dtype()
    )
    vectors[7] = vectors[3]
    valid = rng.random(rows) > 0.1 if nulls else np.ones(rows, bool)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSION, mask=pa.array(~valid))
    data = pa.table({"id": np.arange(rows), "group": np.arange(rows) % 7, "vec": flat})
    properties = {"write.fragment-rows": "150", "write.vector-format": vector_format}
    table = vl.connect(where).create_table("t", data.slice(0, rows - 100), properties=properties)
    table.create_index("vec", kind, name="ix", metric=metric)
    table.append(data.slice(rows - 100))
    table.delete("id % 15 = 4")
    table.update({"id": "id + 10000"}, where="id % 30 = 5")
    return table, vectors


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[vl.Table, np.ndarray]:
    return make_table(str(tmp_path_factory.mktemp("lake")))


@pytest.mark.parametrize("kind", ["ivf", "graph", "flat"])
@pytest.mark.parametrize("filter_", [None, '"group" < 4'])
def test_threads_change_nothing(kind: str, filter_: str | None, tmp_path: Path) -> None:
    """A batch is shared out in parts, each nominated and measured by one thread, with the same answer and counts."""
    table, vectors = make_table(str(tmp_path), kind=kind)
    table.optimize_indexes()
    queries = np.concatenate([vectors, vectors + 0.5])[:700]
    options: dict[str, Any] = {"index": "ix", "target_recall": 0.9, "filter": filter_}
    alone = table.explain_knn(queries, threads=1, **options)
    for threads in (2, 3):
        together = table.explain_knn(queries, threads=threads, **options)
        assert together.found.equals(alone.found)
        assert (together.probed, together.scored, together.candidates) == (
            alone.probed,
            alone.scored,
            alone.candidates,
        )
        if filter_ is None:
            stages = together.milliseconds
            assert 0 < stages["probe"] + stages["refine"] <= stages["total"]


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize(("vector_format", "nulls", "element", "local"), [
    ("lance", False, "f32", True), ("lance", True, "f16", True), ("parquet", False, "f32", True),
    ("arrow", False, "int8", True), ("lance", False, "f32", False), ("lance", False, "f64", True),
])  # fmt: skip
def test_bit_equal_to_the_exact_search(
    metric: str, vector_format: str, nulls: bool, element: str, local: bool, tmp_path: Path
) -> None:
    where = str(tmp_path) if local else f"memory://{metric}{element}"
    made, vectors = make_table(
        where, vector_format=vector_format, nulls=nulls, element=element, metric=metric
    )
    queries = np.asarray(vectors[:9], vectors.dtype if element in ("int8", "f64") else np.float32)
    for k in (1, 7, 40):
        assert made.knn(queries, k=k, **ALL).equals(made.knn(queries, k=k, metric=metric))
    assert made.knn(queries[0], columns=["id"], **ALL).equals(
        made.knn(queries[0], metric=metric, columns=["id"])
    )


QUESTIONS: dict[str, dict[str, Any]] = {
    "a filter": {"filter": '"group" = 3'},
    "few rows": {"filter": "id < 12"},
    "no rows": {"filter": "id < 0"},
    "include": {"include": [3, 7, 19, 550, 20, 100_000]},
    "include none": {"include": []},
    "include a filter": {"include": pa.array(range(300)), "filter": '"group" < 2'},
    "exclude": {"exclude": np.arange(100, 500)},
    "exclude a filter": {"exclude": [1, 2], "filter": '"group" = 1'},
    "a range": {"max_distance": 9000.0},
    "an exact range": {"max_distance": 0.0},
    "all in a range": {"max_distance": 12000.0, "k": None},
    "all of everything": {"max_distance": float("inf"), "k": None},
    "a page": {"offset": 13, "k": 9},
    "the first page": {"offset": 0, "k": 9},
    "a page beyond the rows": {"offset": 1000},
    "one of a group": {"group_by": "group"},
    "two of a group": {"group_by": "group", "group_size": 2, "k": 9},
    "a page of groups": {"group_by": "group", "group_size": 3, "k": 4, "offset": 2},
    "groups in a range": {"group_by": "group", "max_distance": 12000.0, "k": None},
    "k beyond the rows": {"k": 10_000},
    "columns": {"columns": ["id", "group"], "filter": '"group" = 3', "offset": 2},
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_has_the_exact_answer(question: str, table: tuple[vl.Table, np.ndarray]) -> None:
    made, vectors = table
    asked = QUESTIONS[question]
    exact = made.knn(vectors[:5], **asked)
    assert made.knn(vectors[:5], **asked, **ALL).equals(exact)
    # Also if segments have to be asked, however few rows the filter leaves.
    assert made.knn(vectors[:5], **asked, nprobe=1, pool=ROWS).equals(exact)


def brute(vectors: np.ndarray, query: np.ndarray, rows: np.ndarray) -> list[int]:
    distances = ((vectors[rows].astype("f8") - query) ** 2).sum(axis=1)
    return [int(row) for _, row in sorted(zip(distances, rows, strict=True))]


def test_the_questions_mean_what_they_say(table: tuple[vl.Table, np.ndarray]) -> None:
    made, vectors = table
    live = np.array(sorted(made.scan(columns=[], with_row_id=True).to_arrow()["_row_id"].to_pylist()))
    stored = dict(zip(live, made.take(live, ["vec"])["vec"].to_pylist(), strict=True))
    full = np.zeros((int(live.max()) + 1, DIMENSION), np.float32)
    full[live] = np.array([stored[row] for row in live])
    group = dict(zip(live.tolist(), made.take(live, ["group"])["group"].to_pylist(), strict=True))
    order = brute(full, vectors[2].astype("f8"), live)
    for asked in ({}, ALL):
        assert made.knn(vectors[2], k=12, **asked)["row_id"].to_pylist() == order[:12]
        pages = [made.knn(vectors[2], k=5, offset=at, **asked) for at in (0, 5, 10)]
        assert [row for page in pages for row in page["row_id"].to_pylist()] == order[:15]
        assert pages[1]["rank"].to_pylist() == [5, 6, 7, 8, 9]
        seen: dict[int, int] = {}
        wanted = []
        for row in order:
            seen[group[row]] = seen.get(group[row], 0) + 1
            if seen[group[row]] <= 2:
                wanted.append(row)
        assert (
            made.knn(vectors[2], k=9, group_by="group", group_size=2, **asked)["row_id"].to_pylist()
            == wanted[:9]
        )
        some = [row for row in order if row in {1, 2, 3, 8, 9, 11}]
        assert (
            made.knn(vectors[2], include=[1, 2, 3, 8, 9, 11], exclude=some[:1], **asked)["row_id"].to_pylist()
            == some[1:]
        )


def test_groups_of_nulls_are_one_group() -> None:
    made = vl.connect("memory://g").create_table(
        "t",
        pa.table(
            {
                "g": pa.array([None, None, "a", "b", "a", "b"]),
                "vec": pa.array([[float(i)] * 2 for i in range(6)], vl.vector(2)),
            }
        ),
    )
    assert made.knn([0.0, 0.0], group_by="g")["row_id"].to_pylist() == [0, 2, 3]


def test_modes_and_the_index_chosen(table: tuple[vl.Table, np.ndarray]) -> None:
    made, vectors = table
    assert made.explain_knn(vectors[0]).mode == "exact"
    assert made.explain_knn(vectors[0], mode="auto").index == "ix"
    assert made.explain_knn(vectors[0], mode="auto", metric="cosine").mode == "exact"
    assert made.explain_knn(vectors[0], target_recall=0.5).index == "ix"
    assert made.explain_knn(vectors[0], index="ix").index == "ix"


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "another metric": (
        {"metric": "cosine", "mode": "index"},
        vl.InvalidInputError,
        "'ix' is for metric 'l2', not 'cosine'",
    ),
    "the metric of a named index": ({"metric": "dot", "index": "ix"}, vl.InvalidInputError, "not 'dot'"),
    "an unknown index": ({"index": "iy"}, vl.NotFoundError, "no index 'iy'; its indexes are ix"),
    "an unknown mode": ({"mode": "fast"}, vl.InvalidInputError, "'auto'"),
    "exact with effort": ({"mode": "exact", "nprobe": 3}, vl.InvalidInputError, "uses no index"),
    "ef for partitions": ({"ef": 3}, vl.InvalidInputError, "nprobe="),
    "two efforts": ({"ef": 3, "nprobe": 2}, vl.InvalidInputError, "not both"),
    "effort and target": ({"target_recall": 0.9, "nprobe": 2}, vl.InvalidInputError, "not both"),
    "a recall of 2": ({"target_recall": 2}, vl.InvalidInputError, "target_recall"),
    "no partitions": ({"nprobe": 0}, vl.InvalidInputError, "at least 1"),
    "k = 0": ({"k": 0, "mode": "index"}, vl.InvalidInputError, "k must be"),
    "no k and no distance": ({"k": None}, vl.InvalidInputError, "max_distance"),
    "a distance that is none": ({"max_distance": float("nan")}, vl.InvalidInputError, "max_distance"),
    "a negative offset": ({"offset": -1}, vl.InvalidInputError, "offset"),
    "ids that are none": ({"include": ["a"]}, vl.InvalidInputError, "include"),
    "a group that is no column": ({"group_by": "grup"}, vl.NotFoundError, "did you mean 'group'"),
    "a group of none": ({"group_by": "group", "group_size": 0}, vl.InvalidInputError, "group_size"),
    "a size without a group": ({"group_size": 2}, vl.InvalidInputError, "group_by"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_is_refused(case: str, table: tuple[vl.Table, np.ndarray]) -> None:
    made, vectors = table
    options, error, match = REFUSED[case]
    with pytest.raises(error, match=match):
        made.knn(vectors[0], **options)


def test_refusals_that_need_other_tables(table: tuple[vl.Table, np.ndarray]) -> None:
    made, vectors = table
    with pytest.raises(vl.InvalidInputError, match="dimension 3"):
        made.knn([1.0, 2.0, 3.0], mode="index")
    bare = vl.connect("memory://bare").create_table("t", {"vec": vectors, "other": vectors})
    with pytest.raises(vl.InvalidInputError, match=r"no index.*create_index\('vec'\)"):
        bare.knn(vectors[0], "vec", mode="index")
    with pytest.raises(vl.NotFoundError, match=r"create_index\(\)"):
        bare.knn(vectors[0], "vec", index="ix")
    with pytest.raises(vl.InvalidInputError, match="nothing to evaluate"):
        made.evaluate_index("ix", np.empty((0, DIMENSION)))
    with pytest.raises(vl.InvalidInputError, match="did you mean 'filter'"):
        made.explain_knn(vectors[0], filtre="id = 3")


def test_null_queries_and_none(table: tuple[vl.Table, np.ndarray]) -> None:
    made, vectors = table
    assert made.knn(np.empty((0, DIMENSION)), **ALL).num_rows == 0
    assert made.knn([None, vectors[1].tolist(), None], **ALL)["query"].to_pylist() == [1] * 10


def test_the_builder_has_the_same_steps(table: tuple[vl.Table, np.ndarray]) -> None:
    made, vectors = table
    built = (
        made.search(vectors[4]).index("ix").nprobe(1).where("id > 20").max_distance(20000.0).exclude([30])
        .group_by("group", 2).offset(1).limit(6).select(["id"])
    )  # fmt: skip
    options = {
        "filter": "id > 20",
        "max_distance": 20000.0,
        "exclude": [30],
        "group_by": "group",
        "group_size": 2,
    }
    plain = made.knn(vectors[4], k=6, offset=1, columns=["id"], index="ix", nprobe=1, **options)
    assert built.to_arrow().equals(plain.select(["id", "row_id", "distance"]))
    assert built.explain().index == "ix"
    assert made.search(vectors[4]).index().exact().explain().mode == "exact"
    assert made.search(vectors[4]).target_recall(0.9).include([3]).to_arrow()["row_id"].to_pylist() == [3]


def test_a_searcher_answers_as_knn_does(table: tuple[vl.Table, np.ndarray]) -> None:
    made, vectors = table
    searcher = made.searcher(index="ix", pool=ROWS, k=6)
    row_ids, distances = searcher.search(vectors[:4])
    plain = made.knn(vectors[:4], k=6, **ALL)
    assert row_ids.reshape(-1).tolist() == plain["row_id"].to_pylist()
    assert distances.reshape(-1).tolist() == plain["distance"].to_pylist()
    assert searcher.search(vectors[2])[0].tolist() == row_ids[2:3].tolist()
    filtered = made.searcher(pool=ROWS, k=900, filter="id < 12").search(vectors[0])[0][0]
    assert sorted(filtered[filtered >= 0]) == sorted(
        made.knn(vectors[0], k=900, filter="id < 12")["row_id"].to_pylist()
    )
    for wrong in (np.zeros(3), np.zeros((2, 2, DIMENSION)), np.full(DIMENSION, np.nan)):
        with pytest.raises(vl.InvalidInputError):
            searcher.search(wrong)


def test_a_searcher_of_a_whole_segment(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((200, DIMENSION)).astype("f4")
    made = vl.connect(str(tmp_path)).create_table("t", {"vec": vectors})
    made.create_index("vec", "flat", metric="cosine")
    searcher = made.searcher(k=5, pool=50)
    for query in vectors[:20]:
        plain = made.knn(query, k=5, metric="cosine")
        row_ids, distances = searcher.search(query)
        assert row_ids[0].tolist() == plain["row_id"].to_pylist()
        assert distances[0].tolist() == plain["distance"].to_pylist()
    assert made.searcher(k=500).search(np.zeros(DIMENSION))[0].max() == -1
    row_ids, distances = searcher.search(np.empty((0, DIMENSION)))
    assert row_ids.shape == distances.shape == (0, 5)


def test_explanations_tell_the_plan(table: tuple[vl.Table, np.ndarray]) -> None:
    made, vectors = table
    told = made.explain_knn(vectors[:3], filter='"group" = 3', **ALL)
    assert told.found.equals(made.knn(vectors[:3], filter='"group" = 3'))
    assert (told.index, told.kind, told.queries, told.segments) == ("ix", "flat", 3, 1)
    assert told.covered_rows + told.uncovered_rows == len(made)
    assert told.survivors == made.count('"group" = 3')
    assert told.strategy in set(Strategy)
    assert set(told.estimates) == {Strategy.PROBE_SELECTED, Strategy.SCAN_SELECTED}
    text = str(told)
    for part in ("index 'ix' (flat)", "rows are selected", "estimated", "milliseconds", "probed", "pool"):
        assert part in text
    plain = made.explain_knn(vectors[:3])
    assert "all rows are measured" in str(plain)
    assert plain.scanned >= len(made)
    assert made.explain_knn(vectors[:3], **ALL).candidates > 0


def test_evaluation_measures_against_the_exact_search(table: tuple[vl.Table, np.ndarray]) -> None:
    made, vectors = table
    full = made.evaluate_index("ix", sample=30, pool=ROWS)
    assert (full.recall, full.worst, full.queries, full.sampled) == (1.0, 1.0, 30, True)
    assert full.p50_ms > 0
    assert "recall@10 1.0000" in str(full)
    given = made.evaluate_index(queries=vectors[:8], k=3, pool=ROWS, filter="id < 300")
    assert (given.recall, given.queries, given.sampled, given.k) == (1.0, 8, False, 3)


def flip_a_byte(table: vl.Table, path: str) -> str:
    local = table.store.local_path(path)
    assert local is not None
    data = bytearray(local.read_bytes())
    data[len(data) // 2] ^= 1
    local.write_bytes(bytes(data))
    return path


def test_a_damaged_segment_is_named_and_its_rows_are_scanned(tmp_path: Path) -> None:
    made, vectors = make_table(str(tmp_path))
    path = flip_a_byte(made, made.snapshot.indexes[0].segments[0].file.path)
    exact = made.knn(vectors[:4])
    opened = vl.connect(str(tmp_path)).table("t")
    with pytest.warns(DamagedIndexWarning, match=path):
        assert opened.knn(vectors[:4], **ALL).equals(exact)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told = opened.explain_knn(vectors[:4], **ALL)
        assert path in str(told)
        assert told.segments == 0
        assert opened.searcher(k=5).search(vectors[0])[0].tolist() == [exact["row_id"].to_pylist()[:5]]
        assert opened.evaluate_index("ix", vectors[:4]).recall == 1.0


def test_a_part_found_damaged_while_searching_is_named_and_scanned() -> None:
    """On a remote store only what is read is checked, so a search may be the first to see it."""
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((2000, DIMENSION)).astype("f4")
    made = vl.connect("memory://damaged").create_table("t", {"vec": vectors})
    made.create_index("vec", "ivf", name="ix", nlist=8)
    file = made.snapshot.indexes[0].segments[0].file
    data = bytearray(made.store.get(file.path))
    info = file.arrays["blocks"]
    for part in range(8):
        data[info.offset + part * (int(np.prod(info.shape)) // 8) + 5] ^= 1
    made.store.put(file.path, bytes(data))
    opened = vl.connect("memory://damaged").table("t")
    exact = opened.knn(vectors[:6])
    with pytest.warns(DamagedIndexWarning, match=file.path):
        assert opened.knn(vectors[:6], index="ix", nprobe=8).equals(exact)
    with pytest.warns(DamagedIndexWarning, match=file.path):
        assert opened.searcher(index="ix", nprobe=8).search(vectors[0])[0].tolist() == [
            exact["row_id"].to_pylist()[:10]
        ]


@pytest.mark.parametrize("filter", [None, "id % 2 = 0"])
def test_small_partitions_do_not_leave_fewer_rows_than_were_asked_for(filter: str | None) -> None:
    rng = np.random.default_rng(5)
    table = vl.connect(f"memory://small-partitions-{bool(filter)}").create_table(
        "t", {"id": range(600), "vec": rng.standard_normal((600, 8)).astype("f4")}
    )
    table.create_index("vec", nlist=60, calibrate=False)
    found = table.knn(rng.standard_normal((20, 8)), k=45, nprobe=1, filter=filter)
    assert np.bincount(found["query"].to_numpy()).tolist() == [45] * 20
