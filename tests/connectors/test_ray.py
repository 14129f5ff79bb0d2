"""Tables as Ray datasets: read, written once or not at all, searched, and given columns that actors compute."""

from __future__ import annotations

import gc
import logging
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    UnsupportedError,
)
from vectorlake.jobs import Call, executor_named

pytest.importorskip("ray")
pytest.importorskip("pandas")

import ray.data
import vectorlake_ray
from ray.data.expressions import col, udf
from vectorlake_ray._read import TableDatasource
from vectorlake_ray._types import created_schema, stored_array

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    # Here, for workers import this module, and have no other tests on their path.
    from on_ray import start_ray

    start_ray()
    yield
    ray.shutdown()


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    return vl.connect(tmp_path / "lake")


@pytest.fixture
def items(lake: vl.Lake) -> vl.Table:
    table = lake.create_table("ns.items", _rows(0, 300), primary_key=["id"])
    table.append(_rows(300, 500))
    return table


def _rows(start: int, stop: int) -> dict[str, Any]:
    ids = np.arange(start, stop)
    return {
        "vec": np.stack([ids, -ids], axis=1).astype("f4"),
        "id": ids,
        "name": [f"n{i}" for i in ids],
        "price": [None if i % 10 == 3 else i / 8 for i in ids],
    }


def _dataset(start: int, stop: int) -> ray.data.Dataset:
    """Rows whose vectors are tensors, in small blocks."""
    ids = ray.data.range(stop - start, override_num_blocks=4)
    return ids.map_batches(lambda batch: _rows(0, 0) | _tensors(batch["id"] + start))


def _tensors(ids: np.ndarray) -> dict[str, Any]:
    return {
        "vec": np.stack([ids, -ids], axis=1).astype("f8"),
        "id": ids,
        "name": [f"x{i}" for i in ids],
        "price": ids / 2,
    }


def _files(table: vl.Table) -> set[str]:
    return {info.path for info in table.store.list("data")}


# --- reading ---


def test_columns_filters_versions_and_row_ids(items: vl.Table) -> None:
    items.tag("v1")
    frame = vectorlake_ray.read(items, ["name", "id"], "id BETWEEN 298 AND 300", with_row_id=True)
    assert sorted(map(tuple, (row.items() for row in frame.take_all()))) == [
        (("name", f"n{i}"), ("id", i), ("_row_id", i)) for i in (298, 299, 300)
    ]
    pinned = vectorlake_ray.read(items)
    items.delete("id >= 100")
    assert (pinned.count(), vectorlake_ray.read(items).count()) == (500, 100)
    assert vectorlake_ray.read(items.uri, version="v1").count() == 500
    with pytest.raises(NotFoundError, match="did you mean 'name'"):
        vectorlake_ray.read(items, ["nam"])
    with pytest.raises(UnsupportedError, match="in the memory of this process"):
        vectorlake_ray.read(vl.connect("memory://ray").create_table("t", {"id": [1]}))


def test_a_count_is_exact_with_deleted_rows_filters_and_no_columns(items: vl.Table) -> None:
    items.delete("id % 7 = 0")
    rows = items.count()
    dataset = vectorlake_ray.read(items, override_num_blocks=3)
    assert dataset.count() == rows
    assert dataset.filter(expr=col("id") >= 400).count() == items.count("id >= 400")
    assert vectorlake_ray.read(items, filter="id < 50").count() == items.count("id < 50")
    assert dataset.select_columns(["id"]).sum("id") == sum(items.to_arrow()["id"].to_pylist())


