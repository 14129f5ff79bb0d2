"""Arrow columns as tensors, without a copy where that is safe."""

from __future__ import annotations

from typing import TypeAlias

import pyarrow as pa
import torch
from torch.utils.dlpack import from_dlpack

from vectorlake import InvalidInputError
from vectorlake.extend import storage_array

Column: TypeAlias = "torch.Tensor | list[object]"


def tensors(table: pa.Table) -> dict[str, Column]:
    """The columns of a table by name: numbers and booleans as tensors [rows], vectors as tensors [rows, dimension].

    Other types, strings among them, are lists of Python values, None for null.

    Raises:
        InvalidInputError: null in a column that is a tensor, which has no value for it; names the column.
    """
    return {name: _column(name, table.column(name)) for name in table.column_names}


def _column(name: str, column: pa.ChunkedArray) -> Column:
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    array = storage_array(array)
    shape = [len(array)]
    while pa.types.is_fixed_size_list(array.type):
        if array.null_count:
            raise _null(name)
        shape.append(array.type.list_size)
        array = array.flatten()
    if not (
        pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_boolean(array.type)
    ):
        values: list[object] = column.to_pylist()
        return values
    if array.null_count:
        raise _null(name)
    if pa.types.is_boolean(array.type):
        return torch.from_numpy(array.to_numpy(zero_copy_only=False)).reshape(shape)
    tensor: torch.Tensor = from_dlpack(array)
    if not array.buffers()[1].is_mutable:
        # A file that is mapped, perhaps: writing into such a tensor would end the process.
        tensor = tensor.clone()
    return tensor.reshape(shape)


def _null(name: str) -> InvalidInputError:
    return InvalidInputError(
        f"column {name!r} holds null, for which a tensor has no value: leave such rows out with "
        f"filter='{name} IS NOT NULL', or choose other columns"
    )
