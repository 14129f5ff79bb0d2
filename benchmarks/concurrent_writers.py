"""Eight processes append to one table at a time: does everything land, and how fast; against Lance and pyiceberg.

    python benchmarks/concurrent_writers.py [--writers 8] [--appends 100] [--rows 100] [--only ours,lance,pyiceberg] [--json F]

Each writer appends its batches one by one, as fast as it can; a failed append is tried again up to ten times by the
writer itself, where the library has not done so. Rows are counted afterwards. pyiceberg commits through a SQLite
catalog, and waits 0.1 s and more after each lost race: its share takes minutes (`--appends 25` for a look).
"""

from __future__ import annotations

import argparse
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

RETRIES = 10
SIDES = ("ours", "lance", "pyiceberg")


def batch(writer: int, number: int, rows: int) -> pa.Table:
    start = (writer * 1_000_000 + number) * 1_000
    ids = np.arange(start, start + rows)
    return pa.table({"id": ids, "name": pa.array([f"n{i}" for i in ids.tolist()]), "x": ids * 0.5})


def catalog(folder: Path):  # type: ignore[no-untyped-def]
    from pyiceberg.catalog.sql import SqlCatalog

    folder.mkdir(parents=True, exist_ok=True)
    return SqlCatalog("bench", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")


def create(side: str, folder: Path, rows: int) -> None:
    schema = batch(0, 0, rows).schema
    if side == "ours":
        import vectorlake as vl

        vl.connect(folder).create_table("items", schema)
    elif side == "lance":
        import lance

        lance.write_dataset(schema.empty_table(), str(folder / "items.lance"))
    else:
        made = catalog(folder)
        made.create_namespace("db")
        made.create_table("db.items", schema=schema)


def appender(side: str, folder: Path) -> Callable[[pa.Table], object]:
    if side == "ours":
        import vectorlake as vl

        return vl.connect(folder).table("items").append
    if side == "lance":
        import lance

        return lambda rows: lance.write_dataset(rows, str(folder / "items.lance"), mode="append")
    made = catalog(folder)
    return lambda rows: made.load_table("db.items").append(rows)


def count(side: str, folder: Path) -> int:
    if side == "ours":
        import vectorlake as vl

        table = vl.connect(folder).table("items")
        assert table.verify() == []
        return len(set(table.scan(columns=["id"]).to_arrow()["id"].to_pylist()))
    if side == "lance":
        import lance

        return int(lance.dataset(str(folder / "items.lance")).count_rows())
    return int(catalog(folder).load_table("db.items").scan().count())


def write(side: str, folder: Path, writer: int, appends: int, rows: int) -> dict[str, int]:
    append = appender(side, folder)
    batches = [batch(writer, number, rows) for number in range(appends)]
    (folder / f"ready-{writer}").touch()
    while not (folder / "go").exists():
        time.sleep(0.005)
    retried = lost = 0
    for part in batches:
        for attempt in range(RETRIES + 1):
            try:
                append(part)
                break
            except Exception:  # noqa: BLE001 - whatever a peer raises when it loses a race
                retried += 1
                lost += attempt == RETRIES
    return {"retried": retried, "lost": lost}


def run(side: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    create(side, folder, arguments.rows)
    folder.mkdir(parents=True, exist_ok=True)
    common = ["--folder", str(folder), "--appends", str(arguments.appends), "--rows", str(arguments.rows)]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--worker", f"{side}:{number}", *common],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        for number in range(arguments.writers)
    ]
    while len(list(folder.glob("ready-*"))) < arguments.writers:
        time.sleep(0.01)
    start = time.perf_counter()
    (folder / "go").touch()
    outputs = [process.communicate()[0] for process in processes]
    seconds = time.perf_counter() - start
    told = [json.loads(output.splitlines()[-1]) for output in outputs]
    expected = arguments.writers * arguments.appends * arguments.rows
    return {
        "seconds": seconds,
        "commits": arguments.writers * arguments.appends / seconds,
        "retried": sum(one["retried"] for one in told),
        "missing": expected - count(side, folder),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--appends", type=int, default=100)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--only", default=",".join(SIDES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        side, number = arguments.worker.split(":")
        print(json.dumps(write(side, arguments.folder, int(number), arguments.appends, arguments.rows)))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="vectorlake-bench-"))
    try:
        results = {side: run(side, folder / side, arguments) for side in arguments.only.split(",")}
    finally:
        shutil.rmtree(folder)
    title = f"{arguments.writers} processes × {arguments.appends} appends of {arguments.rows} rows, {len(os.sched_getaffinity(0))} cores"
    grid = Grid(title=title)
    for heading in ("", "time", "commits/s", "failed tries", "rows missing", "ours / theirs"):
        grid.add_column(heading, justify="right" if heading else "left")
    ours = results.get("ours")
    for side, found in results.items():
        ratio = f"{ours['commits'] / found['commits']:.1f}×" if ours and side != "ours" else ""
        grid.add_row(
            side,
            f"{found['seconds']:.1f} s",
            f"{found['commits']:.0f}",
            f"{found['retried']:.0f}",
            f"{found['missing']:,.0f}",
            ratio,
        )
    Console().print(grid)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    return 0 if ours is None or not ours["missing"] else 1


if __name__ == "__main__":
    sys.exit(main())
