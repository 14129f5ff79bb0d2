"""What the operators and functions compute, once for Arrow arrays and for pyarrow expressions alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from vectorlake.errors import InvalidInputError, UnsupportedError
from vectorlake.expr import types

# An array or scalar while evaluating, a pyarrow expression while translating: pyarrow.compute takes both.
Datum = Any

_COMPARE: dict[str, Callable[[Datum, Datum], Datum]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


@dataclass(frozen=True)
class Argument:
    """A lowered argument, its type, and its value when it is a constant."""

    datum: Datum
    type: pa.DataType
    constant: pa.Scalar | None

    @property
    def is_expression(self) -> bool:
        return isinstance(self.datum, pc.Expression)


@dataclass(frozen=True)
class Function:
    """A function by its SQL name: what it takes, in words, and how many; `same` brings them to one type."""

    name: str
    takes: str
    least: int
    most: int | None
    lower: Callable[[list[Argument]], Datum]
    same: bool = False


def compare(op: str, left: Datum, right: Datum) -> Datum:
    return _COMPARE[op](left, right)


def balanced(function: Callable[[Datum, Datum], Datum], data: list[Datum]) -> Datum:
    """Fold by halves: a thousand terms make ten levels, not a thousand, for pyarrow recurses over them."""
    while len(data) > 1:
        pairs = [function(data[i], data[i + 1]) for i in range(0, len(data) - 1, 2)]
        data = pairs + data[len(data) - len(data) % 2 :]
    return data[0]


def is_in(datum: Datum, values: pa.Array) -> Datum:
    """Membership with SQL's null: pyarrow alone says false for null, and keeps 0.0 and -0.0 apart."""
    if pt.is_floating(values.type) and pc.any(pc.equal(values, pa.scalar(0.0, values.type))).as_py():
        values = pa.concat_arrays([values, pa.array([-0.0], values.type)])
    found = pc.is_in(datum, value_set=values)
    if isinstance(datum, pa.Array) and not datum.null_count:
        return found
    null = pa.scalar(None, pa.bool_())
    if isinstance(datum, pc.Expression):
        return pc.if_else(pc.is_valid(datum), found, pc.scalar(null))
    return pc.if_else(pc.is_valid(datum), found, null)


def _constant(like: Datum, value: Any, data_type: pa.DataType) -> Datum:
    scalar = pa.scalar(value, data_type)
    return pc.scalar(scalar) if isinstance(like, pc.Expression) else scalar


def _convert(datum: Datum, target: pa.DataType, *, safe: bool = True) -> Datum:
    if isinstance(datum, pc.Expression):
        return datum.cast(target, safe=safe)
    return pc.cast(datum, target, safe=safe)


def cast(datum: Datum, source: pa.DataType, target: pa.DataType) -> Datum:
    """Convert, rounding numbers and flooring times; raises pyarrow's error on a value that does not fit."""
    if source.equals(target):
        return datum
    if pt.is_integer(source) and pt.is_floating(target):
        return _convert(datum, target, safe=False)
    if pt.is_floating(source) and pt.is_integer(target):
        return _convert(pc.round(datum, 0, round_mode="half_to_even"), target)
    if pt.is_floating(source) and pt.is_floating(target):
        return _convert(datum, target, safe=False)
    if pt.is_decimal(source) and (pt.is_integer(target) or pt.is_decimal(target)):
        scale = target.scale if pt.is_decimal(target) else 0
        if scale < source.scale:
            datum = pc.round(datum, scale, round_mode="half_towards_infinity")
        return _convert(datum, target)
    if pt.is_integer(source) and pt.is_decimal(target):
        wide = types.decimal_type(types.integer_digits(source) + target.scale, target.scale)
        if wide is None:
            raise InvalidInputError(f"{source} can't be cast to {target}: choose a smaller scale")
        return _convert(_convert(datum, wide), target)
    if pt.is_timestamp(source) and pt.is_timestamp(target) and types.is_finer(source, target):
        unit = {"s": "second", "ms": "millisecond", "us": "microsecond"}[target.unit]
        return _convert(pc.floor_temporal(datum, unit=unit), target)
    if pt.is_temporal(source) and pt.is_temporal(target):
        return _convert(datum, target, safe=not pt.is_date(target))
    return _convert(datum, target)


