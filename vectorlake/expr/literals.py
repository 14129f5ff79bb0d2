"""Constants as exact values: read dates and times, and fit a constant to the type it is compared with."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from vectorlake.expr import types

_NANOS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY = 86_400 * 10**9
_EPOCH = dt.date(1970, 1, 1).toordinal()
_TIME = r"(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?"
_TIME_PATTERN = re.compile(_TIME)
_INSTANT_PATTERN = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ]\s*" + _TIME + r")?\s*(?:(Z|UTC)|([+-])(\d{2}):?(\d{2})?)?",
    re.IGNORECASE,
)
_UUID_PATTERN = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_BYTES_PATTERN = re.compile(r"\\x([0-9a-fA-F]{2})")


@dataclass(frozen=True)
class Raw:
    """A constant as it was written, without a type until what surrounds it gives it one; `None` is NULL."""

    value: int | Decimal | str | None

    def __str__(self) -> str:
        if self.value is None:
            return "NULL"
        return "'" + self.value.replace("'", "''") + "'" if isinstance(self.value, str) else str(self.value)


@dataclass(frozen=True)
class Fit:
    """`column op scalar`, where the scalar has the column's type."""

    op: str
    scalar: pa.Scalar


@dataclass(frozen=True)
class _Grid:
    """A type whose values are whole steps: kind of quantity, size of a step, least and greatest step."""

    kind: str
    step: Fraction
    low: int
    high: int
    make: Callable[[int], pa.Scalar]


def parse_instant(text: str) -> tuple[int, bool] | None:
    """Nanoseconds since 1970 in UTC, and whether a zone was written; None if it is no ISO 8601 instant."""
    match = _INSTANT_PATTERN.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, utc, sign, zone_hour, zone_minute = match.groups()
    try:
        days = dt.date(int(year), int(month), int(day)).toordinal() - _EPOCH
    except ValueError:
        return None
    nanos = _time_of_day(hour or "0", minute or "0", second, fraction)
    if nanos is None:
        return None
    if sign is not None:
        offset = (int(zone_hour) * 60 + int(zone_minute or 0)) * 60 * 10**9
        nanos += -offset if sign == "+" else offset
    return days * _DAY + nanos, utc is not None or sign is not None


def parse_time(text: str) -> int | None:
    """Nanoseconds since midnight, or None."""
    match = _TIME_PATTERN.fullmatch(text.strip())
    return _time_of_day(*match.groups()) if match is not None else None


def _time_of_day(hour: str, minute: str, second: str | None, fraction: str | None) -> int | None:
    if int(hour) > 23 or int(minute) > 59 or int(second or 0) > 59:
        return None
    seconds = (int(hour) * 60 + int(minute)) * 60 + int(second or 0)
    return seconds * 10**9 + int((fraction or "").ljust(9, "0") or 0)


def parse_bytes(text: str) -> bytes:
    r"""The bytes a string stands for as a BLOB: those of a UUID, else UTF-8 with `\xAB` for a byte."""
    if _UUID_PATTERN.fullmatch(text):
        return UUID(text).bytes
    parts = _BYTES_PATTERN.split(text)
    return b"".join(bytes.fromhex(p) if i % 2 else p.encode() for i, p in enumerate(parts))


