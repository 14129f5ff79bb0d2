"""Checksums of whole files: XXH3, 64 bits, written `xxh3-64:<16 hex digits>`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import xxhash

from vectorlake.errors import CorruptDataError, UnsupportedError
from vectorlake.formats.failures import check_length, reading
from vectorlake.formats.protocol import FileSource

_PREFIX: Final = "xxh3-64:"
_CHUNK: Final = 1 << 20  # fits the second-level cache, so that hashing reads what was just copied there
_REMOTE_CHUNK: Final = 8 << 20


def checksum_of(path: Path) -> str:
    """The checksum of a local file, in one pass with a fixed buffer.

    Raises:
        OSError: the file can't be read.
    """
    digest = xxhash.xxh3_64()
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
    return _PREFIX + digest.hexdigest()


def admit(source: FileSource) -> None:
    """Check what is known of a file before a library opens it: its length, and its checksum if the source has
    one.

    Raises:
        CorruptDataError: names the file, and what differs.
    """
    check_length(source)
    if source.checksum is not None:
        verify(source, source.checksum)


def source_checksum(source: FileSource) -> str:
    """The checksum of a file in any store.

    Raises:
        CorruptDataError: the file is missing, or has another length than promised.
        StorageError: the store failed.
    """
    with reading(source):
        path = source.local
        if path is not None:
            return checksum_of(path)
        size = source.size if source.size is not None else source.store.head(source.path).size
        digest = xxhash.xxh3_64()
        for start in range(0, size, _REMOTE_CHUNK):
            digest.update(source.store.get_range(source.path, start, min(_REMOTE_CHUNK, size - start)))
        return _PREFIX + digest.hexdigest()


def verify(source: FileSource, checksum: str) -> None:
    """Read a file whole and compare it with the checksum that was taken when it was written.

    Raises:
        CorruptDataError: the file is missing, or a byte of it has changed; names the file.
        UnsupportedError: the checksum is of a kind that this release does not know.
    """
    if not checksum.startswith(_PREFIX):
        raise UnsupportedError(
            f"the checksum {checksum!r} of {source.uri} is of an unknown kind: upgrade vectorlake"
        )
    found = source_checksum(source)
    if found != checksum:
        raise CorruptDataError(
            f"{source.uri} is damaged: its checksum is {found}, the manifest says {checksum}; restore the "
            "file, or an "
            "earlier version of the table"
        )
