"""Indexes as part of a table: built, described, kept in shape, dropped; what changes of rows and columns do to them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from plain_kind import PlainKind

import vectorlake as vl
from vectorlake.index.registry import kind_names, register
from vectorlake.plan.commit import Delta
from vectorlake.table.coverage import Coverage, coverage
from vectorlake.table.table import Table

DIMENSION = 4
if PlainKind.name not in kind_names():
    register(PlainKind())


def vectors(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


def rows(first: int, count: int, **columns: Any) -> dict[str, Any]:
    ids = list(range(first, first + count))
    return {"id": ids, "vec": vectors(count, first).tolist(), "price": [float(i) for i in ids], **columns}


def table_of(folder: Path | str, count: int = 50, **properties: str) -> Table:
    fields = [
        pa.field("id", pa.int64(), nullable=False),
        ("vec", vl.vector(DIMENSION)),
        ("price", pa.float64()),
    ]
    table = vl.connect(folder).create_table(
        "a.items", pa.schema(fields), primary_key=["id"], properties=properties
    )
    if count:
        table.append(rows(0, count))
    return table


def covered(table: Table, name: str = "vec_plain") -> Coverage:
    index = next(index for index in table.snapshot.indexes if index.name == name)
    return coverage(table.view, index)


def check(table: Table, name: str = "vec_plain") -> tuple[int, int]:
    """(rows covered, rows to be scanned), after comparing them with what the table holds: every live row once, with the
    very value that was indexed."""
    found = covered(table, name)
    there = {row["_row_id"]: row for row in table.scan(with_row_id=True).to_arrow().to_pylist()}
    seen: list[int] = []
    for segment in found.segments:
        file = segment.searcher
        for slot in np.flatnonzero(segment.live):
            reader, position = segment.readers[segment.fragment[slot]], segment.position[slot : slot + 1]
            row_id = int(file.row_ids[slot])
            assert reader.row_ids_at(position).tolist() == [row_id]
            assert not np.isin(position, reader.deleted).any()
            held = file.vectors[slot]  # type: ignore[attr-defined]
            assert held.tolist() == there[row_id]["vec"]
            seen.append(row_id)
    for state in found.states:
        seen += state.skipped.tolist()
        assert all(there[row_id]["vec"] is None for row_id in state.skipped.tolist())
    assert len(set(seen)) == len(seen)
    scanned = [i for reader, at in found.uncovered for i in reader.row_ids_at(at).tolist()]
    missing = [i for i in there if i not in set(seen) | set(scanned)]
    assert not set(seen) & set(scanned)
    assert all(there[row_id]["vec"] is None for row_id in missing)
    assert (found.covered_rows, found.uncovered_rows) == (len(seen) + len(missing), len(scanned))
    return found.covered_rows, found.uncovered_rows


@pytest.fixture
def table(tmp_path: Path) -> Table:
    table = table_of(tmp_path)
    table.create_index("vec", "plain")
    return table


def test_create_covers_all(table: Table) -> None:
    assert check(table) == (50, 0)
    info = table.describe_index("vec_plain")
    assert (info.rows, info.covered_rows, info.dead_rows, len(info.segments)) == (50, 50, 0, 1)
    assert table.snapshot.operation == "create-index"
    assert table.snapshot.summary["indexed_rows"] == 50


def test_appended_rows_are_scanned_until_optimized(table: Table) -> None:
    table.append(rows(100, 5))
    assert check(table) == (50, 5)
    table.optimize_indexes()
    assert check(table) == (55, 0)
    assert table.at(4).describe_index("vec_plain").uncovered_rows == 5


def test_deleted_rows_never_show(table: Table) -> None:
    table.delete("id < 20")
    assert check(table) == (30, 0)
    assert table.describe_index("vec_plain").dead_rows == 20


def test_updated_rows_are_scanned(table: Table) -> None:
    table.upsert(rows(10, 3, vec=vectors(3, 99).tolist()))
    assert check(table) == (47, 3)
    table.optimize_indexes()
    assert check(table) == (50, 0)


@pytest.mark.parametrize("mode", ["rows", "columns"])
def test_updates_of_other_columns(table: Table, mode: str) -> None:
    table.update({"price": "price + 1"}, "id < 10", mode=mode)
    assert check(table) == ((40, 10) if mode == "rows" else (50, 0))


def test_backfill_of_another_column_uncovers_nothing(table: Table) -> None:
    table.add_column("double", "price * 2", type=pa.float64())
    assert check(table) == (50, 0)
    table.delete("id = 7")
    table.compact(deleted_share=0)
    assert check(table) == (49, 0)


def test_values_replaced_in_place_are_scanned(table: Table) -> None:
    table.backfill_column("vec", lambda batch: vectors(batch.num_rows, 5), inputs=["id"], rows="all")
    assert check(table) == (0, 50)


def test_compaction_keeps_rows_covered(table: Table) -> None:
    for first in (100, 200):
        table.append(rows(first, 10))
    table.upsert(rows(5, 3, vec=vectors(3, 77).tolist()))
    table.delete("id = 30")
    before = check(table)
    table.compact(deleted_share=0)
    assert table.snapshot.operation == "compact"
    assert check(table) == before
    table.optimize_indexes()
    assert check(table) == (sum(before), 0)
    table.compact(sort_by="price")
    assert check(table) == (sum(before), 0)


def test_restore_brings_back_the_indexes_of_that_version(table: Table) -> None:
    old = table.version
    table.upsert(rows(0, 50, vec=vectors(50, 4).tolist()))
    table.optimize_indexes()
    assert check(table) == (50, 0)
    table.restore(old)
    assert check(table) == (50, 0)
    table.restore(1)
    assert table.indexes() == []


def test_overwrite_leaves_all_to_be_scanned(table: Table) -> None:
    table.overwrite(rows(0, 20))
    assert check(table) == (0, 20)
    table.optimize_indexes()
    assert check(table) == (20, 0)
    assert len(table.describe_index("vec_plain").segments) == 1


def test_nulls_are_known_and_not_scanned_again(table: Table) -> None:
    table.append(rows(60, 3, vec=[None, [1.0, 2.0, 3.0, 4.0], None]))
    assert covered(table).uncovered_rows == 3
    table.optimize_indexes()
    assert covered(table).uncovered_rows == 0
    table.append(rows(80, 1, vec=[None]))
    table.optimize_indexes()
    assert covered(table).uncovered_rows == 0
    table.upsert(rows(60, 1))
    assert covered(table).uncovered_rows == 1


def test_renamed_column(table: Table) -> None:
    table.rename_column("vec", "embedding")
    assert table.describe_index("vec_plain").column == "embedding"
    assert covered(table).uncovered_rows == 0


def test_memory_store() -> None:
    table = table_of("memory://test-indexes")
    table.create_index("vec", "plain")
    table.append(rows(100, 5))
    assert check(table) == (50, 5)
    table.optimize_indexes()
    assert check(table) == (55, 0)


def test_dropped_column_takes_its_index_along(table: Table) -> None:
    before = table.version
    table.drop_column("vec")
    assert table.indexes() == []
    assert table.snapshot.summary["dropped_indexes"] == 1
    assert len(table.at(before).indexes()) == 1


def test_retyped_column_is_refused(tmp_path: Path) -> None:
    table = vl.connect(tmp_path).create_table("a.b", pa.schema([("vec", vl.vector(DIMENSION, "f16"))]))
    table.append({"vec": vectors(20).tolist()})
    table.create_index("vec", "plain")
    with pytest.raises(vl.InvalidInputError, match="has index 'vec_plain', which holds its values as vector"):
        table.alter_column("vec", type=vl.vector(DIMENSION, "f32"))
    table.drop_index("vec_plain")
    table.alter_column("vec", type=vl.vector(DIMENSION, "f32"))
    table.create_index("vec", "plain")
    assert covered(table).uncovered_rows == 0


# --- branches --------------------------------------------------------------------------------------------------------


def test_branch_sees_the_index_and_goes_its_own_way(table: Table) -> None:
    branch = table.branch("dev")
    branch.append(rows(100, 5))
    assert check(branch) == (50, 5)
    branch.optimize_indexes()
    assert check(branch) == (55, 0)
    assert check(table.refresh()) == (50, 0)


def test_fast_forward_takes_segments_along(table: Table) -> None:
    branch = table.branch("dev")
    branch.append(rows(100, 5))
    branch.upsert(rows(3, 2, vec=vectors(2, 55).tolist()))
    branch.optimize_indexes()
    branch.append(rows(200, 5))
    table.fast_forward("dev")
    assert check(table) == (55, 5)
    table.upsert(rows(100, 1, vec=vectors(1, 66).tolist()))
    assert check(table) == (54, 6)


def test_fast_forward_drops_segments_of_values_that_changed_on_the_branch(table: Table) -> None:
    branch = table.branch("dev")
    branch.append(rows(100, 5))
    branch.optimize_indexes()
    branch.upsert(rows(100, 1, vec=vectors(1, 66).tolist()))
    assert check(branch) == (54, 1)
    table.fast_forward("dev")
    assert table.snapshot.summary["dropped_segments"] == 1
    assert check(table) == (0, 55)


def test_fast_forward_after_moves_and_values_written_in_place(table: Table) -> None:
    table.append(rows(60, 10))
    table.optimize_indexes()
    branch = table.branch("dev")
    branch.compact()
    branch.backfill_column("vec", lambda batch: vectors(batch.num_rows, 9), inputs=["id"], rows="all")
    assert check(branch) == (0, 60)
    table.fast_forward("dev")
    assert check(table) == (0, 60)


# --- damage, maintenance -----------------------------------------------------------------------------------------------


def flip(path: Path, at: int = -200) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def reopened(table: Table) -> Table:
    """The table in a handle that has opened nothing yet."""
    return vl.connect(table.uri.rsplit("/a/", 1)[0]).table("a.items")


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_damaged_segment_is_named_scanned_and_repaired(table: Table, tmp_path: Path, damage: str) -> None:
    table.append(rows(100, 5000))
    table.optimize_indexes()
    path = table.snapshot.indexes[0].segments[-1].file.path
    file = tmp_path / "a" / "items" / path
    if damage == "flipped":
        flip(file)
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-10])
    else:
        file.unlink()
    table = reopened(table)
    info = table.describe_index("vec_plain")
    assert len(info.faults) == 1
    assert path in info.faults[0]
    assert check(table)[1] >= 5000
    assert [finding.path for finding in table.verify()] == [path]
    (repair,) = table.repair()  # type: ignore[union-attr]
    assert repair.remedy == "drop-segment"
    table.repair(dry_run=False)
    assert table.snapshot.summary["dropped_segments"] == 1
    assert table.verify() == []
    table.optimize_indexes()
    assert check(table) == (5050, 0)


def test_damaged_segment_is_replaced_by_optimize(table: Table, tmp_path: Path) -> None:
    flip(tmp_path / "a" / "items" / table.snapshot.indexes[0].segments[0].file.path)
    table = reopened(table)
    (plan,) = table.optimize_indexes(dry_run=True)  # type: ignore[misc]
    assert plan.drop == (table.snapshot.indexes[0].segments[0].id,)
    assert plan.add_rows == 50
    table.optimize_indexes()
    assert check(table) == (50, 0)
    assert table.verify() == []


def test_damaged_model_makes_the_index_anew(table: Table, tmp_path: Path) -> None:
    (tmp_path / "a" / "items" / table.snapshot.indexes[0].model.path).unlink()
    table = reopened(table)
    assert check(table) == (0, 50)
    (repair,) = table.repair()  # type: ignore[union-attr]
    assert repair.remedy == "rebuild-index"
    table.optimize_indexes()
    assert check(table) == (50, 0)
    assert table.verify() == []


def test_files_of_indexes_are_listed(table: Table) -> None:
    found = table.files().to_pylist()
    listed = {row["path"]: row["rows"] for row in found if row["content"] == "index"}
    index = table.snapshot.indexes[0]
    assert listed == {index.model.path: 0, index.segments[0].file.path: 50}


def test_orphans_and_expiry_keep_what_a_version_needs(table: Table) -> None:
    first = table.snapshot.indexes[0].segments[0].file.path
    table.rebuild_index("vec_plain")
    assert table.collect_orphans(older_than=dt.timedelta(0)) == []
    assert check(table.at(3)) == (50, 0)
    table.expire_snapshots(older_than=None)
    gone = table.collect_orphans(older_than=dt.timedelta(0))
    assert first in gone
    assert check(reopened(table)) == (50, 0)
    assert table.verify() == []


def test_dropped_index(table: Table) -> None:
    table.drop_index("vec_plain")
    assert table.indexes() == []
    with pytest.raises(vl.NotFoundError, match="no index 'vec_plain'; the indexes are none"):
        table.drop_index("vec_plain")
    table.restore(3)
    assert check(table) == (50, 0)


# --- shape ------------------------------------------------------------------------------------------------------------


def test_small_segments_are_merged(table: Table) -> None:
    for first in range(100, 900, 100):
        table.append(rows(first, 10))
        table.optimize_indexes(growth=0)
        assert len(table.snapshot.indexes[0].segments) == 1
    table.append(rows(1000, 5000))
    table.optimize_indexes(growth=0)
    assert len(table.snapshot.indexes[0].segments) == 2
    assert check(table) == (5130, 0)


def test_dead_rows_are_left_out(table: Table) -> None:
    table.delete("id < 20")
    table.optimize_indexes()
    assert table.describe_index("vec_plain").dead_rows == 0
    assert table.snapshot.indexes[0].segments[0].rows == 30
    assert check(table) == (30, 0)
    version = table.version
    table.optimize_indexes()
    assert table.version == version


def test_grown_tables_train_anew(table: Table) -> None:
    model = table.snapshot.indexes[0].model_id
    table.append(rows(100, 160))
    (plan,) = table.optimize_indexes(dry_run=True)  # type: ignore[misc]
    assert plan.retrain
    table.optimize_indexes(growth=0)
    assert table.snapshot.indexes[0].model_id == model
    table.append(rows(300, 1))
    table.optimize_indexes()
    assert table.snapshot.indexes[0].model_id != model
    assert table.snapshot.summary["retrained_indexes"] == 1
    assert check(table) == (211, 0)


def test_segments_of_limited_rows(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    done: list[tuple[int, int]] = []
    table.create_index("vec", "plain", segment_rows=20, progress=lambda *told: done.append(told))
    assert [segment.rows for segment in table.snapshot.indexes[0].segments] == [20, 20, 10]
    assert done[-1] == (50, 50)
    assert check(table) == (50, 0)


def test_multivectors_keep_a_row_together(tmp_path: Path) -> None:
    fields = pa.schema([("id", pa.int64()), ("tokens", vl.multivector(DIMENSION))])
    table = vl.connect(tmp_path).create_table("a.items", fields)
    lengths = [3, 0, 2, 5, 1, 4]
    tokens: list[Any] = [vectors(length, length).tolist() for length in lengths]
    tokens[4] = None
    table.append({"id": list(range(6)), "tokens": tokens})
    table.create_index("tokens", "tokens", metric="dot", segment_rows=4)
    found = covered(table, "tokens_tokens")
    assert (found.covered_rows, found.uncovered_rows) == (6, 0)
    held = [np.unique(segment.searcher.row_ids[segment.live]).tolist() for segment in found.segments]
    assert sorted(row for part in held for row in part) == [0, 2, 3, 5]


# --- transactions ------------------------------------------------------------------------------------------------------


def test_transaction_leaves_its_own_rows_to_be_scanned(table: Table) -> None:
    with table.transaction() as tx:
        tx.append(rows(100, 5))
        tx.upsert(rows(1, 1, vec=vectors(1, 31).tolist()))
        tx.create_index("vec", "plain", name="other")
        reopened(table).append(rows(200, 3))
    assert check(table, "other") == (49, 9)
    tx = table.transaction()
    tx.restore(2)
    with pytest.raises(vl.UnsupportedError, match="restored"):
        tx.optimize_indexes()


# --- bad input ---------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "kind": ({"kind": "plian"}, vl.InvalidInputError, "unknown index kind 'plian'.*did you mean 'plain'"),
    "option": ({"kind": "plain", "nlist": 3}, vl.InvalidInputError, "no option 'nlist'"),
    "metric": ({"kind": "plain", "metric": "cosin"}, vl.InvalidInputError, "did you mean 'cosine'"),
    "bits of floats": (
        {"kind": "ivf", "metric": "hamming"}, vl.InvalidInputError, "counts differing bits.*'vec'"),
    "bits of floats, one by one": (
        {"kind": "flat", "metric": "hamming"}, vl.InvalidInputError, "counts differing bits.*'vec'"),
    "column": ({"column": "vek", "kind": "plain"}, vl.NotFoundError, "vek"),
    "no vectors": ({"column": "price", "kind": "plain"}, vl.InvalidInputError, "float64, not a vector"),
    "name": ({"kind": "plain", "name": "a/b"}, vl.InvalidInputError, "name is made of"),
    "taken": ({"kind": "plain", "name": "vec_plain"}, vl.AlreadyExistsError, "there is an index 'vec_plain'"),
    "memory": ({"kind": "plain", "memory_limit": 10}, vl.InvalidInputError, "memory_limit must be"),
    "threads": ({"kind": "plain", "threads": 0}, vl.InvalidInputError, "threads must be"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_writes_nothing(table: Table, case: str) -> None:
    arguments, error, message = BAD[case]
    version, files = table.version, sorted(info.path for info in table.store.list("index"))
    with pytest.raises(error, match=message):
        table.create_index(**arguments)
    assert table.refresh().version == version
    assert sorted(info.path for info in table.store.list("index")) == files


@pytest.mark.parametrize("vec", ["empty", "nulls"])
def test_nothing_to_index(tmp_path: Path, vec: str) -> None:
    table = table_of(tmp_path, 0)
    if vec == "nulls":
        table.append(rows(0, 3, vec=[None] * 3))
    with pytest.raises(vl.InvalidInputError, match=r"holds no vectors yet|nothing to index"):
        table.create_index("vec", "plain")
    assert list(table.store.list("index")) == []


@pytest.mark.parametrize("vec", [[[1.0, 0.0, 2.0, 0.0]] * 30, [[0.0] * 4] * 29 + [[1.0] * 4]])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_constant_vectors(tmp_path: Path, vec: list[list[float]], metric: str) -> None:
    table = table_of(tmp_path, 0)
    table.append(rows(0, 30, vec=vec))
    table.create_index("vec", "plain", metric=metric)
    assert covered(table).uncovered_rows == 0


def test_newer_kind_is_scanned_described_and_kept(table: Table) -> None:
    index = table.snapshot.indexes[0]
    newer = msgspec.structs.replace(index, name="newer", kind_version=9, extra={"more": [1]})
    other = msgspec.structs.replace(index, name="other", kind="learned")
    table.commit(lambda head: Delta("create-index", indexes=(*head.indexes, newer, other)))
    assert "has version 9 of kind 'plain'" in table.describe_index("newer").faults[0]
    assert "unknown to this release" in table.describe_index("other").faults[0]
    assert table.describe_index("other").uncovered_rows == 50
    with pytest.raises(vl.UnsupportedError, match="upgrade vectorlake"):
        table.optimize_indexes("newer")
    table.append(rows(100, 5))
    table.optimize_indexes("vec_plain")
    assert reopened(table).snapshot.indexes[1:] == (newer, other)
