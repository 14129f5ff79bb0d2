"""Manifests kept in memory: they never change, so opening a table or planning again need not read them again."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from vectorlake.metadata.manifest import Manifest


class ManifestCache:
    """The most recently used manifests by path, up to so many bytes. Safe to share between threads."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held: OrderedDict[str, tuple[Manifest, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, path: str) -> Manifest | None:
        """A manifest, if it is there."""
        with self._lock:
            if path not in self._held:
                return None
            self._held.move_to_end(path)
            return self._held[path][0]

    def put(self, path: str, manifest: Manifest) -> None:
        """Keep a manifest; the least recently used ones make room."""
        size = manifest.table.nbytes  # asked once: it is counted anew each time
        with self._lock:
            _, before = self._held.pop(path, (None, 0))
            self._held[path] = (manifest, size)
            self._bytes += size - before
            while len(self._held) > 1 and self._bytes > self._most:
                self._bytes -= self._held.popitem(last=False)[1][1]
