"""Backfills as jobs: what is computed, what is skipped, how functions are named, and what others do meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from plain_functions import Embedder, doubled
from vectorlake_jobs import backfill

import vectorlake as vl
from vectorlake.errors import InvalidInputError, NotFoundError
from vectorlake.jobs import JobFailedError, JobRun, Plan, executor_named

QUICK: dict[str, Any] = {"engine": "threads", "workers": 2}


@pytest.fixture
def table(tmp_path: Path) -> vl.Table:
    table = vl.connect(tmp_path / "lake").create_table("t", {"id": list(range(100)), "other": ["x"] * 100})
    table.append({"id": list(range(100, 150)), "other": ["y"] * 50})
    table.delete("id % 7 = 3")
    return table


def values(table: vl.Table, column: str) -> dict[int, Any]:
    rows = table.refresh().scan(columns=["id", column]).to_arrow()
    return dict(zip(rows.column("id").to_pylist(), rows.column(column).to_pylist(), strict=True))


@pytest.mark.parametrize(
    "how",
    [
        {"function": doubled},
        {"function": "plain_functions:doubled"},
        {"sql": "id * 2"},
        {"function": lambda b: doubled(b)},
    ],
    ids=["object", "path", "sql", "lambda"],
)
def test_a_new_column(table: vl.Table, how: dict[str, Any]) -> None:
    done = backfill(table, "twice", type=pa.int64(), task_rows=30, batch_size=8, **how, **QUICK)
    assert isinstance(done, JobRun)
    assert done.executed == 4 + 2 + 2
    assert values(table, "twice") == {n: 2 * n for n in range(150) if n % 7 != 3}
    assert done.outcome == {"table": "main.t", "version": 4, "column": "twice", "values": 129}
    summary = table.snapshot.summary
    assert summary["job"] == done.job_id
    assert summary["function"] == how.get("sql") or summary["function_hash"]


def test_rows_that_are_done_are_skipped(table: vl.Table, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    backfill(table, "vec", "plain_functions:Embedder", arguments={"size": 2}, type=vl.vector(2), **QUICK)
    table.refresh().append({"id": [500, 501]})
    arguments = {"size": 2, "marks": str(marks)}
    done = backfill(table, "vec", Embedder, arguments=arguments, **QUICK)
    assert isinstance(done, JobRun)
    assert done.outcome["values"] == 2
    assert [path.name.rsplit("-", 2)[0] for path in marks.glob("call-*")] == ["call-500"]
    assert values(table, "vec")[501] == [501.0, 501.0]
    everything = backfill(table.refresh(), "vec", Embedder, arguments=arguments, rows="all", **QUICK)
    assert isinstance(everything, JobRun)
    assert everything.outcome["values"] == 131


def test_local_workers_are_where_the_driver_is_and_draw_numbers_of_their_own(
    table: vl.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    pids: set[str] = set()
    for turn in ("first", "second"):
        monkeypatch.setenv("OF_THE_DRIVER", turn)
        (tmp_path / turn).mkdir()
        monkeypatch.chdir(tmp_path / turn)
        how: dict[str, Any] = {"type": pa.string(), "task_rows": 30, "engine": "local", "workers": 2}
        backfill(table.refresh(), turn, "plain_functions:circumstances", **how)
        found = [told.split(" ") for told in set(values(table, turn).values())]
        assert {(variable, folder) for _, variable, folder, *_ in found} == {(turn, str(tmp_path / turn))}
        pids |= {pid for pid, *_ in found}
        drawn += [number for _, _, _, *numbers in found for number in numbers]
    assert len(pids) >= 2
    assert len(drawn) == len(set(drawn)) == 2 * 2 * 6


def test_a_class_is_made_once_for_each_worker(table: vl.Table, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    arguments = {"size": 2, "marks": str(marks)}
    backfill(
        table, "vec", Embedder, arguments=arguments, type=vl.vector(2), task_rows=10, batch_size=5, workers=2
    )
    assert 1 <= len(list(marks.glob("made-*"))) <= 2
    assert len(list(marks.glob("call-*"))) == 30


def test_a_file_of_functions(table: vl.Table, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def f(batch):\n    return batch.column('id')\n")
    first = backfill(table, "same", f"{file}:f", type=pa.int64(), job_id="j", **QUICK)
    assert isinstance(first, JobRun)
    assert values(table, "same")[5] == 5
    assert table.snapshot.summary["function"] == "mine.py:f"
    file.write_text("def f(batch):\n    return [1] * batch.num_rows\n")
    with pytest.raises(InvalidInputError, match=r"function.hash \(was"):
        backfill(table.at(3), "same", f"{file}:f", type=pa.int64(), job_id="j", **QUICK)


@pytest.mark.parametrize(
    ("function", "kind", "told"),
    [
        ("short", InvalidInputError, "row ids 0 to 8: the function was given 8 rows and returned 7 values"),
        ("words", InvalidInputError, "row ids 0 to 8"),
        ("unlucky", JobFailedError, r"ConnectionError: no answer.*row ids \d+ to \d+"),
    ],
)
def test_a_function_that_misbehaves_is_told_with_its_rows(
    table: vl.Table, function: str, kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        backfill(
            table,
            "new",
            f"plain_functions:{function}",
            type=pa.int64(),
            batch_size=9,
            retries=0,
            engine="threads",
            workers=1,
        )
    assert table.refresh().version == 3
    assert "new" not in table.schema.names


@pytest.mark.parametrize(
    ("wishes", "kind", "told"),
    [
        ({}, InvalidInputError, "by a function or sql="),
        (
            {"function": "plain_functions:doubble", "type": pa.int64()},
            NotFoundError,
            "did you mean 'doubled'",
        ),
        ({"function": "doubled", "type": pa.int64()}, InvalidInputError, "module:function"),
        ({"function": 7, "type": pa.int64()}, InvalidInputError, "can be called"),
        ({"function": doubled}, InvalidInputError, "no column 'new'"),
        ({"function": doubled, "type": pa.int64(), "arguments": {"a": 1}}, InvalidInputError, "for a class"),
        ({"function": doubled, "type": pa.int64(), "inputs": ["idd"]}, NotFoundError, "did you mean 'id'"),
        ({"function": doubled, "type": pa.int64(), "rows": "some"}, InvalidInputError, "'missing' or 'all'"),
        ({"function": doubled, "type": pa.int64(), "task_rows": 0}, InvalidInputError, "task_rows must be"),
    ],
)
def test_wrong_wishes_are_refused(
    table: vl.Table, wishes: dict[str, Any], kind: type[Exception], told: str
) -> None:
    if "rows" in wishes:
        wishes = {**wishes, "type": None}
        table.add_column("new", type=pa.int64())
    with pytest.raises(kind, match=told):
        backfill(table, "new", **wishes, **QUICK)


def test_what_holds_a_lock_cannot_be_sent(table: vl.Table) -> None:
    lock = threading.Lock()

    def locked(batch: pa.RecordBatch) -> Any:
        with lock:
            return batch.column("id")

    with pytest.raises(InvalidInputError, match="can't be sent to a worker"):
        backfill(table, "new", locked, type=pa.int64(), **QUICK)


def _then(change: Callable[[], object]) -> Any:
    """An executor that lets somebody change the table once the plan is made."""
    inner = executor_named("threads")

    class Changing:
        changed = False
        capacity, close = inner.capacity, inner.close

        def run(self, *args: Any, **kwargs: Any) -> Any:
            if not self.changed:
                self.changed = True
                change()
            return inner.run(*args, **kwargs)

    return Changing()


@pytest.mark.parametrize("event", ["append", "compact", "delete", "update"])
def test_what_others_do_meanwhile_is_survived(table: vl.Table, event: str) -> None:
    table.add_column("twice", type=pa.int64())
    other = vl.open_table(table.uri)
    changes: dict[str, Callable[[], object]] = {
        "append": lambda: other.append({"id": [900]}),
        "compact": lambda: other.compact(),
        "delete": lambda: other.delete("id < 50"),
        "update": lambda: other.update({"id": "id + 1000"}, "id = 10"),
    }
    done = backfill(table, "twice", doubled, inputs=["id"], engine=_then(changes[event]), workers=2)
    assert isinstance(done, JobRun)
    found = values(table, "twice")
    assert all(value == 2 * n for n, value in found.items() if n < 900)
    assert found.get(900, None) is None, "left for the next backfill"
    assert table.snapshot.summary["job"] == done.job_id


def test_a_dry_run(table: vl.Table) -> None:
    plan = backfill(table, "twice", doubled, type=pa.int64(), inputs=["id"], task_rows=60, dry_run=True)
    assert isinstance(plan, Plan)
    assert str(plan) == "3 tasks (compute), 150 rows, 1,200 bytes; reads written at version 3"
