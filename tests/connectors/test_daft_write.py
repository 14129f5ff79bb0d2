"""Daft frames written into tables: staged by Daft, committed once, or not at all."""

from __future__ import annotations

from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.errors import AlreadyExistsError, InvalidInputError, NotFoundError, UnsupportedError
from vectorlake.extend import IntoTable, StagedRows

daft = pytest.importorskip("daft")

import vectorlake_daft  # noqa: E402
from daft import DataType, col  # noqa: E402
from vectorlake_daft._write import Staging  # noqa: E402


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    return vl.connect(tmp_path / "lake")


@pytest.fixture
def items(lake: vl.Lake) -> vl.Table:
    return lake.create_table("ns.items", _rows(0, 4), primary_key=["id"])


def _rows(start: int, stop: int, name: str = "n") -> dict[str, object]:
    ids = np.arange(start, stop)
    vectors = np.stack([ids, -ids], axis=1).astype("f4")
    return {"id": ids, "name": [f"{name}{i}" for i in ids], "vec": vectors}


def _frame(start: int, stop: int, name: str = "n") -> daft.DataFrame:
    rows = _rows(start, stop, name)
    return daft.from_pydict({**rows, "vec": list(rows["vec"])})  # type: ignore[call-overload]


def _files(table: vl.Table) -> set[str]:
    return {info.path for info in table.store.list("data")}


@pytest.mark.parametrize(
    ("mode", "start", "expected"),
    [
        ("append", 4, ["n0", "n1", "n2", "n3", "x4", "x5"]),
        ("overwrite", 2, ["x2", "x3", "x4", "x5"]),
        ("upsert", 2, ["n0", "n1", "x2", "x3", "x4", "x5"]),
    ],
)
def test_each_mode_is_one_commit(items: vl.Table, mode: str, start: int, expected: list[str]) -> None:
    written = vectorlake_daft.write(_frame(start, 6, "x"), items, mode)
    assert written is items
    assert (written.version, sorted(written.to_arrow()["name"].to_pylist())) == (2, expected)
    assert written.to_arrow().sort_by("id")["vec"].to_pylist()[-1] == [5.0, -5.0]
    assert items.verify() == []


def test_by_uri(items: vl.Table) -> None:
    written = vectorlake_daft.write(_frame(4, 5), items.uri)
    assert (written.version, items.version, items.refresh().count()) == (2, 1, 5)


def test_small_pieces_become_few_files(lake: vl.Lake) -> None:
    table = lake.create_table("ns.many", pa.schema({"id": pa.int64()}))
    vectorlake_daft.write(daft.from_pydict({"id": list(range(5000))}).into_batches(10), table)
    assert (table.count(), table.snapshot.num_fragments) == (5000, 1)


def test_an_empty_frame(items: vl.Table) -> None:
    nothing = _frame(5, 9).where(col("id") > 100)
    assert vectorlake_daft.write(nothing, items).count() == 4
    assert vectorlake_daft.write(nothing, items, "overwrite").count() == 0


@pytest.mark.parametrize(
    "kind",
    [
        DataType.embedding(DataType.float32(), 2),
        DataType.fixed_size_list(DataType.float64(), 2),
        DataType.list(DataType.float64()),
        DataType.tensor(DataType.float32(), (2,)),
    ],
    ids=str,
)
def test_every_kind_of_vector(items: vl.Table, kind: DataType) -> None:
    frame = daft.from_pydict({"id": [7, 8], "vec": [[0.5, 1.5], None]}).with_column(
        "vec", col("vec").cast(kind)
    )
    vectorlake_daft.write(frame, items)
    assert items.scan(["vec"], "id >= 7").to_arrow()["vec"].to_pylist() == [[0.5, 1.5], None]


