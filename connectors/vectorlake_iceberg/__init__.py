"""Iceberg tables in a vector lake: imported without copying a byte, and followed as they change.

>>> import vectorlake as vl, vectorlake_iceberg
>>> table = vectorlake_iceberg.import_table(catalog.load_table("ns.items"), vl.connect("lake"), "ns.items")  # doctest: +SKIP
>>> vectorlake_iceberg.sync(table)  # doctest: +SKIP
"""

from __future__ import annotations

from vectorlake import UnsupportedError

try:
    import pyiceberg  # noqa: F401
except ImportError as e:
    raise UnsupportedError("vectorlake_iceberg needs pyiceberg: pip install 'vectorlake[iceberg]'") from e

from vectorlake_iceberg._carry import Lost, Updated
from vectorlake_iceberg._import import import_table
from vectorlake_iceberg._state import SourceState, source_of
from vectorlake_iceberg._sync import is_current, sync

__all__ = ["Lost", "SourceState", "Updated", "import_table", "is_current", "source_of", "sync"]