def _number(*args: Argument) -> None:
    for arg in args:
        if not (types.is_number(arg.type) or pt.is_null(arg.type)):
            raise TypeError


def _text(arg: Argument) -> Datum:
    if not types.is_text(arg.type):
        raise TypeError
    return arg.datum


def _value(arg: Argument, what: str) -> Any:
    if arg.constant is None:
        raise InvalidInputError(f"{what} must be a constant")
    return arg.constant.as_py()


def _double(arg: Argument) -> Datum:
    _number(arg)
    return arg.datum if pt.is_floating(arg.type) else cast(arg.datum, arg.type, pa.float64())


def _without_zero(arg: Argument, datum: Datum, data_type: pa.DataType) -> Datum:
    zero = _constant(datum, 0, data_type)
    return pc.if_else(pc.equal(datum, zero), _constant(datum, None, data_type), datum)


def _add(args: list[Argument]) -> Datum:
    left, right = args
    if pt.is_date(left.type) and pt.is_integer(right.type):
        days = pc.add_checked(_convert(left.datum, pa.int32()), cast(right.datum, right.type, pa.int32()))
        return _convert(days, pa.date32())
    if types.is_instant(left.type) and pt.is_duration(right.type):
        return pc.add_checked(_stamp(left), right.datum)
    if pt.is_duration(left.type) and types.is_instant(right.type):
        return pc.add_checked(_stamp(right), left.datum)
    if not (pt.is_duration(left.type) and pt.is_duration(right.type)):
        _number(left, right)
    return pc.add_checked(left.datum, right.datum)


def _subtract(args: list[Argument]) -> Datum:
    left, right = args
    if pt.is_date32(left.type) and pt.is_date32(right.type):
        both = (_convert(_convert(arg.datum, pa.int32()), pa.int64()) for arg in args)
        return pc.subtract_checked(*both)
    if pt.is_date(left.type) and pt.is_integer(right.type):
        days = pc.subtract_checked(
            _convert(left.datum, pa.int32()), cast(right.datum, right.type, pa.int32())
        )
        return _convert(days, pa.date32())
    if types.is_instant(left.type) and (pt.is_duration(right.type) or types.is_instant(right.type)):
        other = right.datum if pt.is_duration(right.type) else _stamp(right)
        return pc.subtract_checked(_stamp(left), other)
    if not (pt.is_duration(left.type) and pt.is_duration(right.type)):
        _number(left, right)
    return pc.subtract_checked(left.datum, right.datum)


def _stamp(arg: Argument) -> Datum:
    return _convert(arg.datum, pa.timestamp("us")) if pt.is_date(arg.type) else arg.datum


def _multiply(args: list[Argument]) -> Datum:
    _number(*args)
    return pc.multiply_checked(args[0].datum, args[1].datum)


def _divide(args: list[Argument]) -> Datum:
    left, right = (_double(arg) for arg in args)
    floating = args[1].type if pt.is_floating(args[1].type) else pa.float64()
    return pc.divide(left, _without_zero(args[1], right, floating))


def _integer_divide(args: list[Argument]) -> Datum:
    if not all(pt.is_integer(arg.type) for arg in args):
        raise TypeError
    return pc.divide_checked(args[0].datum, _without_zero(args[1], args[1].datum, args[1].type))


def _remainder(args: list[Argument]) -> Datum:
    left, right = args
    _number(left, right)
    divisor = _without_zero(right, right.datum, right.type)
    if pt.is_floating(right.type):
        quotient = pc.trunc(pc.divide(left.datum, divisor))
        return pc.subtract(left.datum, pc.multiply(quotient, divisor))
    if not pt.is_integer(right.type):
        raise TypeError
    if pt.is_signed_integer(right.type):
        # The least integer divided by -1 overflows; by 1 the remainder is 0 as well.
        minus_one = pc.equal(divisor, _constant(divisor, -1, right.type))
        divisor = pc.if_else(minus_one, _constant(divisor, 1, right.type), divisor)
    quotient = pc.divide(left.datum, divisor)
    return pc.subtract(left.datum, pc.multiply(quotient, divisor))


