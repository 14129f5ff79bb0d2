"""The expression tree: frozen values bound to Arrow types, and what can be asked of every one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.expr import functions
from vectorlake.expr.functions import Argument, Datum


class Source(Protocol):
    """Where an expression's leaves come from: a batch's arrays, or pyarrow expressions."""

    def column(self, column: Column) -> Datum: ...
    def literal(self, scalar: pa.Scalar) -> Datum: ...
    def opaque(self, expression: OpaqueExpr) -> Datum: ...


class Expr:
    """A bound expression: a frozen value that evaluates on record batches.

    Equal expressions are the same computation on the same columns. Build one with `parse_filter`,
    `parse_expression`, `from_pyarrow` or `bind`.
    """

    @property
    def type(self) -> pa.DataType:
        """The Arrow type of the values."""
        raise NotImplementedError

    @property
    def children(self) -> tuple[Expr, ...]:
        return ()

    def lower(self, source: Source) -> Datum:
        """The computation over a source's leaves; a building block of `evaluate` and `to_pyarrow`."""
        raise NotImplementedError

    def walk(self) -> Iterator[Expr]:
        """This expression and all below it, parents first."""
        stack: list[Expr] = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))

    def paths(self) -> frozenset[tuple[str, ...]]:
        """The columns and struct fields read, each as the names from the top-level column downwards."""
        found: set[tuple[str, ...]] = set()
        for node in self.walk():
            if isinstance(node, Column):
                found.add(node.path)
            elif isinstance(node, OpaqueExpr):
                found.update(node.reads)
        return frozenset(found)

    def columns(self) -> frozenset[str]:
        """The names of the top-level columns that a batch must have."""
        return frozenset(path[0] for path in self.paths())

    def conjuncts(self) -> list[Expr]:
        """The expressions which, joined by AND, are this one."""
        return list(self.children) if isinstance(self, And) else [self]

    def evaluate(self, batch: pa.RecordBatch) -> pa.Array:
        """The value for each row of `batch`, whose columns are found by name.

        Returns an array of `self.type` with `batch.num_rows` values. Raises InvalidInputError for a missing
        column, an integer overflow, or a cast that fails on some row.
        """
        from vectorlake.expr.evaluate import evaluate

        return evaluate(self, batch)

    def mask(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Where a boolean expression is true: no nulls, null counts as false. Raises as `evaluate` does."""
        from vectorlake.expr.evaluate import mask

        return mask(self, batch)

    def to_sql(self) -> str:
        """SQL that parses back to an equal expression. Raises UnsupportedError where there is none."""
        from vectorlake.expr.render import render

        return render(self)

    def to_pyarrow(self) -> pc.Expression:
        """The same as a pyarrow expression. Raises UnsupportedError where pyarrow has none."""
        from vectorlake.expr.evaluate import to_pyarrow

        return to_pyarrow(self)


@dataclass(frozen=True)
class Column(Expr):
    """A column, or a struct's field by its path. `stored` is the type it has in the data."""

    path: tuple[str, ...]
    value_type: pa.DataType
    stored: pa.DataType = field(compare=False)

    @property
    def type(self) -> pa.DataType:
        return self.value_type

    def lower(self, source: Source) -> Datum:
        return source.column(self)


@dataclass(frozen=True, eq=False)
class Literal(Expr):
    """A constant, null included."""

    scalar: pa.Scalar

    @property
    def type(self) -> pa.DataType:
        return self.scalar.type

    @property
    def value(self) -> Any:
        return self.scalar.as_py()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Literal):
            return NotImplemented
        if not self.type.equals(other.type):
            return False
        # NaN differs from itself as a value, but is the same literal.
        return bool(self.scalar.equals(other.scalar)) or str(self.scalar) == str(other.scalar) == "nan"

    def __hash__(self) -> int:
        return hash(str(self.scalar))

    def lower(self, source: Source) -> Datum:
        return source.literal(self.scalar)


@dataclass(frozen=True)
class Compare(Expr):
    """`left op right` of one type, op one of = != < <= > >=; null when either side is."""

    op: str
    left: Expr
    right: Expr

    @property
    def type(self) -> pa.DataType:
        return pa.bool_()

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.left, self.right)

    def lower(self, source: Source) -> Datum:
        return functions.compare(self.op, self.left.lower(source), self.right.lower(source))


@dataclass(frozen=True)
class And(Expr):
    """Kleene AND of two or more."""

    args: tuple[Expr, ...]

    @property
    def type(self) -> pa.DataType:
        return pa.bool_()

    @property
    def children(self) -> tuple[Expr, ...]:
        return self.args

    def lower(self, source: Source) -> Datum:
        return functions.balanced(pc.and_kleene, [arg.lower(source) for arg in self.args])


