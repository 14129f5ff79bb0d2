"""vectorlake in Spark: tables as frames and in SQL, written by tasks and committed once, streamed, and searched.

Spark finds the format by itself where vectorlake is installed: `spark.read.format("vectorlake").load("lake/ns/items")`.
`register(spark)` adds the SQL functions `knn` and `knn_join`, and `session()` makes a session that has everything.
"""

from __future__ import annotations

try:
    import pyspark.sql.streaming.datasource  # noqa: F401  # new in the oldest release that this package works with
except ImportError as e:
    from vectorlake import UnsupportedError

    raise UnsupportedError("vectorlake_spark needs Spark 4.3: pip install 'vectorlake[spark]'") from e

from vectorlake.extend import WriteMode
from vectorlake_spark._catalog import attach, detach, register
from vectorlake_spark._frames import as_vector, create_table, knn, knn_join, read, upsert, write
from vectorlake_spark._java import java_home
from vectorlake_spark._session import session

__all__ = [
    "WriteMode",
    "as_vector",
    "attach",
    "create_table",
    "detach",
    "java_home",
    "knn",
    "knn_join",
    "read",
    "register",
    "session",
    "upsert",
    "write",
]
