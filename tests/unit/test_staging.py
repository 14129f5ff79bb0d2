"""Rows staged by several workers and committed once, and columns computed in parts."""

from __future__ import annotations

import multiprocessing
import pickle

import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.extend import (
    ColumnWork,
    StagedRows,
    StreamPosition,
    commit_staged,
    discard_staged,
    stage_rows,
)


@pytest.fixture(scope="module")
def pool():
    with multiprocessing.get_context("spawn").Pool(2) as made:
        yield made


@pytest.fixture
def lake(tmp_path) -> vl.Lake:
    return vl.connect(tmp_path / "lake")


@pytest.fixture
def table(lake) -> vl.Table:
    return lake.create_table("items", rows(0, 5), primary_key=["id"])


def rows(start: int, stop: int, name: str = "n") -> dict[str, list]:
    return {
        "id": list(range(start, stop)),
        "name": [f"{name}{i}" for i in range(start, stop)],
        "vec": [[float(i), 1.0] for i in range(start, stop)],
    }


def ids(table: vl.Table) -> list[int]:
    return table.scan(["id"]).to_arrow()["id"].to_pylist()


def data_files(table: vl.Table) -> set[str]:
    return {info.path for info in table.store.list("data")}


def _stage(ref, start: int, stop: int) -> StagedRows:
    return stage_rows(ref.open(), rows(start, stop))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("append", [*range(9)]), ("overwrite", [5, 6, 7, 8]), ("upsert", [*range(9)])],
)
def test_what_several_processes_stage_is_one_commit(table, pool, mode, expected) -> None:
    staged = pool.starmap(_stage, [(table.ref, 5, 7), (table.ref, 7, 9)])
    before = table.version
    assert table.refresh().version == before
    snapshot = commit_staged(table, staged, mode=mode)
    assert (snapshot.version, sorted(ids(table))) == (before + 1, expected)
    assert table.at(before).count() == 5
    assert table.verify() == []


def test_staged_rows_are_bytes(table) -> None:
    staged = stage_rows(table, rows(5, 9))
    again = StagedRows.from_bytes(staged.to_bytes())
    assert again == staged == pickle.loads(pickle.dumps(staged))
    assert (again.rows, len(again.fragments())) == (4, 1)
    assert again.nbytes == sum(file.size for file in again.fragments()[0].files)
    assert again.fragments()[0].bounds == staged.fragments()[0].bounds


def test_staged_bounds_prune(table) -> None:
    commit_staged(table, [stage_rows(table, rows(50, 60)), stage_rows(table, rows(70, 80))])
    assert table.fragments("id > 65").num_rows == 1


def test_nothing_staged_is_an_empty_commit(table) -> None:
    commit_staged(table, [], mode="overwrite")
    assert table.count() == 0


def test_appended_keys_that_are_there_are_refused_and_leave_nothing(table) -> None:
    before = data_files(table)
    staged = [stage_rows(table, rows(5, 7)), stage_rows(table, rows(3, 4))]
    with pytest.raises(vl.AlreadyExistsError, match="id=3"):
        commit_staged(table, staged)
    assert data_files(table) == before
    assert table.refresh().version == 1


def test_a_key_staged_by_two_workers_is_refused(table) -> None:
    before = data_files(table)
    staged = [stage_rows(table, rows(5, 7)), stage_rows(table, rows(6, 8))]
    with pytest.raises(vl.InvalidInputError, match=r"more than once in the data.*id=6"):
        commit_staged(table, staged)
    assert data_files(table) == before


def test_an_upsert_replaces_rows_and_keeps_no_staged_file(table) -> None:
    staged = [stage_rows(table, rows(3, 7, "new"))]
    paths = {file.path for fragment in staged[0].fragments() for file in fragment.files}
    commit_staged(table, staged, mode="upsert")
    assert table.scan(["name"], "id >= 2").to_arrow()["name"].to_pylist() == [
        "n2",
        "new3",
        "new4",
        "new5",
        "new6",
    ]
    assert not paths & data_files(table)
    assert table.verify() == []


def test_an_unknown_mode_is_named(table) -> None:
    with pytest.raises(vl.InvalidInputError, match="'append', 'overwrite' or 'upsert'"):
        commit_staged(table, [], mode="ignore")


def test_discarded_rows_leave_nothing(table) -> None:
    before = data_files(table)
    staged = stage_rows(table, rows(5, 9))
    assert data_files(table) > before
    discard_staged(table, [staged])
    assert data_files(table) == before


def test_bad_rows_are_refused_by_the_worker(table) -> None:
    before = data_files(table)
    with pytest.raises(vl.InvalidInputError, match="no column 'price'"):
        stage_rows(table, {"id": [1], "price": [2]})
    assert data_files(table) == before


