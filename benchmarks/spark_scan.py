"""Tables of a lake in Spark against Spark's own Parquet reader: the same rows and the same queries in one session.

Run it with `python benchmarks/spark_scan.py [--rows 300000] [--dimension 128]`. Every number is the median of some runs after
one to warm up; a ratio above 1 means that the lake is slower.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import vectorlake_spark
from pyspark.sql import DataFrame

import vectorlake as vl


def rows(count: int, dimension: int) -> pa.Table:
    rng = np.random.default_rng(0)
    vectors = pa.array(rng.standard_normal(count * dimension).astype("f4"))
    return pa.table(
        {
            "id": np.arange(count),
            "name": [f"item {i}" for i in range(count)],
            "price": rng.random(count),
            "vec": pa.FixedSizeListArray.from_arrays(vectors, dimension),
        }
    )


def timed(run: Callable[[], object], *, times: int) -> float:
    """Median seconds of a call, after one to warm up."""
    run()
    took = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def everything(frame: DataFrame) -> None:
    frame.write.format("noop").mode("overwrite").save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--times", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = {"spark.ui.enabled": "false", "spark.driver.memory": "2g", "spark.log.level": "ERROR"}
        spark = vectorlake_spark.session("local[2]", config=config)
        table = vl.connect(Path(folder) / "lake").create_table(
            "bench.items", rows(arguments.rows, arguments.dimension)
        )
        parquet = f"{folder}/parquet"
        vectorlake_spark.read(spark, table).write.parquet(parquet)

        def lake(*columns: str, filter: str | None = None) -> DataFrame:
            return vectorlake_spark.read(spark, table, columns=list(columns) or None, filter=filter)

        def peer(*columns: str, filter: str | None = None) -> DataFrame:
            frame = spark.read.parquet(parquet)
            frame = frame if filter is None else frame.where(filter)
            return frame.select(*columns) if columns else frame

        print(
            f"{arguments.rows:,} rows with a vector of {arguments.dimension} numbers, 2 tasks, Spark {spark.version}"
        )
        for name, run in {
            "all columns": lambda read: everything(read()),
            "scalars": lambda read: everything(read("id", "name", "price")),
            "sum of a column": lambda read: read("price").groupBy().sum().collect(),
            "filter, 1 %, all columns": lambda read: everything(read(filter="price > 0.99")),
            "filter, 1 row": lambda read: read("id", "name", filter="id = 12345").collect(),
        }.items():
            ours, theirs = (
                timed(lambda run=run, read=read: run(read), times=arguments.times) for read in (lake, peer)
            )
            print(
                f"{name:<26} lake {ours:7.3f} s   Parquet {theirs:7.3f} s   ratio {ours / theirs:6.2f}",
                flush=True,
            )
        spark.stop()


if __name__ == "__main__":
    main()
