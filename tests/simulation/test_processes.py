"""Real processes on real stores: 8 of them append to one table, and every row is there once."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.testing.s3 import S3Server

PROCESSES, APPENDS, ROWS = 8, 4, 5
KILLS = int(os.environ.get("VECTORLAKE_KILLS", "3"))
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["vectorlake.lake.lake", "vectorlake.table.table"])
"""Processes are forked off one that has imported what they need, and has done nothing yet."""


def append_rows(uri: str, options: dict[str, str], worker: int, appends: int = APPENDS) -> None:
    table = vl.connect(uri, storage_options=options).table("ns.items")
    for step in range(appends):
        first = (worker * appends + step) * ROWS
        table.append({"id": list(range(first, first + ROWS)), "worker": [worker] * ROWS})


def check_appends(uri: str, options: dict[str, str]) -> None:
    lake = vl.connect(uri, storage_options=options)
    lake.create_table("ns.items", pa.schema([("id", pa.int64()), ("worker", pa.int64())]))
    workers = [
        CONTEXT.Process(target=append_rows, args=(uri, options, worker)) for worker in range(PROCESSES)
    ]
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
    lake = vl.connect(tmp_path)
    lake.create_table("ns.items", pa.schema([("id", pa.int64()), ("worker", pa.int64())]))
    for round_number, pause in enumerate((0.0, 0.03, 0.11)):
        worker = CONTEXT.Process(target=append_rows, args=(str(tmp_path), {}, round_number, 10_000))
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


def work_until_killed(uri: str, options: dict[str, str], log: str, seed: int) -> None:
    """Upsert, delete, update and compact for ever; each upsert is told to a file before it begins and after it is done."""
    rng = random.Random(seed)
    table = vl.connect(uri, storage_options=options, principal=f"worker {seed}").table("ns.items")
    with open(log, "a", buffering=1) as told:
        while True:
            table.refresh()
            draw = rng.random()
            try:
                if draw < 0.7:
                    keys = rng.sample(range(40), 5)
                    stamp = rng.randrange(10**9)
                    told.write(f"intend {stamp}\n")
                    snapshot = table.upsert({"id": keys, "worker": [stamp] * len(keys)})
                    told.write(f"done {stamp} {snapshot.version}\n")
                elif draw < 0.85:
                    table.delete(f"id = {rng.randrange(40)}")
                else:
                    table.compact()
            except vl.ConflictError:
                continue


def upserts(logs: Path, what: str) -> list[list[str]]:
    """What workers have told of upserts that they `intend`, or of those that are `done`."""
    lines = [line for path in logs.glob("*.log") for line in path.read_text().splitlines(keepends=True)]
    return [words[1:] for line in lines if (words := line.split())[0] == what and line.endswith("\n")]


def await_upserts(logs: Path, count: int) -> None:
    until = time.monotonic() + 120
    while len(upserts(logs, "done")) < count:
        assert time.monotonic() < until, "nothing much is done"
        time.sleep(0.02)


def check_killed_workers(uri: str, options: dict[str, str], logs: Path, *, kills: int) -> None:
    lake = vl.connect(uri, storage_options=options)
    schema = pa.schema([("id", pa.int64()), ("worker", pa.int64())])
    lake.create_table("ns.items", schema, primary_key=["id"])
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)

    def start(number: int) -> Any:
        arguments = (uri, options, str(logs / f"{number % 3}.log"), seed + number)
        worker = CONTEXT.Process(target=work_until_killed, args=arguments)
        worker.start()
        return worker

    workers = [start(number) for number in range(3)]
    for number in range(3, 3 + kills):
        await_upserts(logs, 2 + len(upserts(logs, "done")))
        time.sleep(rng.uniform(0, 0.5))
        victim = workers.pop(rng.randrange(len(workers)))
        assert victim.is_alive(), "a worker died of something else"
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        workers.append(start(number))
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    intended = {int(stamp) for stamp, *_ in upserts(logs, "intend")}
    acknowledged = {int(stamp): int(version) for stamp, version in upserts(logs, "done")}
    table = lake.table("ns.items")
    assert table.verify() == [], "rows, ids and keys are there once, and all files"
    assert set(table.to_arrow()["worker"].to_pylist()) <= intended
    for stamp, version in acknowledged.items():
        assert table.at(version).count(f"worker = {stamp}") == 5, "an acknowledged upsert is not there"
    assert table.collect_orphans(older_than=dt.timedelta(seconds=-5)) is not None
    assert table.collect_orphans(older_than=dt.timedelta(seconds=-5), dry_run=True) == []
    assert lake.table("ns.items").verify() == []


@pytest.mark.slow
def test_killed_workers_lose_and_double_nothing_locally(tmp_path: Path) -> None:
    check_killed_workers(str(tmp_path / "lake"), {}, tmp_path, kills=KILLS)


@pytest.mark.slow
@pytest.mark.s3
def test_killed_workers_lose_and_double_nothing_on_s3(tmp_path: Path, s3: S3Server) -> None:
    check_killed_workers(s3.fresh_uri(), s3.storage_options, tmp_path, kills=KILLS)