@dataclass(frozen=True)
class Or(Expr):
    """Kleene OR of two or more."""

    args: tuple[Expr, ...]

    @property
    def type(self) -> pa.DataType:
        return pa.bool_()

    @property
    def children(self) -> tuple[Expr, ...]:
        return self.args

    def lower(self, source: Source) -> Datum:
        return functions.balanced(pc.or_kleene, [arg.lower(source) for arg in self.args])


@dataclass(frozen=True)
class Not(Expr):
    arg: Expr

    @property
    def type(self) -> pa.DataType:
        return pa.bool_()

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.arg,)

    def lower(self, source: Source) -> Datum:
        return pc.invert(self.arg.lower(source))


@dataclass(frozen=True)
class IsNull(Expr):
    arg: Expr

    @property
    def type(self) -> pa.DataType:
        return pa.bool_()

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.arg,)

    def lower(self, source: Source) -> Datum:
        return pc.is_null(self.arg.lower(source))


@dataclass(frozen=True, eq=False)
class In(Expr):
    """Whether the value is one of `values` (sorted, distinct, no null, no NaN); null for null."""

    arg: Expr
    values: pa.Array

    @property
    def type(self) -> pa.DataType:
        return pa.bool_()

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.arg,)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, In):
            return NotImplemented
        return self.arg == other.arg and bool(self.values.equals(other.values))

    def __hash__(self) -> int:
        return hash((self.arg, len(self.values)))

    def lower(self, source: Source) -> Datum:
        return functions.is_in(self.arg.lower(source), self.values)


@dataclass(frozen=True)
class Like(Expr):
    r"""SQL LIKE; in `pattern`, `%` and `_` are wildcards and `\` takes the next character as it is."""

    arg: Expr
    pattern: str
    ignore_case: bool

    @property
    def type(self) -> pa.DataType:
        return pa.bool_()

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.arg,)

    def lower(self, source: Source) -> Datum:
        return pc.match_like(self.arg.lower(source), self.pattern, ignore_case=self.ignore_case)


@dataclass(frozen=True)
class Cast(Expr):
    """A conversion, which fails on values that the type can't hold; fractions are rounded."""

    arg: Expr
    target: pa.DataType

    @property
    def type(self) -> pa.DataType:
        return self.target

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.arg,)

    def lower(self, source: Source) -> Datum:
        return functions.cast(self.arg.lower(source), self.arg.type, self.target)


@dataclass(frozen=True)
class Case(Expr):
    """The value of the first condition that is true, else the default; all of one type."""

    conditions: tuple[Expr, ...]
    values: tuple[Expr, ...]
    default: Expr

    @property
    def type(self) -> pa.DataType:
        return self.default.type

    @property
    def children(self) -> tuple[Expr, ...]:
        return (*self.conditions, *self.values, self.default)

    def lower(self, source: Source) -> Datum:
        result = self.default.lower(source)
        false = source.literal(pa.scalar(False))
        for condition, value in zip(reversed(self.conditions), reversed(self.values), strict=True):
            result = pc.if_else(pc.coalesce(condition.lower(source), false), value.lower(source), result)
        return result


@dataclass(frozen=True)
class FieldOf(Expr):
    """A field of a struct that is itself computed (of a column, `Column` has the path)."""

    arg: Expr
    name: str

    @cached_property
    def _type(self) -> pa.DataType:
        return self.arg.type.field(self.name).type

    @property
    def type(self) -> pa.DataType:
        return self._type

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.arg,)

    def lower(self, source: Source) -> Datum:
        return pc.struct_field(self.arg.lower(source), [self.name])


@dataclass(frozen=True)
class Call(Expr):
    """A function or an arithmetic operator by its name in `functions.FUNCTIONS`."""

    function: str
    args: tuple[Expr, ...]
    result: pa.DataType = field(compare=False)

    @property
    def type(self) -> pa.DataType:
        return self.result

    @property
    def children(self) -> tuple[Expr, ...]:
        return self.args

    def lower(self, source: Source) -> Datum:
        return functions.FUNCTIONS[self.function].lower(arguments(self.args, source))


@dataclass(frozen=True, eq=False)
class OpaqueExpr(Expr):
    """A pyarrow expression without a translation: it evaluates through pyarrow, and nothing is pruned by it.

    `inputs` are the columns it is given, in this order: it may name them by position.
    """

    expression: pc.Expression
    result: pa.DataType
    reads: frozenset[tuple[str, ...]]
    inputs: tuple[str, ...]

    @property
    def type(self) -> pa.DataType:
        return self.result

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OpaqueExpr):
            return NotImplemented
        return bool(self.expression.equals(other.expression)) and self.reads == other.reads

    def __hash__(self) -> int:
        return hash(self.reads)

    def lower(self, source: Source) -> Datum:
        return source.opaque(self)


def arguments(args: Sequence[Expr], source: Source) -> list[Argument]:
    """Lowered arguments with their types, and their values where they are constants."""
    return [
        Argument(arg.lower(source), arg.type, arg.scalar if isinstance(arg, Literal) else None)
        for arg in args
    ]
