"""What comparisons in an expression mean: NaN and null as Arrow treats them, or as SQL engines do."""

from __future__ import annotations

from dataclasses import fields, replace
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from vectorlake.errors import InvalidInputError
from vectorlake.expr import build
from vectorlake.expr.nodes import Compare, Expr, Literal


class Semantics(StrEnum):
    """How a pyarrow expression is meant."""

    ARROW = "arrow"
    """As pyarrow evaluates it: comparisons with NaN are false, but for `!=`, and null is in no list, or in one with null."""
    SQL = "sql"
    """As an engine means it that made it of SQL: NaN equals itself and is greater than every number, and whether null is in
    a list is null. Of DataFusion, DuckDB, polars, Postgres and Spark."""

    @classmethod
    def parse(cls, name: str | Semantics) -> Semantics:
        """The semantics of a name.

        Raises:
            InvalidInputError: there is none.
        """
        try:
            return cls(name)
        except ValueError as e:
            raise InvalidInputError(f"semantics must be 'arrow' or 'sql', not {name!r}") from e


def with_nan_greatest(expression: Expr) -> Expr:
    """The expression, each comparison of floats in it as if NaN were a number greater than all others."""
    if isinstance(expression, Compare) and pt.is_floating(expression.left.type):
        return _ordered(expression)
    changes: dict[str, Any] = {}
    for field in fields(expression):  # type: ignore[arg-type]  # every node is a dataclass
        value = getattr(expression, field.name)
        if isinstance(value, Expr):
            changes[field.name] = with_nan_greatest(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], Expr):
            changes[field.name] = tuple(map(with_nan_greatest, value))
    return replace(expression, **changes) if changes else expression  # type: ignore[type-var]


def _ordered(node: Compare) -> Expr:
    left, right = node.left, node.right
    if isinstance(right, Literal):
        return _beside_constant(node, right)
    if node.op in ("<=", ">="):
        # Whichever is null, both sides of NOT are.
        return build.not_(_ordered(Compare("<" if node.op == ">=" else ">", left, right)))
    first, second = _is_nan(left), _is_nan(right)
    match node.op:
        case ">":
            return build.or_(node, build.and_(first, build.not_(second)))
        case "<":
            return build.or_(node, build.and_(second, build.not_(first)))
        case "=":
            return build.or_(node, build.and_(first, second))
    return build.and_(node, build.not_(build.and_(first, second)))


def _beside_constant(node: Compare, constant: Literal) -> Expr:
    value = node.left
    if not pc.is_nan(constant.scalar).as_py():
        return build.or_(node, _is_nan(value)) if node.op in (">", ">=") else node
    match node.op:
        case "=" | ">=":
            return _is_nan(value)
        case "!=" | "<":
            return build.not_(_is_nan(value))
    return build.constant_unless_null(value, answer=node.op == "<=")


def _is_nan(value: Expr) -> Expr:
    if isinstance(value, Literal) and not value.scalar.is_valid:
        return Literal(pa.scalar(None, pa.bool_()))
    return build.call("isnan", [value])
