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
_ENTRY: Final = 12
_CHUNK: Final = 65_536
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_M1: Final = np.uint64(0xBF58476D1CE4E5B9)
_M2: Final = np.uint64(0x94D049BB133111EB)
_PRIME: Final = 2**61 - 1
_P: Final = np.uint64(_PRIME)


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
            or (t.is_temporal(kind) and not t.is_interval(kind))
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
    if t.is_temporal(kind):
        stored = array.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
        return _numbers(stored) * np.uint64(_nanoseconds(kind))
    if t.is_decimal(kind):
        return _decimals(array)
    return _bytes(array)


def _nanoseconds(kind: pa.DataType) -> int:
    """How many a unit of a temporal type has."""
    if pa.types.is_date32(kind):
        return 86_400 * 10**9
    unit: str = "ms" if pa.types.is_date64(kind) else kind.unit
    return {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]


def _decimals(array: pa.Array) -> np.ndarray:
    """Each value modulo the prime 2^61 - 1, whatever its scale: as Python hashes numbers ("Hashing of numeric types").

    The modulus is odd and no multiple of five, so that it has a quotient by any power of ten.
    """
    words = array.type.bit_width // 64
    limbs = np.frombuffer(array.buffers()[1] or b"", "<u8", words * len(array), 8 * words * array.offset)
    limbs = limbs.reshape(-1, words)
    value: np.ndarray = (limbs[:, -1].view(np.int64) % np.int64(_PRIME)).astype(np.uint64)
    for word in range(words - 2, -1, -1):
        value = ((value << np.uint64(3)) % _P + limbs[:, word] % _P) % _P  # 2^64 is 8 modulo the prime
    factor = pow(10, -array.type.scale, _PRIME)
    shifted = (factor << 32) % _PRIME
    low, high = value & np.uint64(0xFFFFFFFF), value >> np.uint64(32)
    return np.asarray((_times(low, factor) + _times(high, shifted)) % _P)


def _times(values: np.ndarray, factor: int) -> np.ndarray:
    """Values below 2^32 times a factor below 2^61, modulo the prime."""
    low, high = np.uint64(factor & 0xFFFFFFFF), np.uint64(factor >> 32)
    upper = values * high  # below 2^61; 32 bits to the left, it turns round at bit 61
    turned = ((upper & np.uint64(0x1FFFFFFF)) << np.uint64(32)) + (upper >> np.uint64(29))
    return np.asarray(((values * low) % _P + turned) % _P)


def _numbers(array: pa.Array) -> np.ndarray:
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype == np.uint64:
        return np.asarray(values)
    return np.asarray(values.astype(np.int64).view(np.uint64))


def _bytes(array: pa.Array) -> np.ndarray:
    """XXH3 with 64 bits and seed 0 of each value's bytes."""
    hashes = np.empty(len(array), np.uint64)
    for start in range(0, len(array), _CHUNK):  # bounds the Python objects there are at a time
        values = array.slice(start, _CHUNK).cast(pa.large_binary()).to_numpy(zero_copy_only=False)
        hashes[start : start + len(values)] = np.fromiter(map(xxhash.xxh3_64_intdigest, values), np.uint64)
    return hashes


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
        order = np.argsort(hashes)  # several times faster than the stable sort, which only ties need
        ordered = hashes[order]
        if (ordered[1:] == ordered[:-1]).any():
            order = np.argsort(hashes, kind="stable")
        return cls(ordered, order.astype(np.uint32))

    @property
    def nbytes(self) -> int:
        return int(self.hashes.nbytes + self.positions.nbytes)

    def find(self, needles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions with the hash of any of some ascending needles, and the index of that needle (both int64)."""
        if len(needles) <= len(self.hashes):
            at, which = equal_pairs(self.hashes, needles)
        else:
            which, at = equal_pairs(needles, self.hashes)
        return self.positions[at].astype(np.int64), which


def equal_pairs(ordered: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of equal hashes: indices into the ascending ones, and into the others (both int64)."""
    low = np.searchsorted(ordered, values, side="left")
    found = low < len(ordered)
    found[found] = ordered[low[found]] == values[found]
    at = np.flatnonzero(found)
    low = low[at]
    counts = np.searchsorted(ordered, values[at], side="right") - low
    step = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(low, counts) + step, np.repeat(at, counts)


def encode_segment(keys: KeyHashes) -> bytes:
    """A key segment: magic, number of rows, hashes, positions; all little-endian, so that it can be memory-mapped."""
    return b"".join(
        (
            _HEADER.pack(_MAGIC, len(keys.hashes)),
            keys.hashes.astype("<u8").tobytes(),
            keys.positions.astype("<u4").tobytes(),
        )
    )


def segment_rows(size: int) -> int:
    """How many rows a key segment of that many bytes has."""
    return (size - _HEADER.size) // _ENTRY


def likely_runs(needles: np.ndarray, rows: int) -> list[tuple[int, int]]:
    """Ascending ranges (start, stop) of a segment's hashes that should hold ascending needles and their neighbours.

    Hashes are uniform, so the rank of a needle is binomial: it lies within six standard deviations of its expectation,
    but for one needle in 10^9 (and for chosen keys). Who reads a range sees whether it reaches beyond the needle.
    """
    reach = 3 * int(rows**0.5) + 8
    expected = (needles.astype(np.float64) * (rows / 2.0**64)).astype(np.int64)
    starts, stops = np.maximum(expected - reach, 0), np.minimum(expected + reach, rows)
    first = np.ones(len(needles), bool)
    first[1:] = starts[1:] > stops[:-1]
    last = np.append(first[1:], True)
    return list(zip(starts[first].tolist(), stops[last].tolist(), strict=True))


def decided_by(hashes: np.ndarray, index: np.ndarray, needles: np.ndarray, rows: int) -> bool:
    """Whether some of a segment's hashes, at ascending indices among all, tell of each needle where it is and is not.

    They do if no hash is left out between the neighbours of a needle.
    """
    if (hashes[1:] < hashes[:-1]).any():
        return False
    before = np.searchsorted(hashes, needles, "left")
    after = np.searchsorted(hashes, needles, "right") + 1
    ends = np.concatenate([[-1], index, [rows]])
    return bool((ends[after] - ends[before] == after - before).all())


def hashes_at(start: int, stop: int) -> tuple[int, int]:
    """Where some hashes lie in a key segment: offset and length in bytes."""
    return _HEADER.size + 8 * start, 8 * (stop - start)


def position_at(index: int, rows: int) -> tuple[int, int]:
    """Where the position of one hash lies in a key segment of that many rows: offset and length in bytes."""
    return _HEADER.size + 8 * rows + 4 * index, 4


def decode_segment(data: bytes | mmap.mmap, where: str) -> KeyHashes:
    """The hashes of a key segment, as views of `data`.

    Raises:
        CorruptDataError: not a key segment, or of another length than it says; names it.
    """
    view = memoryview(data)
    if len(view) >= _HEADER.size:
        magic, count = _HEADER.unpack_from(view)
        if magic == _MAGIC and len(view) == _HEADER.size + _ENTRY * count:
            hashes = np.frombuffer(view, "<u8", count, _HEADER.size)
            return KeyHashes(hashes, np.frombuffer(view, "<u4", count, _HEADER.size + 8 * count))
    raise CorruptDataError(
        f"{where} is not a key segment, or is cut off: repair the table, which writes it anew"
    )
