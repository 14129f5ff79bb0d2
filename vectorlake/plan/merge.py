"""What a merge does with which rows: clauses bound to a schema, and how changed values are written. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa

from vectorlake.errors import InvalidInputError
from vectorlake.expr import Column, Expr, Literal, parse_expression, parse_filter
from vectorlake.schema import Field, Schema, did_you_mean, listing

SOURCE = "source"
TARGET = "target"
Wanted = Mapping[str, object] | Sequence[str] | None
"""Columns to set: names (from the source's columns of these names), or SQL or values by name; None: all of the source."""


class Change(StrEnum):
    """What happens to a row."""

    UPDATE = "update"
    DELETE = "delete"
    INSERT = "insert"


class Mode(StrEnum):
    """How new values of existing rows are written."""

    AUTO = "auto"
    """As whichever of the others writes less."""
    ROWS = "rows"
    """New images of the rows in a new fragment; the old ones are deleted by deletion vectors."""
    COLUMNS = "columns"
    """In place: new files of the columns alone, for the fragments that hold such rows."""


@dataclass(frozen=True)
class Clause:
    """`WHEN MATCHED [AND condition] THEN …`, as it was asked for: not yet bound to a schema."""

    change: Change
    wanted: Wanted = None
    condition: str | None = None


@dataclass(frozen=True)
class BoundClause:
    """A clause over the columns of a snapshot; expressions read structs called `source` and `target`."""

    change: Change
    values: tuple[tuple[Field, Expr], ...] = ()
    """Columns to set, in the order of the schema."""
    condition: Expr | None = None

    @property
    def expressions(self) -> tuple[Expr, ...]:
        return (*(value for _, value in self.values), *((self.condition,) if self.condition else ()))


def scopes(schema: Schema, source: pa.Schema | None) -> pa.Schema:
    """The schema that expressions are bound to: structs of the table's and of the source's columns."""
    fields = [pa.field(TARGET, pa.struct([field.to_storage() for field in schema.fields]))]
    if source is not None:
        fields.insert(0, pa.field(SOURCE, pa.struct(list(source))))
    return pa.schema(fields)


def bind_clause(
    clause: Clause, schema: Schema, source: pa.Schema, *, key: frozenset[int], on: frozenset[int]
) -> BoundClause:
    """A clause bound to the table's columns and the source's.

    Args:
        key: ids of the primary key's fields, which never change.
        on: ids of the fields by which rows are matched.

    Raises:
        InvalidInputError: an unknown column, an expression that doesn't parse, a change of key columns.
    """
    both = scopes(schema, source)
    condition = None
    if clause.condition is not None:
        inserting = clause.change is Change.INSERT
        condition = parse_filter(clause.condition, pa.schema([both.field(SOURCE)]) if inserting else both)
    if clause.change is not Change.UPDATE:
        return BoundClause(clause.change, (), condition)
    wanted: Mapping[str, object]
    if clause.wanted is None:
        wanted = {name: _copied(name, source) for name in source.names if schema.field(name).id not in on}
    elif isinstance(clause.wanted, Mapping):
        wanted = clause.wanted
    else:
        names = [clause.wanted] if isinstance(clause.wanted, str) else list(clause.wanted)
        for name in names:
            if name not in source.names:
                raise InvalidInputError(
                    f"the data has no column {name!r}{did_you_mean(name, source.names)}; it has {listing(source.names)}"
                )
        wanted = {name: _copied(name, source) for name in names if schema.field(name).id not in on}
    values = bind_values(wanted, schema, both, key=key | on)
    return BoundClause(Change.UPDATE, values, condition)


def bind_values(
    wanted: Mapping[str, object], schema: Schema, scope: pa.Schema, *, key: frozenset[int]
) -> tuple[tuple[Field, Expr], ...]:
    """New values of columns: SQL expressions (strings), expressions or plain values, bound to a scope.

    Raises:
        NotFoundError: an unknown column.
        InvalidInputError: an expression that doesn't parse, or a column of the primary key.
    """
    values: list[tuple[Field, Expr]] = []
    for name, value in wanted.items():
        field = schema.field(name)
        if field.id in key:
            raise InvalidInputError(
                f"column {name!r} identifies rows and can't be changed: delete the row and append it with the new key"
            )
        if isinstance(value, Expr):
            values.append((field, value))
        elif isinstance(value, str):
            values.append((field, parse_expression(value, scope)))
        else:
            values.append((field, constant_of(value, field)))
    order = {field.id: index for index, field in enumerate(schema.fields)}
    return tuple(sorted(values, key=lambda item: order[item[0].id]))


def constant_of(value: object, field: Field) -> Expr:
    """A plain value as an expression.

    Raises:
        InvalidInputError: it doesn't fit the column.
    """
    kind = field.to_storage().type
    try:
        return Literal(pa.scalar(value, kind))
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError, OverflowError) as e:
        raise InvalidInputError(f"{value!r} is no value for column {field.name!r} ({kind}): {e}") from e


def _copied(name: str, source: pa.Schema) -> Expr:
    """The source's column of that name. Built, not parsed: a plain upsert need not load the SQL parser."""
    kind = source.field(name).type
    return Column((SOURCE, name), kind, kind)


def needed(expressions: Sequence[Expr], scope: str) -> list[str]:
    """The columns of one scope that some expressions read."""
    return sorted({path[1] for e in expressions for path in e.paths() if path[0] == scope and len(path) > 1})


@dataclass(frozen=True)
class Cost:
    """What two ways of writing the same values would write, in bytes."""

    rows: int
    columns: int


def choose(mode: Mode, cost: Cost) -> Mode:
    """The way that writes less, unless one is asked for; rows on a tie, since their images are found by later scans
    without reading the fragments' other rows."""
    if mode is not Mode.AUTO:
        return mode
    return Mode.COLUMNS if cost.columns < cost.rows else Mode.ROWS


def first_fitting(masks: Sequence[np.ndarray], length: int) -> np.ndarray:
    """For each of `length` rows, the index of the first mask that is true for it; -1 where none is."""
    chosen = np.full(length, -1, np.int8)
    for index in reversed(range(len(masks))):
        chosen[masks[index]] = index
    return chosen
