"""Bind sqlglot's trees to a schema, and say where in the text something is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from decimal import Decimal

import pyarrow as pa
import pyarrow.types as pt
import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

from vectorlake.errors import InvalidInputError
from vectorlake.expr import build, literals, types
from vectorlake.expr.build import Operand
from vectorlake.expr.functions import FUNCTIONS, OPERATORS
from vectorlake.expr.literals import Raw
from vectorlake.expr.names import ALIASES, CALLS, Tree, data_type
from vectorlake.expr.nodes import Column, Expr, Literal

_INTERVAL_NANOS = {
    "NANOSECOND": 1,
    "MICROSECOND": 10**3,
    "MILLISECOND": 10**6,
    "SECOND": 10**9,
    "MINUTE": 60 * 10**9,
    "HOUR": 3600 * 10**9,
    "DAY": 86_400 * 10**9,
    "WEEK": 7 * 86_400 * 10**9,
}

_COMPARISONS: dict[type[Tree], str] = {
    exp.EQ: "=",
    exp.NEQ: "!=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_PARTS = ("year", "quarter", "month", "week", "day", "isodow", "hour", "minute", "second")


def read(sql: str, schema: pa.Schema) -> Operand:
    """The bound expression of an SQL text. Raises InvalidInputError, which shows the place."""
    if not sql.strip():
        raise InvalidInputError(
            'the filter is empty: write a condition such as "price > 3", or pass None for all rows'
        )
    try:
        tree = sqlglot.parse_one(sql, dialect="duckdb", into=exp.Condition)
        return _Binder(sql, schema).bind(tree)
    except ParseError as error:
        raise _syntax_error(sql, error) from None
    except TokenError:
        # sqlglot tells no place; what it stumbles over is a quote or a comment without an end.
        place = max(sql.rfind("'"), sql.rfind('"'), sql.rfind("/*"), 0)
        what = "a quote or comment is opened but not closed"
        raise InvalidInputError(f"syntax error in the filter: {what}\n{_caret(sql, place)}") from None
    except RecursionError:
        raise InvalidInputError("the filter is nested too deeply: use IN (…) for many values") from None


def _syntax_error(sql: str, error: ParseError) -> InvalidInputError:
    cause = error.errors[0] if error.errors else {}
    what = str(cause.get("description") or "it can't be read").split(" for <class")[0]
    if "Required keyword" in what:
        what = "something is missing"
    position = len(sql.rstrip())
    line, column, highlight = cause.get("line"), cause.get("col"), cause.get("highlight") or ""
    if isinstance(line, int) and isinstance(column, int):
        before = sql.splitlines(keepends=True)[: line - 1]
        position = sum(map(len, before)) + max(column - len(highlight), 0)
    return InvalidInputError(f"syntax error in the filter: {what}\n{_caret(sql, position)}")


def _caret(sql: str, position: int) -> str:
    """The line of `sql` around a position, with a caret below it."""
    start = sql.rfind("\n", 0, position) + 1
    stop = sql.find("\n", position)
    line = sql[start : len(sql) if stop < 0 else stop]
    column = position - start
    if len(line) > 160:
        cut = max(column - 80, 0)
        line, column = ("…" if cut else "") + line[cut : cut + 160], column - cut + (1 if cut else 0)
    return f"  {line}\n  {' ' * column}^"


def _position(node: Tree) -> int | None:
    starts = [n.meta["start"] for n in node.walk() if "start" in n.meta]
    return min(starts) if starts else None


class _Binder:
    def __init__(self, sql: str, schema: pa.Schema) -> None:
        self._sql = sql
        self._schema = schema
        self._located = False

    def bind(self, node: Tree) -> Operand:
        handler = _HANDLERS.get(type(node))
        try:
            if handler is not None:
                return handler(self, node)
            if (named := CALLS.get(type(node))) is not None:
                return self.call(node, *named)
            raise self.unsupported(node)
        except InvalidInputError as error:
            position = _position(node)
            if self._located or position is None:
                raise
            self._located = True
            raise InvalidInputError(f"{error}\n{_caret(self._sql, position)}") from error.__cause__

    def settled(self, node: Tree) -> Expr:
        return build.settle(self.bind(node))

    def condition(self, node: Tree, where: str) -> Expr:
        return build.boolean(self.bind(node), where)

    def unsupported(self, node: Tree) -> InvalidInputError:
        if isinstance(node, exp.Select | exp.Subquery | exp.Exists | exp.Any | exp.All):
            what = "subqueries are"
        elif isinstance(node, exp.Window):
            what = "window functions are"
        elif isinstance(node, exp.AggFunc):
            what = f"aggregates such as {node.sql_name().lower()}() are"
        elif isinstance(node, exp.Placeholder | exp.Parameter):
            what = "parameters are"
        elif isinstance(node, exp.Func):
            name = node.name if isinstance(node, exp.Anonymous) else node.sql_name().lower()
            return self.unknown_function(name)
        else:
            what = f"{node.sql(dialect='duckdb')!r} ({type(node).__name__}) is"
        return InvalidInputError(f"{what} not supported in a filter; an expression over one row's columns is")

    def unknown_function(self, name: str) -> InvalidInputError:
        known = sorted(
            {n for n in FUNCTIONS if n not in OPERATORS and n != "negate"} | {"ifnull", "if", "extract"}
        )
        close = difflib.get_close_matches(name.lower(), [*known, *ALIASES], 3)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        return InvalidInputError(
            f"the function {name}() is not supported; {hint}There are: {', '.join(known)}"
        )

    # Names and constants

    def names(self, names: list[str]) -> Expr:
        index = self._schema.get_all_field_indices(names[0])
        if not index:
            raise self.unknown_column(names)
        if len(index) > 1:
            raise InvalidInputError(f"the column name {names[0]!r} is not unique")
        stored = self._schema.field(index[0]).type
        found: Expr = Column((names[0],), types.plain_type(stored), stored)
        for name in names[1:]:
            found = build.field_of(found, name)
        return found

    def unknown_column(self, names: list[str]) -> InvalidInputError:
        name, have = names[0], self._schema.names
        dotted = ".".join(names)
        if len(names) > 1 and dotted in have:
            return InvalidInputError(
                f'there is no column {name!r}; for the column {dotted!r} write "{dotted}"'
            )
        same = [n for n in have if n.lower() == name.lower()]
        close = same or difflib.get_close_matches(name, have, 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        if same:
            hint += " Names are case-sensitive"
        listed = ", ".join(have[:40]) + (f", … ({len(have)} in all)" if len(have) > 40 else "")
        return InvalidInputError(f"there is no column {name!r}{hint}\nThe columns are: {listed}")

    def column(self, node: Tree) -> Operand:
        assert isinstance(node, exp.Column)
        if any(not isinstance(part, exp.Identifier) for part in node.parts):
            raise InvalidInputError("* is not supported in a filter: name a column")
        return self.names([part.name for part in node.parts])

    def dot(self, node: Tree) -> Operand:
        if not isinstance(node.expression, exp.Identifier):
            raise self.unsupported(node)
        return build.field_of(self.settled(node.this), node.expression.name)

    def struct_extract(self, node: Tree) -> Operand:
        name = self.bind(node.expression)
        if not isinstance(name, Raw) or not isinstance(name.value, str):
            raise InvalidInputError("a struct's field is named by a string")
        return build.field_of(self.settled(node.this), name.value)

    def bracket(self, node: Tree) -> Operand:
        base, keys = self.settled(node.this), node.expressions
        key = self.bind(keys[0]) if len(keys) == 1 and not isinstance(keys[0], exp.Slice) else None
        if isinstance(key, Raw) and isinstance(key.value, str):
            return build.field_of(base, key.value)
        if isinstance(key, Literal) and isinstance(key.value, int):
            key = Raw(key.value)
        if not isinstance(key, Raw) or not isinstance(key.value, int):
            raise InvalidInputError(
                "a list's index must be a constant whole number, from 1, or from -1 at the end"
            )
        # sqlglot has made the index count from zero.
        return build.call("list_extract", [base, Raw(key.value + 1)])

    def literal(self, node: Tree) -> Operand:
        if node.is_string:
            return Raw(node.this)
        text = node.this
        if not text.isdigit():
            number = Decimal(text)
            return Raw(number)
        return Raw(int(text))

    def negate(self, node: Tree) -> Operand:
        inner = self.bind(node.this)
        if isinstance(inner, Raw) and isinstance(inner.value, int | Decimal):
            # Decimal has a negative zero, which must become -0.0.
            return Raw(inner.value.copy_negate() if isinstance(inner.value, Decimal) else -inner.value)
        return build.call("negate", [inner])

    def interval(self, node: Tree) -> Operand:
        unit = node.args.get("unit")
        name = unit.name.upper().rstrip("S") if unit is not None else ""
        nanos = _INTERVAL_NANOS.get(name)
        if nanos is None:
            known = ", ".join(unit.lower() for unit in _INTERVAL_NANOS)
            raise InvalidInputError(f"an interval must have a fixed length: a count of {known}")
        total = Decimal(node.this.name) * nanos
        if total % 1000 == 0:
            return Literal(pa.scalar(int(total) // 1000, pa.duration("us")))
        return Literal(pa.scalar(int(total), pa.duration("ns")))

    # Operators

    def comparison(self, node: Tree) -> Operand:
        return build.compare(_COMPARISONS[type(node)], self.bind(node.this), self.bind(node.expression))

    def conjunction(self, node: Tree) -> Operand:
        parts = [self.condition(part, "what AND joins") for part in node.flatten()]
        return build.and_(*parts)

    def disjunction(self, node: Tree) -> Operand:
        parts = [self.condition(part, "what OR joins") for part in node.flatten()]
        return build.or_(*parts)

    def not_(self, node: Tree) -> Operand:
        return build.not_(self.condition(node.this, "what NOT turns round"))

    def is_(self, node: Tree) -> Operand:
        if isinstance(node.expression, exp.Null):
            return build.is_null(self.bind(node.this))
        if isinstance(node.expression, exp.Boolean):
            tested = self.condition(node.this, "what IS TRUE or IS FALSE tests")
            wanted = tested if node.expression.this else build.not_(tested)
            return build.and_(wanted, build.not_(build.is_null(tested)))
        raise self.unsupported(node)

    def in_(self, node: Tree) -> Operand:
        if any(node.args.get(key) for key in ("query", "unnest", "field")):
            raise InvalidInputError("IN takes a list of values: x IN (1, 2, 3); subqueries are not supported")
        return build.in_(self.bind(node.this), [self.bind(choice) for choice in node.expressions])

    def between(self, node: Tree) -> Operand:
        return build.between(*(self.bind(node.args[key]) for key in ("this", "low", "high")))

    def like(self, node: Tree) -> Operand:
        escape: str | None = None
        if isinstance(node, exp.Escape):
            escape = node.expression.name
            node = node.this
            if len(escape) != 1:
                raise InvalidInputError("LIKE's ESCAPE takes one character")
        pattern = self.bind(node.expression)
        text = pattern.value if isinstance(pattern, Raw | Literal) else None
        if not isinstance(text, str):
            raise InvalidInputError("LIKE's pattern must be a constant string")
        ignore_case = isinstance(node, exp.ILike)
        match = build.like(self.bind(node.this), text, escape=escape, ignore_case=ignore_case)
        return build.not_(match) if node.args.get("negate") else match

    def case(self, node: Tree) -> Operand:
        subject = self.bind(node.this) if node.this is not None else None
        conditions: list[Expr] = []
        values: list[Operand] = []
        for when in node.args["ifs"]:
            if subject is None:
                conditions.append(self.condition(when.this, "a condition of CASE"))
            else:
                conditions.append(build.compare("=", subject, self.bind(when.this)))
            values.append(self.bind(when.args["true"]))
        default = self.bind(node.args["default"]) if node.args.get("default") is not None else Raw(None)
        return build.case(conditions, values, default)

    def if_(self, node: Tree) -> Operand:
        condition = self.condition(node.this, "the condition of if()")
        false = node.args.get("false")
        default = self.bind(false) if false is not None else Raw(None)
        return build.case([condition], [self.bind(node.args["true"])], default)

    # Types and functions

    def cast(self, node: Tree) -> Operand:
        target = data_type(node.args["to"])
        operand = self.bind(node.this)
        if isinstance(operand, Raw) and isinstance(operand.value, str) and types.is_instant(target):
            return Literal(_instant(operand.value, target, exact_unit=node.args["to"].this))
        if isinstance(operand, Raw) and isinstance(operand.value, str) and types.is_number(target):
            return build.cast(build.settle(operand), target)
        return build.cast(operand, target)

    def call(self, node: Tree, name: str, keys: tuple[str, ...]) -> Operand:
        operands: list[Operand] = []
        for key in keys:
            if key.startswith("*"):
                operands.extend(self.bind(arg) for arg in node.args.get(key[1:]) or [])
            elif node.args.get(key) is not None:
                operands.append(self.bind(node.args[key]))
        return build.call(name, operands)

    def trim(self, node: Tree) -> Operand:
        name = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(str(node.args.get("position") or ""), "trim")
        return self.call(node, name, ("this", "expression"))

    def log(self, node: Tree) -> Operand:
        if node.expression is None:
            return build.call("log10", [self.bind(node.this)])
        base = self.bind(node.this)
        name = {10: "log10", 2: "log2"}.get(base.value) if isinstance(base, Raw) else None  # type: ignore[arg-type]
        if name is None:
            raise InvalidInputError("only log10(x), log2(x) and ln(x) are supported")
        return build.call(name, [self.bind(node.expression)])

    def truncate(self, node: Tree) -> Operand:
        return build.call("date_trunc", [Raw(node.args["unit"].name.lower()), self.bind(node.this)])

    def extract(self, node: Tree) -> Operand:
        return self.part(node.this.name, node.expression)

    def part(self, unit: str, of: Tree) -> Operand:
        if unit.lower() not in _PARTS:
            raise InvalidInputError(f"extract does not know {unit!r}; it knows {', '.join(_PARTS)}")
        return build.call(unit.lower(), [self.bind(of)])

    def anonymous(self, node: Tree) -> Operand:
        name = node.name.lower()
        name = ALIASES.get(name, name)
        if name in ("date_part", "datepart") and len(node.expressions) == 2:
            return self.part(node.expressions[0].name, node.expressions[1])
        if name not in FUNCTIONS or name == "negate":
            raise self.unknown_function(node.name)
        return build.call(name, [self.bind(arg) for arg in node.expressions])


def _instant(text: str, target: pa.DataType, *, exact_unit: object) -> pa.Scalar:
    parsed = literals.parse_instant(text)
    if parsed is None:
        raise InvalidInputError(
            f"{text!r} is no date or timestamp: write '2024-01-31' or '2024-01-31 12:34:56.789'"
        )
    nanos, _ = parsed
    if (
        pt.is_timestamp(target)
        and target.unit == "us"
        and nanos % 1000
        and exact_unit != exp.DataType.Type.TIMESTAMP_NS
    ):
        return literals.instant_scalar(nanos, zoned=target.tz is not None)
    scalar = literals.retype(Raw(text), target)
    if scalar is None:
        raise InvalidInputError(f"{text!r} does not fit the type {target}")
    return scalar


_HANDLERS: dict[type[Tree], Callable[[_Binder, Tree], Operand]] = {
    exp.Column: _Binder.column,
    exp.Dot: _Binder.dot,
    exp.StructExtract: _Binder.struct_extract,
    exp.Bracket: _Binder.bracket,
    exp.Literal: _Binder.literal,
    exp.Boolean: lambda binder, node: Literal(pa.scalar(bool(node.this))),
    exp.Null: lambda binder, node: Raw(None),
    exp.Paren: lambda binder, node: binder.bind(node.this),
    exp.Neg: _Binder.negate,
    exp.Interval: _Binder.interval,
    **dict.fromkeys(_COMPARISONS, _Binder.comparison),
    exp.NullSafeEQ: lambda binder, node: build.not_distinct(
        binder.bind(node.this), binder.bind(node.expression)
    ),
    exp.NullSafeNEQ: lambda binder, node: build.distinct(
        binder.bind(node.this), binder.bind(node.expression)
    ),
    exp.And: _Binder.conjunction,
    exp.Or: _Binder.disjunction,
    exp.Not: _Binder.not_,
    exp.Is: _Binder.is_,
    exp.In: _Binder.in_,
    exp.Between: _Binder.between,
    exp.Like: _Binder.like,
    exp.ILike: _Binder.like,
    exp.Escape: _Binder.like,
    exp.Case: _Binder.case,
    exp.If: _Binder.if_,
    exp.Cast: _Binder.cast,
    exp.Trim: _Binder.trim,
    exp.Log: _Binder.log,
    exp.TimestampTrunc: _Binder.truncate,
    exp.DateTrunc: _Binder.truncate,
    exp.Extract: _Binder.extract,
    exp.Anonymous: _Binder.anonymous,
}
