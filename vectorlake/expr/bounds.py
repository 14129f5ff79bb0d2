"""Decide from bounds which units of a table can't hold a row that makes a filter true."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from vectorlake.expr import functions, types
from vectorlake.expr.evaluate import plain
from vectorlake.expr.nodes import And, Call, Cast, Column, Compare, Expr, In, IsNull, Like, Literal, Not, Or

Flags: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

_GROUPS = 32


@dataclass(frozen=True)
class Bounds:
    """What is known of one column in each of N units (fragments, row groups, …).

    `min` and `max` are inclusive: no value is below or above them, though none needs to reach them. They
    leave NaN out, and are null where unknown or where there is no value. The counts are of rows, None or null
    where unknown; the `null_count` of a struct's field counts every row in which it reads as null, those of
    null structs included.
    """

    min: pa.Array
    max: pa.Array
    null_count: pa.Array | None
    nan_count: pa.Array | None
    row_count: pa.Array | np.ndarray[Any, Any] | None


def bounds_key(path: tuple[str, ...]) -> str:
    r"""The key of a column (one name) or a struct's field (names joined by dots) in a mapping of bounds.

    A dot in a name of a longer path is written `\.`. A column named `a.b` and the field `b` of `a` share a key:
    an expression that reads both takes the entry for the column's.
    """
    if len(path) == 1:
        return path[0]
    return ".".join(name.replace("\\", "\\\\").replace(".", "\\.") for name in path)


def prune_mask(expr: Expr, bounds: Mapping[str, Bounds], n: int) -> Flags:
    """For each of `n` units, False only where no row can make `expr` true.

    Args:
        expr: a boolean expression.
        bounds: per `bounds_key`, bounds of `n` units for columns and fields that `expr` reads; one without an
            entry prunes nothing.
        n: the number of units.

    Returns:
        bool[n]. A unit is kept whenever in doubt. The work is a few vectorised passes over the bounds used.
    """
    columns = expr.columns()
    shared = {key for path in expr.paths() if len(path) > 1 and (key := bounds_key(path)) in columns}
    can = _Pruner(bounds, shared).can(expr, truth=True)
    return np.array(np.broadcast_to(can, n))


@dataclass(frozen=True)
class _Range:
    """What values an expression can take in each unit; None bounds are unknown."""

    low: pa.Array | pa.Scalar | None
    high: pa.Array | pa.Scalar | None
    some: Flags
    nan: Flags
    null: Flags


def _flags(datum: pa.Array | pa.Scalar, unknown: bool) -> Flags:
    """A boolean datum as numpy, with null as `unknown`."""
    if isinstance(datum, pa.Scalar):
        return np.bool_(datum.as_py() if datum.is_valid else unknown)  # type: ignore[return-value]
    return pc.fill_null(datum, unknown).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


_YES: Flags = np.array(True)
_NO: Flags = np.array(False)


def _maybe(
    compare: Callable[[Any, Any], Any], left: pa.Array | pa.Scalar | None, right: pa.Array | pa.Scalar | None
) -> Flags:
    """Whether a comparison may hold: unknown bounds may do anything."""
    return _YES if left is None or right is None else _flags(compare(left, right), unknown=True)


class _Pruner:
    """Tells, per unit, whether some row may make a boolean expression true, or may make it false.

    Asking for either makes NOT a swap, which stays right for nulls: they make neither.
    """

    def __init__(self, bounds: Mapping[str, Bounds], shared: Container[str]) -> None:
        self._bounds = bounds
        self._shared = shared
        self._known: dict[tuple[str, ...], _Range] = {}

    def can(self, node: Expr, *, truth: bool) -> Flags:
        match node:
            case And() | Or():
                parts = [self.can(arg, truth=truth) for arg in node.args]
                return _all(parts) if isinstance(node, And) == truth else _any(parts)
            case Not():
                return self.can(node.arg, truth=not truth)
            case Compare():
                return _compare(node.op, self.range(node.left), self.range(node.right), truth=truth)
            case IsNull():
                known = self.range(node.arg)
                return known.null if truth else known.some | known.nan
            case In():
                return _in(self.range(node.arg), node.values, truth=truth)
            case Call(function="isnan"):
                known = self.range(node.args[0])
                return known.nan if truth else known.some
            case Call(function="starts_with", args=(arg, Literal() as prefix)) if prefix.scalar.is_valid:
                return _prefix(self.range(arg), prefix.value, truth=truth)
            case Like(ignore_case=False) if truth:
                return _prefix(self.range(node.arg), _leading(node.pattern), truth=True)
            case Column() | Literal():
                known = self.range(node)
                bound = known.high if truth else known.low
                return known.some & _maybe(pc.equal, bound, pa.scalar(truth))
            case _:
                return _YES

    def range(self, node: Expr) -> _Range:
        match node:
            case Column():
                if node.path not in self._known:
                    self._known[node.path] = self._column(node)
                return self._known[node.path]
            case Literal():
                return _literal(node.scalar)
            case Cast() if _monotone(node.arg.type, node.type):
                inner = self.range(node.arg)
                low, high = (_cast(bound, node.arg.type, node.type) for bound in (inner.low, inner.high))
                return _Range(low, high, inner.some, inner.nan, inner.null)
            case _:
                return _unknown(node.type)

    def _column(self, node: Column) -> _Range:
        key = bounds_key(node.path)
        found = self._bounds.get(key)
        if found is None or (len(node.path) > 1 and key in self._shared):
            return _unknown(node.type)
        floating = pt.is_floating(node.type)
        low, high = (_bound(array, node.type) for array in (found.min, found.max))
        rows = _count(found.row_count)
        nulls = _count(found.null_count)
        nans = _count(found.nan_count) if floating else _Count(np.array(0), _YES)
        full = rows.known & nulls.known
        some_or_nan = ~(full & (nulls.value >= rows.value))
        empty = rows.known & (rows.value == 0)
        return _Range(
            low,
            high,
            some_or_nan & ~(full & nans.known & (nulls.value + nans.value >= rows.value)),
            some_or_nan & ~(nans.known & (nans.value == 0)),
            ~(nulls.known & (nulls.value == 0)) & ~empty,
        )


@dataclass(frozen=True)
class _Count:
    value: np.ndarray[Any, Any]
    known: Flags


def _count(counts: pa.Array | np.ndarray[Any, Any] | None) -> _Count:
    if counts is None:
        return _Count(np.array(0), _NO)
    if isinstance(counts, np.ndarray):
        return _Count(counts, _YES)
    known = _YES if not counts.null_count else pc.is_valid(counts).to_numpy(zero_copy_only=False)
    return _Count(pc.fill_null(counts, 0).to_numpy(zero_copy_only=False), known)


def _unknown(data_type: pa.DataType) -> _Range:
    return _Range(None, None, _YES, _YES if pt.is_floating(data_type) else _NO, _YES)


def _literal(scalar: pa.Scalar) -> _Range:
    if not scalar.is_valid:
        return _Range(None, None, _NO, _NO, _YES)
    if pt.is_floating(scalar.type) and pc.is_nan(scalar).as_py():
        return _Range(None, None, _NO, _YES, _NO)
    return _Range(scalar, scalar, _YES, _NO, _NO)


def _bound(array: pa.Array, data_type: pa.DataType) -> pa.Array | None:
    """Bounds in the type that the column is computed in; None when they can't be brought to it."""
    array = plain(array)
    if not array.type.equals(data_type):
        if not _monotone(array.type, data_type):
            return None
        found = _cast(array, array.type, data_type)
        if found is None:
            return None
        array = found
    if pt.is_floating(data_type):
        # Some writers put NaN into bounds, where it bounds nothing.
        nan = pc.is_nan(array)
        if pc.any(nan).as_py():
            array = pc.if_else(nan, pa.scalar(None, data_type), array)
    return array


