"""vectorlake: a versioned table format and toolkit for vector data lakes, without a server.

>>> import vectorlake as vl
>>> lake = vl.connect("memory://")
>>> table = lake.create_table("items", {"id": [1, 2], "name": ["a", "b"]})
>>> table.count("id > 1")
1
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vectorlake.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    JobStoppedError,
    NotFoundError,
    OutcomeUnknownError,
    StorageError,
    UnsupportedError,
    VectorlakeError,
)

if TYPE_CHECKING:
    from vectorlake.lake.lake import Lake, connect, open_table
    from vectorlake.metadata.snapshot import Snapshot, Tag
    from vectorlake.schema import blob, geo, multivector, text, vector
    from vectorlake.table.scan import Scan
    from vectorlake.table.table import Table

__version__ = "0.1.0"

_HOMES = {
    "Lake": "vectorlake.lake.lake",
    "Scan": "vectorlake.table.scan",
    "Snapshot": "vectorlake.metadata.snapshot",
    "Table": "vectorlake.table.table",
    "Tag": "vectorlake.metadata.snapshot",
    "blob": "vectorlake.schema",
    "connect": "vectorlake.lake.lake",
    "geo": "vectorlake.schema",
    "multivector": "vectorlake.schema",
    "open_table": "vectorlake.lake.lake",
    "text": "vectorlake.schema",
    "vector": "vectorlake.schema",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is asked for (PEP 562): `vectorlake --help` should not wait for pyarrow."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


__all__ = [
    "AlreadyExistsError",
    "ConflictError",
    "CorruptDataError",
    "InvalidInputError",
    "JobStoppedError",
    "Lake",
    "NotFoundError",
    "OutcomeUnknownError",
    "Scan",
    "Snapshot",
    "StorageError",
    "Table",
    "Tag",
    "UnsupportedError",
    "VectorlakeError",
    "blob",
    "connect",
    "geo",
    "multivector",
    "open_table",
    "text",
    "vector",
]