@pytest.mark.parametrize("mode", ["append", "overwrite", "upsert"])
def test_a_position_is_committed_once(table, mode) -> None:
    def write(epoch: int, start: int) -> vl.Snapshot:
        position = StreamPosition("query", epoch)
        return commit_staged(table, [stage_rows(table, rows(start, start + 2))], mode=mode, position=position)

    first = write(0, 10)
    assert write(0, 10) == first
    second = write(1, 20)
    assert second.version == first.version + 1
    assert write(0, 30) == second
    assert table.count("id >= 30") == 0
    other = commit_staged(table, [stage_rows(table, rows(40, 41))], position=StreamPosition("other", 0))
    assert other.version == second.version + 1
    assert StreamPosition("query", 1).committed_in(other)


def test_a_position_committed_by_another_driver_is_seen(table, lake) -> None:
    rival = lake.table("items")
    commit_staged(rival, [stage_rows(rival, rows(10, 12))], position=StreamPosition("query", 7))
    commit_staged(table, [stage_rows(table, rows(10, 12))], position=StreamPosition("query", 7))
    assert table.count("id >= 10") == 2


def test_a_column_added_meanwhile_is_null_in_staged_rows(table) -> None:
    staged = stage_rows(table, rows(5, 7))
    table.add_column("extra", type=pa.int64())
    commit_staged(table, [staged])
    assert table.scan(["extra"], "id = 5").to_arrow()["extra"].to_pylist() == [None]


# --- columns in parts ---


def double(batch: pa.RecordBatch) -> list[int]:
    return [2 * value for value in batch["id"].to_pylist()]


def _run(work: ColumnWork, fragment_id: int) -> bytes:
    return work.run(fragment_id, double)


@pytest.fixture
def long(lake) -> vl.Table:
    made = lake.create_table("long", rows(0, 10))
    made.append(rows(10, 20))
    made.append(rows(20, 30))
    made.delete("id = 15")
    return made


def test_a_column_is_computed_in_processes(long, pool) -> None:
    work = ColumnWork(long.ref, "twice", pa.int64(), inputs=("id",))
    assert work.fragments() == [(0, 10), (1, 10), (2, 10)]
    parts = pool.starmap(_run, [(work, fragment_id) for fragment_id, _ in work.fragments()])
    version = long.version
    work.commit(long, parts, double)
    assert long.version == version + 1
    assert all(row["twice"] == 2 * row["id"] for row in long.to_arrow().to_pylist())
    assert long.count() == 29
    assert ColumnWork(long.ref, "twice").fragments() == [(1, 10)]  # a deleted row has null there
    assert long.verify() == []


def test_a_computed_column_survives_appends_and_compaction(long, lake) -> None:
    work = ColumnWork(long.ref, "twice", pa.int64(), inputs=("id",))
    parts = [work.run(fragment_id, double) for fragment_id, _ in work.fragments()]
    rival = lake.table("long")
    rival.append(rows(30, 33))
    rival.compact()
    rival.delete("id = 2")
    work.commit(long, parts, double)
    found = {row["id"]: row["twice"] for row in long.scan(["id", "twice"]).to_arrow().to_pylist()}
    assert found == {i: 2 * i if i < 30 else None for i in range(33) if i not in (2, 15)}
    missing = ColumnWork(long.ref, "twice", inputs=("id",))
    missing.commit(long, [missing.run(fragment_id, double) for fragment_id, _ in missing.fragments()], double)
    assert long.count("twice = 2 * id") == long.count()


def test_changed_inputs_are_computed_again(long, lake) -> None:
    work = ColumnWork(long.ref, "twice", pa.int64())
    parts = [work.run(fragment_id, "id * 2") for fragment_id, _ in work.fragments()]
    lake.table("long").update({"id": "id + 1000"}, where="id = 3")
    work.commit(long, parts, "id * 2")
    assert long.count("twice = 2 * id") in (28, 29)
    assert long.count("twice IS NOT NULL AND twice <> 2 * id") == 0


def test_wrong_columns_and_fragments_are_named(long) -> None:
    with pytest.raises(vl.AlreadyExistsError, match=r"'name'"):
        ColumnWork(long.ref, "name", pa.string()).fragments()
    with pytest.raises(vl.NotFoundError, match="'twise'"):
        ColumnWork(long.ref, "twise").fragments()
    with pytest.raises(vl.NotFoundError, match="no fragment 77"):
        ColumnWork(long.ref, "twice", pa.int64()).run(77, double)
    with pytest.raises(vl.InvalidInputError, match=r"row ids 10 to 19.*9 rows and returned 1 values"):
        ColumnWork(long.ref, "twice", pa.int64()).run(1, lambda batch: [1])


def test_an_upsert_of_some_columns_leaves_the_others(table) -> None:
    before = table.to_arrow().to_pylist()
    narrow = pa.table({"id": [before[0]["id"], 1000], "name": ["changed", "new"]})
    commit_staged(table, [stage_rows(table, narrow), stage_rows(table, narrow.slice(0, 0))], mode="upsert")
    found = {row["id"]: row for row in table.to_arrow().to_pylist()}
    assert found[before[0]["id"]] == {**before[0], "name": "changed"}
    assert found[1000] == {**dict.fromkeys(before[0]), "id": 1000, "name": "new"}
    with pytest.raises(vl.InvalidInputError, match="staged rows with different columns"):
        commit_staged(table, [stage_rows(table, narrow), stage_rows(table, rows(3, 4))], mode="upsert")
