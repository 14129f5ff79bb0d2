"""Which ranges of values may hold any of some keys: the keys of one column, sorted once. Pure."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.schema import storage_array


class KeyRanges:
    """One key column's values, to be compared with the bounds of many fragments at a time."""

    def __init__(self, values: pa.Array) -> None:
        """`values` hold no nulls."""
        values = storage_array(values)
        self._type = values.type
        self._shared = _shared_prefix(values) if _is_text(values.type) else b""
        self._sorted = np.sort(self._ordered(values))

    def meets(self, low: pa.Array, high: pa.Array) -> np.ndarray:
        """For each range, both ends included, whether any value may lie in it. Without one end (null) it may."""
        unknown = low.is_null().to_numpy(zero_copy_only=False) | high.is_null().to_numpy(zero_copy_only=False)
        result = np.ones(len(low), bool)
        known = np.flatnonzero(~unknown)
        if not len(known):
            return result
        try:
            low, high = (storage_array(side).take(pa.array(known)).cast(self._type) for side in (low, high))
        except pa.ArrowInvalid:
            return result  # the column was widened since the keys were made, and bounds don't fit their type
        first = np.searchsorted(self._sorted, self._ordered(low), "left")
        result[known] = first < np.searchsorted(self._sorted, self._ordered(high), "right")
        return result

    def _ordered(self, array: pa.Array) -> np.ndarray:
        """Values as numpy compares them, never the other way round; texts by eight bytes after what all keys share."""
        kind, t = array.type, pa.types
        if t.is_boolean(kind):
            array = array.cast(pa.uint8())
        elif t.is_temporal(kind):
            array = array.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
        elif _is_text(kind):
            return _words(array.cast(pa.large_binary()), self._shared)
        values = array.to_numpy(zero_copy_only=False)
        return values if values.dtype != object else np.asarray(values, object)


def _is_text(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(
        t.is_string(kind)
        or t.is_large_string(kind)
        or t.is_binary(kind)
        or t.is_large_binary(kind)
        or t.is_fixed_size_binary(kind)
    )


def _shared_prefix(values: pa.Array) -> bytes:
    if not len(values):
        return b""
    ends = pc.min_max(values.cast(pa.large_binary()))
    low, high = ends["min"].as_py(), ends["max"].as_py()
    same = next(
        (i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high))
    )
    return bytes(low[:same])


def _words(array: pa.Array, shared: bytes) -> np.ndarray:
    """The eight bytes after a shared prefix as a number (uint64), zeros after the end; least or greatest without it."""
    offsets = (
        np.frombuffer(array.buffers()[1], np.int64, len(array) + 1, 8 * array.offset)
        if len(array)
        else np.zeros(1, np.int64)
    )
    data = np.frombuffer(array.buffers()[2] or b"\0", np.uint8)
    words = np.zeros(len(array), np.uint64)
    for index in range(8):
        at = offsets[:-1] + len(shared) + index
        there = at < offsets[1:]
        byte = np.zeros(len(array), np.uint64)
        byte[there] = data[at[there]]
        words = (words << np.uint64(8)) | byte
    if shared:
        starts = pc.binary_slice(array, 0, len(shared))
        words[pc.less(starts, shared).to_numpy(zero_copy_only=False)] = 0
        words[pc.greater(starts, shared).to_numpy(zero_copy_only=False)] = np.iinfo(np.uint64).max
    return words
