"""One Spark session for all tests of a process: small, and quick to start."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pyspark = pytest.importorskip("pyspark", reason="pyspark is in the extra spark")

ROOT = Path(__file__).parents[2]
SUBMIT = Path(pyspark.__file__).parent / "bin" / "spark-submit"

CONFIG = {
    "spark.ui.enabled": "false",
    "spark.driver.memory": "1g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "OFF",
    "spark.python.daemon.module": "spark_daemon",
    # Java code for each query, compiled for a few rows, takes longer than it saves.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}


QUICK = {key: value for key, value in CONFIG.items() if key.startswith(("spark.sql.", "spark.ui."))}
"""What makes a script quick that starts a session of its own."""
SUBMITTED = [argument for key, value in QUICK.items() for argument in ("--conf", f"{key}={value}")]
"""The same for one that is given to `spark-submit`."""


def environment() -> dict[str, str]:
    """What `spark-submit` needs to run scripts with this Python and the sources."""
    places = [str(ROOT), str(ROOT / "connectors"), str(ROOT / "jobs")]
    quick = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(places),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "JDK_JAVA_OPTIONS": quick,
    }


@cache
def warehouse() -> Path:
    """Where Spark would put tables of its own."""
    folder = Path(tempfile.mkdtemp(prefix="vectorlake-spark-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def session(*, cores: int = 2) -> Any:
    """The session, with so many tasks at a time; a new one if somebody has stopped it. It ends with the process."""
    import vectorlake_spark

    config = {**CONFIG, "spark.sql.warehouse.dir": str(warehouse() / "warehouse")}
    with pytest.MonkeyPatch.context() as patch:
        # Of the JVM, and so of the daemon.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        return vectorlake_spark.session(f"local[{cores}]", config=config)
