"""An engine that is not installed: its connector says which extra brings it."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import importlib, sys
from vectorlake import UnsupportedError
for line in sys.argv[1:]:
    connector, missing, extra = line.split()
    sys.modules[missing] = None
    try:
        importlib.import_module(connector)
    except UnsupportedError as e:
        if f"pip install 'vectorlake[{extra}]'" not in str(e):
            print(connector, "says", e)
    else:
        print(connector, "does without", missing)
"""

ENGINES = [
    "vectorlake_daft daft daft",
    "vectorlake_datafusion datafusion datafusion",
    "vectorlake_duckdb duckdb duckdb",
    "vectorlake_iceberg pyiceberg iceberg",
    "vectorlake_polars polars polars",
    "vectorlake_ray ray ray",
    "vectorlake_spark pyspark spark",
    "vectorlake_torch torch torch",
]


def test_the_extra_is_named() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, *ENGINES], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stdout + ran.stderr


def test_pandas_is_named_too() -> None:
    pytest.importorskip("pandas")
    script = """
import sys
import numpy as np
import vectorlake as vl
class WithoutPandas:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, WithoutPandas())
items = vl.connect("memory://no-pandas").create_table("items", {"vec": np.ones((2, 2), "f4")}).search([0.0, 1.0])
try:
    items.to_pandas()
except vl.UnsupportedError as e:
    assert "pip install 'vectorlake[pandas]'" in str(e), e
else:
    raise AssertionError
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
