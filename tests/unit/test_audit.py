"""Each snapshot says who made it, what it did, and to how many rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import vectorlake as vl


def _rows(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary without its counts of fragments and files."""
    counts = ("added_fragments", "changed_fragments", "removed_fragments", "added_files", "added_bytes")
    return {key: value for key, value in summary.items() if key not in counts}


def test_every_snapshot_says_who_and_what(tmp_path: Path) -> None:
    lake = vl.connect(tmp_path, application="etl/2", principal="ann")
    table = lake.create_table("t", {"id": [1, 2], "x": [1, 2]}, primary_key=["id"])
    table.append({"id": [3], "x": [3]})
    table.upsert({"id": [3, 4], "x": [0, 0]})
    table.update({"x": 7}, "id = 1")
    with table.transaction() as tx:
        tx.delete("id = 1")
        tx.append({"id": [5], "x": [5]})
    table.branch("dev").delete("id = 2")
    table.fast_forward("dev")
    told = [(s.version, s.parent, s.operation, _rows(s.summary)) for s in reversed(table.history())]
    who = {"application": "etl/2", "principal": "ann"}
    assert told == [
        (1, None, "create", {**who, "added_rows": 2}),
        (2, 1, "append", {**who, "added_rows": 1}),
        (3, 2, "upsert", {**who, "updated_rows": 1, "added_rows": 1}),
        (4, 3, "update", {**who, "updated_rows": 1}),
        (
            5,
            4,
            "transaction",
            {**who, "operations": ["delete", "append"], "deleted_rows": 1, "added_rows": 1},
        ),
        (
            6,
            5,
            "fast-forward",
            {**who, "branch": "dev", "branch_version": 6, "commits": 1, "deleted_rows": 1},
        ),
    ]


def test_the_application_is_this_library_unless_it_says_otherwise() -> None:
    table = vl.connect("memory://audit").create_table("t", {"id": [1]})
    assert table.snapshot.application == f"vectorlake/{vl.__version__}"
    assert table.snapshot.principal is None
    assert "principal" not in table.snapshot.summary


@pytest.mark.parametrize("name", ["application", "principal"])
@pytest.mark.parametrize("value", ["", "  ", 7])
def test_nobody_is_no_principal(name: str, value: object) -> None:
    with pytest.raises(vl.InvalidInputError, match=name):
        vl.connect("memory://audit2", **{name: value})  # type: ignore[arg-type]
