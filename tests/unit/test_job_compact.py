"""Compactions as jobs leave the table as `compact` does, and meet what others do in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vectorlake_jobs import compact

import vectorlake as vl
from vectorlake.errors import InvalidInputError, NotFoundError
from vectorlake.jobs import JobRun, Plan, executor_named

QUICK: dict[str, Any] = {"engine": "threads", "workers": 2}


@pytest.fixture
def table(tmp_path: Path) -> vl.Table:
    table = vl.connect(tmp_path / "lake").create_table("t", {"id": [0], "day": [7]}, primary_key=["id"])
    for n in range(1, 12):
        table.append({"id": [10 * n + i for i in range(10)], "day": [(3 * n + i) % 7 for i in range(10)]})
    table.delete("day = 2")
    return table


def contents(table: vl.Table) -> list[dict[str, Any]]:
    return table.scan(columns=["_row_id", "id", "day"]).to_arrow().sort_by("_row_id").to_pylist()


@pytest.mark.parametrize("wishes", [{}, {"target_rows": 30}, {"sort_by": [("day", "desc"), "id"]}], ids=str)
def test_as_the_table_does_it(table: vl.Table, wishes: dict[str, Any]) -> None:
    before = contents(table)
    plan = compact(table, dry_run=True, **wishes)
    assert isinstance(plan, Plan)
    done = compact(table, **wishes, **QUICK)
    assert isinstance(done, JobRun)
    assert done.executed == len(plan.stage.tasks)
    table.refresh()
    assert done.outcome["version"] == table.version
    assert contents(table) == before
    assert table.verify() == []
    twin = table.at(table.version - 1)
    other = vl.open_table(table.uri).restore(twin.version)
    assert other.version == table.version + 1
    again = vl.open_table(table.uri)
    again.compact(**wishes)
    assert again.to_arrow().select(["id", "day"]) == table.to_arrow().select(["id", "day"])
    assert len(again.fragments()) == len(table.fragments())


def test_nothing_to_do_commits_nothing(table: vl.Table) -> None:
    compact(table, **QUICK)
    version = table.refresh().version
    done = compact(table, **QUICK)
    assert isinstance(done, JobRun)
    assert (done.executed, done.outcome["version"]) == (0, version)
    assert table.refresh().version == version


def test_what_others_delete_meanwhile_stays_deleted(table: vl.Table) -> None:
    inner = executor_named("threads")

    class Changing:
        capacity, close = inner.capacity, inner.close

        @staticmethod
        def run(*args: Any, **kwargs: Any) -> Any:
            vl.open_table(table.uri).delete("id = 50")
            return inner.run(*args, **kwargs)

    compact(table, engine=Changing())
    assert table.refresh().snapshot.operation == "compact"
    assert 50 not in [row["id"] for row in contents(table)]
    assert table.verify() == []


def test_wrong_wishes_are_refused(table: vl.Table) -> None:
    with pytest.raises(NotFoundError, match="did you mean 'day'"):
        compact(table, sort_by="dya", **QUICK)
    with pytest.raises(InvalidInputError, match="target_rows must be"):
        compact(table, target_rows=0, **QUICK)
