"""Key segments as files: written beside a fragment, mapped or fetched once when keys are looked for."""

from __future__ import annotations

import mmap
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import Lock
from typing import Final

import numpy as np
import pyarrow as pa

from vectorlake.errors import CorruptDataError, NotFoundError, StorageError
from vectorlake.ids import NewId
from vectorlake.metadata.deletion import checksum_of
from vectorlake.metadata.fragment import KeySegment
from vectorlake.plan.keys import (
    SEGMENT_ROWS,
    KeyHashes,
    decided_by,
    decode_segment,
    encode_segment,
    equal_pairs,
    hash_keys,
    hashes_at,
    likely_runs,
    position_at,
    segment_rows,
)
from vectorlake.schema import Field
from vectorlake.store.protocol import Store
from vectorlake.table.context import Integrity

FOLDER: Final = "index"
_CACHED_BYTES: Final = 128 * 1024 * 1024
_MOST_RANGED: Final = 256
_WORTH: Final = 4
"""Parts of a remote segment are read instead of all of it where they are so many times fewer bytes."""
_MEND: Final = "repair the table, which writes it anew"


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
        if len(self._done) != 1:
            self._done = [np.concatenate(self._done) if self._done else np.empty(0, np.uint64)]
        return self._done[0]


def write_segment(store: Store, hashes: np.ndarray, *, new_id: NewId) -> KeySegment:
    """Write the key segment of a fragment from its rows' hashes."""
    path = f"{FOLDER}/{new_id()}.keys"
    data = encode_segment(KeyHashes.of(hashes))
    with store.staged(path) as local:
        local.write_bytes(data)
    return KeySegment(path, len(data), checksum_of(data))


class KeySegments:
    """The key hashes of one table's fragments: segments are mapped where they lie on local disk, else fetched and kept for a
    while, as are the hashes of fragments without a segment. Safe to share between threads."""

    def __init__(self, store: Store, integrity: Integrity = Integrity.LENGTH) -> None:
        self._store = store
        self._integrity = integrity
        self._held: OrderedDict[Hashable, KeyHashes] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def find(self, segment: KeySegment, needles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions with the hash of any of some ascending needles, and which needle; see `KeyHashes.find`.

        Raises:
            CorruptDataError: the file is missing, or not what the manifest recorded.
        """
        local = self._store.local_path(segment.path)
        if local is None:
            found = self._ranged(segment, needles) if self._integrity is Integrity.LENGTH else None
            return found if found is not None else self._fetched(segment).find(needles)
        try:
            with local.open("rb") as file:  # the map outlives it, and goes with the last view of it
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, ValueError) as e:
            raise self._missing(segment) from e
        except OSError as e:
            raise StorageError(f"{self._where(segment)} can't be read: {e}") from e
        if self._integrity is Integrity.CHECKSUM:
            self._check(mapped, segment)
        found = self._decoded(mapped, segment).find(needles)
        # A probe touches most pages of a segment. They stay in the page cache, but need not stay in this process.
        if hasattr(mapped, "madvise"):
            mapped.madvise(mmap.MADV_DONTNEED)
        return found

    def _ranged(self, segment: KeySegment, needles: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """What `find` returns, from the parts of a segment where its needles should be; None if all is to be read."""
        rows = segment_rows(segment.size)
        if segment.path in self._held or len(needles) > _MOST_RANGED:
            return None
        runs = likely_runs(needles, rows)
        index = np.concatenate([np.arange(start, stop) for start, stop in runs])
        if len(index) * 8 * _WORTH > segment.size:
            return None
        try:
            parts = self._store.get_ranges(segment.path, [hashes_at(start, stop) for start, stop in runs])
            data = b"".join(parts)
            if len(data) != 8 * len(index):
                return None
            hashes = np.frombuffer(data, "<u8")
            if not decided_by(hashes, index, needles, rows):
                return None
            at, which = equal_pairs(hashes, needles)
            places = [position_at(place, rows) for place in index[at].tolist()]
            positions = b"".join(self._store.get_ranges(segment.path, places)) if places else b""
            if len(positions) != 4 * len(at):
                return None
            return np.frombuffer(positions, "<u4").astype(np.int64), which
        except NotFoundError as e:
            raise self._missing(segment) from e

    def _fetched(self, segment: KeySegment) -> KeyHashes:
        return self.kept(segment.path, lambda: self.read(segment))

    def kept(self, identity: Hashable, load: Callable[[], KeyHashes]) -> KeyHashes:
        """Hashes that were loaded before, or are now; those used least recently are forgotten."""
        with self._lock:
            if identity in self._held:
                self._held.move_to_end(identity)
                return self._held[identity]
        keys = load()
        with self._lock:
            if identity not in self._held:
                self._held[identity] = keys
                self._bytes += keys.nbytes
            while len(self._held) > 1 and self._bytes > _CACHED_BYTES:
                self._bytes -= self._held.popitem(last=False)[1].nbytes
        return keys

    def read(self, segment: KeySegment) -> KeyHashes:
        """All of a segment, its checksum compared.

        Raises:
            CorruptDataError: the file is missing, or not what the manifest recorded.
        """
        try:
            data = self._store.get(segment.path)
        except NotFoundError as e:
            raise self._missing(segment) from e
        keys = self._decoded(data, segment)
        self._check(data, segment)
        return keys

    def _check(self, data: bytes | mmap.mmap, segment: KeySegment) -> None:
        if (found := checksum_of(memoryview(data))) != segment.checksum:
            raise CorruptDataError(
                f"{self._where(segment)} has checksum {found}, the manifest says {segment.checksum}: {_MEND}"
            )

    def _decoded(self, data: bytes | mmap.mmap, segment: KeySegment) -> KeyHashes:
        if len(data) != segment.size:
            raise CorruptDataError(
                f"{self._where(segment)} has {len(data)} bytes, the manifest says {segment.size}: {_MEND}"
            )
        return decode_segment(data, self._where(segment))

    def _where(self, segment: KeySegment) -> str:
        return f"{self._store.uri}/{segment.path}"

    def _missing(self, segment: KeySegment) -> CorruptDataError:
        return CorruptDataError(f"{self._where(segment)} is missing: {_MEND}")
