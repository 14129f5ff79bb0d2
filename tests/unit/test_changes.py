"""The change feed and the difference of two versions."""

from __future__ import annotations

import itertools

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vectorlake as vl

NUMBERS = itertools.count()
SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.int64()), ("s", pa.string())])


def make() -> vl.Table:
    lake = vl.connect(f"memory://changes-{next(NUMBERS)}")
    table = lake.create_table("t", SCHEMA, primary_key=["id"])
    table.append({"id": [0, 1, 2], "x": [0, 1, 2], "s": ["a", "b", "c"]})
    return table


def told(table: vl.Table, first: int, last: int | None = None, **wishes: str) -> list[tuple[object, ...]]:
    changes = table.changes(first, last, **wishes).to_arrow()  # type: ignore[arg-type]
    names = ["_change_type", "_commit_version", "id", "x"]
    return sorted((tuple(row.get(name) for name in names) for row in changes.to_pylist()), key=str)


@pytest.mark.parametrize("mode", ["rows", "columns"])
def test_each_kind_of_change(mode: str) -> None:
    table = make()
    table.update({"x": 10}, "id = 1", mode=mode)
    table.delete("id = 0")
    table.append({"id": [3], "x": [3]})
    table.compact()
    table.upsert({"id": [2, 4], "x": [20, 4]})
    each = [
        ("delete", 4, 0, 0), ("insert", 5, 3, 3), ("insert", 7, 4, 4),
        ("update_postimage", 3, 1, 10), ("update_postimage", 7, 2, 20),
        ("update_preimage", 3, 1, 1), ("update_preimage", 7, 2, 2),
    ]  # fmt: skip
    assert told(table, 2) == each
    assert told(table, 5, 6) == [], "a compaction changes nothing"
    net = told(table, 2, by="net")
    assert [(kind, key, x) for kind, _, key, x in net] == [(kind, key, x) for kind, _, key, x in each]
    assert told(table, 2, by="net") != told(table, 3, by="net")


@pytest.mark.parametrize("moved", [False, True], ids=["in place", "moved"])
def test_a_dropped_column_that_a_restore_brings_back_is_told(moved: bool) -> None:
    table = make()  # version 2
    table.append({"id": [3], "x": [None]})
    table.drop_column("x")  # version 4
    table.delete("id = 2")
    if moved:
        table.compact(deleted_share=0)
    table.append({"id": [9]})
    dropped = table.version
    table.restore(3)
    back = table.version
    came = [("update_postimage", back, 0, 0), ("update_postimage", back, 1, 1)]
    were = [("update_preimage", back, 0, None), ("update_preimage", back, 1, None)]
    others = [("delete", back, 9, None), ("insert", back, 2, 2)]
    assert told(table, dropped) == sorted([*came, *were, *others], key=str)
    third = [("update_postimage", back, 2, 2), ("update_preimage", back, 2, None)]
    assert told(table, 4, by="net") == sorted([*came, *were, *third], key=str)
    assert told(table, 3, by="net") == []
    went = [("update_postimage", 4, key, None) for key in range(3)]
    had = [("update_preimage", 4, key, key) for key in range(3)]
    assert told(table, 3, 4) == [], "its columns are those of version 4"
    between = [("delete", 5, 2, None), ("insert", dropped, 9, None)]
    assert told(table, 3) == sorted([*went, *had, *between, *came, *were, *others], key=str)


def test_a_value_that_was_replaced_by_the_same_is_no_change() -> None:
    table = make()
    table.update({"x": "x"}, mode="columns")
    table.update({"x": "x"}, mode="rows")
    assert told(table, 2) == []


def test_expired_versions_leave_the_net_change() -> None:
    table = make()
    table.append({"id": [5]})
    table.append({"id": [6]})
    table.expire_snapshots(older_than=None, versions=[3])
    with pytest.raises(vl.NotFoundError, match="net"):
        table.changes(2, 4).to_arrow()
    assert [key for _, _, key, _ in told(table, 2, by="net")] == [5, 6]


def test_diff_tells_rows_columns_properties_and_files() -> None:
    table = make()
    table.append({"id": [3], "x": [3]})
    table.delete("id = 0")
    table.update({"x": 9}, "id = 1")
    table.add_column("y", type=pa.float64())
    table.rename_column("s", "text")
    table.drop_column("x")
    table.set_properties({"owner": "me"})
    found = table.diff(2)
    assert (found.inserted_rows, found.deleted_rows) == (1, 1)
    assert (found.added_columns, found.dropped_columns) == (("y",), ("x",))
    assert found.renamed_columns == (("s", "text"),)
    assert found.properties == {"owner": "me"}
    assert found.added_files >= 1
    assert found.added_bytes > 0
    text = str(found)
    assert "1 rows inserted" in text
    assert "+ column y" in text
    assert "column s is now text" in text
    nothing = table.diff(table.version)
    assert (nothing.inserted_rows, nothing.added_files, nothing.properties) == (0, 0, {})
    with pytest.raises(vl.NotFoundError, match="no version 99"):
        table.diff(99)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["upsert", "delete", "update", "compact", "restore", "overwrite"]), st.integers(0, 9)
    ),
    max_size=8,
)


@settings(max_examples=30, deadline=None)
@given(STEPS)
def test_replaying_changes_gives_the_later_version(steps: list[tuple[str, int]]) -> None:
    table = make()
    for what, n in steps:
        match what:
            case "upsert":
                table.upsert({"id": [n, n + 1], "x": [n, -n]})
            case "delete":
                table.delete(f"id % 4 = {n % 4}")
            case "update":
                table.update({"x": "x + 1"}, f"id < {n}", mode="rows" if n % 2 else "columns")
            case "compact":
                table.compact(sort_by="x" if n % 2 else None)
            case "restore":
                table.restore(1 + n % table.version)
            case "overwrite":
                table.overwrite({"id": [n], "x": [n]})
    for by in ("commit", "net"):
        rows = {row["id"]: row for row in table.at(2).to_arrow().to_pylist()}
        for change in table.changes(2, by=by).to_arrow().to_pylist():
            values = {name: change[name] for name in SCHEMA.names}
            if change["_change_type"] in ("delete", "update_preimage"):
                assert rows.pop(change["id"]) == values
            else:
                assert change["id"] not in rows
                rows[change["id"]] = values
        assert rows == {row["id"]: row for row in table.to_arrow().to_pylist()}