CONDITIONS = {
    "id > 420": col("id") > 420,
    "price IS NULL AND id < 100": col("price").is_null() & (col("id") < 100),
    "id IN (1, 2, 999)": col("id").is_in([1, 2, 999]),
    "NOT price > 3": ~(col("price") > 3),
    "price IN (1.0, 2.0) IS NOT TRUE": col("price").not_in([1.0, 2.0]),
    "id + 1 = 8": col("id") + 1 == 8,
    "name = 'n7' OR name = 'n8'": (col("name") == "n7") | (col("name") == "n8"),
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_pushed_filter_is_applied_as_ray_would(items: vl.Table, condition: str) -> None:
    expression = CONDITIONS[condition]
    expected = ray.data.from_arrow(items.scan(["id", "name", "price"]).to_arrow()).filter(expr=expression)
    found = vectorlake_ray.read(items).filter(expr=expression).select_columns(["id"])
    assert sorted(row["id"] for row in found.take_all()) == [row["id"] for row in expected.take_all()]


def test_what_is_pushed(items: vl.Table) -> None:
    source = TableDatasource(items)
    narrowed = source.apply_predicate(col("id") >= 400).apply_projection({"name": "name"})
    (task,) = narrowed.get_read_tasks(4)
    assert task.schema.names == ["name"]
    assert task.metadata.num_rows is None, "a filter's count is not known"
    (block,) = list(task())
    assert (block.column_names, block.num_rows) == (["name"], 100)
    assert [task.metadata.num_rows for task in source.get_read_tasks(2)] == [500], "too few rows for two"
    limited = source.get_read_tasks(1, per_task_row_limit=7)
    assert sum(block.num_rows for block in limited[0]()) == 7
    assert source.apply_predicate(col("nme") >= 400) is source, "what does not fit is left to Ray"
    assert sum(len(block) for block in source.apply_projection({}).get_read_tasks(1)[0]()) == 500


def test_a_filter_that_ray_must_apply_itself(items: vl.Table) -> None:
    @udf(return_dtype=ray.data.datatype.DataType.bool())
    def odd(ids: pa.Array) -> pa.Array:
        return pa.array([i % 2 == 1 for i in ids.to_pylist()])

    found = vectorlake_ray.read(items).filter(expr=odd(col("id")) & (col("id") < 6))
    assert sorted(row["id"] for row in found.take_all()) == [1, 3, 5]


def test_an_empty_table_has_columns(lake: vl.Lake) -> None:
    dataset = vectorlake_ray.read(
        lake.create_table("ns.e", pa.schema({"id": pa.int64(), "vec": vl.vector(2)}))
    )
    assert (dataset.schema().names, dataset.count()) == (["id", "vec"], 0)


def test_a_damaged_file_is_named(items: vl.Table) -> None:
    path = next(iter(_files(items)))
    items.store.delete([path])
    with pytest.raises(Exception, match=path):
        vectorlake_ray.read(vl.open_table(items.uri)).take_all()


def test_metadata_tables(items: vl.Table) -> None:
    assert [row["version"] for row in vectorlake_ray.read_metadata(items, "snapshots").take_all()] == [2, 1]
    assert vectorlake_ray.read_metadata(items.uri, "fragments", version=1).count() == 1
    with pytest.raises(NotFoundError, match="did you mean 'files'"):
        vectorlake_ray.read_metadata(items, "file")


# --- types ---


def _tensor(values: list) -> pa.Array:
    """What Ray makes of a numpy column."""
    block = (
        ray.data.from_numpy(np.array(values))
        if isinstance(values[0], np.ndarray)
        else ray.data.from_items(values, override_num_blocks=1)
    )
    return ray.get(block.to_arrow_refs())[0].column(0).combine_chunks()


def test_tensors_are_vectors_and_multivectors() -> None:
    vectors = stored_array(_tensor([np.ones(3, "f4"), np.zeros(3, "f4")]))
    assert (vectors.type, vectors.to_pylist()) == (pa.list_(pa.float32(), 3), [[1.0] * 3, [0.0] * 3])
    multi = stored_array(_tensor([np.ones((2, 3), "f2")]))
    assert multi.type == pa.list_(pa.list_(pa.float16(), 3))
    ragged = stored_array(_tensor([{"x": np.ones((2, 3))}, {"x": np.ones((1, 3))}]))
    assert ragged.to_pylist() == [[[1.0] * 3] * 2, [[1.0] * 3]]
    lists = stored_array(_tensor([{"x": np.ones(2)}, {"x": np.ones(1)}]))
    assert lists.to_pylist() == [[1.0, 1.0], [1.0]]
    with pytest.raises(InvalidInputError, match=r"tensors of shape \(1, 2, 3\)"):
        stored_array(_tensor([np.ones((1, 2, 3))]))


def test_python_objects_are_refused() -> None:
    column = pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))
    objects = ray.data.from_arrow(pa.table({"x": column})).map_batches(lambda batch: batch)
    (block,) = ray.get(objects.to_arrow_refs())
    with pytest.raises(InvalidInputError, match="Python objects, which Ray pickles"):
        stored_array(block["x"])


