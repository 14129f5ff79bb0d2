"""Iceberg's types, defaults, partition values and bounds as ours. Pure: values in, values out."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeAlias, cast

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
            value = from_json(cast("ice.PrimitiveType", field.field_type), value)
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


Decode: TypeAlias = Callable[[bytes], pa.Scalar]
"""A serialized bound as a scalar; raises what the bytes make it raise."""


def bound_decoders(fields: Iterable[Field]) -> dict[int, Decode]:
    """How to decode the bounds of top-level columns, by field id; columns with children have none."""
    kinds = {field.id: type_to_arrow(field.type, storage=True) for field in fields}
    return {field_id: _decoder(kind) for field_id, kind in kinds.items() if not pa.types.is_nested(kind)}


def bounds_of(
    decoders: Mapping[int, Decode],
    *,
    lower: Mapping[int, bytes],
    upper: Mapping[int, bytes],
    nulls: Mapping[int, int],
    nans: Mapping[int, int],
) -> dict[int, FieldBounds]:
    """The bounds of a data file's columns, from Iceberg's maps by field id; what can't be decoded is left out."""
    known: dict[int, FieldBounds] = {}
    for field_id, decode in decoders.items():
        low, high = lower.get(field_id), upper.get(field_id)
        null_count, nan_count = nulls.get(field_id), nans.get(field_id)
        if low is None and high is None and null_count is None and nan_count is None:
            continue
        known[field_id] = FieldBounds(_decoded(low, decode), _decoded(high, decode), null_count, nan_count)
    return known


def _decoded(data: bytes | None, decode: Decode) -> pa.Scalar | None:
    if data is None:
        return None
    try:
        return decode(data)
    except (KeyError, UnicodeDecodeError, OverflowError, pa.ArrowInvalid):
        return None


_NUMBERS: Final[Mapping[tuple[str, int], struct.Struct]] = {
    ("int", 4): struct.Struct("<i"),
    ("int", 8): struct.Struct("<q"),
    ("float", 4): struct.Struct("<f"),
    ("float", 8): struct.Struct("<d"),
}


def _decoder(kind: pa.DataType) -> Decode:
    """How bounds are decoded as scalars of storage type `kind`.

    A bound's own length tells the type it was written with, before the column was promoted (Iceberg specification,
    "Binary single-value serialization").
    """
    t = pa.types
    if t.is_boolean(kind):
        return lambda data: pa.scalar(data != b"\x00", kind)
    if t.is_string(kind):
        return lambda data: pa.scalar(data.decode(), kind)
    if t.is_binary(kind) or t.is_fixed_size_binary(kind):
        return lambda data: pa.scalar(data, kind)
    if t.is_decimal(kind):
        return lambda data: _decimal(int.from_bytes(data, "big", signed=True), kind)
    if t.is_floating(kind):
        return lambda data: _number("float", data, kind)
    if t.is_timestamp(kind):
        return lambda data: _date_or_time(data, kind)
    return lambda data: _number("int", data, kind)


def _number(family: str, data: bytes, kind: pa.DataType) -> pa.Scalar:
    (value,) = _NUMBERS[family, len(data)].unpack(data)
    if value != value:
        raise KeyError(value)  # NaN bounds nothing
    return pa.scalar(value, kind)


def _date_or_time(data: bytes, kind: pa.DataType) -> pa.Scalar:
    """A timestamp, or the day that it was before the column was promoted from a date."""
    if len(data) == 4:
        return _number("int", data, pa.date32()).cast(kind)
    return _number("int", data, kind)


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
                f"the source's column {field.name!r} (field id {field.id}) has the name of the column {field.name!r} that "
                f"was added here (field id {owned[field.name].id}): rename the latter with rename_column, then sync again"
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
