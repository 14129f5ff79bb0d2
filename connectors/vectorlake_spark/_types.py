"""How a table's types show in Spark, and what Spark's types become in a table.

Spark has one kind of array, no half floats, no unsigned numbers. The exact type travels in the metadata of a column,
which Spark keeps through projections, so that a table made of a frame that was read has the same types again.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pyarrow as pa
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    ByteType,
    DataType,
    DateType,
    DayTimeIntervalType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    NumericType,
    ShortType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
    TimeType,
)

from vectorlake import InvalidInputError, UnsupportedError
from vectorlake import vector as vector_type
from vectorlake.extend import describe, did_you_mean, schema_from_arrow

ARROW_KEY: Final = "vectorlake.arrow"
"""In a column's metadata: its Arrow field, serialized, where Spark's type does not tell it."""
TYPE_KEY: Final = "vectorlake.type"
"""Beside it: the same in words, for people."""

_MOST_DIGITS: Final = 38
_PLAIN: Final[Mapping[pa.DataType, DataType]] = {
    pa.bool_(): BooleanType(), pa.int8(): ByteType(), pa.int16(): ShortType(), pa.int32(): IntegerType(),
    pa.int64(): LongType(), pa.uint8(): ShortType(), pa.uint16(): IntegerType(), pa.uint32(): LongType(),
    pa.uint64(): DecimalType(20, 0), pa.float16(): FloatType(), pa.float32(): FloatType(),
    pa.float64(): DoubleType(), pa.string(): StringType(), pa.large_string(): StringType(),
    pa.binary(): BinaryType(), pa.large_binary(): BinaryType(), pa.date32(): DateType(), pa.date64(): DateType(),
}  # fmt: skip
_VECTOR_WORDS: Final = re.compile(r"\s*(\d+)\s*(?:[, ]\s*(\w+))?\s*")


def spark_type(kind: pa.DataType) -> DataType:
    """The Spark type under which a column of an Arrow type shows; no value changes.

    Vectors and all lists are arrays; half floats and unsigned integers the next wider type; extension types what they
    are stored as; decimals of more than 38 digits text.
    """
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return spark_type(kind.storage_type)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if t.is_fixed_size_binary(kind):
        return BinaryType()
    if t.is_decimal(kind):
        # Spark's own limit; a table's negative scales have as many digits more.
        digits = max(kind.precision - min(kind.scale, 0), kind.scale)
        return DecimalType(digits, max(kind.scale, 0)) if digits <= _MOST_DIGITS else StringType()
    if t.is_timestamp(kind):
        return TimestampNTZType() if kind.tz is None else TimestampType()
    if t.is_time(kind):
        return TimeType(6)
    if t.is_duration(kind):
        return DayTimeIntervalType()
    if t.is_struct(kind):
        return StructType([spark_field(child) for child in kind.fields])
    if t.is_map(kind):
        return MapType(spark_type(kind.key_type), spark_type(kind.item_type), kind.item_field.nullable)
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        return ArrayType(spark_type(kind.value_type), kind.value_field.nullable)
    raise UnsupportedError(
        f"a column of type {kind} can't be shown in Spark: leave it out with the option 'columns'"
    )


def spark_field(field: pa.Field, more: Mapping[str, str] | None = None) -> StructField:
    """A column as Spark's schema shows it, with its exact type and `more` in its metadata."""
    shown = spark_type(field.type)
    metadata = dict(more or {})
    plain = pa.field(field.name, arrow_type(shown), field.nullable)
    if field.metadata or not plain.type.equals(field.type):
        metadata[TYPE_KEY] = _words(field)
        metadata[ARROW_KEY] = base64.b64encode(pa.schema([field]).serialize().to_pybytes()).decode()
    return StructField(field.name, shown, field.nullable, metadata)


def spark_schema(schema: pa.Schema, more: Mapping[str, str] | None = None) -> StructType:
    """A schema as Spark shows it."""
    return StructType([spark_field(field, more) for field in schema])