def test_created_types() -> None:
    schema = pa.schema([("x", pa.list_(pa.float64())), ("u", pa.uuid())])
    made = created_schema(schema, {"x": vl.vector(4)})
    assert (made.field("x").type, made.field("u").type) == (vl.vector(4), pa.binary(16))
    with pytest.raises(InvalidInputError, match="'y', which the dataset does not have"):
        created_schema(schema, {"y": vl.vector(4)})


# --- writing ---


@pytest.mark.parametrize(
    ("mode", "start", "rows"), [("append", 500, 520), ("overwrite", 500, 20), ("upsert", 490, 510)]
)
def test_each_mode_is_one_commit(items: vl.Table, mode: str, start: int, rows: int) -> None:
    written = vectorlake_ray.write(_dataset(start, start + 20), items, mode)
    assert written is items
    assert (written.version, written.count(), written.snapshot.num_rows) == (3, rows, rows)
    (last,) = written.scan(filter="id = 509").to_arrow().to_pylist() or [None]
    assert (last["name"], last["vec"]) == ("x509", [509.0, -509.0])
    assert items.verify() == []


def test_small_blocks_become_few_files(lake: vl.Lake) -> None:
    table = lake.create_table("ns.many", pa.schema({"id": pa.int64()}))
    vectorlake_ray.write(ray.data.range(2000, override_num_blocks=20), table)
    assert (table.count(), table.snapshot.num_fragments) == (2000, 1)


def test_blocks_of_pandas_and_no_rows(items: vl.Table) -> None:
    import pandas as pd

    frame = pd.DataFrame({"id": [900, 901], "name": ["a", None], "vec": [[1.0, 2.0], [3.0, 4.0]]})
    assert vectorlake_ray.write(ray.data.from_pandas(frame), items).count() == 502
    nothing = vectorlake_ray.read(items).filter(expr=col("id") < 0)
    assert vectorlake_ray.write(nothing, items).count() == 502
    assert vectorlake_ray.write(nothing, items, "overwrite").count() == 0


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ({"id": [900], "vec": [[1.0] * 3]}, InvalidInputError, r"row 0 has 3 numbers$"),
        ({"id": ["a"]}, InvalidInputError, "column 'id' is int64"),
        ({"id": [900], "nam": ["a"]}, InvalidInputError, "no column 'nam' .did you mean 'name'"),
        ({"id": [900, 900]}, InvalidInputError, "occur more than once"),
        ({"id": [3]}, AlreadyExistsError, "primary keys are in the table already"),
    ],
)
def test_what_does_not_fit_is_told_and_leaves_nothing(
    items: vl.Table, rows: dict, error: type[Exception], message: str
) -> None:
    before = _files(items)
    with pytest.raises(error, match=message):
        vectorlake_ray.write(ray.data.from_arrow(pa.table(rows)), items)
    assert (items.refresh().version, _files(items)) == (2, before)


