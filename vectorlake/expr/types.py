"""The Arrow types of expressions: a column's plain type, the type two sides share, and SQL names."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt

_UNITS = ("s", "ms", "us", "ns")

_NAMES: dict[str, pa.DataType] = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
    "UBIGINT": pa.uint64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
    "LARGE_VARCHAR": pa.large_string(),
    "BLOB": pa.binary(),
    "LARGE_BLOB": pa.large_binary(),
    "DATE": pa.date32(),
    "DATE_MS": pa.date64(),
    "TIME_S": pa.time32("s"),
    "TIME_MS": pa.time32("ms"),
    "TIME": pa.time64("us"),
    "TIME_NS": pa.time64("ns"),
    "TIMESTAMP_S": pa.timestamp("s"),
    "TIMESTAMP_MS": pa.timestamp("ms"),
    "TIMESTAMP": pa.timestamp("us"),
    "TIMESTAMP_NS": pa.timestamp("ns"),
    "TIMESTAMPTZ_S": pa.timestamp("s", "UTC"),
    "TIMESTAMPTZ_MS": pa.timestamp("ms", "UTC"),
    "TIMESTAMPTZ": pa.timestamp("us", "UTC"),
    "TIMESTAMPTZ_NS": pa.timestamp("ns", "UTC"),
    "DURATION_S": pa.duration("s"),
    "DURATION_MS": pa.duration("ms"),
    "DURATION": pa.duration("us"),
    "DURATION_NS": pa.duration("ns"),
}
_BY_TYPE = {data_type: name for name, data_type in _NAMES.items()}


def type_named(name: str) -> pa.DataType | None:
    """The Arrow type of one of the SQL type names that `type_name` gives, or None."""
    return _NAMES.get(name.upper())


def type_name(data_type: pa.DataType) -> str | None:
    """The SQL name of a type that a CAST can name, or None where it has none."""
    if pt.is_decimal(data_type):
        return f"DECIMAL({data_type.precision}, {data_type.scale})"
    return _BY_TYPE.get(data_type)


def type_names() -> list[str]:
    """The SQL type names a CAST may use, sorted."""
    return sorted([*_NAMES, "DECIMAL(p, s)"])


def plain_type(data_type: pa.DataType) -> pa.DataType:
    """The type in which a stored type is computed: encodings and extension types taken off.

    Half floats are computed as float32, because Arrow has no kernels for them.
    """
    if isinstance(data_type, pa.BaseExtensionType):
        return plain_type(data_type.storage_type)
    if pt.is_dictionary(data_type) or pt.is_run_end_encoded(data_type):
        return plain_type(data_type.value_type)
    if pt.is_string_view(data_type):
        return pa.string()
    if pt.is_binary_view(data_type):
        return pa.binary()
    if pt.is_float16(data_type):
        return pa.float32()
    return data_type


def is_number(data_type: pa.DataType) -> bool:
    return bool(pt.is_integer(data_type) or pt.is_floating(data_type) or pt.is_decimal(data_type))


def is_text(data_type: pa.DataType) -> bool:
    return bool(pt.is_string(data_type) or pt.is_large_string(data_type))


def is_bytes(data_type: pa.DataType) -> bool:
    return bool(
        pt.is_binary(data_type) or pt.is_large_binary(data_type) or pt.is_fixed_size_binary(data_type)
    )


def is_list(data_type: pa.DataType) -> bool:
    return bool(pt.is_list(data_type) or pt.is_large_list(data_type) or pt.is_fixed_size_list(data_type))


def is_instant(data_type: pa.DataType) -> bool:
    """Whether values are points in time: dates and timestamps."""
    return bool(pt.is_date(data_type) or pt.is_timestamp(data_type))


def integer_digits(data_type: pa.DataType) -> int:
    """Decimal digits that hold every value of an integer type."""
    return {8: 3, 16: 5, 32: 10, 64: 20 if pt.is_unsigned_integer(data_type) else 19}[data_type.bit_width]


def integer_range(data_type: pa.DataType) -> tuple[int, int]:
    """The least and the greatest value of an integer type."""
    if pt.is_unsigned_integer(data_type):
        return 0, int(2**data_type.bit_width - 1)
    return -int(2 ** (data_type.bit_width - 1)), int(2 ** (data_type.bit_width - 1) - 1)


def decimal_type(precision: int, scale: int) -> pa.DataType | None:
    if precision <= 38:
        return pa.decimal128(precision, scale)
    return pa.decimal256(precision, scale) if precision <= 76 else None


def common_type(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """The type both sides are brought to before they meet in a comparison or a CASE; None when there is none.

    Integers never lose a value among integers; those of more than 16 bits meet float32 in float64. A date
    meets a timestamp as its midnight; a naive timestamp meets a zoned one as UTC.
    """
    if left.equals(right) or pt.is_null(right):
        return left
    if pt.is_null(left):
        return right
    if is_number(left) and is_number(right):
        return _common_number(left, right)
    if is_text(left) and is_text(right):
        return pa.large_string()
    if is_bytes(left) and is_bytes(right):
        large = pt.is_large_binary(left) or pt.is_large_binary(right)
        return pa.large_binary() if large else pa.binary()
    if is_instant(left) and is_instant(right):
        return _common_instant(left, right)
    if pt.is_time(left) and pt.is_time(right):
        unit = _finest(left.unit, right.unit)
        return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    if pt.is_duration(left) and pt.is_duration(right):
        return pa.duration(_finest(left.unit, right.unit))
    return None


def _common_number(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if pt.is_floating(left) or pt.is_floating(right):
        both = (left, right)
        small = all(pt.is_float32(t) or (pt.is_integer(t) and t.bit_width <= 16) for t in both)
        return pa.float32() if small else pa.float64()
    if pt.is_decimal(left) or pt.is_decimal(right):
        scale = max(_scale(left), _scale(right))
        digits = max(_whole_digits(left), _whole_digits(right))
        return decimal_type(digits + scale, scale)
    if pt.is_signed_integer(left) == pt.is_signed_integer(right):
        return left if left.bit_width > right.bit_width else right
    signed, unsigned = (left, right) if pt.is_signed_integer(left) else (right, left)
    if signed.bit_width > unsigned.bit_width:
        return signed
    return {8: pa.int16(), 16: pa.int32(), 32: pa.int64(), 64: pa.decimal128(20, 0)}[unsigned.bit_width]


def _scale(data_type: pa.DataType) -> int:
    return int(data_type.scale) if pt.is_decimal(data_type) else 0


def _whole_digits(data_type: pa.DataType) -> int:
    if pt.is_decimal(data_type):
        return int(data_type.precision - data_type.scale)
    return integer_digits(data_type)


def _common_instant(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    stamps = [t for t in (left, right) if pt.is_timestamp(t)]
    if not stamps:
        return pa.date32()
    unit = _finest(*(t.unit for t in stamps))
    zoned = any(t.tz is not None for t in stamps)
    return pa.timestamp(unit, "UTC") if zoned else pa.timestamp(unit)


def is_finer(left: pa.DataType, right: pa.DataType) -> bool:
    """Whether the unit of one timestamp type is finer than that of another."""
    return _UNITS.index(left.unit) > _UNITS.index(right.unit)


def _finest(*units: str) -> str:
    return max(units, key=_UNITS.index)
