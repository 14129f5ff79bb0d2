"""Which Arrow types Daft reads as they are, what the others are shown as, and what Daft's own types are stored as."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

_MOST_DIGITS: Final = 38


def shown_type(kind: pa.DataType) -> pa.DataType:
    """The Arrow type under which Daft is given a column of storage type `kind`; the same object where nothing changes.

    Daft has no decimals of more than 38 digits (they are shown as strings), none of 256 bits, and no 32-bit times. No
    value changes.
    """
    t = pa.types
    if t.is_decimal256(kind):
        return pa.decimal128(kind.precision, kind.scale) if kind.precision <= _MOST_DIGITS else pa.string()
    if t.is_time32(kind):
        return pa.time64("us")
    if not kind.num_fields:
        return kind
    children = [kind.field(i) for i in range(kind.num_fields)]
    if all(shown_type(child.type) is child.type for child in children):
        return kind
    return _like(kind, [child.with_type(shown_type(child.type)) for child in children])


def _like(kind: pa.DataType, children: list[pa.Field]) -> pa.DataType:
    """A nested type of the same sort with other children."""
    t = pa.types
    if t.is_struct(kind):
        return pa.struct(children)
    if t.is_map(kind):
        return pa.map_(*children)
    if t.is_fixed_size_list(kind):
        return pa.list_(children[0], kind.list_size)
    return pa.large_list(children[0]) if t.is_large_list(kind) else pa.list_(children[0])


def shown_schema(schema: pa.Schema) -> pa.Schema:
    """The schema under which Daft is given batches of storage types."""
    return pa.schema([pa.field(field.name, shown_type(field.type)) for field in schema])


def shown_batches(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Batches as Daft is given them; columns that need no change are not copied."""
    for batch in batches:
        columns = [
            column if column.type == field.type else column.cast(field.type)
            for column, field in zip(batch.columns, schema, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def stored_type(kind: pa.DataType) -> pa.DataType:
    """What a column of a type that Daft exports is stored as: embeddings and tensors as vectors, without large offsets."""
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        tensor = _tensor_values(kind.storage_type)
        return stored_type(kind.storage_type if tensor is None else tensor)
    if t.is_large_string(kind):
        return pa.string()
    if t.is_large_binary(kind):
        return pa.binary()
    if t.is_large_list(kind):
        return pa.list_(pa.field("item", stored_type(kind.value_type)))
    if not kind.num_fields:
        return kind
    children = [kind.field(i) for i in range(kind.num_fields)]
    return _like(kind, [child.with_type(stored_type(child.type)) for child in children])


def _tensor_values(storage: pa.DataType) -> pa.DataType | None:
    """The type of the numbers of a tensor without a fixed shape: a struct of `data` and `shape`."""
    if pa.types.is_struct(storage) and {child.name for child in storage.fields} == {"data", "shape"}:
        return storage.field("data").type
    return None


def stored_array(array: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """A column that Daft exports, without its wrapping; a tensor of any shape is the list of its numbers."""
    if isinstance(array, pa.ChunkedArray):
        chunks = [stored_array(chunk) for chunk in array.chunks]
        return pa.chunked_array(chunks, type=None if chunks else _unwrapped(array.type))
    if not isinstance(array.type, pa.BaseExtensionType):
        return array
    storage = array.storage
    if _tensor_values(storage.type) is None:
        return stored_array(storage)
    values = storage.field("data")
    return values if not storage.null_count else pc.if_else(storage.is_valid(), values, None)


def _unwrapped(kind: pa.DataType) -> pa.DataType:
    if not isinstance(kind, pa.BaseExtensionType):
        return kind
    return _tensor_values(kind.storage_type) or _unwrapped(kind.storage_type)


def stored_table(table: pa.Table) -> pa.Table:
    """Rows as Daft exports them, in types that a table of a lake can take."""
    return pa.table([stored_array(column) for column in table.columns], names=table.column_names)


def created_schema(schema: pa.Schema, types: Mapping[str, pa.DataType]) -> pa.Schema:
    """The schema of a table to be created for rows that Daft exports; `types` overrules."""
    return pa.schema(
        [pa.field(field.name, types.get(field.name, stored_type(field.type))) for field in schema]
    )