def test_a_task_that_fails_takes_back_what_the_others_staged(lake: vl.Lake) -> None:
    table = lake.create_table("ns.many", pa.schema({"id": pa.int64()}))

    def picky(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if 399_999 in batch["id"]:
            raise ValueError("no such page")
        return batch

    dataset = ray.data.range(400_000, override_num_blocks=4).map_batches(picky)
    with pytest.raises(Exception, match="no such page"):
        vectorlake_ray.write(dataset, table, concurrency=1)
    # A task that is still at it when Ray gives up notices so when it is done.
    until = time.monotonic() + 20
    while _files(table) and time.monotonic() < until:
        time.sleep(0.1)
    assert (table.refresh().version, _files(table)) == (1, set())


def test_a_handle_that_cannot_be_written_to_is_refused_at_once(items: vl.Table) -> None:
    with pytest.raises(UnsupportedError, match="pinned to version 1"):
        vectorlake_ray.write(ray.data.range(1), items.at(1))
    with pytest.raises(InvalidInputError, match="'append', 'overwrite' or 'upsert'"):
        vectorlake_ray.write(ray.data.range(1), items, "replace")


def test_create(lake: vl.Lake) -> None:
    # Ray tells a datasink the columns before the last steps, which it runs together with the write.
    table = vectorlake_ray.create_table(
        _dataset(0, 50), lake, "ns.made", types={"name": vl.text()}, primary_key=["id"]
    )
    assert (table.version, table.count(), table.schema.field("vec").type.list_size) == (1, 50, 2)
    assert table.schema.field("name").metadata == {b"vectorlake:logical": b"text"}
    with pytest.raises(AlreadyExistsError):
        vectorlake_ray.create_table(_dataset(0, 1), lake, "ns.made")
    with pytest.raises(InvalidInputError, match="row 0 has"):
        vectorlake_ray.create_table(
            ray.data.from_items([{"vec": [1.0, 2.0]}]), lake, "ns.bad", types={"vec": vl.vector(3)}
        )
    assert lake.tables() == ["ns.made"]


# --- searching ---


@pytest.mark.parametrize(
    "options", [{}, {"filter": "id < 200", "metric": "cosine"}, {"mode": "index"}], ids=str
)
@pytest.mark.parametrize("form", ["arrow", "tensor", "lists"])
def test_a_join_is_the_search_of_the_core(items: vl.Table, form: str, options: dict) -> None:
    if options.get("mode") == "index":
        items.create_index("vec", kind="ivf")
    vectors = np.random.default_rng(0).standard_normal((4, 2)).astype("f4") * 100
    expected = items.knn(vectors, k=3, columns=["id", "name"], **options)
    rows = pa.table({"id": [10, 11, 12, 13], "q": pa.FixedSizeListArray.from_arrays(vectors.ravel(), 2)})
    queries = ray.data.from_arrow(rows)
    if form == "tensor":
        queries = ray.data.from_arrow(rows.select(["id"])).map_batches(lambda batch: {**batch, "q": vectors})
    elif form == "lists":
        queries = queries.map(lambda row: {"id": row["id"], "q": list(row["q"])})
    found = vectorlake_ray.knn_join(queries, items, 3, columns=["id", "name"], **options)
    rows = sorted(found.take_all(), key=lambda row: (row["id"], row["rank"]))
    assert list(rows[0]) == ["id", "q", "rank", "row_id", "distance", "id_1", "name"]
    for mine, core in (("row_id", "row_id"), ("distance", "distance"), ("id_1", "id"), ("name", "name")):
        assert [row[mine] for row in rows] == expected[core].to_pylist()


def test_null_queries_defaults_and_errors(items: vl.Table) -> None:
    queries = ray.data.from_arrow(pa.table({"q": pa.array([None, [5.0, -5.0]], pa.list_(pa.float32(), 2))}))
    (row,) = vectorlake_ray.knn_join(queries, items, 1).take_all()
    assert {**row, "q": None} == {
        "q": None, "rank": 0, "row_id": 5, "distance": 0.0, "id": 5, "name": "n5", "price": 0.625,
    }  # fmt: skip
    (row,) = vectorlake_ray.knn(items, [5.0, -5.0], 1, version=1, columns=["name"]).take_all()
    assert row == {"query": 0, "rank": 0, "row_id": 5, "distance": 0.0, "name": "n5"}
    with pytest.raises(InvalidInputError, match="unknown metric 'l9'"):
        vectorlake_ray.knn_join(queries, items, metric="l9")
    short = ray.data.from_arrow(pa.table({"q": pa.array([[1.0]], pa.list_(pa.float32(), 1))}))
    with pytest.raises(InvalidInputError, match="the queries have dimension 1, column 'vec' is vector"):
        vectorlake_ray.knn_join(short, items).take_all()
    with pytest.raises(NotFoundError, match="no column 'w'"):
        vectorlake_ray.knn_join(queries, items, vec="w").take_all()


# --- columns ---


class Embedder:
    """A model that is loaded once an actor."""

    def __init__(self, dimension: int, *, scale: float = 1.0) -> None:
        self.dimension = dimension
        self.scale = scale

    def __call__(self, batch: pa.RecordBatch) -> np.ndarray:
        return np.outer(batch["id"].to_numpy() * self.scale, np.ones(self.dimension)).astype("f4")


def test_actors_compute_a_column(items: vl.Table) -> None:
    items.delete("id = 7")
    snapshot = vectorlake_ray.add_column(
        items, "emb", Embedder, type=vl.vector(3), inputs=["id"],
        constructor_args=(3,), constructor_kwargs={"scale": 2.0}, batch_size=64, concurrency=2,
    )  # fmt: skip
    assert (snapshot.version, snapshot.operation) == (4, "add-column")
    found = items.to_arrow()
    assert found["emb"].to_pylist() == [[2.0 * i] * 3 for i in found["id"].to_pylist()]
    items.append(_rows(500, 510))
    missing = items.count("emb IS NULL")
    vectorlake_ray.backfill_column(items, "emb", Embedder, inputs=["id"], constructor_args=(3,))
    assert (missing, items.count("emb IS NULL")) == (10, 0)
    assert items.scan(["emb"], "id IN (3, 503)").to_arrow()["emb"].to_pylist() == [[6.0] * 3, [503.0] * 3]


def test_a_column_survives_appends_and_compaction_meanwhile(items: vl.Table) -> None:
    class Slow(Embedder):
        def __call__(self, batch: pa.RecordBatch) -> np.ndarray:
            other = vl.open_table(self.uri)
            if other.version == 2:
                other.append(_rows(500, 505))
                other.compact()
            return super().__call__(batch)

        def __init__(self, uri: str) -> None:
            super().__init__(2)
            self.uri = uri

    vectorlake_ray.add_column(
        items, "emb", Slow, type=vl.vector(2), inputs=["id"], constructor_args=(items.uri,), concurrency=1
    )
    found = items.scan(["id", "emb"]).to_arrow().sort_by("id")
    assert items.version > 3
    assert found["emb"].to_pylist() == [[float(i)] * 2 for i in range(500)] + [None] * 5


def test_a_pipeline_writes_a_column_by_row_id(items: vl.Table) -> None:
    read = vectorlake_ray.read(items, ["id"], "id >= 100", with_row_id=True, override_num_blocks=4)
    values = read.map_batches(
        lambda batch: {"_row_id": batch["_row_id"], "twice": batch["id"] * 2}, batch_size=37
    )
    snapshot = vectorlake_ray.write_column(values, items, "twice", type=pa.int64(), inputs=["id"])
    assert (snapshot.version, items.version) == (3, 3)
    assert items.to_arrow()["twice"].to_pylist() == [None] * 100 + [2 * i for i in range(100, 500)]
    some = vectorlake_ray.read(items, ["id"], "id IN (5, 400)", with_row_id=True)
    tensors = some.map_batches(lambda batch: {"_row_id": batch["_row_id"], "twice": -batch["id"]})
    items.compact()
    items.append(_rows(500, 501))
    vectorlake_ray.write_column(tensors, items, "twice")
    shown = items.scan(["twice"], "id IN (4, 5, 399, 400, 401, 500)").to_arrow()["twice"].to_pylist()
    assert shown == [None, -5, 798, -400, 802, None]


def test_a_column_that_was_computed_from_something_else(items: vl.Table) -> None:
    pinned = items.at(2)
    values = vectorlake_ray.read(pinned, ["id"], with_row_id=True).map_batches(
        lambda batch: {"_row_id": batch["_row_id"], "copy": batch["id"]}
    )
    items.update({"price": "price + 1"}, mode="columns")
    with pytest.raises(UnsupportedError, match="pinned"):
        vectorlake_ray.write_column(values, pinned, "copy", type=pa.int64())
    vectorlake_ray.write_column(values, items, "copy", type=pa.int64(), inputs=["id"])
    assert items.count("copy = id") == 500


def test_inputs_replaced_meanwhile_are_a_conflict(items: vl.Table) -> None:
    uri = items.uri

    def meddling(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        other = vl.open_table(uri)
        if other.version == 2:
            other.update({"price": "0.0"}, mode="columns")
        return {"_row_id": batch["_row_id"], "copy": batch["price"]}

    values = vectorlake_ray.read(items, ["price"], with_row_id=True, concurrency=1).map_batches(
        meddling, concurrency=1
    )
    with pytest.raises(ConflictError, match="compute anew"):
        vectorlake_ray.write_column(values, items, "copy", type=pa.float64(), inputs=["price"])
    assert "copy" not in items.refresh().schema.names


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda batch: [1, 2],
            r"row ids .* to .*: the function was given [23]00 rows and returned 2 values$",
        ),
        (
            lambda batch: ["a"] * batch.num_rows,
            "row ids .* to .*: the function returned list, which is no int64",
        ),
        (lambda batch: batch.num_rows // 0, "ZeroDivisionError"),
    ],
)
def test_a_function_that_fails_changes_nothing_and_keeps_no_cores(
    items: vl.Table, function: Any, message: str
) -> None:
    logging.disable()  # pytest keeps what is logged, errors with their frames among it
    gc.disable()
    try:
        with pytest.raises((InvalidInputError, ZeroDivisionError), match=message) as kept:
            vectorlake_ray.add_column(items, "bad", function, type=pa.int64(), inputs=["id"], concurrency=1)
        _wait_for_all_cores()
        assert kept.value.__traceback__ is not None
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)
    assert items.refresh().version == 2


