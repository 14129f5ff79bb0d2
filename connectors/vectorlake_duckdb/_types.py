"""Which Arrow types DuckDB reads as they are, and what the others are shown as."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa

NATIVE_EXTENSIONS: Final = frozenset({"arrow.uuid", "arrow.json"})
"""Extension types that DuckDB has a type of its own for; all others show as their storage."""

_MOST_DIGITS: Final = 38


def shown_type(kind: pa.DataType) -> pa.DataType:
    """The Arrow type under which DuckDB is given a column of type `kind`; the same object where nothing changes.

    Half floats become floats and decimals of 256 bits become DECIMAL up to 38 digits, VARCHAR beyond: DuckDB has
    neither. No value changes.
    """
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return kind if kind.extension_name in NATIVE_EXTENSIONS else shown_type(kind.storage_type)
    if t.is_float16(kind):
        return pa.float32()
    if t.is_decimal256(kind):
        return pa.decimal128(kind.precision, kind.scale) if kind.precision <= _MOST_DIGITS else pa.string()
    if not kind.num_fields or all(
        shown_type(child.type) is child.type for child in (kind.field(i) for i in range(kind.num_fields))
    ):
        return kind
    if t.is_struct(kind):
        return pa.struct([_shown_field(child) for child in kind.fields])
    if t.is_map(kind):
        return pa.map_(_shown_field(kind.key_field), _shown_field(kind.item_field))
    if t.is_fixed_size_list(kind):
        return pa.list_(_shown_field(kind.value_field), kind.list_size)
    if t.is_large_list(kind):
        return pa.large_list(_shown_field(kind.value_field))
    return pa.list_(_shown_field(kind.value_field))


def _shown_field(field: pa.Field) -> pa.Field:
    # Field metadata would make DuckDB look for an extension type, and it cannot narrow nullability by itself.
    return pa.field(field.name, shown_type(field.type), field.nullable)


def shown_schema(schema: pa.Schema) -> pa.Schema:
    """The schema under which DuckDB is given batches of `schema`."""
    return pa.schema([_shown_field(field) for field in schema])


def shown_batches(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Batches as DuckDB is given them; columns that need no change are not copied."""
    for batch in batches:
        arrays = [
            shown_array(column, field.type) for column, field in zip(batch.columns, schema, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def shown_array(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """An array as the type under which DuckDB is given it, without an offset where DuckDB minds one."""
    t = pa.types
    if array.offset and any(t.is_struct(array.type.field(i).type) for i in range(array.type.num_fields)):
        array = _rebased(array)  # DuckDB refuses a struct below an offset
    if array.type.equals(kind):
        return array
    if isinstance(array.type, pa.BaseExtensionType):
        return shown_array(array.storage, kind)
    if t.is_struct(kind):
        # `field` already applies the array's offset; its validity does not reach the children.
        children = [shown_array(array.field(i), kind.field(i).type) for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays(children, fields=list(kind.fields), mask=_nulls(array))
    if t.is_fixed_size_list(kind):
        values = array.values.slice(array.offset * kind.list_size, len(array) * kind.list_size)
        return pa.FixedSizeListArray.from_arrays(
            shown_array(values, kind.value_type), type=kind, mask=_nulls(array)
        )
    if not kind.num_fields:
        return array.cast(kind)
    array = _rebased(array) if array.offset else array
    if t.is_map(kind):
        keys, items = shown_array(array.keys, kind.key_type), shown_array(array.items, kind.item_type)
        return pa.MapArray.from_arrays(array.offsets, keys, items, type=kind, mask=_nulls(array))
    made: Any = pa.LargeListArray if t.is_large_list(kind) else pa.ListArray
    values = shown_array(array.values, kind.value_type)
    return made.from_arrays(array.offsets, values, type=kind, mask=_nulls(array))


def _nulls(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


def _rebased(array: pa.Array) -> pa.Array:
    """A copy that begins at its buffers' start."""
    return pa.concat_arrays([array, array.slice(0, 0)])
