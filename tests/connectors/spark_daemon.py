"""Spark's Python daemon, which has imported what its workers need before it forks them.

Spark starts several workers for a query: one asks for the data source, others for its plan, its filters, its rows. Each
would import vectorlake by itself, which takes longer than what it is asked.
"""

from __future__ import annotations

import pyspark.sql.worker.analyze_udtf
import pyspark.sql.worker.create_data_source
import pyspark.sql.worker.data_source_pushdown_filters
import pyspark.sql.worker.plan_data_source_read
import pyspark.sql.worker.write_into_data_source
import pyspark.worker  # noqa: F401
import vectorlake_spark._source  # noqa: F401
from pyspark import daemon

if __name__ == "__main__":
    daemon.manager()
