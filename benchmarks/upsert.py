"""Upsert 10,000 rows, half of them new, into 5,000,000 by primary key: time and memory, against Lance and pyiceberg.

    python benchmarks/upsert.py [--rows 5000000] [--changes 10000] [--rounds 3] [--only ours,lance,pyiceberg] [--json F]

Scalar columns; keys in random order, so that statistics say nothing about where a key is. Each side runs in a process of
its own on a table that was filled before and from which one row was read, with fresh keys each round; memory is how much
the process's peak grows over what it was before the first upsert. pyiceberg runs one round on the same data (`--iceberg-rows` for fewer).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table as Grid

STEP = 1_000_000
PEERS = ("lance", "pyiceberg")
MIB = 1 << 20


def peak_kib() -> int:
    """The most memory that this process has held, in KiB; `ru_maxrss` would count its parent's before `exec`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise OSError("this benchmark reads /proc/self/status, which is not here")


def ids(rows: int) -> np.ndarray:
    """Distinct keys in random order, all even: odd ones are new."""
    return np.random.default_rng(7).permutation(rows) * 2


def rows_of(keys: np.ndarray, tag: str) -> pa.Table:
    start = dt.datetime(2024, 1, 1)
    return pa.table(
        {
            "id": pa.array(keys, pa.int64()),
            "name": pa.array([f"{tag}-{key}" for key in keys.tolist()], pa.string()),
            "price": np.asarray(keys % 1000, np.float64) / 10,
            "score": np.asarray(keys % 77, np.float64),
            "at": pa.array([start] * len(keys), pa.timestamp("us")),
        }
    )


def changes(rows: int, count: int, turn: int) -> pa.Table:
    rng = np.random.default_rng(100 + turn)
    old = rng.choice(rows, count // 2, replace=False) * 2
    new = rng.choice(rows, count - count // 2, replace=False) * 2 + 1 + turn * 2 * rows
    keys = np.concatenate([old, new])
    return rows_of(rng.permutation(keys), f"new{turn}")


def fill(side: str, folder: Path, rows: int) -> None:
    keys = ids(rows)
    parts = (rows_of(keys[start : start + STEP], "old") for start in range(0, rows, STEP))
    if side == "ours":
        import vectorlake as vl

        table = vl.connect(folder).create_table("items", rows_of(keys[:0], "old").schema, primary_key=["id"])
        for part in parts:
            table.append(part)
    elif side == "lance":
        import lance

        for part in parts:
            lance.write_dataset(part, str(folder / "items.lance"), mode="append")
    else:
        catalog = iceberg(folder)
        catalog.create_namespace("db")
        for number, part in enumerate(parts):
            if not number:
                catalog.create_table("db.items", schema=part.schema)
            catalog.load_table("db.items").append(part)


def iceberg(folder: Path):  # type: ignore[no-untyped-def]
    from pyiceberg.catalog.sql import SqlCatalog

    folder.mkdir(parents=True, exist_ok=True)
    return SqlCatalog("bench", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")


def opened(side: str, folder: Path) -> tuple[Callable[[pa.Table], object], Callable[[], int]]:
    """What upserts a table of rows, and what counts all rows."""
    if side == "ours":
        import vectorlake as vl

        table = vl.connect(folder).table("items")
        table.head(1)
        return table.upsert, table.count
    if side == "lance":
        import lance

        def merge(rows: pa.Table) -> object:
            dataset = lance.dataset(str(folder / "items.lance"))
            builder = dataset.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            return builder.execute(rows)

        lance.dataset(str(folder / "items.lance")).head(1)
        return merge, lambda: lance.dataset(str(folder / "items.lance")).count_rows()
    items = iceberg(folder).load_table("db.items")
    items.scan(limit=1).to_arrow()
    return lambda rows: items.upsert(rows, join_cols=["id"]), lambda: items.scan().count()


def work(side: str, folder: Path, rows: int, count: int, rounds: int) -> dict[str, float]:
    upsert, total = opened(side, folder)
    prepared = [changes(rows, count, turn) for turn in range(rounds)]
    before = peak_kib()
    times = []
    for part in prepared:
        start = time.perf_counter()
        upsert(part)
        times.append(time.perf_counter() - start)
    after = peak_kib()
    assert total() == rows + rounds * (count - count // 2), "rows were lost or doubled"
    return {"seconds": min(times), "first": times[0], "mib": (after - before) * 1024 / MIB}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--changes", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iceberg-rows", type=int)
    parser.add_argument("--only", default="ours,lance,pyiceberg")
    parser.add_argument("--timeout", type=int, default=900, help="seconds a side may take")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        task, side = arguments.worker.split(":")
        if task == "fill":
            fill(side, arguments.folder, arguments.rows)
        else:
            found = work(side, arguments.folder, arguments.rows, arguments.changes, arguments.rounds)
            print(json.dumps(found))
        return 0
    results: dict[str, dict[str, float] | None] = {}
    folder = Path(tempfile.mkdtemp(prefix="vectorlake-bench-"))
    try:
        for side in arguments.only.split(","):
            rows, rounds = arguments.rows, arguments.rounds
            if side == "pyiceberg":
                rows, rounds = arguments.iceberg_rows or rows, 1
            results[side] = run(side, folder / side, rows, rounds, arguments)
    finally:
        shutil.rmtree(folder)
    report(results, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    ours = results.get("ours")
    behind = [
        peer
        for peer in PEERS
        if ours
        and (theirs := results.get(peer))
        and (ours["seconds"] > theirs["seconds"] or ours["mib"] > theirs["mib"])
    ]
    return 1 if behind else 0


def run(
    side: str, folder: Path, rows: int, rounds: int, arguments: argparse.Namespace
) -> dict[str, float] | None:
    for task in ("fill", "work"):
        command = [sys.executable, __file__, "--worker", f"{task}:{side}", "--folder", str(folder)]
        command += ["--rows", str(rows), "--changes", str(arguments.changes), "--rounds", str(rounds)]
        try:
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=arguments.timeout, env=os.environ
            )
        except subprocess.TimeoutExpired:
            print(f"{side} was stopped after {arguments.timeout} s", file=sys.stderr)
            return None
        except subprocess.CalledProcessError as e:
            print(f"{side} failed: {e.stderr[-500:]}", file=sys.stderr)
            return None
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "rows": rows}


def report(results: dict[str, dict[str, float] | None], arguments: argparse.Namespace) -> None:
    grid = Grid(title=f"upsert {arguments.changes:,} rows, half new, on {len(os.sched_getaffinity(0))} cores")
    for heading in ("", "rows", "best", "first", "peak growth", "time / ours", "memory / ours"):
        grid.add_column(heading, justify="right" if heading else "left")
    ours = results.get("ours")
    for side, found in results.items():
        if found is None:
            grid.add_row(side, "", "did not finish")
            continue
        ratios = (
            ("", "")
            if side == "ours" or not ours
            else (
                f"{found['seconds'] / ours['seconds']:.1f}×",
                f"{found['mib'] / max(ours['mib'], 1):.1f}×",
            )
        )
        times = (f"{found['seconds']:.3f} s", f"{found['first']:.3f} s")
        grid.add_row(side, f"{found['rows']:,.0f}", *times, f"{found['mib']:.0f} MiB", *ratios)
    Console().print(grid)


if __name__ == "__main__":
    sys.exit(main())
