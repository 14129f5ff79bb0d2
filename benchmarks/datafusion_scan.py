"""Tables of a lake in DataFusion against its own Parquet reader.

Run it with `python benchmarks/datafusion_scan.py [--rows 500000]`. Every number is the median of some runs; a ratio above
1 means that the lake is slower.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import datafusion
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import vectorlake_datafusion

import vectorlake as vl

SCANS = {
    "count(*)": "SELECT count(*) FROM {t}",
    "sum of a column": "SELECT sum(price) FROM {t}",
    "filter, 1 row": "SELECT name FROM {t} WHERE id = 123456",
    "filter, 1 %": "SELECT count(*), max(name) FROM {t} WHERE price > 0.99",
    "filter, 50 %": "SELECT count(*), sum(price) FROM {t} WHERE price > 0.5",
    "group by": "SELECT category, count(*), avg(price) FROM {t} GROUP BY category",
    "LIKE (not pushed)": "SELECT count(*) FROM {t} WHERE name LIKE '%99'",
    "first 100 rows": "SELECT * FROM {t} LIMIT 100",
    "vectors": "SELECT id, vec FROM {t} WHERE id % 2 = 0",
}


def rows(count: int) -> pa.Table:
    rng = np.random.default_rng(0)
    ids = np.arange(count)
    flat = pa.array(rng.standard_normal(count * 64, dtype="f4"))
    return pa.table(
        {
            "id": ids,
            "name": [f"item {i}" for i in ids],
            "category": rng.integers(0, 100, count).astype("i4"),
            "price": rng.random(count),
            "vec": pa.FixedSizeListArray.from_arrays(flat, 64),
        }
    )


def timed(run: Callable[[], object], *, times: int = 5) -> float:
    """Median milliseconds of a call, after one to warm up."""
    run()
    took = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        took.append((time.perf_counter() - start) * 1000)
    return statistics.median(took)


def check_same(ctx: datafusion.SessionContext, mine: str, peer: str) -> None:
    """As many rows, and the same numbers but for the order in which floats were added."""
    ours, theirs = (ctx.sql(sql).to_arrow_table() for sql in (mine, peer))
    assert ours.num_rows == theirs.num_rows, (ours.num_rows, theirs.num_rows)
    if ours.num_rows == 1:
        for a, b in zip(ours.to_pylist()[0].values(), theirs.to_pylist()[0].values(), strict=True):
            assert a == b or abs(a - b) < 1e-6 * abs(b), (a, b)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lake = vl.connect(Path(folder) / "lake")
        data = rows(arguments.rows)
        lake.create_table("bench.items", data)
        pq.write_table(data, f"{folder}/items.parquet", compression="zstd", row_group_size=65_536)
        ctx = datafusion.SessionContext()
        vectorlake_datafusion.attach(ctx, lake)
        ctx.register_parquet("native", f"{folder}/items.parquet")
        print(
            f"{arguments.rows:,} rows of 5 columns, against DataFusion's reader of one Parquet file (zstd, 64k-row groups)"
        )
        for name, sql in SCANS.items():
            mine, peer = sql.format(t="lake.bench.items"), sql.format(t="native")
            check_same(ctx, mine, peer)
            ours = timed(lambda q=mine: ctx.sql(q).collect())
            theirs = timed(lambda q=peer: ctx.sql(q).collect())
            print(
                f"{name:<20} lake {ours:9.1f} ms   Parquet {theirs:9.1f} ms   ratio {ours / theirs:6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
