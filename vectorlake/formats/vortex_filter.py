"""Filters as Vortex evaluates them: only those for which its answer is exactly ours.

Left out are floats (Vortex orders NaN above all numbers, Arrow compares it with nothing), casts and computed
values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pyarrow as pa
import vortex as vx
import vortex.expr as ve

from vectorlake.expr import And, Column, Expr, Literal, Not, Or
from vectorlake.expr.nodes import Compare, In, IsNull

_COMPARISONS: Final[dict[str, Callable[[ve.Expr, ve.Expr], ve.Expr]]] = {
    "=": ve.eq,
    "!=": ve.not_eq,
    "<": ve.lt,
    "<=": ve.lt_eq,
    ">": ve.gt,
    ">=": ve.gt_eq,
}
_MOST_VALUES: Final = 64
"""An IN of more values becomes an OR so long that evaluating it on the column read is quicker."""


class _Inexact(Exception):
    """A part that Vortex lacks, or might answer in another way."""


def translated(predicate: Expr, schema: pa.Schema) -> ve.Expr | None:
    """The predicate for Vortex, true for the very same rows; None where there is none, or it might differ."""
    try:
        return _condition(predicate, schema)
    except _Inexact:
        return None


def _condition(node: Expr, schema: pa.Schema) -> ve.Expr:
    match node:
        case And():
            return _folded(ve.and_, [_condition(arg, schema) for arg in node.args])
        case Or():
            return _folded(ve.or_, [_condition(arg, schema) for arg in node.args])
        case Not():
            return ve.not_(_condition(node.arg, schema))
        case IsNull(arg=Column(path=(name,))) if name in schema.names:
            return ve.is_null(ve.column(name))
        case Column() if pa.types.is_boolean(node.type):
            return _column(node, schema)
        case Compare(left=Column() as column, right=Literal() as literal):
            return _COMPARISONS[node.op](_column(column, schema), _literal(literal.scalar))
        case In(arg=Column() as column) if 0 < len(node.values) <= _MOST_VALUES:
            found = _column(column, schema)
            return _folded(ve.or_, [ve.eq(found, _literal(value)) for value in node.values])
    raise _Inexact


def _folded(join: Callable[[ve.Expr, ve.Expr], ve.Expr], parts: list[ve.Expr]) -> ve.Expr:
    """The parts joined two by two, so that many don't nest as deep as they are many."""
    while len(parts) > 1:
        pairs = [join(left, right) for left, right in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[len(pairs) * 2 :]
    return parts[0]


def _column(column: Column, schema: pa.Schema) -> ve.Expr:
    if len(column.path) != 1 or column.path[0] not in schema.names:
        raise _Inexact
    # Of another type in the file than in the filter means cast by the reader, which Vortex does not know of.
    if schema.field(column.path[0]).type != column.type:
        raise _Inexact
    return ve.column(column.path[0])


def _literal(scalar: pa.Scalar) -> ve.Expr:
    t, kind = pa.types, scalar.type
    if not scalar.is_valid:
        raise _Inexact
    if t.is_integer(kind):
        if scalar.as_py() >= 2**63:  # more than the literal's constructor takes, even for an unsigned type
            raise _Inexact
        width = kind.bit_width
        made = vx.int_(width, nullable=True) if t.is_signed_integer(kind) else vx.uint(width, nullable=True)
        return ve.literal(made, scalar.as_py())
    if t.is_boolean(kind):
        return ve.literal(vx.bool_(nullable=True), scalar.as_py())
    if t.is_string(kind) or t.is_large_string(kind):
        return ve.literal(vx.utf8(nullable=True), scalar.as_py())
    if t.is_binary(kind) or t.is_large_binary(kind):
        return ve.literal(vx.binary(nullable=True), scalar.as_py())
    if t.is_date32(kind):
        return ve.literal(vx.date("days", nullable=True), scalar.value)
    if t.is_timestamp(kind):
        return ve.literal(vx.timestamp(kind.unit, tz=kind.tz, nullable=True), scalar.value)
    raise _Inexact
