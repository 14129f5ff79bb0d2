"""Index builds in processes of their own: killed ones leave nothing visible, and memory stays within what was allowed."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl

SPAWN = multiprocessing.get_context("spawn")
MIB = 1 << 20


def make_table(folder: Path, rows: int, dimension: int) -> vl.Table:
    kind = vl.vector(dimension)
    table = vl.connect(folder).create_table("ns.items", pa.schema([("id", pa.int64()), ("vec", kind)]))
    rng = np.random.default_rng(7)
    for first in range(0, rows, 20_000):
        count = min(20_000, rows - first)
        vectors = rng.standard_normal(count * dimension, np.float32)
        array = pa.FixedSizeListArray.from_arrays(pa.array(vectors), dimension)
        table.append(pa.table({"id": np.arange(first, first + count), "vec": array.cast(kind)}))
    return table


def build_for_ever(uri: str, pause: float) -> None:
    """Create and drop an index again and again; `pause` lengthens the time between writing and committing."""
    table = vl.connect(uri).table("ns.items")
    while True:
        table.create_index("vec", "flat", segment_rows=500, progress=lambda done, total: time.sleep(pause))
        table.drop_index("vec_flat")


@pytest.mark.slow
def test_killed_builds_leave_nothing_visible(tmp_path: Path) -> None:
    table = make_table(tmp_path, 2000, 16)
    for pause in (0.0, 0.01, 0.03):
        worker = SPAWN.Process(target=build_for_ever, args=(str(tmp_path), pause))
        worker.start()
        began = time.monotonic()
        while len(list((tmp_path / "ns" / "items").glob("index/*"))) < 2 and time.monotonic() < began + 60:
            assert worker.is_alive()
            time.sleep(0.002)
        time.sleep(pause)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        table = vl.connect(tmp_path).table("ns.items")
        assert table.verify() == []
        assert all(len(info.segments) == 4 and not info.faults for info in table.indexes())
        for info in table.indexes():
            table.drop_index(info.name)
    table.expire_snapshots(older_than=None)
    table.collect_orphans(older_than=dt.timedelta(seconds=-5))
    # A folder in which a file was staged may stay, empty: stores know no folders.
    assert [path for path in (tmp_path / "ns" / "items").glob("index/**/*") if path.is_file()] == []
    table.create_index("vec", "flat")
    assert table.describe_index("vec_flat").covered_rows == 2000


def own_memory() -> int:
    """Bytes of memory of this process that are no file's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise AssertionError


def build_measured(uri: str, kind: str, limit: int, answers: Any) -> None:
    table = vl.connect(uri).table("ns.items")
    small = vl.connect(uri).table("ns.small")
    small.create_index("vec", kind, name="first", threads=2)  # loads libraries and compiles
    most, done, before = 0, threading.Event(), own_memory()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.002):
            most = max(most, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    table.create_index("vec", kind, memory_limit=limit, threads=2, name="measured")
    done.set()
    watcher.join()
    answers.put(most - before)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc how much memory is used")
@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_builds_stay_within_their_memory(tmp_path: Path, kind: str) -> None:
    make_table(tmp_path, 100_000, 384)
    small = np.random.default_rng(1).standard_normal(3000 * 384, np.float32)
    array = pa.FixedSizeListArray.from_arrays(pa.array(small), 384).cast(vl.vector(384))
    vl.connect(tmp_path).create_table("ns.small", pa.table({"vec": array}))
    answers = SPAWN.Queue()
    worker = SPAWN.Process(target=build_measured, args=(str(tmp_path), kind, 256 * MIB, answers))
    worker.start()
    used = answers.get(timeout=240)
    worker.join()
    table = vl.connect(tmp_path).table("ns.items")
    info = table.describe_index("measured")
    assert info.covered_rows == 100_000
    assert used < 256 * MIB, f"{used / MIB:.0f} MiB for {len(info.segments)} segments"
    print(f"{kind}: {used / MIB:.0f} MiB, {len(info.segments)} segments, {info.bytes / MIB:.0f} MiB on disk")
