"""Tables of a lake in Spark against Spark's own Parquet reader: the same rows and the same queries in one session.

    python benchmarks/spark_scan.py [--rows 200000] [--dimension 384] [--times 3] [--only filter]

Every number is the median of some runs after one to warm up; a ratio above 1 means that the lake is slower.
"""

from __future__ import annotations

from collections.abc import Callable

import vectorlake_spark
from _scan import compare, parsed, sources
from pyspark.sql import DataFrame


def everything(frame: DataFrame) -> None:
    """Compute all rows, and keep none."""
    frame.write.format("noop").mode("overwrite").save()


QUERIES: dict[str, Callable[[Callable[..., DataFrame]], object]] = {
    "all columns": lambda read: everything(read()),
    "scalars": lambda read: everything(read("id", "name", "price")),
    "sum of a column": lambda read: read("price").groupBy().sum().collect(),
    "filter, 1 %, all": lambda read: everything(read(filter="price > 0.99")),
    "filter, 1 row": lambda read: read("id", "name", filter="id = 12345").collect(),
}


def main() -> None:
    given = parsed(__doc__)
    with sources(given.rows, given.dimension) as made:
        config = {"spark.ui.enabled": "false", "spark.driver.memory": "2g", "spark.log.level": "ERROR"}
        spark = vectorlake_spark.session("local[2]", config=config)

        def lake(*columns: str, filter: str | None = None) -> DataFrame:
            return vectorlake_spark.read(spark, made.table, columns=list(columns) or None, filter=filter)

        def parquet(*columns: str, filter: str | None = None) -> DataFrame:
            frame = spark.read.parquet(str(made.parquet))
            frame = frame if filter is None else frame.where(filter)
            return frame.select(*columns) if columns else frame

        for name, run in QUERIES.items():
            if given.only in name:
                peers = {"Parquet": lambda run=run: run(parquet)}
                compare(name, lambda run=run: run(lake), peers, times=given.times)
        spark.stop()


if __name__ == "__main__":
    main()
