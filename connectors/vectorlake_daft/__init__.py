"""vectorlake in Daft: tables as data sources and sinks, a lake as a catalog in SQL, nearest neighbours as joins.

>>> import daft, vectorlake as vl, vectorlake_daft
>>> lake = vl.connect("memory://daft-doc")
>>> items = lake.create_table("ns.items", {"id": [1, 2], "vec": [[1.0, 0.0], [0.0, 1.0]]})
>>> vectorlake_daft.read(items).where(daft.col("id") > 1).to_pydict()["id"]
[2]
"""

from __future__ import annotations

from vectorlake import UnsupportedError

try:
    import daft  # noqa: F401
except ImportError as e:
    raise UnsupportedError("vectorlake_daft needs Daft: pip install 'vectorlake[daft]'") from e

from vectorlake.extend import StageMode
from vectorlake_daft._catalog import LakeCatalog, LakeTable, attach
from vectorlake_daft._functions import knn, knn_join
from vectorlake_daft._read import TableSource, read, read_metadata
from vectorlake_daft._write import TableSink, create_table, write

__all__ = [
    "LakeCatalog",
    "LakeTable",
    "StageMode",
    "TableSink",
    "TableSource",
    "attach",
    "create_table",
    "knn",
    "knn_join",
    "read",
    "read_metadata",
    "write",
]
