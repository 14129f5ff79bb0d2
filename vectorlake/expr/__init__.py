"""Filter expressions: read SQL or pyarrow expressions, bind them to a schema, evaluate, prune by bounds."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.errors import InvalidInputError
from vectorlake.expr.arrow import from_pyarrow
from vectorlake.expr.bounds import Bounds, bounds_key, prune_mask
from vectorlake.expr.nodes import And, Column, Expr, Literal, Not, OpaqueExpr, Or
from vectorlake.expr.parse import parse_expression, parse_filter
from vectorlake.expr.semantics import Semantics, with_nan_greatest

__all__ = [
    "And",
    "Bounds",
    "Column",
    "Expr",
    "Literal",
    "Not",
    "OpaqueExpr",
    "Or",
    "Semantics",
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
    semantics: Semantics = Semantics.ARROW,
) -> Expr | None:
    """A filter in any of its forms, bound to a schema; None, which is no filter, stays None.

    A pyarrow expression, or a constant for all rows, is taken as `semantics` say; SQL text has its own.

    Raises InvalidInputError when it is no valid condition on the columns of the schema.
    """
    if filter is None or isinstance(filter, Expr):
        return filter
    if isinstance(filter, str):
        return parse_filter(filter, schema)
    # DataFusion makes a scalar of a condition that is the same for all rows.
    pushed = pc.scalar(filter) if isinstance(filter, pa.BooleanScalar) else filter
    if isinstance(pushed, pc.Expression):
        expression = from_pyarrow(pushed, schema, semantics)
        if not pa.types.is_boolean(expression.type):
            raise InvalidInputError(
                f"a filter must be true or false (bool), but {filter} is {expression.type}"
            )
        return with_nan_greatest(expression) if semantics is Semantics.SQL else expression
    raise InvalidInputError(
        f"a filter is an SQL string or a pyarrow expression, not {type(filter).__name__}: {filter!r}"
    )
