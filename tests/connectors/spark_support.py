"""One Spark session for all tests of a process: small, and quick to start."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyspark", reason="pyspark is in the extra spark")

CONFIG = {
    "spark.ui.enabled": "false",
    "spark.driver.memory": "1g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "OFF",
}


@cache
def warehouse() -> Path:
    """Where Spark would put tables of its own."""
    folder = Path(tempfile.mkdtemp(prefix="vectorlake-spark-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def session() -> Any:
    """The session, with two tasks at a time; a new one if somebody has stopped it. It ends with the process."""
    import vectorlake_spark

    return vectorlake_spark.session(
        "local[2]", config={**CONFIG, "spark.sql.warehouse.dir": str(warehouse() / "warehouse")}
    )