def _negate(args: list[Argument]) -> Datum:
    if not pt.is_duration(args[0].type):
        _number(args[0])
    return pc.negate_checked(args[0].datum)


def _concat_operator(args: list[Argument]) -> Datum:
    return pc.binary_join_element_wise(
        *(_text(arg) for arg in args), _constant(args[0].datum, "", args[0].type)
    )


def _concat(args: list[Argument]) -> Datum:
    empty = _constant(args[0].datum, "", args[0].type)
    return pc.binary_join_element_wise(*(pc.coalesce(_text(arg), empty) for arg in args), empty)


def _bigint(datum: Datum) -> Datum:
    return _convert(datum, pa.int64())


def _length(args: list[Argument]) -> Datum:
    if types.is_list(args[0].type):
        return _bigint(pc.list_value_length(args[0].datum))
    return _bigint(pc.utf8_length(_text(args[0])))


def _trim(both: Callable[..., Datum]) -> Callable[[list[Argument]], Datum]:
    def lower(args: list[Argument]) -> Datum:
        characters = _value(args[1], "the characters to trim") if len(args) > 1 else " "
        return both(_text(args[0]), characters=characters)

    return lower


def _substr(args: list[Argument]) -> Datum:
    start = _value(args[1], "substr's start")
    length = _value(args[2], "substr's length") if len(args) > 2 else None
    if length is not None and length < 0:
        raise InvalidInputError(f"substr's length must not be negative, it is {length}")
    text = _text(args[0])
    if start >= 0:
        stop = None if length is None else max(start - 1 + length, 0)
        return pc.utf8_slice_codeunits(text, max(start - 1, 0), stop)
    stop = None if length is None or start + length >= 0 else start + length
    return pc.utf8_slice_codeunits(text, start, stop)


def _left(args: list[Argument]) -> Datum:
    return pc.utf8_slice_codeunits(_text(args[0]), 0, max(_value(args[1], "left's count"), 0))


def _matcher(function: Callable[..., Datum], what: str) -> Callable[[list[Argument]], Datum]:
    def lower(args: list[Argument]) -> Datum:
        pattern = _value(args[1], what)
        if pattern is None:
            null = _constant(args[0].datum, None, pa.bool_())
            return pc.if_else(pc.is_null(args[0].datum), null, null)
        if not isinstance(pattern, str):
            raise TypeError
        return function(_text(args[0]), pattern)

    return lower


def _contains(args: list[Argument]) -> Datum:
    if types.is_list(args[0].type):
        return _list_contains(args)
    return _matcher(pc.match_substring, "what contains() looks for")(args)


def _replace(args: list[Argument]) -> Datum:
    pattern, replacement = _value(args[1], "what to replace"), _value(args[2], "the replacement")
    return pc.replace_substring(_text(args[0]), pattern=pattern, replacement=replacement)


def _rounder(function: Callable[..., Datum]) -> Callable[[list[Argument]], Datum]:
    def lower(args: list[Argument]) -> Datum:
        _number(args[0])
        if pt.is_integer(args[0].type):
            return args[0].datum
        return function(args[0].datum)

    return lower


def _round(args: list[Argument]) -> Datum:
    _number(args[0])
    digits = _value(args[1], "round's digits") if len(args) > 1 else 0
    if pt.is_integer(args[0].type) and digits >= 0:
        return args[0].datum
    return pc.round(args[0].datum, ndigits=digits, round_mode="half_towards_infinity")


def _numeric(function: Callable[..., Datum]) -> Callable[[list[Argument]], Datum]:
    def lower(args: list[Argument]) -> Datum:
        _number(*args)
        return function(*(arg.datum for arg in args))

    return lower


def _real(function: Callable[..., Datum]) -> Callable[[list[Argument]], Datum]:
    return lambda args: function(*(_convert(_double(arg), pa.float64()) for arg in args))


def _part(function: Callable[..., Datum]) -> Callable[[list[Argument]], Datum]:
    def lower(args: list[Argument]) -> Datum:
        if not types.is_instant(args[0].type) and not pt.is_time(args[0].type):
            raise TypeError
        return _bigint(function(args[0].datum))

    return lower


