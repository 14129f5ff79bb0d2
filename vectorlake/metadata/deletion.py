"""Deletion vectors: sets of row positions as portable 64-bit roaring bitmaps, several to a file."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xxhash
from pyroaring import BitMap64

from vectorlake.errors import CorruptDataError
from vectorlake.metadata.fragment import DeletionVector


def to_bitmap(positions: np.ndarray) -> BitMap64:
    """A bitmap of non-negative positions."""
    return BitMap64(positions.astype(np.uint64))


def to_positions(bitmap: BitMap64) -> np.ndarray:
    """The positions as an ascending int64 array."""
    return np.frombuffer(bitmap.to_array(), dtype=np.uint64).astype(np.int64)


def encode_deletes(path: str, bitmaps: Iterable[BitMap64]) -> tuple[bytes, list[DeletionVector]]:
    """One deletes file of several bitmaps, and where each lies in it."""
    blocks: list[bytes] = []
    vectors: list[DeletionVector] = []
    offset = 0
    for bitmap in bitmaps:
        block = bitmap.serialize()
        vectors.append(DeletionVector(path, offset, len(block), len(bitmap), checksum_of(block)))
        blocks.append(block)
        offset += len(block)
    return b"".join(blocks), vectors


def decode_deletes(block: bytes, vector: DeletionVector, where: str) -> BitMap64:
    """One bitmap from its range of a deletes file.

    Raises:
        CorruptDataError: length or checksum differ from the manifest's (pyroaring itself accepts trailing garbage).
    """
    if len(block) != vector.length or checksum_of(block) != vector.checksum:
        raise CorruptDataError(
            f"the deletion vector at {where} [{vector.offset}, +{vector.length}) is damaged: its checksum is not the "
            "manifest's; restore the file or open an earlier version"
        )
    return BitMap64.deserialize(block)


def checksum_of(data: bytes | memoryview) -> str:
    """The format's checksum of some bytes: `xxh3-64:` and 16 hexadecimal digits."""
    return f"xxh3-64:{xxhash.xxh3_64_hexdigest(data)}"
