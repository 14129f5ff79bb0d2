"""vectorlake: a versioned table format and toolkit for vector data lakes, without a server.

>>> import vectorlake as vl
>>> lake = vl.connect("memory://")
>>> table = lake.create_table("items", {"id": [1, 2], "name": ["a", "b"]})
>>> table.count("id > 1")
1
"""

from __future__ import annotations

from vectorlake.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    OutcomeUnknownError,
    StorageError,
    UnsupportedError,
    VectorlakeError,
)
from vectorlake.lake.lake import Lake, connect, open_table
from vectorlake.metadata.snapshot import Snapshot, Tag
from vectorlake.schema import blob, geo, multivector, text, vector
from vectorlake.table.scan import Scan
from vectorlake.table.table import Table

__version__ = "0.1.0"

__all__ = [
    "AlreadyExistsError",
    "ConflictError",
    "CorruptDataError",
    "InvalidInputError",
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
