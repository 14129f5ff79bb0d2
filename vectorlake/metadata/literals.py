"""Single values (column defaults, bounds, partition constants) as JSON, and back, by their Arrow type.

The encoding is in the format specification, section "Literals".
"""

from __future__ import annotations

import base64
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa

from vectorlake.errors import InvalidInputError


def literal_to_json(value: object, kind: pa.DataType) -> Any:
    """A Python value or Arrow scalar of Arrow type `kind` as a JSON value (None for null).

    Raises:
        InvalidInputError: the value does not fit the type.
    """
    if value is None:
        return None
    if isinstance(value, pa.Scalar) and value.type == kind:
        return _encode(
            value, kind
        )  # not by way of Python values, which have no nanoseconds and end in the year 9999
    if isinstance(value, pa.Scalar):
        value = value.cast(kind).as_py()
    try:
        scalar = pa.scalar(value, type=kind)
    except (
        pa.ArrowInvalid,
        pa.ArrowTypeError,
        pa.ArrowNotImplementedError,
        OverflowError,
        TypeError,
        ValueError,
    ) as e:
        raise InvalidInputError(f"the value {value!r} does not fit the type {kind}: {e}") from e
    return _encode(scalar, kind)


def _encode(scalar: pa.Scalar, kind: pa.DataType) -> Any:
    t = pa.types
    if not scalar.is_valid:
        return None
    if isinstance(kind, pa.BaseExtensionType):
        return _encode(scalar.value, kind.storage_type)
    if t.is_boolean(kind) or t.is_integer(kind) or t.is_string(kind) or t.is_large_string(kind):
        return scalar.as_py()
    if t.is_floating(kind):
        number = float(scalar.as_py())
        if math.isfinite(number):
            return number
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    if t.is_decimal(kind):
        return str(scalar.as_py())
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_fixed_size_binary(kind):
        return base64.b64encode(scalar.as_py()).decode()
    if t.is_temporal(kind):
        return scalar.value
    if t.is_struct(kind):
        return {field.name: _encode(scalar[field.name], field.type) for field in kind.fields}
    if t.is_map(kind):
        return [
            [_encode(pair["key"], kind.key_type), _encode(pair["value"], kind.item_type)]
            for pair in scalar.values
        ]
    return [_encode(element, kind.value_type) for element in scalar.values]


def literal_from_json(value: Any, kind: pa.DataType) -> pa.Scalar:
    """The Arrow scalar of type `kind` that `literal_to_json` encoded."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionScalar.from_storage(kind, literal_from_json(value, kind.storage_type))
    if value is not None and pa.types.is_temporal(kind):
        return pa.scalar(value, pa.int32() if kind.bit_width == 32 else pa.int64()).cast(kind)
    return pa.scalar(_decode(value, kind), type=kind)


def _decode(value: Any, kind: pa.DataType) -> Any:
    t = pa.types
    if value is None:
        return None
    if t.is_floating(kind):
        return float(value)
    if t.is_decimal(kind):
        return Decimal(value)
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_fixed_size_binary(kind):
        return base64.b64decode(value)
    if t.is_timestamp(kind) or t.is_duration(kind) or t.is_time(kind) or t.is_date(kind):
        if t.is_temporal(kind) and getattr(kind, "unit", "") == "ns":
            return value  # Python has no nanoseconds; `pa.scalar` takes the integer of the unit as it is
        storage = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pa.scalar(value, storage).cast(kind).as_py()
    if t.is_struct(kind):
        return {field.name: _decode(value.get(field.name), field.type) for field in kind.fields}
    if t.is_map(kind):
        return [(_decode(key, kind.key_type), _decode(item, kind.item_type)) for key, item in value]
    if t.is_nested(kind):
        return [_decode(element, kind.value_type) for element in value]
    return value