_TRUNCATE = (
    "year",
    "quarter",
    "month",
    "week",
    "day",
    "hour",
    "minute",
    "second",
    "millisecond",
    "microsecond",
)


def _date_trunc(args: list[Argument]) -> Datum:
    unit = str(_value(args[0], "date_trunc's unit")).lower()
    if unit not in _TRUNCATE:
        raise InvalidInputError(
            f"date_trunc does not know the unit {unit!r}; it knows {', '.join(_TRUNCATE)}"
        )
    if not types.is_instant(args[1].type):
        raise TypeError
    return pc.floor_temporal(_stamp(args[1]), unit=unit)


def _nullif(args: list[Argument]) -> Datum:
    left, right = (arg.datum for arg in args)
    same = pc.coalesce(pc.equal(left, right), _constant(left, False, pa.bool_()))
    return pc.if_else(same, _constant(left, None, args[0].type), left)


def _is_infinite(args: list[Argument]) -> Datum:
    return pc.is_inf(_double(args[0]))


def _array(arg: Argument, name: str) -> pa.Array:
    if isinstance(arg.datum, pc.Expression):
        raise UnsupportedError(f"pyarrow expressions have no {name}")
    if isinstance(arg.datum, pa.Scalar):
        raise InvalidInputError(f"{name} takes a column of lists, not a constant")
    return arg.datum


