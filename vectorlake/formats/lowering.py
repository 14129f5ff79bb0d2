"""How a format holds a type that it lacks: as another type that maps there and back without loss.

Each format says by a rule which types it stores as what (`fixed_size_binary` as `binary`, …); the logical
schema is kept in the file beside the data, and reading casts back to it.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import pyarrow as pa

from vectorlake.errors import InvalidInputError

Rule: TypeAlias = Callable[[pa.DataType], pa.DataType | None]
"""The type that a format stores instead of the given one, or None to look at its children."""

_UNHELD: Final = (
    pa.types.is_null,
    pa.types.is_union,
    pa.types.is_dictionary,
    pa.types.is_run_end_encoded,
    pa.types.is_string_view,
    pa.types.is_binary_view,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
    pa.types.is_interval,
)

SCHEMA_KEY: Final = b"vectorlake:schema"


def lowered_type(kind: pa.DataType, rule: Rule) -> pa.DataType:
    """`kind` as the format holds it, by `rule` at every depth."""
    replaced = rule(kind)
    if replaced is not None:
        return replaced if replaced == kind else lowered_type(replaced, rule)
    t = pa.types

    def child(field: pa.Field) -> pa.Field:
        return field.with_type(lowered_type(field.type, rule))

    if t.is_struct(kind):
        return pa.struct([child(field) for field in kind.fields])
    if t.is_fixed_size_list(kind):
        return pa.list_(child(kind.value_field), kind.list_size)
    if t.is_list(kind):
        return pa.list_(child(kind.value_field))
    if t.is_large_list(kind):
        return pa.large_list(child(kind.value_field))
    if t.is_map(kind):
        return pa.map_(child(kind.key_field), child(kind.item_field), keys_sorted=kind.keys_sorted)
    return kind


def lowered_schema(schema: pa.Schema, rule: Rule) -> pa.Schema:
    """The schema that the format holds; equal to `schema` where every type is native. Metadata is kept."""
    return pa.schema([f.with_type(lowered_type(f.type, rule)) for f in schema], schema.metadata)


def converted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch under `schema` (same columns in the same order), columns of another type cast without loss.

    Raises:
        InvalidInputError: a value that the target type can't hold.
    """
    if batch.schema.equals(schema, check_metadata=True):
        return batch
    if not len(schema):
        return batch.select([])
    columns = [_cast(column, field) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid as e:
        raise InvalidInputError(
            f"column {field.name!r} holds a value that can't be stored as {field.type}: {e}"
        ) from e


def all_types(kind: pa.DataType) -> Iterator[pa.DataType]:
    """A type and all types below it."""
    yield kind
    for i in range(kind.num_fields):
        yield from all_types(kind.field(i).type)


def unheld_columns(schema: pa.Schema) -> list[str]:
    """Top-level columns of a type that no format keeps bit for bit: the table layer gives a plain type
    instead.

    These are null, unions, views, dictionaries and run ends (which come back decoded), extension types (which
    come back as their storage), month intervals, narrow decimals, structs without fields and lists of fixed
    size 0.
    """
    return [field.name for field in schema if any(_unheld(kind) for kind in all_types(field.type))]


def _unheld(kind: pa.DataType) -> bool:
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType) or any(is_kind(kind) for is_kind in _UNHELD):
        return True
    if t.is_struct(kind):
        return bool(kind.num_fields == 0)
    if t.is_fixed_size_list(kind):
        return bool(kind.list_size == 0)
    return bool(
        (t.is_decimal(kind) and kind.bit_width < 128)
        or (t.is_fixed_size_binary(kind) and kind.byte_width == 0)
    )


def schema_to_text(schema: pa.Schema) -> str:
    """A schema as URL-safe base64 of its compressed Arrow IPC message."""
    return base64.urlsafe_b64encode(zlib.compress(schema.serialize().to_pybytes(), 9)).decode()


def schema_from_text(text: str) -> pa.Schema:
    """The schema that `schema_to_text` encoded; `ValueError` if it is damaged."""
    try:
        return pa.ipc.read_schema(pa.py_buffer(zlib.decompress(base64.urlsafe_b64decode(text))))
    except zlib.error as e:
        raise ValueError(f"the stored schema is damaged: {e}") from e