def arrow_schema(schema: StructType) -> pa.Schema:
    """The Arrow schema in which Spark takes batches, and nothing else."""
    return to_arrow_schema(schema, timezone="UTC")


def arrow_type(kind: DataType) -> pa.DataType:
    """The Arrow type in which Spark takes a column."""
    return arrow_schema(StructType([StructField("x", kind)])).field(0).type


def to_spark(batches: Iterator[pa.RecordBatch], schema: StructType) -> Iterator[pa.RecordBatch]:
    """A table's batches as Spark takes them.

    Raises:
        InvalidInputError: a value that Spark's type can't hold, such as a time with nanoseconds.
    """
    wanted = arrow_schema(schema)
    for batch in batches:
        columns = [_shown(batch.column(index), field) for index, field in enumerate(wanted)]
        yield pa.RecordBatch.from_arrays(columns, schema=wanted)


def _shown(array: pa.Array, field: pa.Field) -> pa.Array:
    try:
        return shown_array(array, field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
        raise InvalidInputError(
            f"column {field.name!r} holds values that Spark's type can't, or another type was asked for: {e}; leave it out "
            "with the option 'columns'"
        ) from None


def shown_array(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """An array as the Arrow type that shows it; what need not change is not copied.

    Raises:
        pa.ArrowInvalid: a value that the type can't hold.
    """
    t = pa.types
    if isinstance(array.type, pa.BaseExtensionType):
        return shown_array(array.storage, kind)
    if array.type.equals(kind):
        return array
    if t.is_fixed_size_list(array.type) and t.is_list(kind):
        return _as_list(array, kind)
    if t.is_struct(kind) and t.is_struct(array.type):
        children = [
            shown_array(array.field(array.type.get_field_index(child.name)), child.type)
            for child in kind.fields
        ]
        return pa.StructArray.from_arrays(children, fields=list(kind.fields), mask=_nulls(array))
    if (t.is_list(kind) or t.is_map(kind)) and array.offset:
        array = pa.concat_arrays([array, array.slice(0, 0)])  # a copy that begins at its buffers' start
    if t.is_list(kind) and (t.is_list(array.type) or t.is_large_list(array.type)):
        values = shown_array(array.values, kind.value_type)
        return pa.ListArray.from_arrays(array.offsets.cast(pa.int32()), values, type=kind, mask=_nulls(array))
    if t.is_map(kind):
        keys, items = shown_array(array.keys, kind.key_type), shown_array(array.items, kind.item_type)
        return pa.MapArray.from_arrays(array.offsets, keys, items, type=kind, mask=_nulls(array))
    return array.cast(kind)


def _as_list(array: pa.FixedSizeListArray, kind: pa.DataType) -> pa.Array:
    """Vectors as lists over the same numbers: pyarrow's cast would copy them."""
    size, rows = array.type.list_size, len(array)
    values = shown_array(array.values.slice(array.offset * size, rows * size), kind.value_type)
    if rows * size > 2**31 - 1:
        raise pa.ArrowInvalid(f"{rows} lists of {size} are too many for one batch")
    offsets = (
        pa.array(range(0, rows * size + 1, size), pa.int32())
        if size
        else pa.array([0] * (rows + 1), pa.int32())
    )
    return pa.ListArray.from_arrays(offsets, values, type=kind, mask=_nulls(array))


def _nulls(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


# --- from Spark ----------------------------------------------------------------------------------------------------


def stored_schema(schema: StructType, vectors: Mapping[str, str] | None = None) -> pa.Schema:
    """The columns of a table that is made of a Spark frame: the exact types that their metadata tells, else the plain ones.

    Args:
        schema: the frame's.
        vectors: column → dimension, or dimension and element (`"384"`, `"384, f16"`), of arrays that are vectors.

    Raises:
        InvalidInputError: a vector that is no array of numbers, or is not there.
        UnsupportedError: a type that no table can hold.
    """
    asked = {name.lower(): words for name, words in (vectors or {}).items()}
    fields = [_stored_field(field, asked.pop(field.name.lower(), None)) for field in schema.fields]
    for name in asked:
        raise InvalidInputError(
            f"option 'vector.{name}' names no column{did_you_mean(name, schema.names)} of {', '.join(schema.names)}"
        )
    return pa.schema(fields)


def _stored_field(field: StructField, vector: str | None) -> pa.Field:
    try:
        plain = arrow_schema(StructType([field])).field(0)
    except Exception as e:
        raise UnsupportedError(
            f"column {field.name!r} is {field.dataType.simpleString()}, which no table can hold"
        ) from e
    if vector is not None:
        return pa.field(field.name, _vector(field, vector), field.nullable)
    exact = exact_field(field)
    if exact is not None and (_marked(exact, field) or _same(spark_type(exact.type), field.dataType)):
        return exact.with_name(field.name).with_nullable(field.nullable)
    return pa.field(field.name, _unmarked(plain.type), field.nullable)


def exact_field(field: StructField) -> pa.Field | None:
    """The Arrow field that a column's metadata tells."""
    written = field.metadata.get(ARROW_KEY)
    return None if written is None else pa.ipc.read_schema(pa.py_buffer(base64.b64decode(written))).field(0)


def vector_metadata(dimension: int, element: str = "f32") -> dict[str, str]:
    """The metadata that makes a column of arrays a vector, once a table is made of it."""
    return dict(spark_field(pa.field("x", vector_type(dimension, element))).metadata)


def _marked(exact: pa.Field, field: StructField) -> bool:
    """Whether a column of arrays of any numbers is marked as a vector."""
    shown = field.dataType
    return pa.types.is_fixed_size_list(exact.type) and (
        isinstance(shown, ArrayType) and isinstance(shown.elementType, NumericType)
    )


def _same(one: DataType, other: DataType) -> bool:
    """Whether two types differ in nothing but which elements may be null and what their metadata says."""
    if isinstance(one, ArrayType) and isinstance(other, ArrayType):
        return _same(one.elementType, other.elementType)
    if isinstance(one, MapType) and isinstance(other, MapType):
        return _same(one.keyType, other.keyType) and _same(one.valueType, other.valueType)
    if isinstance(one, StructType) and isinstance(other, StructType):
        return one.names == other.names and all(
            _same(mine.dataType, theirs.dataType)
            for mine, theirs in zip(one.fields, other.fields, strict=True)
        )
    return one == other


def _vector(field: StructField, words: str) -> pa.DataType:
    match = _VECTOR_WORDS.fullmatch(words)
    if match is None:
        raise InvalidInputError(
            f"option 'vector.{field.name}' is a dimension and maybe an element, such as '384' or '384, f16', not {words!r}"
        )
    if not isinstance(field.dataType, ArrayType):
        raise InvalidInputError(
            f"column {field.name!r} is no array, but {field.dataType.simpleString()}: not a vector"
        )
    return vector_type(int(match[1]), match[2] or "f32")


def _unmarked(kind: pa.DataType) -> pa.DataType:
    """A type of Spark's without the marks that Spark puts on children, which are not the user's."""
    t = pa.types
    if t.is_struct(kind):
        return pa.struct([_unmarked_field(child) for child in kind.fields])
    if t.is_map(kind):
        return pa.map_(_unmarked_field(kind.key_field), _unmarked_field(kind.item_field))
    if t.is_list(kind):
        return pa.list_(pa.field("item", _unmarked(kind.value_type), kind.value_field.nullable))
    return kind


def _unmarked_field(field: pa.Field) -> pa.Field:
    return pa.field(field.name, _unmarked(field.type), field.nullable)


def _words(field: pa.Field) -> str:
    schema, _ = schema_from_arrow(pa.schema([field]))
    known: Any = schema.fields[0]
    return describe(known.type, known.logical)
