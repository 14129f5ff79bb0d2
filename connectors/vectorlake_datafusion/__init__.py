"""vectorlake in DataFusion: a lake as a catalog, nearest neighbours in SQL, and frames written into tables.

>>> import datafusion, vectorlake as vl, vectorlake_datafusion
>>> lake = vl.connect("memory://datafusion-doc")
>>> items = lake.create_table("ns.items", {"id": [1, 2], "vec": [[1.0, 0.0], [0.0, 1.0]]})
>>> ctx = datafusion.SessionContext()
>>> vectorlake_datafusion.attach(ctx, lake)
>>> ctx.sql("SELECT id FROM lake.ns.items WHERE id > 1").to_pydict()
{'id': [2]}
"""

from __future__ import annotations

from vectorlake import UnsupportedError

try:
    import datafusion  # noqa: F401
except ImportError as e:
    raise UnsupportedError(
        "vectorlake_datafusion needs DataFusion: pip install 'vectorlake[datafusion]'"
    ) from e

from vectorlake.extend import WriteMode
from vectorlake_datafusion._catalog import attach
from vectorlake_datafusion._functions import knn, knn_join, knn_udf
from vectorlake_datafusion._read import read
from vectorlake_datafusion._write import create_table, write

__all__ = ["WriteMode", "attach", "create_table", "knn", "knn_join", "knn_udf", "read", "write"]
