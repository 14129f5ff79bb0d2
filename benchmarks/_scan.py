"""What benchmarks of scans share: the same rows as a table, as Parquet files and as a Lance dataset, and ratios of medians."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import vectorlake as vl

PARTS = 4
"""Parquet files, each with row groups of 65,536 rows or fewer: engines read files or groups side by side."""


@dataclass(frozen=True)
class Sources:
    """The same rows three times."""

    lake: vl.Lake
    table: vl.Table
    parquet: Path
    lance: Path
    """A folder that holds a dataset once `write_lance` was called."""

    def write_lance(self) -> str:
        """The Lance dataset, written at the first call."""
        import lance

        if not self.lance.exists():
            lance.write_dataset(self.table.to_arrow(), str(self.lance))
        return str(self.lance)


def options(doc: str) -> argparse.ArgumentParser:
    """The options that all of them take."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=200_000)
    options.add_argument("--dimension", type=int, default=384)
    options.add_argument("--times", type=int, default=3, help="runs of which the median counts")
    options.add_argument("--only", default="", help="queries whose names hold this")
    return options


def parsed(doc: str) -> argparse.Namespace:
    """What was given."""
    return options(doc).parse_args()


def rows(count: int, dimension: int) -> pa.Table:
    """An id, a name, a category of 100, a price in [0, 1), and a vector of float32."""
    rng = np.random.default_rng(0)
    ids = np.arange(count)
    flat = pa.array(rng.standard_normal(count * dimension, dtype="f4"))
    return pa.table(
        {
            "id": ids,
            "name": [f"item {i}" for i in ids],
            "category": rng.integers(0, 100, count).astype("i4"),
            "price": rng.random(count),
            "vec": pa.FixedSizeListArray.from_arrays(flat, dimension),
        }
    )


@contextmanager
def sources(count: int, dimension: int) -> Iterator[Sources]:
    """Rows in a folder that goes again."""
    with tempfile.TemporaryDirectory(prefix="vectorlake-scan-") as name:
        folder = Path(name)
        data = rows(count, dimension)
        lake = vl.connect(folder / "lake")
        table = lake.create_table("bench.items", data)
        (folder / "parquet").mkdir()
        each = -(-count // PARTS)
        for part in range(PARTS):
            piece = data.slice(part * each, each)
            pq.write_table(
                piece, folder / "parquet" / f"{part}.parquet", compression="zstd", row_group_size=65_536
            )
        print(
            f"{count:,} rows with a vector of {dimension} numbers, {PARTS} Parquet files (zstd, 64k-row groups)",
            flush=True,
        )
        yield Sources(lake, table, folder / "parquet", folder / "lance")


def timed(run: Callable[[], object], *, times: int) -> float:
    """Median milliseconds of a call, after one to warm up."""
    run()
    took = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        took.append((time.perf_counter() - start) * 1000)
    return statistics.median(took)


def compare(
    name: str, ours: Callable[[], object], peers: Mapping[str, Callable[[], object]], *, times: int
) -> None:
    """Print what a query takes here and by each peer; a ratio above 1 means that the lake is slower."""
    mine = timed(ours, times=times)
    line = f"{name:<24} lake {mine:9.1f} ms"
    for peer, run in peers.items():
        theirs = timed(run, times=times)
        line += f"   {peer} {theirs:9.1f} ms   ratio {mine / theirs:6.2f}"
    print(line, flush=True)