def test_numpy_vectors_which_daft_takes_for_tensors_of_any_shape(items: vl.Table) -> None:
    vectors = [np.array([0.5, 1.5], "f4"), None, np.array([2.5, 3.5], "f4")]
    frame = daft.from_pydict({"id": [7, 8, 9], "vec": vectors})
    assert frame.schema()["vec"].dtype == DataType.tensor(DataType.float32())
    vectorlake_daft.write(frame, items)
    assert items.scan(["vec"], "id >= 7").to_arrow()["vec"].to_pylist() == [[0.5, 1.5], None, [2.5, 3.5]]


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        ({"id": [9], "vec": [[1.0] * 3]}, InvalidInputError, "row 0 has 3 numbers"),
        ({"id": ["a"]}, InvalidInputError, "column 'id' is int64"),
        ({"id": [9], "nam": ["a"]}, InvalidInputError, "no column 'nam'"),
        ({"id": [9, 9]}, InvalidInputError, "occur more than once"),
        ({"id": [3]}, AlreadyExistsError, "primary keys are in the table already"),
        ({"name": ["a"]}, InvalidInputError, "column 'id' must not be null"),
    ],
)
def test_what_does_not_fit_is_told_and_leaves_nothing(
    items: vl.Table, frame: dict, error: type[Exception], message: str
) -> None:
    before = _files(items)
    with pytest.raises(error, match=message):
        vectorlake_daft.write(daft.from_pydict(frame), items)
    assert (items.refresh().version, _files(items)) == (1, before)


def test_a_frame_that_fails_midway_leaves_nothing(lake: vl.Lake) -> None:
    table = lake.create_table("ns.many", pa.schema({"id": pa.int64()}))

    @daft.func
    def picky(x: int) -> int:
        if x == 299_999:
            raise ValueError("no such page")
        return x

    frame = daft.from_pydict({"id": list(range(300_000))}).select(picky(col("id")).alias("id"))
    with pytest.raises(Exception, match="no such page"):
        vectorlake_daft.write(frame, table)
    assert (table.refresh().version, _files(table)) == (1, set())


def test_what_is_still_being_staged_when_a_write_is_given_up_goes_too(lake: vl.Lake) -> None:
    table = lake.create_table("ns.many", pa.schema({"id": pa.int64()}))
    begun, go_on = Event(), Event()

    class Slow(IntoTable):
        def stage(self, data: object) -> StagedRows:
            begun.set()
            assert go_on.wait(30)
            return super().stage(data)

    staging = Staging(Slow(table.ref))
    with ThreadPoolExecutor(2) as threads:
        late = threads.submit(staging.stage, pa.table({"id": [1, 2]}))
        assert begun.wait(30)
        given_up = threads.submit(staging.give_up)
        with pytest.raises(TimeoutError):
            given_up.result(0.05)
        go_on.set()
        assert late.result().rows == 2
        given_up.result()
    assert _files(table) == set()
    with pytest.raises(CancelledError):
        staging.stage(pa.table({"id": [3]}))
    assert _files(table) == set()


def test_a_handle_that_cannot_be_written_to_is_refused_at_once(items: vl.Table) -> None:
    @daft.func
    def never(x: int) -> int:
        raise AssertionError("computed")

    frame = daft.from_pydict({"id": [9]}).select(never(col("id")).alias("id"))
    with pytest.raises(UnsupportedError, match="pinned to version 1"):
        vectorlake_daft.write(frame, items.at(1))
    with pytest.raises(InvalidInputError, match="'append', 'overwrite' or 'upsert'"):
        vectorlake_daft.write(frame, items, "replace")
    with pytest.raises(NotFoundError):
        vectorlake_daft.write(frame, items.uri + "s")


def test_create(lake: vl.Lake) -> None:
    frame = _frame(0, 3).with_column("emb", col("vec").cast(DataType.embedding(DataType.float32(), 2)))
    table = vectorlake_daft.create_table(
        frame, lake, "ns.made", types={"vec": vl.vector(2, "f16"), "name": vl.text()}, primary_key=["id"]
    )
    schema = table.schema
    assert (table.version, table.count(), table.snapshot.primary_key != ()) == (1, 3, True)
    assert (schema.field("emb").type.list_size, schema.field("vec").type.value_type) == (2, pa.float16())
    assert schema.field("name").metadata == {b"vectorlake:logical": b"text"}
    with pytest.raises(AlreadyExistsError):
        vectorlake_daft.create_table(frame, lake, "ns.made")
    with pytest.raises(InvalidInputError, match="'vek', which the frame does not have"):
        vectorlake_daft.create_table(frame, lake, "ns.other", types={"vek": vl.vector(2)})


def test_a_table_that_could_not_be_filled_is_gone(lake: vl.Lake) -> None:
    with pytest.raises(InvalidInputError, match="row 0 has 2 numbers"):
        vectorlake_daft.create_table(_frame(0, 3), lake, "ns.made", types={"vec": vl.vector(3)})
    assert lake.tables() == []
