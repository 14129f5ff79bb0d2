"""vectorlake in polars: tables as lazy frames into which polars pushes its work, searches of frames, and writing.

>>> import polars as pl, vectorlake as vl, vectorlake_polars
>>> lake = vl.connect("memory://polars-doc")
>>> items = lake.create_table("ns.items", {"id": [1, 2, 3], "name": ["a", "b", "c"]})
>>> vectorlake_polars.scan_vectorlake(items).filter(pl.col("id") > 1).select("name").collect()["name"].to_list()
['b', 'c']
"""

from __future__ import annotations

from vectorlake import UnsupportedError

try:
    import polars  # noqa: F401
except ImportError as e:
    raise UnsupportedError("vectorlake_polars needs polars: pip install 'vectorlake[polars]'") from e

from vectorlake.extend import WriteMode
from vectorlake_polars._functions import knn, knn_join
from vectorlake_polars._read import scan_vectorlake
from vectorlake_polars._write import create_table, write

__all__ = ["WriteMode", "create_table", "knn", "knn_join", "scan_vectorlake", "write"]
