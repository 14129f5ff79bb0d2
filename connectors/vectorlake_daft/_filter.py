"""Daft's filters as pyarrow expressions that are true for at least the same rows; Daft filters again what it is given.

Daft orders floats totally: NaN is greater than every number and equal to itself, and -0.0 is less than 0.0. It compares
64-bit integers with floats, and with integers of another sign, as float64. Where that could differ from the exact
comparison, the condition is weakened or left to Daft.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from daft.expressions import Expression
from daft.expressions.visitor import ExpressionVisitor

_EXACT_IN_FLOAT64: Final = 2**53
_FLIPPED: Final = {">": "<", ">=": "<=", "<": ">", "<=": ">=", "==": "==", "!=": "!="}
_COMPARE: Final[dict[str, Callable[[Any, Any], pc.Expression]]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


class Untranslatable(ValueError):
    """Part of a filter that is left to Daft."""


@dataclass(frozen=True)
class Pushed:
    """A filter for a scan."""

    expression: pc.Expression | None
    """True for at least the rows that Daft keeps; None if nothing could be translated."""
    exact: bool
    """True for these rows only."""


@dataclass(frozen=True)
class _Column:
    name: str
    type: pa.DataType


@dataclass(frozen=True)
class _Literal:
    value: Any


@dataclass(frozen=True)
class _Condition:
    expression: pc.Expression
    exact: bool
    """Otherwise it is true for more rows."""


_Node: TypeAlias = "_Column | _Literal | _Condition"


def pushed_filter(
    filters: Expression | None, columns: pa.Schema, accepts: Callable[[pc.Expression], bool]
) -> Pushed:
    """What of a filter a scan can do.

    Args:
        filters: Daft's filter.
        columns: those that Daft is shown just as they are stored.
        accepts: whether the table's own planner takes an expression.
    """
    if filters is None:
        return Pushed(None, exact=True)
    kept: pc.Expression | None = None
    exact = True
    for part in _Conjuncts().visit(filters):
        try:
            found = _condition(_Translator(columns).visit(part))
        except ValueError:  # Untranslatable, and what Daft's visitors say of functions that they can't visit
            exact = False
            continue
        if not accepts(found.expression):
            exact = False
            continue
        exact &= found.exact
        kept = found.expression if kept is None else kept & found.expression
    return Pushed(kept, exact)


def columns_of(filters: Expression | None) -> frozenset[str] | None:
    """The columns that a filter needs; None if Daft can't tell."""
    if filters is None:
        return frozenset()
    try:
        found: frozenset[str] = _Columns().visit(filters)
    except ValueError:
        return None
    return found


class _Walker(ExpressionVisitor[Any]):
    """A visitor that has something to say about few kinds of expressions."""

    def visit_col(self, name: str) -> Any:
        raise Untranslatable(name)

    def visit_lit(self, value: Any) -> Any:
        raise Untranslatable(repr(value))

    def visit_alias(self, expr: Expression, alias: str) -> Any:
        return self.visit(expr)

    def visit_cast(self, expr: Expression, dtype: Any) -> Any:
        raise Untranslatable("cast")

    def visit_function(self, name: str, args: list[Expression]) -> Any:
        raise Untranslatable(name)

    def visit_coalesce(self, args: list[Expression]) -> Any:
        raise Untranslatable("coalesce")


class _Columns(_Walker):
    def visit_col(self, name: str) -> frozenset[str]:
        return frozenset({name})

    def visit_lit(self, value: Any) -> frozenset[str]:
        return frozenset()

    def visit_cast(self, expr: Expression, dtype: Any) -> frozenset[str]:
        found: frozenset[str] = self.visit(expr)
        return found

    def visit_function(self, name: str, args: list[Expression]) -> frozenset[str]:
        return frozenset().union(*(self.visit(arg) for arg in args))

    def visit_coalesce(self, args: list[Expression]) -> frozenset[str]:
        return self.visit_function("coalesce", args)


class _Conjuncts(_Walker):
    """The conditions that are joined by AND at the top."""

    def visit(self, expr: Expression) -> list[Expression]:
        try:
            found: list[Expression] = super().visit(expr)
        except ValueError:
            return [expr]
        return found

    def visit_and(self, left: Expression, right: Expression) -> list[Expression]:
        return [*self.visit(left), *self.visit(right)]


