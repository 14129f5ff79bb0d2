"""Real processes on real stores: 8 of them append to one table, and every row is there once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.testing.s3 import S3Server

PROCESSES, APPENDS, ROWS = 8, 4, 5
SPAWN = multiprocessing.get_context("spawn")


def append_rows(uri: str, options: dict[str, str], worker: int, appends: int = APPENDS) -> None:
    table = vl.connect(uri, storage_options=options).table("ns.items")
    for step in range(appends):
        first = (worker * appends + step) * ROWS
        table.append({"id": list(range(first, first + ROWS)), "worker": [worker] * ROWS})


def check_appends(uri: str, options: dict[str, str]) -> None:
    lake = vl.connect(uri, storage_options=options)
    lake.create_table("ns.items", pa.schema([("id", pa.int64()), ("worker", pa.int64())]))
    workers = [SPAWN.Process(target=append_rows, args=(uri, options, worker)) for worker in range(PROCESSES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    table = lake.table("ns.items")
    total = PROCESSES * APPENDS * ROWS
    assert table.version == 1 + PROCESSES * APPENDS
    found = table.scan(with_row_id=True).to_arrow()
    assert sorted(found["id"].to_pylist()) == list(range(total))
    assert sorted(found["_row_id"].to_pylist()) == list(range(total))
    assert table.verify() == []


@pytest.mark.slow
def test_eight_processes_append_locally(tmp_path: Path) -> None:
    check_appends(str(tmp_path), {})


@pytest.mark.slow
@pytest.mark.s3
def test_eight_processes_append_to_s3(s3: S3Server) -> None:
    check_appends(s3.fresh_uri(), s3.storage_options)


@pytest.mark.slow
def test_killed_writers_leave_whole_versions_and_collectable_orphans(tmp_path: Path) -> None:
    import datetime as dt

    lake = vl.connect(tmp_path)
    lake.create_table("ns.items", pa.schema([("id", pa.int64()), ("worker", pa.int64())]))
    for round_number, pause in enumerate((0.0, 0.03, 0.11)):
        worker = SPAWN.Process(target=append_rows, args=(str(tmp_path), {}, round_number, 10_000))
        before = lake.table("ns.items").version
        worker.start()
        while lake.table("ns.items").version < before + 3:
            assert worker.is_alive()
            time.sleep(0.01)
        time.sleep(pause)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    table = lake.table("ns.items")
    ids = table.scan(columns=["id"]).to_arrow()["id"].to_pylist()
    assert len(ids) == len(set(ids)) == (table.version - 1) * ROWS
    assert table.verify() == []
    table.collect_orphans(older_than=dt.timedelta(seconds=-5))
    assert table.collect_orphans(older_than=dt.timedelta(seconds=-5), dry_run=True) == []
    assert lake.table("ns.items").verify() == []