def _monotone(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether a cast keeps the order of values, so that the bounds of what is cast are the cast bounds."""
    common = types.common_type(source, target)
    if common is not None and common.equals(target):
        return True
    return types.is_number(source) and pt.is_floating(target)


def _cast(
    bound: pa.Array | pa.Scalar | None, source: pa.DataType, target: pa.DataType
) -> pa.Array | pa.Scalar | None:
    if bound is None:
        return None
    try:
        return functions.cast(bound, source, target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _all(flags: list[Flags]) -> Flags:
    result = _YES
    for one in flags:
        result = result & one
    return result


def _any(flags: list[Flags]) -> Flags:
    result = _NO
    for one in flags:
        result = result | one
    return result


_OPPOSITE = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


def _compare(op: str, left: _Range, right: _Range, *, truth: bool) -> Flags:
    possible = left.some & right.some & _possible(op if truth else _OPPOSITE[op], left, right)
    if truth != (op == "!="):
        return possible
    # Every comparison with NaN is false, except != which is true.
    return possible | (left.nan & (right.some | right.nan)) | (right.nan & left.some)


def _possible(op: str, left: _Range, right: _Range) -> Flags:
    """Whether some value of the left and some of the right, neither null nor NaN, may compare so."""
    match op:
        case "<":
            return _maybe(pc.less, left.low, right.high)
        case "<=":
            return _maybe(pc.less_equal, left.low, right.high)
        case ">" | ">=":
            return _possible("<" if op == ">" else "<=", right, left)
        case "=":
            return _possible("<=", left, right) & _possible("<=", right, left)
        case _:
            one = _maybe(pc.not_equal, left.low, left.high) | _maybe(pc.not_equal, right.low, right.high)
            return one | _maybe(pc.not_equal, left.low, right.low)


def _in(known: _Range, values: pa.Array, *, truth: bool) -> Flags:
    if truth:
        if not len(values):
            return _NO
        inside = _numbers_inside(known, values) if len(values) > 4 else None
        return known.some & (inside if inside is not None else _spans_inside(known, values))
    if not len(values):
        return known.some | known.nan
    differ = _maybe(pc.not_equal, known.low, known.high)
    if known.low is not None:
        differ = differ | ~_flags(functions.is_in(known.low, values), unknown=False)
    return (known.some & differ) | known.nan


def _numbers_inside(known: _Range, values: pa.Array) -> Flags | None:
    """Whether the least value from the low bound on is within the high bound; None for non-numeric types."""
    arrays = [array for array in (known.low, known.high) if isinstance(array, pa.Array)]
    number = pt.is_integer(values.type) or pt.is_floating(values.type) or pt.is_temporal(values.type)
    if len(arrays) < 2 or not number:
        return None
    if pt.is_temporal(values.type):
        whole = pa.int32() if values.type.bit_width == 32 else pa.int64()
        arrays, values = [array.view(whole) for array in arrays], values.view(whole)
    zero = pa.scalar(0, values.type)
    low, high = (pc.fill_null(array, zero).to_numpy() for array in arrays)
    choices = values.to_numpy()
    position = np.searchsorted(choices, low)
    found = (position < len(choices)) & (choices[np.minimum(position, len(choices) - 1)] <= high)
    unknown = [pc.is_null(array).to_numpy(zero_copy_only=False) for array in arrays if array.null_count]
    return _any([found, *unknown])


def _spans_inside(known: _Range, values: pa.Array) -> Flags:
    """Whether the bounds meet some span of neighbouring values, a few of which stand for them all."""
    edges = np.linspace(0, len(values), min(len(values), _GROUPS) + 1).astype(int)
    return _any(
        [
            _maybe(pc.less_equal, known.low, values[int(stop) - 1])
            & _maybe(pc.greater_equal, known.high, values[int(start)])
            for start, stop in pairwise(edges)
        ]
    )


def _leading(pattern: str) -> str:
    """What every string that matches a LIKE pattern starts with."""
    out: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character in "%_":
            break
        out.append(next(characters, "") if character == "\\" else character)
    return "".join(out)


def _prefix(known: _Range, prefix: str, *, truth: bool) -> Flags:
    if known.low is None or known.high is None or not prefix:
        return known.some
    # Strings are ordered by their bytes; the least that sorts after all with the prefix need not be UTF-8.
    data = prefix.encode()
    binary = pa.large_binary() if pt.is_large_string(known.low.type) else pa.binary()
    low, high = pc.cast(known.low, binary), pc.cast(known.high, binary)
    first, after = pa.scalar(data, binary), pa.scalar(_successor(data), binary)
    if truth:
        return known.some & _maybe(pc.greater_equal, high, first) & _maybe(pc.less, low, after)
    return known.some & (_maybe(pc.less, low, first) | _maybe(pc.greater_equal, high, after))


def _successor(data: bytes) -> bytes:
    """The least byte string above all that start with `data`, which is UTF-8 and so has no byte 0xFF."""
    return data[:-1] + bytes([data[-1] + 1])
