"""Rows of several workers that go into one table, or make a new one that is there whole or not at all."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.errors import AlreadyExistsError, InvalidInputError
from vectorlake.extend import Destination, IntoNewTable, IntoTable, StagedRows, StageMode, StreamPosition

COLUMNS = pa.schema([("id", pa.int64()), ("name", pa.string()), ("vec", vl.vector(2))])


@pytest.fixture
def lake(tmp_path) -> vl.Lake:
    return vl.connect(tmp_path / "lake", principal="who")


def rows(start: int, stop: int) -> dict[str, list]:
    return {"id": list(range(start, stop)), "vec": [[float(i), 1.0] for i in range(start, stop)]}


def stage(destination: Destination, start: int, stop: int) -> StagedRows:
    return destination.stage(rows(start, stop))


def files(lake: vl.Lake) -> list[str]:
    return [info.path for info in lake.store.list() if "/data/" in info.path]


def test_workers_make_a_table_in_one_commit(lake: vl.Lake) -> None:
    new = IntoNewTable.plan(
        lake, "ns.new", COLUMNS, primary_key=["id"], properties={"write.vector-format": "arrow", "mine": "1"}
    )
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        staged = list(pool.map(stage, [new] * 2, [0, 40_000], [40_000, 50_000]))
    assert lake.tables() == []
    table = new.commit(staged)
    assert [(one.version, one.operation) for one in table.history()] == [(1, "create")]
    assert table.to_arrow()["id"].to_pylist() == list(range(50_000))
    assert table.to_arrow()["name"].null_count == 50_000
    assert (table.snapshot.properties["mine"], table.snapshot.summary["principal"]) == ("1", "who")
    assert {file.rpartition(".")[2] for file in files(lake)} >= {"arrow"}
    table.upsert(rows(49_999, 50_001))
    assert (table.count(), table.verify()) == (50_001, [])
    with pytest.raises(AlreadyExistsError, match="primary keys are in the table already"):
        table.append(rows(7, 8))


def test_a_new_table_without_rows(lake: vl.Lake) -> None:
    table = IntoNewTable.plan(lake, "ns.new", COLUMNS).commit([])
    assert (table.version, table.count(), table.schema.names) == (1, 0, ["id", "name", "vec"])


def test_a_key_that_two_workers_have_leaves_nothing(lake: vl.Lake) -> None:
    new = IntoNewTable.plan(lake, "ns.new", COLUMNS, primary_key=["id"])
    staged = [stage(new, 0, 20_000), stage(new, 19_999, 20_005)]
    with pytest.raises(
        InvalidInputError, match=r"1 primary keys occur more than once in the data: \(id=19999\)"
    ):
        new.commit(staged)
    assert (lake.tables(), list(lake.store.list())) == ([], [])


def test_a_name_that_was_taken_meanwhile(lake: vl.Lake) -> None:
    new = IntoNewTable.plan(lake, "ns.new", COLUMNS)
    staged = [stage(new, 0, 3)]
    other = lake.create_table("ns.new", rows(7, 9))
    before = {info.path for info in other.store.list()}
    with pytest.raises(AlreadyExistsError, match="exists already"):
        new.commit(staged)
    assert {info.path for info in other.store.list()} == before - {
        file.path for part in staged for fragment in part.fragments() for file in fragment.files
    }
    assert (other.refresh().version, other.verify()) == (1, [])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"schema": pa.schema([])}, "at least one column"),
        ({"primary_key": ["vec"]}, "primary key"),
        ({"properties": {"write.vektor-format": "arrow"}}, "no property"),
        ({"name": "a/b"}, "can't be a table's name"),
    ],
)
def test_what_cannot_be_a_table_is_refused_before_any_work(lake: vl.Lake, given: dict, message: str) -> None:
    wanted = {"name": "ns.new", "schema": COLUMNS, **given}
    with pytest.raises(InvalidInputError, match=message):
        IntoNewTable.plan(lake, **wanted)
    lake.create_table("ns.there", COLUMNS)
    with pytest.raises(AlreadyExistsError):
        IntoNewTable.plan(lake, "ns.there", COLUMNS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"id": [None]}, "'id' must not be null"),
        ({"id": [1], "vek": [1]}, "no column 'vek'"),
        ({"id": [1], "vec": [[1.0]]}, "has 1"),
    ],
)
def test_rows_that_do_not_fit_a_new_table(lake: vl.Lake, data: dict, message: str) -> None:
    new = IntoNewTable.plan(lake, "ns.new", COLUMNS, primary_key=["id"])
    with pytest.raises(InvalidInputError, match=message):
        new.stage(data)
    assert list(lake.store.list()) == []


@pytest.mark.parametrize(("mode", "count"), [("append", 6), ("overwrite", 3), ("upsert", 5)])
def test_into_a_table_that_is_there(lake: vl.Lake, mode: str, count: int) -> None:
    table = lake.create_table("ns.items", rows(0, 3), primary_key=["id"])
    start = 2 if mode == "upsert" else 3
    into = pickle.loads(pickle.dumps(IntoTable(table.ref, StageMode.parse(mode))))
    written = into.commit([into.stage(rows(start, start + 3))])
    assert (written.version, written.count(), table.refresh().version) == (2, count, 2)
    left = files(lake)
    into.discard([into.stage(rows(100, 103))])
    assert files(lake) == left


def test_a_stream_that_makes_its_table_commits_each_epoch_once(lake: vl.Lake) -> None:
    first, second = StreamPosition("s", 0), StreamPosition("s", 1)
    new = IntoNewTable.plan(lake, "ns.new", COLUMNS)
    table = new.commit([stage(new, 0, 3)], position=first)
    assert (table.version, table.properties["stream.s"]) == (1, "0")
    into = IntoTable(table.ref)
    assert into.commit([stage(into, 0, 3)], position=first).refresh().version == 1
    assert into.commit([stage(into, 3, 5)], position=second).to_arrow()["id"].to_pylist() == [0, 1, 2, 3, 4]


def test_a_lake_in_another_process(lake: vl.Lake) -> None:
    lake.create_table("ns.items", rows(0, 3))
    there = pickle.loads(pickle.dumps(lake))
    assert (there.uri, there.tables()) == (lake.uri, ["ns.items"])
    assert there.table("ns.items").delete("id = 1").summary["principal"] == "who"