class _Translator(_Walker):
    """Columns, literals and conditions."""

    def __init__(self, columns: pa.Schema) -> None:
        self._columns = columns

    def visit_col(self, name: str) -> _Node:
        if name not in self._columns.names:
            raise Untranslatable(name)
        return _Column(name, self._columns.field(name).type)

    def visit_lit(self, value: Any) -> _Node:
        return _Literal(value)

    def visit_and(self, left: Expression, right: Expression) -> _Node:
        return _joined(_condition(self.visit(left)), _condition(self.visit(right)), pc.and_kleene)

    def visit_or(self, left: Expression, right: Expression) -> _Node:
        return _joined(_condition(self.visit(left)), _condition(self.visit(right)), pc.or_kleene)

    def visit_not(self, expr: Expression) -> _Node:
        inner = _condition(self.visit(expr))
        if not inner.exact:
            raise Untranslatable("not")
        return _Condition(~inner.expression, exact=True)

    def visit_is_null(self, expr: Expression) -> _Node:
        return _Condition(pc.field(self._column(expr).name).is_null(), exact=True)

    def visit_not_null(self, expr: Expression) -> _Node:
        return _Condition(pc.field(self._column(expr).name).is_valid(), exact=True)

    def visit_equal(self, left: Expression, right: Expression) -> _Node:
        return self._compare("==", left, right)

    def visit_not_equal(self, left: Expression, right: Expression) -> _Node:
        return self._compare("!=", left, right)

    def visit_less_than(self, left: Expression, right: Expression) -> _Node:
        return self._compare("<", left, right)

    def visit_less_than_or_equal(self, left: Expression, right: Expression) -> _Node:
        return self._compare("<=", left, right)

    def visit_greater_than(self, left: Expression, right: Expression) -> _Node:
        return self._compare(">", left, right)

    def visit_greater_than_or_equal(self, left: Expression, right: Expression) -> _Node:
        return self._compare(">=", left, right)

    def visit_between(self, expr: Expression, lower: Expression, upper: Expression) -> _Node:
        parts = self._compare(">=", expr, lower), self._compare("<=", expr, upper)
        return _joined(*parts, pc.and_kleene)

    def visit_is_in(self, expr: Expression, items: list[Expression]) -> _Node:
        first, *others = [self._compare("==", expr, item) for item in items]
        for other in others:
            first = _joined(first, other, pc.or_kleene)
        return first

    def visit_function(self, name: str, args: list[Expression]) -> _Node:
        functions = {
            "starts_with": pc.starts_with,
            "ends_with": pc.ends_with,
            "contains": pc.match_substring,
        }
        if name not in functions or len(args) != 2:
            raise Untranslatable(name)
        column, pattern = self._column(args[0]), self.visit(args[1])
        if not isinstance(pattern, _Literal) or not isinstance(pattern.value, str):
            raise Untranslatable(name)
        return _Condition(functions[name](pc.field(column.name), pattern.value), exact=True)

    def _column(self, expr: Expression) -> _Column:
        node = self.visit(expr)
        if not isinstance(node, _Column):
            raise Untranslatable(str(expr))
        return node

    def _compare(self, op: str, left: Expression, right: Expression) -> _Condition:
        one, other = self.visit(left), self.visit(right)
        if isinstance(one, _Literal) and isinstance(other, _Column):
            one, other, op = other, one, _FLIPPED[op]
        if not isinstance(one, _Column) or not isinstance(other, _Literal):
            raise Untranslatable(op)
        return _comparison(op, one, other.value)


def _condition(node: _Node) -> _Condition:
    if isinstance(node, _Condition):
        return node
    if isinstance(node, _Column) and pa.types.is_boolean(node.type):
        return _Condition(pc.field(node.name), exact=True)
    raise Untranslatable("a condition")


def _joined(left: _Condition, right: _Condition, join: Callable[[Any, Any], pc.Expression]) -> _Condition:
    return _Condition(join(left.expression, right.expression), left.exact and right.exact)


def _comparison(op: str, column: _Column, value: Any) -> _Condition:
    """A column compared with a constant."""
    field, kind, t = pc.field(column.name), column.type, pa.types
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if t.is_floating(kind) and number:
        return _float_comparison(op, field, float(value))
    if t.is_integer(kind) and number:
        plain = isinstance(value, int) and t.is_signed_integer(kind)
        if not plain and not abs(value) < _EXACT_IN_FLOAT64:  # NaN included
            raise Untranslatable(repr(value))
        if isinstance(value, float) and value == 0 and math.copysign(1, value) < 0:
            raise Untranslatable("which zero")  # an integer's 0 is greater, as float64
        return _Condition(_COMPARE[op](field, pc.scalar(value)), exact=True)
    if _same_sort(kind, value):
        return _Condition(_COMPARE[op](field, pc.scalar(value)), exact=True)
    raise Untranslatable(repr(value))


def _float_comparison(op: str, field: pc.Expression, value: float) -> _Condition:
    if math.isnan(value) or abs(value) >= _EXACT_IN_FLOAT64:
        raise Untranslatable(repr(value))
    zero = value == 0
    if zero and op == "!=":
        raise Untranslatable("which zero")
    weakened = {"<": "<=", ">": ">="}.get(op, op) if zero else op
    found = _COMPARE[weakened](field, pc.scalar(value))
    if op in (">", ">="):
        found = pc.or_kleene(found, pc.is_nan(field))
    return _Condition(found, exact=not zero)


def _same_sort(kind: pa.DataType, value: Any) -> bool:
    """Whether a constant other than a number is of the column's own sort, so that both compare the same."""
    t = pa.types
    if isinstance(value, bool):
        return bool(t.is_boolean(kind))
    if isinstance(value, str):
        return bool(t.is_string(kind) or t.is_large_string(kind))
    if isinstance(value, bytes):
        return bool(t.is_binary(kind) or t.is_large_binary(kind))
    if isinstance(value, dt.datetime):
        # Daft hands over nanoseconds as a datetime, which has none.
        return (
            bool(t.is_timestamp(kind)) and kind.unit != "ns" and (kind.tz is None) == (value.tzinfo is None)
        )
    if isinstance(value, dt.date):
        return bool(t.is_date32(kind))
    return isinstance(value, Decimal) and bool(t.is_decimal(kind))
