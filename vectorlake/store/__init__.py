"""One narrow object store over local disk, memory, S3, Google Cloud Storage and Azure."""

from __future__ import annotations

from vectorlake.store.open import open_store, resolve
from vectorlake.store.protocol import ObjectInfo, Store

__all__ = ["ObjectInfo", "Store", "open_store", "resolve"]