def _spans(lists: pa.Array) -> tuple[pa.Array, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The child values of a list array, and where each row's values start and stop in them."""
    if pt.is_fixed_size_list(lists.type):
        size = lists.type.list_size
        starts = (np.arange(len(lists), dtype=np.int64) + lists.offset) * size
        return lists.values, starts, starts + size
    offsets = lists.offsets.to_numpy()
    return lists.values, offsets[:-1].astype(np.int64), offsets[1:].astype(np.int64)


def _list_extract(args: list[Argument]) -> Datum:
    if not types.is_list(args[0].type):
        raise TypeError
    lists = _array(args[0], "list_extract")
    index = _value(args[1], "a list's index")
    if type(index) is not int:
        raise TypeError
    values, starts, stops = _spans(lists)
    position = starts + index - 1 if index > 0 else stops + index
    missing = pc.is_null(lists).to_numpy(zero_copy_only=False) | (position < starts) | (position >= stops)
    if index == 0:
        missing = np.ones(len(lists), bool)
    return values.take(pa.array(position, mask=missing))


def _list_contains(args: list[Argument]) -> Datum:
    if not types.is_list(args[0].type):
        raise TypeError
    lists = _array(args[0], "list_contains")
    if args[1].constant is None:
        raise InvalidInputError("what list_contains() looks for must be a constant")
    if not args[1].constant.is_valid:
        return pa.nulls(len(lists), pa.bool_())
    values, starts, stops = _spans(lists)
    equal = pc.equal(values, args[1].constant).fill_null(False).to_numpy(zero_copy_only=False)
    before = np.concatenate([[0], np.cumsum(equal)])
    missing = pc.is_null(lists).to_numpy(zero_copy_only=False)
    found = before[np.where(missing, 0, stops)] > before[np.where(missing, 0, starts)]
    return pa.array(found, mask=missing)


_TEXT, _NUMBER, _TIME = "a string", "a number", "a date, time or timestamp"

FUNCTIONS: dict[str, Function] = {
    f.name: f
    for f in (
        Function("+", "two numbers, or a date or timestamp and an interval", 2, 2, _add),
        Function("-", "two numbers, two dates or timestamps, or one and an interval", 2, 2, _subtract),
        Function("*", "two numbers", 2, 2, _multiply),
        Function("/", "two numbers", 2, 2, _divide),
        Function("//", "two integers", 2, 2, _integer_divide),
        Function("%", "two integers or floats", 2, 2, _remainder),
        Function("negate", _NUMBER, 1, 1, _negate),
        Function("||", "strings", 2, 2, _concat_operator, same=True),
        Function("concat", "strings", 1, None, _concat, same=True),
        Function("lower", _TEXT, 1, 1, lambda args: pc.utf8_lower(_text(args[0]))),
        Function("upper", _TEXT, 1, 1, lambda args: pc.utf8_upper(_text(args[0]))),
        Function("length", "a string or a list", 1, 1, _length),
        Function("trim", "a string and optionally the characters to trim", 1, 2, _trim(pc.utf8_trim)),
        Function("ltrim", "a string and optionally the characters to trim", 1, 2, _trim(pc.utf8_ltrim)),
        Function("rtrim", "a string and optionally the characters to trim", 1, 2, _trim(pc.utf8_rtrim)),
        Function("substr", "a string, a start from 1, and optionally a length", 2, 3, _substr),
        Function("left", "a string and a count", 2, 2, _left),
        Function("replace", "three strings", 3, 3, _replace),
        Function("starts_with", "two strings", 2, 2, _matcher(pc.starts_with, "the prefix")),
        Function("ends_with", "two strings", 2, 2, _matcher(pc.ends_with, "the suffix")),
        Function("contains", "two strings, or a list and a value", 2, 2, _contains),
        Function(
            "regexp_matches",
            "two strings",
            2,
            2,
            _matcher(pc.match_substring_regex, "the regular expression"),
        ),
        Function("abs", _NUMBER, 1, 1, _numeric(pc.abs_checked)),
        Function("sign", _NUMBER, 1, 1, _numeric(pc.sign)),
        Function("round", "a number and optionally the digits to keep", 1, 2, _round),
        Function("floor", _NUMBER, 1, 1, _rounder(pc.floor)),
        Function("ceil", _NUMBER, 1, 1, _rounder(pc.ceil)),
        Function("trunc", _NUMBER, 1, 1, _rounder(pc.trunc)),
        Function("sqrt", _NUMBER, 1, 1, _real(pc.sqrt)),
        Function("exp", _NUMBER, 1, 1, _real(pc.exp)),
        Function("ln", _NUMBER, 1, 1, _real(pc.ln)),
        Function("log10", _NUMBER, 1, 1, _real(pc.log10)),
        Function("log2", _NUMBER, 1, 1, _real(pc.log2)),
        Function("power", "two numbers", 2, 2, _real(pc.power)),
        Function("isnan", _NUMBER, 1, 1, lambda args: pc.is_nan(_double(args[0]))),
        Function("isinf", _NUMBER, 1, 1, _is_infinite),
        Function("isfinite", _NUMBER, 1, 1, lambda args: pc.is_finite(_double(args[0]))),
        Function(
            "coalesce", "values of one type", 1, None, lambda a: pc.coalesce(*(x.datum for x in a)), same=True
        ),
        Function("nullif", "two values of one type", 2, 2, _nullif, same=True),
        Function(
            "greatest",
            "values of one type",
            1,
            None,
            lambda a: pc.max_element_wise(*(x.datum for x in a)),
            same=True,
        ),
        Function(
            "least",
            "values of one type",
            1,
            None,
            lambda a: pc.min_element_wise(*(x.datum for x in a)),
            same=True,
        ),
        Function("year", _TIME, 1, 1, _part(pc.year)),
        Function("quarter", _TIME, 1, 1, _part(pc.quarter)),
        Function("month", _TIME, 1, 1, _part(pc.month)),
        Function("week", _TIME, 1, 1, _part(pc.iso_week)),
        Function("day", _TIME, 1, 1, _part(pc.day)),
        Function("isodow", _TIME, 1, 1, _part(lambda d: pc.day_of_week(d, count_from_zero=False))),
        Function("hour", _TIME, 1, 1, _part(pc.hour)),
        Function("minute", _TIME, 1, 1, _part(pc.minute)),
        Function("second", _TIME, 1, 1, _part(pc.second)),
        Function("date_trunc", "a unit and a date or timestamp", 2, 2, _date_trunc),
        Function("list_extract", "a list and an index from 1", 2, 2, _list_extract),
        Function("list_contains", "a list and a value", 2, 2, _list_contains),
    )
}
OPERATORS = ("+", "-", "*", "/", "//", "%", "||")
