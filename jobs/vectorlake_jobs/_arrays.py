"""Arrays that pass between tasks, in a job's scratch folder; and vectors of a batch as a matrix."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vectorlake.errors import InvalidInputError
from vectorlake.extend import Store

Matrix = npt.NDArray[np.float32]


def save(scratch: Store, path: str, **arrays: npt.NDArray[Any]) -> str:
    """Write arrays under a name; what an earlier attempt wrote there is replaced. Returns the path."""
    target = io.BytesIO()
    np.savez(target, allow_pickle=False, **arrays)
    scratch.put(path, target.getvalue())
    return path


def load(scratch: Store, path: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays that `save` wrote."""
    with np.load(io.BytesIO(scratch.get(path)), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def plain_type(kind: pa.DataType) -> pa.DataType:
    """What an extension type is stored as; any other type itself."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def plain_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column as one array, of what its type is stored as."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def vector_size(kind: pa.DataType) -> int | None:
    """How many numbers the vectors of a type have; None if it is no type of vectors of fixed size."""
    plain = plain_type(kind)
    return int(plain.list_size) if pa.types.is_fixed_size_list(plain) else None


def matrix_of(column: pa.Array) -> tuple[Matrix, npt.NDArray[np.bool_]]:
    """The vectors of a column that are not null, float32 [m, d], and which rows they are of, bool [n].

    Raises:
        InvalidInputError: no vectors of fixed size and numbers.
    """
    array = plain_array(column)
    kind = array.type
    if not pa.types.is_fixed_size_list(kind):
        raise InvalidInputError(f"this needs a column of vectors of fixed size, not of {kind}")
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    flat = array.drop_null().flatten() if array.null_count else array.flatten()
    numbers = flat.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    return numbers.reshape(-1, kind.list_size), valid


def scattered(values: pa.Array, valid: npt.NDArray[np.bool_]) -> pa.Array:
    """Values of the rows marked, in their places; null elsewhere."""
    if len(values) == len(valid):
        return values
    at = np.cumsum(valid) - 1
    return values.take(pa.array(at, mask=~valid))


def unit(rows: Matrix) -> Matrix:
    """Each row divided by its length; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32, copy=False)


def vectors_of(rows: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """A matrix as an array of vectors of a type such as `list(float16)[32]`."""
    element = kind.value_type.to_pandas_dtype()
    flat = np.ascontiguousarray(rows.astype(element, copy=False)).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, kind.value_type), kind.list_size)