def _wait_for_all_cores() -> None:
    """Ray tells a little later that an actor is gone."""
    until = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < until, ray.available_resources()
        time.sleep(0.1)


def test_bad_arguments_for_columns(items: vl.Table) -> None:
    with pytest.raises(InvalidInputError, match="can't be sent to a worker"):
        vectorlake_ray.add_column(items, "c", Embedder, type=pa.int64(), constructor_args=(threading.Lock(),))
    with pytest.raises(InvalidInputError, match="the function given is none"):
        vectorlake_ray.add_column(items, "c", len, type=pa.int64(), constructor_args=(1,))
    with pytest.raises(AlreadyExistsError, match="name"):
        vectorlake_ray.add_column(items, "name", len, type=pa.int64())
    with pytest.raises(InvalidInputError, match="start it with read"):
        vectorlake_ray.write_column(ray.data.range(3), items, "c", type=pa.int64())
    twice = ray.data.from_items([{"_row_id": 1, "c": 1}, {"_row_id": 1, "c": 2}])
    with pytest.raises(InvalidInputError, match="row id 1 twice"):
        vectorlake_ray.write_column(twice, items, "c", type=pa.int64())


# --- documentation ---


def test_the_page_shows_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_docs import ROOT, blocks, run_python  # workers, which import this module, have no such path

    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "ray.md"
    run_python(page, blocks(page))


# --- jobs ---


def test_a_worker_that_dies_is_told() -> None:
    _wait_for_all_cores()  # all of which the worker takes
    executor = executor_named("ray")
    assert (executor.capacity(None).workers, executor.capacity(1).threads) == (2, 2)
    calls = [Call("t1", "stage", b"not a task")]
    (attempt,) = [one for one in executor.run(pickle.dumps(None), calls, workers=1) if one is not None]
    assert (attempt.task, attempt.failure is not None) == ("t1", True)
