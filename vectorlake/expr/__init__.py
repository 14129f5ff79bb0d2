"""Filter expressions: read SQL or pyarrow expressions, bind them to a schema, evaluate, prune by bounds."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.errors import InvalidInputError
from vectorlake.expr.arrow import from_pyarrow
from vectorlake.expr.bounds import Bounds, bounds_key, prune_mask
from vectorlake.expr.nodes import And, Column, Expr, Literal, Not, OpaqueExpr, Or
from vectorlake.expr.parse import parse_expression, parse_filter

__all__ = [
    "And",
    "Bounds",
    "Column",
    "Expr",
    "Literal",
    "Not",
    "OpaqueExpr",
    "Or",
    "bind",
    "bounds_key",
    "from_pyarrow",
    "parse_expression",
    "parse_filter",
    "prune_mask",
]


def bind(
    filter: str | pc.Expression | Expr | None,
    schema: pa.Schema,
) -> Expr | None:
    """A filter in any of its forms, bound to a schema; None, which is no filter, stays None.

    Raises InvalidInputError when it is no valid condition on the columns of the schema.
    """
    if filter is None or isinstance(filter, Expr):
        return filter
    if isinstance(filter, str):
        return parse_filter(filter, schema)
    if isinstance(filter, pc.Expression):
        expression = from_pyarrow(filter, schema)
        if not pa.types.is_boolean(expression.type):
            raise InvalidInputError(
                f"a filter must be true or false (bool), but {filter} is {expression.type}"
            )
        return expression
    raise InvalidInputError(
        f"a filter is an SQL string or a pyarrow expression, not {type(filter).__name__}: {filter!r}"
    )
