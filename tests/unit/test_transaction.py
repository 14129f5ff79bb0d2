"""Transactions: several operations as one version, isolated until it is committed, refused when rows meet."""

from __future__ import annotations

import pyarrow as pa
import pytest

import vectorlake as vl

SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.int64())])


@pytest.fixture
def lake() -> vl.Lake:
    return vl.connect(f"memory://tx-{id(object())}")


@pytest.fixture
def table(lake: vl.Lake) -> vl.Table:
    lake.drop_table("t") if lake.exists("t") else None
    return lake.create_table("t", pa.table({"id": [0, 1, 2], "x": [5, 6, 7]}, schema=SCHEMA))


def rows(table: vl.Table) -> dict[int, int]:
    found = table.scan(columns=["id", "x"]).to_arrow()
    return dict(zip(found["id"].to_pylist(), found["x"].to_pylist(), strict=True))


def test_several_operations_make_one_version_and_see_each_other(lake: vl.Lake, table: vl.Table) -> None:
    with table.transaction() as tx:
        tx.append({"id": [3], "x": [8]})
        tx.delete("id = 0")
        assert rows(tx) == {1: 6, 2: 7, 3: 8}
        tx.delete("id = 3")
        tx.append({"id": [4], "x": [9]})
        tx.add_column("y", "x * 2")
        tx.rename_column("y", "z")
        assert rows(lake.table("t")) == {0: 5, 1: 6, 2: 7}, "nobody else sees it yet"
    assert table.version == 2
    assert rows(table) == {1: 6, 2: 7, 4: 9}
    assert lake.table("t").scan(columns=["z"]).to_arrow()["z"].to_pylist() == [12, 14, 18]
    snapshot = table.snapshot
    assert snapshot.operation == "transaction"
    assert snapshot.parent == 1
    assert snapshot.summary["operations"] == [
        "append", "delete", "delete", "append", "add-column", "rename-column",
    ]  # fmt: skip
    assert (snapshot.summary["added_rows"], snapshot.summary["deleted_rows"]) == (2, 2)
    assert table.verify() == []


def test_an_exception_leaves_the_table_as_it_was(table: vl.Table) -> None:
    def fail() -> None:
        with table.transaction() as tx:
            tx.append({"id": [3], "x": [8]})
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert table.refresh().version == 1


def test_an_empty_transaction_commits_nothing(table: vl.Table) -> None:
    with table.transaction():
        pass
    assert table.refresh().version == 1


def test_the_work_of_others_elsewhere_is_kept(lake: vl.Lake, table: vl.Table) -> None:
    other = lake.table("t")
    with table.transaction() as tx:
        tx.append({"id": [3, 4], "x": [8, 9]})
        tx.delete("id = 3 OR id = 0")  # rows of its own, whose fragment another writer's append will displace
        other.append({"id": [3, 10], "x": [1, 2]})
        other.delete("id = 1")
        other.set_properties({"owner": "me"})
    assert rows(table) == {2: 7, 4: 9, 10: 2}
    assert next(s.operation for s in table.history()) == "transaction"
    assert len(set(table.scan(columns=["_row_id"]).to_arrow()["_row_id"].to_pylist())) == 3
    assert table.properties["owner"] == "me"


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (lambda t: t.delete("id = 1"), lambda t: t.delete("id <= 1")),
        (lambda t: t.delete("id = 1"), lambda t: t.overwrite({"id": [1], "x": [1]})),
        (lambda t: t.add_column("y", type=pa.int64()), lambda t: t.add_column("y", type=pa.int64())),
        (lambda t: t.rename_column("x", "y"), lambda t: t.drop_column("x")),
        (lambda t: t.backfill_column("x", "1", rows="all"), lambda t: t.drop_column("x")),
        (
            lambda t: t.backfill_column("x", "1", rows="all"),
            lambda t: t.backfill_column("x", "2", rows="all"),
        ),
        (lambda t: t.set_properties({"a": "1"}), lambda t: t.set_properties({"a": "2"})),
    ],
)
def test_what_meets_is_refused_and_nothing_is_committed(lake: vl.Lake, table: vl.Table, mine, theirs) -> None:  # type: ignore[no-untyped-def]
    other = lake.table("t")

    def work() -> None:
        with table.transaction() as tx:
            tx.append({"id": [77], "x": [77]})
            mine(tx)
            theirs(other)

    with pytest.raises(vl.ConflictError, match=r"nothing was (committed|written)"):
        work()
    table.refresh()
    assert table.version == 2
    assert table.count("id = 77") == 0


def test_a_transaction_that_ended_refuses_more(table: vl.Table) -> None:
    with table.transaction() as tx:
        tx.append({"id": [3], "x": [8]})
    with pytest.raises(vl.InvalidInputError, match="has ended"):
        tx.append({"id": [4], "x": [8]})
    with table.transaction() as tx, pytest.raises(vl.UnsupportedError, match="don't nest"):
        tx.transaction()
