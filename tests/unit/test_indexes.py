"""Indexes as part of a table: built, described, kept in shape, dropped; what changes of rows and columns do to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.table.coverage import Coverage, coverage
from vectorlake.table.table import Table

DIMENSION = 4


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


def covered(table: Table, name: str = "vec_flat") -> Coverage:
    index = next(index for index in table.snapshot.indexes if index.name == name)
    return coverage(table.view, index)


def check(table: Table, name: str = "vec_flat") -> tuple[int, int]:
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
            held = file._vectors[slot]  # type: ignore[attr-defined]
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
    table.create_index("vec", "flat")
    return table


def test_create_covers_all(table: Table) -> None:
    assert check(table) == (50, 0)
    info = table.describe_index("vec_flat")
    assert (info.rows, info.covered_rows, info.dead_rows, len(info.segments)) == (50, 50, 0, 1)
    assert table.snapshot.operation == "create-index"
    assert table.snapshot.summary["indexed_rows"] == 50


def test_appended_rows_are_scanned_until_optimized(table: Table) -> None:
    table.append(rows(100, 5))
    assert check(table) == (50, 5)
    table.optimize_indexes()
    assert check(table) == (55, 0)
    assert table.at(4).describe_index("vec_flat").uncovered_rows == 5


def test_deleted_rows_never_show(table: Table) -> None:
    table.delete("id < 20")
    assert check(table) == (30, 0)
    assert table.describe_index("vec_flat").dead_rows == 20


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
    assert len(table.describe_index("vec_flat").segments) == 1


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
    assert table.describe_index("vec_flat").column == "embedding"
    assert covered(table).uncovered_rows == 0


def test_memory_store() -> None:
    table = table_of("memory://test-indexes")
    table.create_index("vec", "flat")
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
    table.create_index("vec", "flat")
    with pytest.raises(vl.InvalidInputError, match="has index 'vec_flat', which holds its values as vector"):
        table.alter_column("vec", type=vl.vector(DIMENSION, "f32"))
    table.drop_index("vec_flat")
    table.alter_column("vec", type=vl.vector(DIMENSION, "f32"))
    table.create_index("vec", "flat")
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
