"""Spark's filters as pyarrow expressions: those that are true for at least the rows for which Spark's are."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import datasource as spark

from vectorlake import InvalidInputError, NotFoundError, Table, UnsupportedError


def pushed(filters: Iterable[spark.Filter], table: Table) -> pc.Expression | None:
    """What a table's planner can know of Spark's filters, which Spark checks again; None if nothing.

    Columns that show as another type than they are stored in are left to Spark: constants would be rounded.
    """
    found: pc.Expression | None = None
    for one in filters:
        expression = _expression(one, table.schema)
        if expression is not None and _binds(expression, table):
            found = expression if found is None else found & expression
    return found


def _binds(expression: pc.Expression, table: Table) -> bool:
    try:
        table.scan([], filter=expression)
    except (InvalidInputError, NotFoundError, UnsupportedError):
        return False
    return True


def _expression(filter: spark.Filter, schema: pa.Schema) -> pc.Expression | None:
    if isinstance(filter, spark.Not):
        inner = _expression(filter.child, schema)
        return None if inner is None else ~inner
    path: tuple[str, ...] = filter.attribute  # type: ignore[attr-defined]
    kind = _type_at(path, schema)
    if kind is None:
        return None
    column = pc.field(*path)
    if isinstance(filter, spark.IsNull):
        return column.is_null()
    if isinstance(filter, spark.IsNotNull):
        return column.is_valid()
    value: Any = filter.value  # type: ignore[attr-defined]
    if isinstance(filter, spark.EqualNullSafe) and value is None:
        return column.is_null()
    if not _comparable(kind):
        return None
    if isinstance(filter, spark.In):
        return _among(column, value)
    return _compared(filter, column, kind, value)


def _compared(
    filter: spark.Filter, column: pc.Expression, kind: pa.DataType, value: object
) -> pc.Expression | None:
    constant = _constant(value)
    if constant is None:
        return None
    # NaN is greater than all numbers in Spark, and compares with none here.
    greater = pc.is_nan(column) if pa.types.is_floating(kind) else pc.scalar(False)
    match filter:
        case spark.EqualTo():
            return column == constant
        case spark.EqualNullSafe():
            return column.is_valid() & (column == constant)  # never null: false where the column is
        case spark.GreaterThan():
            return (column > constant) | greater
        case spark.GreaterThanOrEqual():
            return (column >= constant) | greater
        case spark.LessThan():
            return column < constant
        case spark.LessThanOrEqual():
            return column <= constant
        case spark.StringStartsWith():
            return pc.starts_with(column, pattern=value)
        case spark.StringEndsWith():
            return pc.ends_with(column, pattern=value)
        case spark.StringContains():
            return pc.match_substring(column, pattern=value)
    return None


def _among(column: pc.Expression, values: Iterable[Any]) -> pc.Expression | None:
    constants = [constant for constant in map(_constant, values) if constant is not None]
    if not constants or len(constants) < len(list(values)):
        return None
    kind = constants[0].type
    return pc.is_in(column, value_set=pa.array([constant.as_py() for constant in constants], kind))


def _type_at(path: tuple[str, ...], schema: pa.Schema) -> pa.DataType | None:
    """The type of a column or a struct's field; None where there is none."""
    fields = {field.name: field for field in schema}
    kind: pa.DataType | None = None
    for name in path:
        field = fields.get(name)
        if field is None:
            return None
        kind = field.type
        fields = {child.name: child for child in kind.fields} if pa.types.is_struct(kind) else {}
    return kind


def _comparable(kind: pa.DataType) -> bool:
    """Whether a column's values are compared as they are stored."""
    t = pa.types
    return bool(
        t.is_boolean(kind)
        or t.is_signed_integer(kind)
        or t.is_float32(kind)
        or t.is_float64(kind)
        or t.is_string(kind)
        or t.is_large_string(kind)
        or t.is_binary(kind)
        or t.is_large_binary(kind)
        or t.is_date(kind)
        or t.is_timestamp(kind)
        or t.is_decimal128(kind)
    )


def _constant(value: Any) -> pa.Scalar | None:
    """A constant of a filter; None for those that compare otherwise in Spark (NaN), or are no scalars."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            return pa.scalar(value, pa.timestamp("us"))
        return pa.scalar(value.astimezone(dt.UTC), pa.timestamp("us", "UTC"))
    if isinstance(value, bool | int | float | str | bytes | bytearray | dt.date | Decimal):
        return pa.scalar(bytes(value) if isinstance(value, bytearray) else value)
    return None
