"""Iceberg's types, defaults, partition values and bounds as ours. Pure: values in, values out."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
import pyarrow as pa
from pyiceberg import types as ice
from pyiceberg.conversions import from_json
from pyiceberg.schema import Schema as IcebergSchema

from vectorlake.errors import InvalidInputError, UnsupportedError
from vectorlake.extend import (
    ExtensionType,
    Field,
    FieldBounds,
    ListType,
    MapType,
    ScalarType,
    Schema,
    StructType,
    Type,
    check_names,
    literal_to_json,
    type_to_arrow,
)

FIRST_OWN_ID: Final = 1_000_000_000
"""Columns added to an imported table have ids from here on: the source keeps the range below for its own."""

DOC: Final = "doc"
"""The key of a column's comment in its field metadata."""

_SCALARS: Final[Mapping[type[ice.IcebergType], str]] = {
    ice.BooleanType: "bool",
    ice.IntegerType: "int32",
    ice.LongType: "int64",
    ice.FloatType: "float32",
    ice.DoubleType: "float64",
    ice.DateType: "date32",
    ice.TimeType: "time64(us)",
    ice.TimestampType: "timestamp(us)",
    ice.TimestamptzType: "timestamp(us, UTC)",
    ice.TimestampNanoType: "timestamp(ns)",
    ice.TimestamptzNanoType: "timestamp(ns, UTC)",
    ice.StringType: "string",
    ice.BinaryType: "binary",
    # Holds nothing but nulls; when the source gives it a type, the column takes that type.
    ice.UnknownType: "string",
}


def schema_of(schema: IcebergSchema) -> Schema:
    """An Iceberg schema as ours, with Iceberg's field ids.

    Raises:
        UnsupportedError: a type that this release does not know, named with its column.
        InvalidInputError: a column name that vectorlake reserves.
    """
    try:
        check_names([field.name for field in schema.fields])
    except InvalidInputError as e:
        raise InvalidInputError(f"the source table can't be imported: {e}") from e
    return Schema(tuple(field_of(field) for field in schema.fields))


def field_of(field: ice.NestedField) -> Field:
    """An Iceberg field as ours; its initial default becomes the default of rows in older files."""
    if field.field_id >= FIRST_OWN_ID:
        raise UnsupportedError(
            f"source column {field.name!r} has field id {field.field_id}: ids from {FIRST_OWN_ID} on are kept for columns "
            "added here"
        )
    kind = type_of(field.field_type, field.name)
    logical: Any = "geo" if isinstance(field.field_type, ice.GeometryType | ice.GeographyType) else None
    metadata = {DOC: field.doc} if field.doc else {}
    if logical:
        metadata["crs"] = str(field.field_type)
    return Field(
        id=field.field_id,
        name=field.name,
        type=kind,
        nullable=not field.required,
        default=_default(field, kind),
        logical=logical,
        metadata=metadata,
    )


def type_of(kind: ice.IcebergType, path: str) -> Type:
    """An Iceberg type as ours; `path` names it in errors."""
    match kind:
        case ice.StructType():
            return StructType(tuple(field_of(child) for child in kind.fields))
        case ice.ListType():
            return ListType(field_of(kind.element_field))
        case ice.MapType():
            return MapType(field_of(kind.key_field), field_of(kind.value_field))
        case ice.DecimalType():
            return ScalarType(f"decimal128({kind.precision}, {kind.scale})")
        case ice.FixedType():
            return ScalarType(f"fixed_size_binary({len(kind)})")
        case ice.UUIDType():
            return ExtensionType("arrow.uuid", ScalarType("fixed_size_binary(16)"))
        case ice.GeometryType() | ice.GeographyType():
            return ScalarType("binary")
    name = _SCALARS.get(type(kind))
    if name is None:
        raise UnsupportedError(
            f"source column {path!r} has Iceberg type {kind}, which this release does not know: upgrade vectorlake"
        )
    return ScalarType(name)


def _default(field: ice.NestedField, kind: Type) -> Any:
    value = field.initial_default
    if value is None:
        return None
    arrow = type_to_arrow(kind, storage=True)
    plain = isinstance(field.field_type, ice.StringType | ice.BooleanType | ice.StructType)
    try:
        # Metadata files hold defaults as JSON; tables made in this process hold Python values.
        if isinstance(value, str) and not plain:
            value = from_json(field.field_type, value)
        return literal_to_json(_python(value), arrow)
    except (InvalidInputError, TypeError, ValueError) as e:
        raise UnsupportedError(
            f"source column {field.name!r} has a default of {value!r} that can't be read: {e}"
        ) from e


def partition_literal(value: object, field: Field) -> Any:
    """A partition value of an identity-partitioned column as a JSON literal of that column."""
    kind = type_to_arrow(field.type, storage=True)
    if isinstance(value, int) and pa.types.is_temporal(kind):
        # Iceberg keeps temporal partition values as numbers of the column's unit.
        value = pa.scalar(value, pa.int32() if kind.bit_width == 32 else pa.int64()).cast(kind)
    return literal_to_json(_python(value), kind)


