"""What Ray makes of columns, as columns of a table: tensors become vectors and multivectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa

from vectorlake import InvalidInputError


def stored_array(array: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """A column without Ray's wrapping: a tensor of rank 1 is a vector, one of rank 2 a list of vectors.

    Raises:
        InvalidInputError: tensors of another rank, or of several lengths in one column.
    """
    if isinstance(array, pa.ChunkedArray):
        chunks = [stored_array(chunk) for chunk in array.chunks]
        return pa.chunked_array(chunks, type=None if chunks else stored_type(array.type))
    if not isinstance(array.type, pa.BaseExtensionType):
        return array
    _check_no_objects(array.type)
    if not is_tensor(array.type):
        return array.storage
    if pa.types.is_struct(array.type.storage_type):
        return _ragged(array)
    shape, storage = tuple(array.type.shape), array.storage
    flat = storage.flatten()
    return _masked(_vectors(flat, shape, len(storage) - storage.null_count), storage)


def _check_no_objects(kind: pa.BaseExtensionType) -> None:
    if kind.extension_name.startswith("ray.") and not is_tensor(kind):
        raise InvalidInputError(
            "a column holds Python objects, which Ray pickles: numpy batches with nulls among vectors, for example; use "
            "batch_format='pyarrow' and return Arrow columns"
        )


def is_tensor(kind: pa.DataType) -> bool:
    """Whether a type is one of Ray's or Arrow's tensors."""
    return isinstance(kind, pa.BaseExtensionType) and "tensor" in kind.extension_name


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The type of `stored_array` of a column of a type; of tensors without a fixed shape a list.

    Raises:
        InvalidInputError: as there.
    """
    if not isinstance(kind, pa.BaseExtensionType):
        return kind
    _check_no_objects(kind)
    if not is_tensor(kind):
        return kind.storage_type
    storage = kind.storage_type
    if pa.types.is_struct(storage):
        return pa.list_(storage.field("data").type.value_type)
    return _vectors(pa.nulls(0, storage.value_type), tuple(kind.shape), 0).type


def _vectors(flat: pa.Array, shape: tuple[int, ...], rows: int) -> pa.Array:
    """Numbers as `rows` vectors or lists of vectors."""
    if len(shape) == 1 and shape[0]:
        return pa.FixedSizeListArray.from_arrays(flat, shape[0])
    if len(shape) == 2 and shape[1]:
        offsets = pa.array(np.arange(rows + 1) * shape[0], pa.int32())
        return pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(flat, shape[1]))
    raise InvalidInputError(
        f"a column holds tensors of shape {shape}: a table takes vectors, of rank 1, and multivectors, of rank 2"
    )


def _masked(dense: pa.Array, storage: pa.Array) -> pa.Array:
    """Values of the rows that are not null, with nulls for the others."""
    if not storage.null_count:
        return dense
    valid = storage.is_valid().to_numpy(zero_copy_only=False)
    indices = np.where(valid, np.cumsum(valid) - 1, 0)
    return dense.take(pa.array(indices, mask=~valid))


def _ragged(array: pa.Array) -> pa.Array:
    """Tensors that differ in shape: vectors become plain lists, whose lengths the table checks."""
    valid = array.storage.drop_null()
    data, shapes = valid.field("data"), valid.field("shape").to_pylist()
    ranks = {len(shape) for shape in shapes}
    if ranks <= {1}:
        return _masked(data, array.storage)
    widths = {shape[-1] for shape in shapes}
    if ranks != {2} or len(widths) != 1:
        raise InvalidInputError(
            f"a column holds tensors of shapes such as {tuple(shapes[0])} and {tuple(shapes[-1])}: a table takes vectors, "
            "and multivectors whose vectors have one dimension"
        )
    offsets = pa.array(np.concatenate([[0], np.cumsum([shape[0] for shape in shapes])]), pa.int32())
    vectors = pa.FixedSizeListArray.from_arrays(data.flatten(), widths.pop())
    return _masked(pa.ListArray.from_arrays(offsets, vectors), array.storage)


def stored_table(tables: Iterable[pa.Table]) -> pa.Table:
    """Blocks of Ray's as one table of stored types.

    Raises:
        InvalidInputError: blocks that don't have the same columns and types.
    """
    parts = [
        pa.table([stored_array(column) for column in table.columns], names=table.column_names)
        for table in tables
    ]
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as e:
        raise InvalidInputError(f"the blocks of the dataset don't fit together: {e}; cast the column") from e


def created_schema(schema: pa.Schema, types: Mapping[str, pa.DataType]) -> pa.Schema:
    """The schema of a table to be created for blocks of Ray's; `types` overrules.

    Raises:
        InvalidInputError: `types` names a column that isn't there.
    """
    for column in types:
        if column not in schema.names:
            raise InvalidInputError(f"types names column {column!r}, which the dataset does not have")
    return pa.schema(
        [pa.field(field.name, types.get(field.name, stored_type(field.type))) for field in schema]
    )
