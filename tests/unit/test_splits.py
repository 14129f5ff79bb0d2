"""Parts of a scan, and tables, as values that other processes open."""

from __future__ import annotations

import multiprocessing
import pickle

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vectorlake as vl
from vectorlake.extend import Split, TableRef
from vectorlake.table.scan import RowRange


@pytest.fixture
def table(tmp_path) -> vl.Table:
    lake = vl.connect(tmp_path / "lake")
    made = lake.create_table(
        "ns.items", {"id": list(range(10)), "name": [f"n{i}" for i in range(10)]}, primary_key=["id"]
    )
    for start in (10, 30):
        made.append(
            {"id": list(range(start, start + 20)), "name": [f"n{i}" for i in range(start, start + 20)]}
        )
    made.delete("id % 7 = 0")
    return made


def read(splits: list[Split], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_batches([batch for split in splits for batch in split.to_batches()], schema=schema)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 60),
    filter=st.sampled_from([None, "id > 25", "id < 0", "name LIKE 'n1%' OR id IS NULL", "_row_id >= 12"]),
    columns=st.sampled_from([None, ["name"], ["id", "_row_id"], []]),
)
def test_splits_together_are_the_scan(rows, filter, columns) -> None:
    table = _shared()
    scan = table.scan(columns, filter)
    splits = pickle.loads(pickle.dumps(scan.splits(rows)))
    if columns == []:
        assert sum(split.scan().count() for split in splits) == scan.count()
    else:
        assert read(splits, scan.schema).equals(scan.to_arrow())
    assert all(0 < split.rows <= rows for split in splits)
    assert sum(split.scan().count() for split in splits) == table.count(filter)


_made: list[vl.Table] = []


def _shared() -> vl.Table:
    if not _made:
        made = vl.connect("memory://splits").create_table(
            "items", {"id": list(range(20)), "name": [f"n{i}" for i in range(20)]}
        )
        made.append({"id": [None, *range(20, 50)], "name": [f"n{i}" for i in range(19, 50)]})
        made.delete("id IN (3, 4, 5, 44)")
        _made.append(made)
    return _made[0]


def test_splits_read_the_version_they_were_planned_on(table) -> None:
    expected = table.to_arrow()
    splits = table.scan().splits(8)
    table.delete("id > 5")
    table.compact()
    assert read(splits, expected.schema).equals(expected)


@pytest.mark.parametrize("rows", [0, -1, True, "7"])
def test_a_split_has_a_sensible_size(table, rows) -> None:
    with pytest.raises(vl.InvalidInputError, match="rows must be an integer of at least 1"):
        table.scan().splits(rows)


def test_a_limited_scan_has_no_splits(table) -> None:
    with pytest.raises(vl.UnsupportedError, match="limit"):
        table.scan(limit=3).splits()


def test_long_fragments_are_cut_evenly(table) -> None:
    sizes = [[(known.start, known.stop) for known in split.ranges] for split in table.scan().splits(15)]
    assert sizes == [[(0, 10)], [(0, 10)], [(10, 20)], [(0, 10)], [(10, 20)]]


def test_splits_know_about_how_large_they_are(table) -> None:
    (split,) = table.scan(["id"]).splits()
    assert split.nbytes() == 50 * 8
    assert split.ranges[0] == RowRange(0, 0, 10)
    assert split.schema == table.scan(["id"]).schema


def _read_elsewhere(split: Split, table: vl.Table, ref: TableRef) -> tuple[int, int, int]:
    return sum(batch.num_rows for batch in split.to_batches()), table.version, ref.open().count()


def test_another_process_reads_splits_and_tables(table) -> None:
    (split,) = table.scan(["name"], "id > 25").splits()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(_read_elsewhere, (split, table, table.ref))
    assert found == (table.count("id > 25"), table.version, table.count())


def test_a_pickled_table_stays_movable_or_pinned(table) -> None:
    movable, pinned = pickle.loads(pickle.dumps((table, table.at(1))))
    table.append({"id": [100], "name": ["new"]})
    assert movable.count() == table.count() - 1
    assert movable.refresh().count() == table.count()
    assert movable.name == table.name
    with pytest.raises(vl.UnsupportedError, match="pinned to version 1"):
        pinned.append({"id": [101], "name": ["new"]})


def test_a_ref_names_a_branch(table) -> None:
    branch = table.branch("dev")
    branch.append({"id": [100], "name": ["new"]})
    assert branch.ref.branch == "dev"
    assert branch.ref.open().count("id = 100") == 1
    assert table.ref.open().count("id = 100") == 0


def test_a_ref_is_json(table) -> None:
    ref = table.ref
    assert msgspec.json.decode(msgspec.json.encode(ref), type=TableRef) == ref


def test_a_ref_hides_credentials(tmp_path) -> None:
    lake = vl.connect(tmp_path, storage_options={"aws_secret_access_key": "hush"})
    table = lake.create_table("items", {"id": [1]})
    assert dict(table.ref.storage_options) == {"aws_secret_access_key": "hush"}
    assert "hush" not in repr(table.ref)


def test_an_open_table_is_kept(table) -> None:
    assert table.ref.open() is table.ref.open()
    assert table.ref.open_head() is not table.ref.open_head()


def test_a_transaction_can_not_be_handed_on(table) -> None:
    with table.transaction() as tx:
        tx.delete("id = 1")
        with pytest.raises(vl.UnsupportedError, match="inside a transaction"):
            pickle.dumps(tx)
        with pytest.raises(vl.UnsupportedError, match="inside a transaction"):
            tx.scan().splits()


def test_an_expired_version_is_named(table) -> None:
    ref = table.at(1).ref
    with pytest.raises(vl.NotFoundError, match="99"):
        TableRef(ref.uri, 99).open()
