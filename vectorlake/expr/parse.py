"""Read filters and expressions in SQL, DuckDB's dialect."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt

from vectorlake.errors import InvalidInputError
from vectorlake.expr import build
from vectorlake.expr.literals import Raw
from vectorlake.expr.nodes import Expr, Literal


def parse_filter(sql: str, schema: pa.Schema) -> Expr:
    """Read an SQL condition over the columns of `schema`, such as `price > 3 AND name LIKE 'a%'`.

    Raises InvalidInputError for a syntax error, an unknown column or function, types that don't meet, or a
    result that is not boolean; the message shows the place.
    """
    from vectorlake.expr.binder import read  # late: sqlglot takes a third of a second to load

    expression = read(sql, schema)
    if isinstance(expression, Raw) or not pt.is_boolean(expression.type):
        if isinstance(expression, Raw) and expression.value is None:
            return Literal(pa.scalar(None, pa.bool_()))
        raise InvalidInputError(
            f"a filter must be true or false (bool), but this is {build.told(expression)}: {sql!r}"
        )
    return expression


def parse_expression(sql: str, schema: pa.Schema) -> Expr:
    """Read an SQL expression of any type over the columns of `schema`, such as `price * 2`.

    Raises InvalidInputError as `parse_filter` does.
    """
    from vectorlake.expr.binder import read

    return build.settle(read(sql, schema))
