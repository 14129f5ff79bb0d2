"""The time by the store's own clock, to which the times of its objects compare whatever this machine's clock says."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from vectorlake.errors import StorageError
from vectorlake.ids import NewId
from vectorlake.store.protocol import ObjectInfo, Store

PROBE: Final = "metadata/.tmp-clock-"


def store_time_ms(store: Store, *, new_id: NewId) -> int:
    """Now, in ms since the epoch, as the store dates an object that is written now.

    Raises:
        StorageError: the store takes no object.
    """
    path = f"{PROBE}{new_id()}"
    store.put(path, b"")
    try:
        return modified_ms(store.head(path))
    finally:
        with suppress(StorageError):  # a probe that stays is a leftover, which collection removes
            store.delete([path])


def modified_ms(info: ObjectInfo) -> int:
    """When an object was written, in ms since the epoch, by the store's clock."""
    return int(info.last_modified.timestamp() * 1000)
