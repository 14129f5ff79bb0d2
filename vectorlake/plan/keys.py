"""Primary keys as 64-bit hashes: how a key is hashed, how a fragment's hashes are stored and searched. Pure.

The hash and the file are part of the format (format specification, "Key segments"), so that every writer finds the
same keys. A hash only proposes rows: who looks for keys compares the real values afterwards.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import xxhash

from vectorlake.errors import CorruptDataError, InvalidInputError
from vectorlake.schema import Field, describe, storage_array

SEGMENT_ROWS: Final = 16_384
"""Fragments of fewer rows get no key segment: reading their key columns costs less than one more durable file."""

_MAGIC: Final = b"VLKEYS01"
_HEADER: Final = struct.Struct("<8sQ")
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_M1: Final = np.uint64(0xBF58476D1CE4E5B9)
_M2: Final = np.uint64(0x94D049BB133111EB)


def check_key(fields: Sequence[Field]) -> None:
    """Refuse columns that can't identify rows.

    Raises:
        InvalidInputError: floating-point, nested and blob columns; names the column.
    """
    for field in fields:
        kind = field.to_storage().type
        t = pa.types
        fits = (
            t.is_integer(kind)
            or t.is_boolean(kind)
            or t.is_decimal(kind)
            or t.is_temporal(kind)
            or t.is_string(kind)
            or t.is_large_string(kind)
            or t.is_binary(kind)
            or t.is_large_binary(kind)
            or t.is_fixed_size_binary(kind)
        )
        if not fits or field.logical in ("blob", "geo"):
            raise InvalidInputError(
                f"column {field.name!r} is {describe(field.type, field.logical)} and can't be in a primary key: use "
                "integers, strings, binary, dates and times, decimals or booleans"
            )


def hash_keys(columns: Sequence[pa.Array | pa.ChunkedArray]) -> np.ndarray:
    """The hash of each row's key (uint64), from its columns in the order of the primary key; no nulls.

    Equal values hash alike, whatever width their type has been widened to.
    """
    result = np.zeros(len(columns[0]), np.uint64)
    with np.errstate(over="ignore"):
        for column in columns:
            result = _mix(result + _hash_column(column) + _GOLDEN)
    return result


def _mix(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * _M1
    values = (values ^ (values >> np.uint64(27))) * _M2
    return np.asarray(values ^ (values >> np.uint64(31)))


def _hash_column(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    if isinstance(column, pa.ChunkedArray):
        parts = [_hash_column(chunk) for chunk in column.chunks]
        return np.concatenate(parts) if parts else np.empty(0, np.uint64)
    array = storage_array(column)
    kind, t = array.type, pa.types
    if t.is_boolean(kind):
        return _numbers(array.cast(pa.uint8()))
    if t.is_integer(kind):
        return _numbers(array)
    if t.is_date(kind):
        return _numbers(array.cast(pa.timestamp("us")).cast(pa.int64()))
    if t.is_timestamp(kind):
        return _numbers(array.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64()))
    if t.is_time(kind):
        return _numbers(array.cast(pa.time64("us"), safe=False).cast(pa.int64()))
    if t.is_duration(kind):
        return _numbers(array.cast(pa.duration("us"), safe=False).cast(pa.int64()))
    if t.is_decimal(kind):
        array = array.cast(pa.string())
    return _bytes(array)


def _numbers(array: pa.Array) -> np.ndarray:
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype == np.uint64:
        return np.asarray(values)
    return np.asarray(values.astype(np.int64).view(np.uint64))


def _bytes(array: pa.Array) -> np.ndarray:
    """XXH3 with 64 bits and seed 0 of each value's bytes."""
    digest = xxhash.xxh3_64_intdigest
    count = len(array)
    if pa.types.is_fixed_size_binary(array.type):
        width = array.type.byte_width
        offsets = (np.arange(count + 1) + array.offset) * width
        data = array.buffers()[1]
    else:
        wide = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
        kind = np.int64 if wide else np.int32
        raw = np.frombuffer(array.buffers()[1], kind) if count else np.zeros(1, kind)
        offsets = raw[array.offset : array.offset + count + 1] if count else raw
        data = array.buffers()[2]
    view = memoryview(data) if data is not None else memoryview(b"")
    bounds = offsets.tolist()
    hashes = (digest(view[bounds[row] : bounds[row + 1]]) for row in range(count))
    return np.fromiter(hashes, np.uint64, count)


@dataclass(frozen=True)
class KeyHashes:
    """The hashes of a fragment's physical rows: ascending, with the position of each (ties by position)."""

    hashes: np.ndarray
    """uint64"""
    positions: np.ndarray
    """uint32"""

    @classmethod
    def of(cls, hashes: np.ndarray) -> KeyHashes:
        """From the hashes in the order of rows."""
        order = np.argsort(hashes, kind="stable")
        return cls(hashes[order], order.astype(np.uint32))

    def find(self, needles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions with the hash of any of some ascending needles, and the index of that needle (both int64)."""
        low = np.searchsorted(self.hashes, needles, side="left")
        found = low < len(self.hashes)
        found[found] = self.hashes[low[found]] == needles[found]
        at = np.flatnonzero(found)
        low = low[at]
        counts = np.searchsorted(self.hashes, needles[at], side="right") - low
        which = np.repeat(at, counts)
        step = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.positions[np.repeat(low, counts) + step].astype(np.int64), which


def encode_segment(keys: KeyHashes) -> bytes:
    """A key segment: magic, number of rows, hashes, positions; all little-endian, so that it can be memory-mapped."""
    return b"".join(
        (
            _HEADER.pack(_MAGIC, len(keys.hashes)),
            keys.hashes.astype("<u8").tobytes(),
            keys.positions.astype("<u4").tobytes(),
        )
    )


def decode_segment(data: bytes | mmap.mmap, where: str) -> KeyHashes:
    """The hashes of a key segment, as views of `data`.

    Raises:
        CorruptDataError: not a key segment, or of another length than it says; names it.
    """
    view = memoryview(data)
    if len(view) >= _HEADER.size:
        magic, count = _HEADER.unpack_from(view)
        if magic == _MAGIC and len(view) == _HEADER.size + 12 * count:
            hashes = np.frombuffer(view, "<u8", count, _HEADER.size)
            return KeyHashes(hashes, np.frombuffer(view, "<u4", count, _HEADER.size + 8 * count))
    raise CorruptDataError(
        f"{where} is not a key segment, or is cut off: repair the table, which writes it anew"
    )
