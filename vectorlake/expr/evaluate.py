"""Evaluate an expression on record batches, and translate it to pyarrow."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from vectorlake.errors import InvalidInputError
from vectorlake.expr.functions import Datum
from vectorlake.expr.nodes import Column, Expr, OpaqueExpr
from vectorlake.expr.types import plain_type


class _BatchSource:
    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self._columns: dict[tuple[str, ...], pa.Array] = {}

    def column(self, column: Column) -> Datum:
        found = self._columns.get(column.path)
        if found is None:
            found = self._columns[column.path] = self._read(column)
        return found

    def _read(self, column: Column) -> pa.Array:
        index = self._batch.schema.get_field_index(column.path[0])
        if index < 0:
            have = ", ".join(self._batch.schema.names)
            raise InvalidInputError(f"the batch has no column {column.path[0]!r}, only {have}")
        array = plain(self._batch.column(index))
        for name in column.path[1:]:
            array = plain(pc.struct_field(array, [name]))
        return array if array.type.equals(column.type) else pc.cast(array, column.type)

    def literal(self, scalar: pa.Scalar) -> Datum:
        return scalar

    def opaque(self, expression: OpaqueExpr) -> Datum:
        missing = [name for name in expression.inputs if name not in self._batch.schema.names]
        if missing:
            raise InvalidInputError(f"the batch has no column {missing[0]!r}")
        return project(expression.expression, self._batch.select(list(expression.inputs)))


class _ExpressionSource:
    def column(self, column: Column) -> Datum:
        field = pc.field(*column.path)
        return field if column.stored.equals(column.type) else field.cast(column.type)

    def literal(self, scalar: pa.Scalar) -> Datum:
        return pc.scalar(scalar)

    def opaque(self, expression: OpaqueExpr) -> Datum:
        return expression.expression


class _NoSource:
    """For constant expressions: no leaf but literals."""

    def column(self, column: Column) -> Datum:
        raise AssertionError("a constant expression has no columns")

    def literal(self, scalar: pa.Scalar) -> Datum:
        return scalar

    def opaque(self, expression: OpaqueExpr) -> Datum:
        raise AssertionError("a constant expression is not opaque")


def plain(array: pa.Array) -> pa.Array:
    """The array in its plain type: encodings and extension types taken off."""
    if isinstance(array, pa.ExtensionArray):
        return plain(array.storage)
    if pt.is_dictionary(array.type):
        return plain(array.dictionary_decode())
    if pt.is_run_end_encoded(array.type):
        return plain(pc.run_end_decode(array))
    target = plain_type(array.type)
    return array if target.equals(array.type) else pc.cast(array, target)


def project(expression: pc.Expression, batch: pa.RecordBatch) -> pa.Array:
    """A pyarrow expression's value for each row of a batch, computed by pyarrow."""
    import pyarrow.dataset as ds  # late: it loads pandas where that is installed

    scanner = ds.Scanner.from_batches([batch], schema=batch.schema, columns={"value": expression})
    column = scanner.to_table().column(0)
    return plain(pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type))


def evaluate(expression: Expr, batch: pa.RecordBatch) -> pa.Array:
    try:
        datum = expression.lower(_BatchSource(batch))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise InvalidInputError(f"{describe(expression)} can't be computed on these rows: {error}") from error
    except RecursionError:
        raise InvalidInputError("the expression is nested too deeply to be computed") from None
    if isinstance(datum, pa.Scalar):
        return (
            pa.nulls(batch.num_rows, datum.type) if not datum.is_valid else pa.repeat(datum, batch.num_rows)
        )
    return datum


def mask(expression: Expr, batch: pa.RecordBatch) -> pa.BooleanArray:
    return pc.fill_null(evaluate(expression, batch), False)


def constant(expression: Expr) -> pa.Scalar:
    """The value of an expression without columns. Raises pyarrow's errors."""
    return expression.lower(_NoSource())


def to_pyarrow(expression: Expr) -> pc.Expression:
    return expression.lower(_ExpressionSource())


def describe(expression: Expr) -> str:
    """The expression for a message."""
    from vectorlake.expr.render import render

    text = render(expression, lenient=True)
    return text if len(text) <= 200 else text[:197] + "..."
