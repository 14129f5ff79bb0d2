"""A Spark session that has all it needs: Java, the workers' Python, the format and the functions."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from pyspark.sql import SparkSession

from vectorlake_spark._catalog import register
from vectorlake_spark._java import use_java


def session(
    master: str | None = None, *, name: str = "vectorlake", config: Mapping[str, str] | None = None
) -> SparkSession:
    """The running Spark session, or a new one, with `register` done.

    Under `spark-submit` its settings hold. Else Java is looked for (`java_home`), and workers run this Python.

    Args:
        master: where to run, `"local[2]"` or a cluster's address; by default what is configured, else this machine.
        name: what Spark's interface calls the application.
        config: further settings of Spark's.

    Raises:
        UnsupportedError: there is no Java that Spark could start with; says how to get one.
    """
    running = SparkSession.getActiveSession()
    if running is None:
        # A JVM that started this process (spark-submit) is there already.
        if "PYSPARK_GATEWAY_PORT" not in os.environ:
            use_java()
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = SparkSession.builder.appName(name)
        if master is not None:
            builder = builder.master(master)
        for key, value in (config or {}).items():
            builder = builder.config(key, value)
        running = builder.getOrCreate()
    register(running)
    return running
