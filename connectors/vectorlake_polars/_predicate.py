"""The part of a polars condition that a table's planner can use; polars applies the whole of it again.

polars hands a source its condition as an expression. Its own optimizer resolves that against the schema, and lets the
result be walked, with types and constants as Python values; that interface is not declared stable, so whatever is not
known here is left to polars.
"""

from __future__ import annotations

import datetime as dt
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

_CONSTANTS: Final = (bool, int, float, str, bytes, Decimal, dt.date, dt.datetime, dt.time)

_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "Eq": operator.eq,
    "NotEq": operator.ne,
    "Lt": operator.lt,
    "LtEq": operator.le,
    "Gt": operator.gt,
    "GtEq": operator.ge,
}
_FLIPPED: Final = {"Lt": "Gt", "LtEq": "GtEq", "Gt": "Lt", "GtEq": "LtEq"}
_BOUNDS: Final = {
    "both": ("GtEq", "LtEq"),
    "left": ("GtEq", "Lt"),
    "right": ("Gt", "LtEq"),
    "none": ("Gt", "Lt"),
}


@dataclass(frozen=True)
class _Found:
    """A condition that is true wherever the original is; if `exact`, nowhere else."""

    condition: pc.Expression
    exact: bool


def pushed(predicate: pl.Expr, schema: pl.Schema) -> pc.Expression | None:
    """A pyarrow condition, of SQL's NaN and null, that is true wherever the predicate is; None where none is known."""
    try:
        nodes = pl.LazyFrame(schema=schema).filter(predicate)._ldf.visit()
        found = _Reader(nodes).condition(nodes.view_current_node().predicate.node)
    except Exception:  # noqa: BLE001  # polars may change this interface, or refuse what it will refuse again
        return None
    return None if found is None else found.condition


class _Reader:
    def __init__(self, nodes: Any) -> None:
        self._nodes = nodes

    def condition(self, index: int) -> _Found | None:
        node = self._nodes.view_expression(index)
        match type(node).__name__:
            case "BinaryExpr":
                return self._binary(node)
            case "Function":
                return self._function(node)
            case "Column" if str(self._nodes.get_dtype(index)) == "Boolean":
                return _Found(pc.field(node.name), exact=True)
        return None

    def _binary(self, node: Any) -> _Found | None:
        name = str(node.op).rpartition(".")[2]
        if name in ("And", "LogicalAnd"):
            sides = [found for found in map(self.condition, (node.left, node.right)) if found is not None]
            if len(sides) < 2:
                return _Found(sides[0].condition, exact=False) if sides else None
            return _Found(sides[0].condition & sides[1].condition, all(side.exact for side in sides))
        if name in ("Or", "LogicalOr"):
            left, right = map(self.condition, (node.left, node.right))
            if left is None or right is None:
                return None
            return _Found(left.condition | right.condition, left.exact and right.exact)
        return self._comparison(name, node.left, node.right)

    def _comparison(self, name: str, left: int, right: int) -> _Found | None:
        field, value = self._field(left), self._constant(right)
        if field is None or value is None:
            name, field, value = _FLIPPED.get(name, name), self._field(right), self._constant(left)
        if name not in _COMPARISONS or field is None or value is None:
            return None
        return _Found(_COMPARISONS[name](field, value), exact=True)

    def _function(self, node: Any) -> _Found | None:
        kind, *details = node.function_data
        match str(kind):
            case "BooleanFunction.Not":
                inner = self.condition(node.input[0])
                return None if inner is None or not inner.exact else _Found(~inner.condition, exact=True)
            case "BooleanFunction.IsNull" | "BooleanFunction.IsNotNull":
                field = self._field(node.input[0])
                if field is None:
                    return None
                null = str(kind).endswith("IsNull")
                return _Found(field.is_null() if null else field.is_valid(), exact=True)
            case "BooleanFunction.IsBetween":
                low, high = _BOUNDS[details[0]]
                first = self._comparison(low, node.input[0], node.input[1])
                second = self._comparison(high, node.input[0], node.input[2])
                if first is None or second is None:
                    return None
                return _Found(first.condition & second.condition, exact=True)
            case "BooleanFunction.IsIn" if details == [False]:
                return self._member(*node.input)
            case "StringFunction.StartsWith":
                field, prefix = self._field(node.input[0]), self._value(node.input[1])
                if field is None or not isinstance(prefix, str):
                    return None
                return _Found(pc.starts_with(field, prefix), exact=True)
        return None

    def _member(self, index: int, values_at: int) -> _Found | None:
        field, values = self._field(index), self._value(values_at)
        if field is None or not isinstance(values, list):
            return None
        # In polars, null in a list is equal to nothing, and makes nothing else null.
        known = [value for value in values if value is not None]
        if not all(isinstance(value, _CONSTANTS) for value in known):
            return None
        return _Found(field.isin(pa.array(known)), exact=True)

    def _field(self, index: int) -> pc.Expression | None:
        node = self._nodes.view_expression(index)
        return pc.field(node.name) if type(node).__name__ == "Column" else None

    def _constant(self, index: int) -> pc.Expression | None:
        value = self._value(index)
        # A duration is handed over as a bare number, which would be compared as one.
        if not isinstance(value, _CONSTANTS) or isinstance(self._nodes.get_dtype(index), pl.Duration):
            return None
        return pc.scalar(pa.scalar(value))

    def _value(self, index: int) -> object:
        node = self._nodes.view_expression(index)
        return node.value if type(node).__name__ == "Literal" else None
