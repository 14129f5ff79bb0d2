"""Vector columns as numpy arrays and back, without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def is_vector(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a vector: a fixed-size list of float16/32/64, int8 or uint8."""
    t = pa.types
    return bool(
        t.is_fixed_size_list(kind)
        and kind.list_size > 0
        and (t.is_floating(kind.value_type) or kind.value_type in (pa.int8(), pa.uint8()))
    )


def flat_values(vectors: pa.Array) -> np.ndarray | None:
    """A vector array as a read-only view [rows, dim]; None if a vector or an element is null."""
    if vectors.null_count:
        return None
    dim = vectors.type.list_size
    values = vectors.values.slice(vectors.offset * dim, len(vectors) * dim)
    if values.null_count:
        return None
    flat: np.ndarray = values.to_numpy(zero_copy_only=True)
    return flat.reshape(len(vectors), dim)


def vectors_over(values: np.ndarray[Any, np.dtype[Any]], kind: pa.DataType) -> pa.Array:
    """A vector array of type `kind` over the contiguous array [rows, dim], which it keeps alive."""
    rows, dim = values.shape
    flat = pa.Array.from_buffers(kind.value_type, rows * dim, [None, pa.py_buffer(values.reshape(-1))])
    return pa.Array.from_buffers(kind, rows, [None], children=[flat])
