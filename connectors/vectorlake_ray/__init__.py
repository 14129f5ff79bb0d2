"""vectorlake in Ray: tables as datasources and datasinks, nearest neighbours as a step of a pipeline, computed columns."""

from __future__ import annotations

from vectorlake import UnsupportedError

try:
    import pandas  # noqa: F401  # Ray's writes need it
    import ray.data  # noqa: F401
except ImportError as e:
    raise UnsupportedError("vectorlake_ray needs Ray Data: pip install 'vectorlake[ray]'") from e

from vectorlake.extend import StageMode
from vectorlake_ray._columns import add_column, backfill_column, write_column
from vectorlake_ray._functions import knn, knn_join
from vectorlake_ray._read import TableDatasource, read, read_metadata
from vectorlake_ray._write import TableDatasink, create_table, write

__all__ = [
    "StageMode",
    "TableDatasink",
    "TableDatasource",
    "add_column",
    "backfill_column",
    "create_table",
    "knn",
    "knn_join",
    "read",
    "read_metadata",
    "write",
    "write_column",
]
