"""Work that meets a compaction follows its rows by row id: deletes, backfills, new columns."""

from __future__ import annotations

import itertools

import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.extend import Delta, Snapshot, random_id, write_fragments
from vectorlake.metadata.deletion import to_bitmap
from vectorlake.plan.merge import Mode
from vectorlake.table.follow import follow
from vectorlake.table.fragment_reader import ROW_ID_FIELD, VERSION_FIELD
from vectorlake.table.row_change import RowChange
from vectorlake.table.update import Update

SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.int64())])
NUMBERS = itertools.count()


@pytest.fixture
def lake() -> vl.Lake:
    lake = vl.connect(f"memory://follow-{next(NUMBERS)}")
    properties = {"write.scalar-format": "arrow"}
    table = lake.create_table("t", pa.table({"id": [0, 1, 2], "x": [0, 1, 2]}, SCHEMA), properties=properties)
    table.append({"id": [3, 4, 5], "x": [3, 4, 5]})
    return lake


def move_all(table: vl.Table) -> Snapshot:
    """What a compaction does at its core: all rows into one new fragment, in reverse, ids and versions kept."""
    schema = table.snapshot.schema
    rows = table.scan(columns=[*schema.names, "_row_id", "_last_updated_version"]).to_arrow()
    rows = rows.take(list(range(rows.num_rows))[::-1])
    fields = [
        *schema.fields,
        ROW_ID_FIELD,
        VERSION_FIELD,
    ]
    fragments = write_fragments(
        table.store,
        [
            pa.RecordBatch.from_arrays(
                [column.combine_chunks() for column in rows.columns],
                schema=pa.schema([field.to_storage() for field in fields]),
            )
        ],
        fields,
        properties=table.properties,
        new_id=random_id,
    )
    gone = frozenset(fragment.id for fragment in table.view.fragments())
    return table.commit(lambda head: Delta("compact", added=tuple(fragments), removed=gone))


def rows(table: vl.Table, *columns: str) -> dict[int, tuple[object, ...]]:
    found = table.scan(columns=["_row_id", *columns]).to_arrow().to_pydict()
    ids = found.pop("_row_id")
    return dict(zip(ids, zip(*found.values(), strict=True), strict=True))


def test_ids_and_versions_stay_with_moved_rows(lake: vl.Lake) -> None:
    table = lake.table("t")
    before = rows(table, "id", "_last_updated_version")
    move_all(table)
    assert rows(table, "id", "_last_updated_version") == before
    table.add_column("y", "x", type=pa.int64())
    assert {version for _, version in rows(table, "id", "_last_updated_version").values()} == {table.version}


def test_a_delete_follows_moved_rows(lake: vl.Lake) -> None:
    first, second = lake.table("t"), lake.table("t")
    move_all(second)
    second.append({"id": [1], "x": [9]})
    first.delete("id = 1 OR id = 4")
    assert sorted(rows(first, "x").values()) == [(0,), (2,), (3,), (5,), (9,)]


def test_a_delete_asks_again_where_others_replaced_what_it_asked_of(lake: vl.Lake) -> None:
    table, late = lake.table("t"), lake.table("t")
    table.update({"x": "x - 3"}, where="id > 2", mode="columns")
    assert late.delete("x >= 2").version == 4
    assert sorted(late.scan().to_arrow()["id"].to_pylist()) == [0, 1, 3, 4]


@pytest.mark.parametrize("existing", [False, True])
def test_computed_values_follow_moved_rows(lake: vl.Lake, existing: bool) -> None:
    first = lake.table("t")
    if existing:
        first.add_column("y", type=pa.int64())
    second = lake.table("t")
    calls = 0

    def double(batch: pa.RecordBatch) -> pa.Array:
        nonlocal calls
        calls += 1
        if calls == 2:  # in the middle of the work
            second.delete("id = 4")
            move_all(second)
            second.append({"id": [6], "x": [6]})
        return pa.array([2 * x for x in batch.column(0).to_pylist()])

    if existing:
        first.backfill_column("y", double, inputs=["x"])
    else:
        first.add_column("y", double, type=pa.int64(), inputs=["x"])
    assert calls == 2, "nothing was computed twice"
    assert rows(first, "x", "y") == {
        0: (0, 0), 1: (1, 2), 2: (2, 4), 3: (3, 6), 5: (5, 10), first.snapshot.next_row_id - 1: (6, None),
    }  # fmt: skip
    assert first.verify() == []


def test_a_non_null_column_is_refused_only_if_rows_lack_a_value(lake: vl.Lake) -> None:
    first, second = lake.table("t"), lake.table("t")
    move_all(second)
    first.add_column("y", "x", type=pa.int64(), nullable=False)
    assert rows(first, "y")[5] == (5,)
    third, fourth = lake.table("t"), lake.table("t")
    fourth.append({"id": [7], "x": [7], "y": [7]})
    with pytest.raises(vl.ConflictError, match="non-null column 'z'"):
        third.add_column("z", "x", type=pa.int64(), nullable=False)


def test_values_are_computed_again_from_what_others_wrote(lake: vl.Lake) -> None:
    first, second = lake.table("t"), lake.table("t")
    first.add_column("y", type=pa.int64())
    second.refresh()
    second.backfill_column("x", "x + 100", rows="all")
    first.backfill_column("y", "x")
    assert all(x == y for x, y in rows(first, "x", "y").values())


def test_a_restored_row_counts_as_changed(lake: vl.Lake) -> None:
    table = lake.table("t")
    move_all(table)
    view = table.view
    (fragment,) = view.fragments()
    positions = {fragment.id: to_bitmap(pa.array([0, 1]).to_numpy())}
    assert not follow(view, lake.table("t").snapshot, positions).changed
    restored = lake.table("t").restore(2)
    found = follow(view, restored, positions)
    assert found.changed
    assert not found.gone


def test_rows_of_deleted_fragments_are_gone(lake: vl.Lake) -> None:
    table = lake.table("t")
    view = table.view
    positions = {fragment.id: to_bitmap(pa.array([0]).to_numpy()) for fragment in view.fragments()}
    head = lake.table("t").delete("id < 3")
    found = follow(view, head, positions)
    assert found.gone
    assert not found.changed
    assert set(found.positions) == {1}


def test_values_that_a_restore_brought_back_are_not_missed(lake: vl.Lake) -> None:
    table = lake.table("t")
    table.update({"x": 100}, "id = 1", mode="columns")
    stale = lake.table("t")
    change = prepared(stale)
    lake.table("t").restore(2)
    stale.commit(change)
    assert rows(stale, "x")[1] == (2,)


def prepared(table: vl.Table) -> RowChange:
    update = Update({"x": "x + 1"}, "id = 1", mode=Mode.COLUMNS, new_id=random_id)
    return RowChange(update, table.view, new_id=random_id, prepared=update.prepare(table.view))


def test_an_updated_row_takes_the_value_of_its_newest_image(lake: vl.Lake) -> None:
    table = lake.table("t")
    table.add_column("y", type=pa.int64())
    table.update({"x": 50}, "id = 1", mode="rows")  # its id is now at two places, one of them deleted
    stale = lake.table("t")
    calls = 0

    def double(batch: pa.RecordBatch) -> pa.Array:
        nonlocal calls
        calls += 1
        if calls == 1:
            lake.table("t").compact()
        return pa.array([2 * x for x in batch.column(0).to_pylist()])

    stale.backfill_column("y", double, inputs=["x"])
    assert rows(stale, "x", "y")[1] == (50, 100)
    assert all(y == 2 * x for x, y in rows(stale, "x", "y").values())