def instant_scalar(nanos: int, *, zoned: bool) -> pa.Scalar:
    """A timestamp literal's value: in microseconds, or in nanoseconds where it needs them."""
    unit = "us" if nanos % 1000 == 0 else "ns"
    return _stamp(nanos // _NANOS[unit], pa.timestamp(unit, "UTC") if zoned else pa.timestamp(unit))


def _stamp(value: int, data_type: pa.DataType) -> pa.Scalar:
    return pa.array(np.array([value], np.int64)).view(data_type)[0]


def decimal_scalar(steps: int, data_type: pa.DataType) -> pa.Scalar:
    digits = tuple(int(d) for d in str(abs(steps)))
    return pa.scalar(Decimal((int(steps < 0), digits, -data_type.scale)), data_type)


def exact(constant: Raw | pa.Scalar) -> tuple[str, Fraction] | None:
    """What kind of quantity a constant is and how much; None for a constant that is no finite quantity."""
    if isinstance(constant, Raw):
        value = constant.value
        if isinstance(value, int | Decimal):
            return "number", Fraction(value)
        return None
    data_type = constant.type
    if not constant.is_valid or pt.is_boolean(data_type):
        return None
    if types.is_number(data_type):
        number = constant.as_py()
        return ("number", Fraction(number)) if math.isfinite(number) else None
    grid = _grid(data_type)
    return (grid.kind, int_value(constant) * grid.step) if grid is not None else None


def int_value(scalar: pa.Scalar) -> int:
    """The whole steps of a date, time, timestamp or duration (a date64's days)."""
    value = int(scalar.value)
    return value // 86_400_000 if pt.is_date64(scalar.type) else value


def _grid(data_type: pa.DataType) -> _Grid | None:
    if pt.is_integer(data_type):
        low, high = types.integer_range(data_type)
        return _Grid("number", Fraction(1), low, high, lambda n: pa.scalar(n, data_type))
    if pt.is_decimal(data_type):
        top = 10**data_type.precision - 1
        step = Fraction(1, 10**data_type.scale) if data_type.scale >= 0 else Fraction(10**-data_type.scale)
        return _Grid("number", step, -top, top, lambda n: decimal_scalar(n, data_type))
    wide, narrow = 2**63 - 1, 2**31 - 1
    if pt.is_date32(data_type):
        return _Grid("instant", Fraction(_DAY), -narrow - 1, narrow, lambda n: pa.scalar(n, data_type))
    if pt.is_date64(data_type):
        most = wide // 86_400_000
        return _Grid(
            "instant", Fraction(_DAY), -most, most, lambda n: pa.array([n], pa.date32()).cast(data_type)[0]
        )
    if pt.is_timestamp(data_type):
        step = Fraction(_NANOS[data_type.unit])
        return _Grid("instant", step, -wide - 1, wide, lambda n: _stamp(n, data_type))
    if pt.is_time(data_type):
        nanos = _NANOS[data_type.unit]
        return _Grid("time", Fraction(nanos), 0, _DAY // nanos - 1, lambda n: pa.scalar(n, data_type))
    if pt.is_duration(data_type):
        step = Fraction(_NANOS[data_type.unit])
        return _Grid("duration", step, -wide - 1, wide, lambda n: _stamp(n, data_type))
    return None


def fit(op: str, constant: Raw | pa.Scalar, data_type: pa.DataType) -> Fit | bool | None:
    """Restate `column op constant` with a constant of the column's type, exactly.

    A constant between two values of the type moves to one of them (`i > 2.5` is `i > 2`), and one that the
    type can't reach decides the comparison: the answer is then True or False, for every value but null.
    Returns None when the constant can't be restated in the type.
    """
    grid = _grid(data_type)
    if grid is not None:
        return _fit_grid(op, constant, grid)
    scalar = _as_type(constant, data_type)
    return Fit(op, scalar) if scalar is not None else None


def _fit_grid(op: str, constant: Raw | pa.Scalar, grid: _Grid) -> Fit | bool | None:
    if isinstance(constant, Raw) and isinstance(constant.value, str):
        quantity = _read(constant.value, grid.kind)
        known = (grid.kind, Fraction(quantity)) if quantity is not None else None
    else:
        known = exact(constant)
        if (
            known is None
            and grid.kind == "number"
            and pt.is_floating(getattr(constant, "type", None) or pa.null())
        ):
            return _beyond(op, constant.as_py())  # type: ignore[union-attr]
    if known is None or known[0] != grid.kind:
        return None
    steps = known[1] / grid.step
    whole = math.floor(steps)
    if steps < grid.low or steps > grid.high:
        return _beyond(op, -math.inf if steps < grid.low else math.inf)
    if steps == whole:
        return Fit(op, grid.make(whole))
    if op in ("=", "!="):
        return op == "!="
    return Fit("<=" if op in ("<", "<=") else ">", grid.make(whole))


def _beyond(op: str, value: float) -> bool:
    """The comparison of any value with NaN, or with something above or below all values."""
    if math.isnan(value) or op in ("=", "!="):
        return op == "!="
    return (op in ("<", "<=")) == (value > 0)


def _read(text: str, kind: str) -> int | None:
    if kind == "instant":
        instant = parse_instant(text)
        return instant[0] if instant is not None else None
    return parse_time(text) if kind == "time" else None


def _as_type(constant: Raw | pa.Scalar, data_type: pa.DataType) -> pa.Scalar | None:
    value: Any = constant.value if isinstance(constant, Raw) else constant.as_py()
    if pt.is_floating(data_type):
        return _as_float(constant, data_type)
    if types.is_text(data_type):
        return pa.scalar(value, data_type) if isinstance(value, str) else None
    if types.is_bytes(data_type):
        if isinstance(value, str) and isinstance(constant, Raw):
            value = parse_bytes(value)
        fits = isinstance(value, bytes) and (
            not pt.is_fixed_size_binary(data_type) or len(value) == data_type.byte_width
        )
        return pa.scalar(value, data_type) if fits else None
    if pt.is_boolean(data_type):
        return pa.scalar(value, data_type) if isinstance(value, bool) else None
    return None


def _as_float(constant: Raw | pa.Scalar, data_type: pa.DataType) -> pa.Scalar | None:
    """A written number becomes the nearest float; a double meets float32 only where nothing is lost."""
    value = constant.value if isinstance(constant, Raw) else constant.as_py()
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        number = float(value)
    except OverflowError:
        number = math.copysign(math.inf, value)
    if pt.is_float64(data_type):
        return pa.scalar(number, data_type)
    with np.errstate(over="ignore"):
        small = float(np.float32(number))
    lossless = small == number or math.isnan(number)
    if lossless or (not isinstance(constant, pa.DoubleScalar) and math.isfinite(small)):
        return pa.scalar(small, data_type)
    return None


def retype(constant: Raw, data_type: pa.DataType) -> pa.Scalar | None:
    """A written constant in a type, if the type holds it (a number becomes the nearest float); else None."""
    if constant.value is None:
        return pa.scalar(None, data_type)
    fitted = fit("=", constant, data_type)
    return fitted.scalar if isinstance(fitted, Fit) else None


def settle(constant: Raw) -> pa.Scalar:
    """A written constant where nothing around it gives it a type: bigint, else double; a string; null."""
    value = constant.value
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return pa.scalar(value, pa.int64())
        if 0 <= value < 2**64:
            return pa.scalar(value, pa.uint64())
    if isinstance(value, int | Decimal):
        scalar = _as_float(constant, pa.float64())
        assert scalar is not None
        return scalar
    return pa.scalar(value, pa.string()) if isinstance(value, str) else pa.scalar(None, pa.null())
