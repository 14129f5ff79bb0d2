"""Vectors of an Arrow column as a matrix, and which of them count."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def vector_rows(array: pa.FixedSizeListArray) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
    """The vectors [rows, dimension] of an array in storage type, and which count, bool [rows] (None: all).

    Those that are null, or hold a null, don't count.
    """
    size = array.type.list_size
    values = array.values.slice(array.offset * size, len(array) * size)
    valid = None
    if array.null_count or values.null_count:
        inside = values.is_valid().to_numpy(zero_copy_only=False).reshape(-1, size).all(axis=1)
        valid = array.is_valid().to_numpy(zero_copy_only=False) & inside
        values = values.fill_null(0) if values.null_count else values
    return values.to_numpy(zero_copy_only=False).reshape(-1, size), valid