def _python(value: object) -> object:
    """A value as `pyarrow.scalar` takes it: a UUID as its bytes."""
    return getattr(value, "bytes", value)


def bounds_of(
    fields: Sequence[Field],
    *,
    lower: Mapping[int, bytes],
    upper: Mapping[int, bytes],
    nulls: Mapping[int, int],
    nans: Mapping[int, int],
) -> dict[int, FieldBounds]:
    """The bounds of a data file's top-level columns, from Iceberg's maps by field id."""
    known: dict[int, FieldBounds] = {}
    for field in fields:
        kind = type_to_arrow(field.type, storage=True)
        if pa.types.is_nested(kind):
            continue
        low, high = decode_bound(lower.get(field.id), kind), decode_bound(upper.get(field.id), kind)
        bounds = FieldBounds(low, high, nulls.get(field.id), nans.get(field.id))
        if bounds != FieldBounds():
            known[field.id] = bounds
    return known


_NUMBERS: Final[Mapping[tuple[str, int], str]] = {
    ("int", 4): "<i",
    ("int", 8): "<q",
    ("float", 4): "<f",
    ("float", 8): "<d",
}


def decode_bound(data: bytes | None, kind: pa.DataType) -> pa.Scalar | None:
    """One serialized bound as a scalar of storage type `kind`; None if there is none or it can't be read.

    A bound's own length tells the type it was written with, before the column was promoted (Iceberg specification,
    "Binary single-value serialization").
    """
    if data is None:
        return None
    t = pa.types
    try:
        if t.is_boolean(kind):
            return pa.scalar(data != b"\x00", kind)
        if t.is_string(kind):
            return pa.scalar(data.decode(), kind)
        if t.is_binary(kind):
            return pa.scalar(data, kind)
        if t.is_fixed_size_binary(kind):
            return pa.scalar(data, kind) if len(data) == kind.byte_width else None
        if t.is_decimal(kind):
            return _decimal(int.from_bytes(data, "big", signed=True), kind)
        family = "float" if t.is_floating(kind) else "int"
        value = struct.unpack(_NUMBERS[family, len(data)], data)[0]
        if t.is_floating(kind):
            return None if value != value else pa.scalar(value, kind)
        width = pa.int32() if len(data) == 4 else pa.int64()
        if t.is_timestamp(kind) and len(data) == 4:
            return pa.scalar(value, width).cast(pa.date32()).cast(kind)
        if kind.bit_width == 64:
            return pa.scalar(value, pa.int64()).cast(kind)
        return pa.scalar(value, width).cast(kind)
    except (KeyError, UnicodeDecodeError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _decimal(unscaled: int, kind: pa.DataType) -> pa.Scalar:
    sign, digits = int(unscaled < 0), tuple(int(digit) for digit in str(abs(unscaled)))
    return pa.scalar(Decimal((sign, digits, -kind.scale)), kind)


def merged_schema(mine: Schema, old: Schema, new: Schema) -> Schema:
    """The table's schema after its source's went from `old` to `new`.

    The source's columns come first, in its order; columns added here follow in theirs. What was renamed or dropped
    here stays so.

    Raises:
        InvalidInputError: a column of the source took the name of one added here.
    """
    own = [field for field in mine.fields if field.id >= FIRST_OWN_ID]
    was, here = {field.id: field for field in old.fields}, {field.id: field for field in mine.fields}
    fields: list[Field] = []
    for field in new.fields:
        before, local = was.get(field.id), here.get(field.id)
        if local is None:
            if before is None:
                fields.append(field)
            continue
        kept = _with_own_children(field, local)
        if before is not None and local.name != before.name:
            kept = msgspec.structs.replace(kept, name=local.name)
        fields.append(kept)
    owned = {field.name: field for field in own}
    for field in fields:
        if field.name in owned:
            raise InvalidInputError(
                f"the source's column {field.name!r} (field id {field.id}) has the name of the column {field.name!r} that was "
                f"added here (field id {owned[field.name].id}): rename the latter with rename_column, then sync again"
            )
    check_names([field.name for field in fields])
    return Schema((*fields, *own), extra=mine.extra)


def _with_own_children(field: Field, local: Field) -> Field:
    """A source's field with the children that were added to its structs here, at any depth."""
    match field.type, local.type:
        case StructType(fields=children), StructType(fields=locals_):
            by_id = {child.id: child for child in locals_}
            kept = [
                _with_own_children(child, by_id[child.id]) if child.id in by_id else child
                for child in children
            ]
            own = [child for child in locals_ if child.id >= FIRST_OWN_ID]
            kind: Type = StructType((*kept, *own))
        case ListType(element=element, large=large), ListType(element=other):
            kind = ListType(_with_own_children(element, other), large)
        case MapType(key=key, value=value), MapType(key=_, value=other):
            kind = MapType(key, _with_own_children(value, other))
        case _:
            return field
    return msgspec.structs.replace(field, type=kind)
