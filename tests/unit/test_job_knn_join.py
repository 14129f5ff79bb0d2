"""KNN joins as jobs give what `knn` gives, into a new table or a list column, for tables, files and a table itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from vectorlake_jobs import knn_join

import vectorlake as vl
from vectorlake.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from vectorlake.jobs import JobFailedError, JobRun, Plan, drop_job

DIMENSION = 8
RNG = np.random.default_rng(5)
QUICK: dict[str, Any] = {"engine": "threads", "workers": 2}


def vectors(rows: int, holes: tuple[int, ...] = ()) -> pa.Array:
    numbers = RNG.normal(size=(rows, DIMENSION)).astype(np.float32)
    mask = np.isin(np.arange(rows), holes)
    return pa.FixedSizeListArray.from_arrays(numbers.reshape(-1), DIMENSION, mask=pa.array(mask))


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    lake = vl.connect(tmp_path / "lake")
    items = lake.create_table(
        "items", {"id": list(range(300)), "vec": vectors(300, (7,)), "day": ["a", "b", "c"] * 100}
    )
    items.append({"id": list(range(300, 500)), "vec": vectors(200), "day": ["a", "b"] * 100})
    items.delete("id % 10 = 3")
    lake.create_table("asked", {"name": [f"q{n}" for n in range(90)], "emb": vectors(90, (4, 50))}).delete(
        "name = 'q9'"
    )
    return lake


SEARCHES: list[dict[str, Any]] = [
    {"k": 5},
    {"k": 3, "metric": "cosine", "filter": "day = 'a'", "columns": ["id", "day"]},
    {"k": 1000, "metric": "dot"},
    {"k": None, "max_distance": 9.0},
]


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_into_a_table_as_knn_gives_it(lake: vl.Lake, search: dict[str, Any]) -> None:
    asked, items = lake.table("asked"), lake.table("items")
    done = knn_join(
        asked, items, into="pairs", lake=lake, query_columns=["name"], task_rows=20, **search, **QUICK
    )
    assert isinstance(done, JobRun)
    assert done.executed == 5
    got = lake.table("pairs").to_arrow()
    rows = asked.scan(columns=["_row_id", "name", "emb"]).to_arrow()
    wanted = items.knn(rows.column("emb").combine_chunks(), **search)
    at = wanted.column("query")
    assert got.column("query").to_pylist() == rows.column("_row_id").take(at).to_pylist()
    assert got.column("name").to_pylist() == rows.column("name").take(at).to_pylist()
    for name in wanted.column_names[1:]:
        assert got.column(name).to_pylist() == wanted.column(name).to_pylist()
    assert done.outcome == {"table": "main.pairs", "version": 1, "rows": len(wanted)}
    assert lake.table("pairs").snapshot.summary["job"] == done.job_id


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_a_self_join_is_that_of_the_table(lake: vl.Lake, metric: str) -> None:
    items = lake.table("items")
    knn_join(None, items, into="pairs", lake=lake, k=4, metric=metric, task_rows=100, **QUICK)
    got = lake.table("pairs").to_arrow()
    wanted = items.knn_self("vec", 4, metric).read_all()
    assert got.column("query").to_pylist() == wanted.column("row_id").to_pylist()
    assert got.column("row_id").to_pylist() == wanted.column("neighbor").to_pylist()
    for name in ("rank", "distance"):
        assert got.column(name).to_pylist() == wanted.column(name).to_pylist()


def test_an_index_is_used_where_one_is_asked_for(lake: vl.Lake) -> None:
    items = lake.table("items")
    items.create_index("vec", calibrate=False)
    wishes: dict[str, Any] = {"k": 5, "mode": "index", "nprobe": 1000}
    knn_join(lake.table("asked"), items, into="pairs", lake=lake, **wishes, **QUICK)
    rows = lake.table("asked").scan(columns=["emb"]).to_arrow().column("emb").combine_chunks()
    wanted = items.knn(rows, **wishes)
    assert lake.table("pairs").to_arrow().column("row_id").to_pylist() == wanted.column("row_id").to_pylist()


@pytest.mark.parametrize("kind", ["parquet", "arrow", "lists"])
def test_files_are_numbered_through(lake: vl.Lake, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    # pyarrow can't read null lists of fixed size back from Parquet.
    column = vectors(70, () if kind == "parquet" else (3,))
    if kind == "lists":  # as Parquet from other writers has them
        column = column.cast(pa.list_(pa.float32()))
    table = pa.table({"name": [f"f{n}" for n in range(70)], "emb": column})
    for number, part in enumerate((table.slice(0, 30), table.slice(30))):
        if kind == "arrow":
            with pa.ipc.new_file(folder / f"{number}.arrow", table.schema) as writer:
                writer.write_table(part, max_chunksize=16)
        else:
            pq.write_table(part, folder / f"{number}.parquet", row_group_size=16)
    done = knn_join(
        folder,
        lake.table("items"),
        into="pairs",
        lake=lake,
        query_column="emb",
        query_columns=["name"],
        task_rows=16,
        k=2,
        **QUICK,
    )
    assert isinstance(done, JobRun)
    assert done.executed == 5
    got = lake.table("pairs").to_arrow()
    wanted = lake.table("items").knn(table.column("emb").combine_chunks(), k=2)
    assert got.column("query").to_pylist() == wanted.column("query").to_pylist()
    assert got.column("name").to_pylist() == [f"f{n}" for n in wanted.column("query").to_pylist()]
    assert got.column("row_id").to_pylist() == wanted.column("row_id").to_pylist()


def test_files_that_change_under_the_job_stop_it(lake: vl.Lake, tmp_path: Path) -> None:
    path = tmp_path / "asked.parquet"
    pq.write_table(pa.table({"emb": vectors(10)}), path)
    plan = knn_join(path, lake.table("items"), into="pairs", lake=lake, dry_run=True)
    assert isinstance(plan, Plan)
    assert plan.rows == 10

    with pytest.raises(JobFailedError, match="has changed since the job was planned"):
        knn_join(path, lake.table("items"), into="pairs", lake=lake, engine=_after_plan(path), retries=0)
    assert not lake.exists("pairs")


def _after_plan(path: Path) -> Any:
    from vectorlake.jobs import executor_named

    inner = executor_named("threads")

    class Changing:
        capacity, close = inner.capacity, inner.close

        @staticmethod
        def run(*args: Any, **kwargs: Any) -> Any:
            pq.write_table(pa.table({"emb": vectors(99)}), path)
            return inner.run(*args, **kwargs)

    return Changing()


def test_the_pinned_version_answers_whatever_is_written_meanwhile(lake: vl.Lake) -> None:
    items = lake.table("items")
    lake.table("items").delete("id < 400")
    knn_join(None, items, into="pairs", lake=lake, k=2, **QUICK)
    assert lake.table("pairs").count() == 2 * (len(items) - 1)


@pytest.mark.parametrize("itself", [True, False], ids=["self", "other"])
def test_as_a_list_column(lake: vl.Lake, itself: bool) -> None:
    items = lake.table("items")
    queries = None if itself else lake.table("asked")
    written = items if itself else lake.table("asked")
    done = knn_join(queries, items, as_column="near", k=3, columns=["day"], **QUICK)
    assert isinstance(done, JobRun)
    written.refresh()
    assert done.outcome == {
        "table": written.name,
        "version": written.version,
        "column": "near",
        "values": len(written),
    }
    name = "vec" if itself else "emb"
    rows = written.scan(columns=["_row_id", name, "near"]).to_arrow()
    ids, near = rows.column("_row_id").to_pylist(), rows.column("near").to_pylist()
    assert [n for n, one in enumerate(near) if one is None] == [
        n for n, one in enumerate(rows.column(name).to_pylist()) if one is None
    ]
    if itself:
        table = items.knn_self("vec", 3).read_all().to_pylist()
        wanted = [(row["row_id"], row["neighbor"], row["distance"]) for row in table]
    else:
        table = items.knn(rows.column(name).combine_chunks(), k=3).to_pylist()
        wanted = [(ids[row["query"]], row["row_id"], row["distance"]) for row in table]
    got = [
        (at, one["row_id"], one["distance"]) for at, many in zip(ids, near, strict=True) for one in many or ()
    ]
    assert got == wanted
    days = dict(zip(*(items.scan(columns=["_row_id", "day"]).to_arrow().to_pydict().values()), strict=True))
    assert all(one["day"] == days[one["row_id"]] for many in near for one in many or ())
    again = knn_join(None if itself else written, items, as_column="near", k=3, columns=["day"], **QUICK)
    assert isinstance(again, JobRun)
    assert written.refresh().scan(columns=["near"]).to_arrow() == rows.select(["near"])


@pytest.mark.parametrize(
    ("wishes", "kind", "told"),
    [
        ({}, InvalidInputError, "into= a new table, or as_column="),
        ({"into": "items"}, AlreadyExistsError, "exists already"),
        ({"into": "p", "query_column": "nam"}, NotFoundError, "did you mean 'name'"),
        ({"into": "p", "query_columns": ["nix"]}, InvalidInputError, "no column 'nix'"),
        ({"into": "p", "k": 0}, InvalidInputError, "k must be"),
        ({"into": "p", "metric": "l3"}, InvalidInputError, "metric"),
        ({"into": "p", "mode": "index"}, InvalidInputError, "index"),
        ({"into": "p", "filter": "nix > 3"}, InvalidInputError, "nix"),
        ({"into": "p", "task_rows": 0}, InvalidInputError, "rows must be"),
        (
            {"as_column": "near", "query_columns": ["name"]},
            InvalidInputError,
            "query_columns are for a new table",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    lake: vl.Lake, wishes: dict[str, Any], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        knn_join(lake.table("asked"), lake.table("items"), lake=lake, **wishes, **QUICK)


def test_another_dimension_is_refused(lake: vl.Lake) -> None:
    lake.create_table("wide", {"vec": np.zeros((2, DIMENSION + 1), np.float32)})
    with pytest.raises(InvalidInputError, match="dimension 9"):
        knn_join(lake.table("wide"), lake.table("items"), into="p", lake=lake, **QUICK)
    assert not lake.exists("p")
    folder = lake.folder("p")
    (job,) = {info.path.split("/")[1] for info in folder.list("jobs")}
    drop_job(folder, job)
    assert list(folder.list()) == []
