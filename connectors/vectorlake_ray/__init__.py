"""vectorlake in Ray: tables as datasources and datasinks, nearest neighbours as a step of a pipeline, computed columns."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from vectorlake import UnsupportedError

if TYPE_CHECKING:
    from vectorlake.extend import StageMode
    from vectorlake_ray._columns import add_column, backfill_column, write_column
    from vectorlake_ray._functions import knn, knn_join
    from vectorlake_ray._read import TableDatasource, read, read_metadata
    from vectorlake_ray._write import TableDatasink, create_table, write

try:
    import ray  # noqa: F401

    _missing = find_spec("pandas") is None  # Ray's writes need it
except ImportError:
    _missing = True
if _missing:
    raise UnsupportedError("vectorlake_ray needs Ray Data: pip install 'vectorlake[ray]'")

_HOMES: Final = {
    "StageMode": "vectorlake.extend",
    "TableDatasink": "vectorlake_ray._write",
    "TableDatasource": "vectorlake_ray._read",
    "add_column": "vectorlake_ray._columns",
    "backfill_column": "vectorlake_ray._columns",
    "create_table": "vectorlake_ray._write",
    "knn": "vectorlake_ray._functions",
    "knn_join": "vectorlake_ray._functions",
    "read": "vectorlake_ray._read",
    "read_metadata": "vectorlake_ray._read",
    "write": "vectorlake_ray._write",
    "write_column": "vectorlake_ray._columns",
}


def __getattr__(name: str) -> Any:
    """Load Ray Data with what is first asked for (PEP 562): it takes a second, and actors do without."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


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
