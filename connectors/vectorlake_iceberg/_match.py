"""Which rows of some new files are rows of some old ones: rows as keys, and keys paired as multisets. Pure."""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

_NULL: Final = np.uint8(0)
_VALUE: Final = np.uint8(1)


def fingerprints(batch: pa.RecordBatch) -> np.ndarray:
    """A 128-bit XXH3 hash of each row's values: [rows, 2] uint64.

    Rows of equal values have equal hashes: NaNs are equal, zeros of unlike sign are not. Columns count in their order,
    their names do not.
    """
    if not batch.num_rows:
        return np.empty((0, 2), np.uint64)
    rows = _joined([_encoded(column) for column in batch.columns])
    offsets = np.frombuffer(rows.buffers()[1], np.int64)[rows.offset : rows.offset + len(rows) + 1].tolist()
    data = memoryview(rows.buffers()[2])
    digest = xxhash.xxh3_128_digest
    hashes = b"".join([digest(data[start:stop]) for start, stop in itertools.pairwise(offsets)])
    return np.frombuffer(hashes, np.uint64).reshape(-1, 2)


def _joined(parts: list[pa.Array]) -> pa.Array:
    return (
        parts[0]
        if len(parts) == 1
        else pc.binary_join_element_wise(*parts, pa.scalar(b"", pa.large_binary()))
    )


def _encoded(array: pa.Array) -> pa.Array:
    """Each value as bytes that tell where they end: `large_binary` without nulls."""
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    kind, t = array.type, pa.types
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    marker = np.where(valid, _VALUE, _NULL)[:, None]
    if t.is_null(kind):
        return _matrix(marker)
    if t.is_struct(kind):
        return _joined([_matrix(marker), *(_encoded(child) for child in array.flatten())])
    if t.is_nested(kind):
        lengths = np.where(valid, pc.list_value_length(_as_list(array)).fill_null(0).to_numpy(), 0).astype(
            np.int64
        )
        return _joined([_header(marker, lengths), _grouped(_encoded(_flattened(array)), lengths)])
    if t.is_string(kind) or t.is_binary(kind) or t.is_large_string(kind) or t.is_large_binary(kind):
        data = array.cast(
            pa.large_string() if t.is_string(kind) or t.is_large_string(kind) else pa.large_binary()
        )
        data = data.cast(pa.large_binary()).fill_null(b"")
        lengths = pc.binary_length(data).to_numpy().astype(np.int64)
        return _joined([_header(marker, lengths), data])
    fixed = _fixed(array)
    return _matrix(np.hstack([marker, np.where(valid[:, None], fixed, np.uint8(0))]))


def _as_list(array: pa.Array) -> pa.Array:
    """A map as the list of its pairs; other lists as they are."""
    if not pa.types.is_map(array.type):
        return array
    pairs = pa.struct([array.type.key_field, array.type.item_field])
    return array.cast(pa.list_(pa.field("entries", pairs, nullable=False)))


def _flattened(array: pa.Array) -> pa.Array:
    return _as_list(array).flatten()


def _header(marker: np.ndarray, lengths: np.ndarray) -> pa.Array:
    return _matrix(np.hstack([marker, lengths.astype("<i8")[:, None].view(np.uint8)]))


def _matrix(rows: np.ndarray) -> pa.Array:
    """Rows of bytes [rows, width] as binary values."""
    rows = np.ascontiguousarray(rows, np.uint8)
    offsets = np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1]
    return pa.Array.from_buffers(
        pa.large_binary(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(rows)]
    )


def _grouped(values: pa.Array, lengths: np.ndarray) -> pa.Array:
    """Neighbouring binary values joined, `lengths` of them at a time."""
    inner = np.frombuffer(values.buffers()[1], np.int64)[values.offset : values.offset + len(values) + 1]
    offsets = inner[np.concatenate([[0], np.cumsum(lengths)])]
    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets)), values.buffers()[2]]
    return pa.Array.from_buffers(pa.large_binary(), len(lengths), buffers)


def _fixed(array: pa.Array) -> np.ndarray:
    """The bytes of values of one width [rows, width]; those of nulls are arbitrary."""
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    if pa.types.is_floating(array.type):
        numbers: np.ndarray = array.fill_null(0).to_numpy(zero_copy_only=False).copy()
        numbers[np.isnan(numbers)] = np.nan
        return numbers[:, None].view(np.uint8)
    width = array.type.byte_width if pa.types.is_fixed_size_binary(array.type) else array.type.bit_width // 8
    raw: np.ndarray = np.frombuffer(array.buffers()[1], np.uint8)
    rows: np.ndarray = raw[array.offset * width : (array.offset + len(array)) * width].reshape(-1, width)
    return rows


def pair(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """For each row of `new` the index of the row of `old` with the same key, or -1; keys are [rows, words] uint64.

    As multisets: the k-th new row of a key gets the k-th old one, so that no old row is given twice.
    """
    if not len(old) or not len(new):
        return np.full(len(new), -1, np.int64)
    group, groups = _groups(np.concatenate([old, new]))
    was, now = group[: len(old)], group[len(old) :]
    owner = np.full(groups, -1, np.int64)
    owner[was[::-1]] = np.arange(len(old))[::-1]
    found: np.ndarray = owner[now]
    if int((owner >= 0).sum()) == len(old) and len(np.unique(now)) == len(new):
        return found
    # Some key occurs several times: sort both sides by key, and let equal occurrences meet.
    now_number = _occurrence(now)
    order = np.argsort(was, kind="stable")
    start = np.searchsorted(was[order], np.arange(groups + 1))
    inside = now_number < np.diff(start)[now]
    found[~inside] = -1
    found[inside] = order[start[now[inside]] + now_number[inside]]
    return found


def _groups(keys: np.ndarray) -> tuple[np.ndarray, int]:
    """Keys as numbers from 0, equal where keys are, and how many there are."""
    width = keys.shape[1] * 8
    flat = pa.py_buffer(np.ascontiguousarray(keys))
    encoded = pa.Array.from_buffers(pa.binary(width), len(keys), [None, flat]).dictionary_encode()
    return encoded.indices.to_numpy(), len(encoded.dictionary)


def _occurrence(group: np.ndarray) -> np.ndarray:
    """The how-manieth of its group each is, from 0."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    number = np.empty(len(group), np.int64)
    number[order] = np.arange(len(group)) - np.searchsorted(ordered, ordered, side="left")
    return number


def distinct(keys: np.ndarray) -> bool:
    """Whether no key occurs twice."""
    return len(keys) < 2 or _groups(keys)[1] == len(keys)
