"""Heavy work on tables as jobs: cut into tasks, run on the engine that there is, resumed where it stopped, committed once.

>>> import vectorlake as vl, vectorlake_jobs
>>> lake = vl.connect("lake")  # doctest: +SKIP
>>> vectorlake_jobs.knn_join(None, lake.table("items"), lake=lake, into="pairs", k=10)  # doctest: +SKIP
"""

from __future__ import annotations

from vectorlake_jobs._backfill import backfill
from vectorlake_jobs._cluster import cluster
from vectorlake_jobs._compact import compact
from vectorlake_jobs._dedup import dedup
from vectorlake_jobs._fit import apply_model
from vectorlake_jobs._import import import_iceberg
from vectorlake_jobs._index import build_index, update_index
from vectorlake_jobs._knn_join import knn_join
from vectorlake_jobs._reduce import reduce

__all__ = [
    "apply_model",
    "backfill",
    "build_index",
    "cluster",
    "compact",
    "dedup",
    "import_iceberg",
    "knn_join",
    "reduce",
    "update_index",
]
