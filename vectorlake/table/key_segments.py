"""Key segments as files: written beside a fragment, mapped or fetched once when keys are looked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Final

import numpy as np
import pyarrow as pa

from vectorlake.errors import CorruptDataError, NotFoundError
from vectorlake.ids import NewId
from vectorlake.metadata.deletion import checksum_of
from vectorlake.metadata.fragment import KeySegment
from vectorlake.plan.keys import SEGMENT_ROWS, KeyHashes, decode_segment, encode_segment, hash_keys
from vectorlake.schema import Field
from vectorlake.store.protocol import Store

FOLDER: Final = "index"
_CACHED_BYTES: Final = 128 * 1024 * 1024
_OPEN: Final = 256


class KeyCollector:
    """Hashes the keys of rows on their way into fragments, and writes a key segment for each larger fragment."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._names = [field.name for field in fields]
        self._done: list[np.ndarray] = []
        self._current: list[np.ndarray] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """The next rows of the fragment that is being written."""
        self._current.append(hash_keys([batch.column(name) for name in self._names]))

    def finish(self, store: Store, *, new_id: NewId) -> KeySegment | None:
        """End the fragment: its key segment, durable under its name once `sync_folders` was called; None for a small one."""
        hashes = np.concatenate(self._current) if self._current else np.empty(0, np.uint64)
        self._current = []
        self._done.append(hashes)
        return write_segment(store, hashes, new_id=new_id) if len(hashes) >= SEGMENT_ROWS else None

    @property
    def hashes(self) -> np.ndarray:
        """Of all rows of finished fragments, in order (uint64)."""
        return np.concatenate(self._done) if self._done else np.empty(0, np.uint64)


def write_segment(store: Store, hashes: np.ndarray, *, new_id: NewId) -> KeySegment:
    """Write the key segment of a fragment from its rows' hashes."""
    path = f"{FOLDER}/{new_id()}.keys"
    data = encode_segment(KeyHashes.of(hashes))
    with store.staged(path) as local:
        local.write_bytes(data)
    return KeySegment(path, len(data), checksum_of(data))


class KeySegments:
    """Recently used key segments of one table: mapped where they lie on local disk, else read whole once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: OrderedDict[str, tuple[KeyHashes, int]] = OrderedDict()
        self._lock = Lock()

    def open(self, segment: KeySegment) -> KeyHashes:
        """The hashes of a fragment's keys.

        Raises:
            CorruptDataError: the file is missing, or not what the manifest recorded.
        """
        with self._lock:
            if segment.path in self._held:
                self._held.move_to_end(segment.path)
                return self._held[segment.path][0]
        where = f"{self._store.uri}/{segment.path}"
        local = self._store.local_path(segment.path)
        try:
            if local is not None:
                keys = decode_segment(np.memmap(local, np.uint8, "r"), where)
                size, kept = local.stat().st_size, 0
            else:
                data = self._store.get(segment.path)
                keys, size, kept = decode_segment(data, where), len(data), len(data)
                if checksum_of(data) != segment.checksum:
                    raise CorruptDataError(f"{where} is damaged: repair the table, which writes it anew")
        except (NotFoundError, FileNotFoundError, ValueError) as e:
            raise CorruptDataError(f"{where} is missing: repair the table, which writes it anew") from e
        if size != segment.size:
            raise CorruptDataError(
                f"{where} has {size} bytes, the manifest says {segment.size}: repair the table, which writes it anew"
            )
        with self._lock:
            self._held[segment.path] = (keys, kept)
            while len(self._held) > 256 or sum(held for _, held in self._held.values()) > _CACHED_BYTES:
                self._held.popitem(last=False)
        return keys
