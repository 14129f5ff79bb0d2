"""Compact 10,000 small files into few: rows a second, against Lance's `compact_files` on the same rows.

    python benchmarks/compaction.py [--files 10000] [--rows 100] [--json results.json]

Each file holds a few scalars and a vector of 16 numbers. Each side compacts its own table once, in a process that has
done nothing else; both keep row ids stable (Lance with `enable_stable_row_ids`).
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
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table as Grid


def part(index: int, rows: int) -> pa.Table:
    ids = np.arange(index * rows, (index + 1) * rows)
    vectors = (ids[:, None] % np.arange(1, 17)).astype(np.float32)
    return pa.table(
        {
            "id": ids,
            "name": pa.array([f"row {i}" for i in ids.tolist()]),
            "price": ids * 0.25,
            "vec": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 16),
        }
    )


def fill(side: str, folder: Path, files: int, rows: int) -> None:
    if side == "ours":
        import vectorlake as vl
        from vectorlake.extend import Delta, random_id, schema_from_arrow, write_fragments

        schema, _ = schema_from_arrow(part(0, rows).schema)
        table = vl.connect(folder).create_table("items", part(0, rows).schema)
        fragments = []
        for index in range(files):
            batch = part(index, rows).combine_chunks().to_batches()[0]
            fragments += write_fragments(table.store, [batch], schema.fields, properties={}, new_id=random_id)
        table.commit(lambda head: Delta("append", added=tuple(fragments)))
        return
    import lance
    from lance.fragment import LanceFragment

    uri = str(folder / "items.lance")
    lance.write_dataset(part(0, rows).slice(0, 0), uri, enable_stable_row_ids=True)
    written = [LanceFragment.create(uri, part(index, rows)) for index in range(files)]
    lance.LanceDataset.commit(uri, lance.LanceOperation.Append(written), read_version=1)


def compact(side: str, folder: Path) -> dict[str, float]:
    if side == "ours":
        import vectorlake as vl

        table = vl.connect(folder).table("items")
        start = time.perf_counter()
        table.compact()
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "rows": table.count(), "files": table.snapshot.num_fragments}
    import lance

    dataset = lance.dataset(str(folder / "items.lance"))
    start = time.perf_counter()
    dataset.optimize.compact_files()
    seconds = time.perf_counter() - start
    dataset = lance.dataset(str(folder / "items.lance"))
    return {"seconds": seconds, "rows": dataset.count_rows(), "files": len(dataset.get_fragments())}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=100, help="rows a file")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        task, side = arguments.worker.split(":")
        if task == "fill":
            fill(side, arguments.folder, arguments.files, arguments.rows)
        else:
            print(json.dumps(compact(side, arguments.folder)))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="vectorlake-bench-"))
    results: dict[str, dict[str, float]] = {}
    try:
        for side in ("ours", "lance"):
            for task in ("fill", "compact"):
                command = [
                    sys.executable,
                    __file__,
                    "--worker",
                    f"{task}:{side}",
                    "--folder",
                    str(folder / side),
                ]
                command += ["--files", str(arguments.files), "--rows", str(arguments.rows)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[side] = json.loads(done.stdout.splitlines()[-1])
    finally:
        shutil.rmtree(folder)
    total = arguments.files * arguments.rows
    assert all(found["rows"] == total for found in results.values()), "rows were lost or doubled"
    grid = Grid(
        title=f"compact {arguments.files:,} files of {arguments.rows} rows, {len(os.sched_getaffinity(0))} cores"
    )
    for heading in ("", "time", "rows/s", "files left", "ours / theirs"):
        grid.add_column(heading, justify="right" if heading else "left")
    for side, found in results.items():
        ratio = "" if side == "ours" else f"{found['seconds'] / results['ours']['seconds']:.1f}×"
        grid.add_row(
            side,
            f"{found['seconds']:.2f} s",
            f"{total / found['seconds']:,.0f}",
            f"{found['files']:.0f}",
            ratio,
        )
    Console().print(grid)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    return 0 if results["ours"]["seconds"] <= results["lance"]["seconds"] else 1


if __name__ == "__main__":
    sys.exit(main())
