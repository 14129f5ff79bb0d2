"""Make expressions from typed parts: find the types, fit constants to them, fold what is constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from vectorlake.errors import InvalidInputError
from vectorlake.expr import literals, types
from vectorlake.expr.evaluate import constant as evaluate_constant
from vectorlake.expr.evaluate import describe
from vectorlake.expr.functions import FUNCTIONS, Argument
from vectorlake.expr.literals import Fit, Raw
from vectorlake.expr.nodes import (
    And,
    Call,
    Case,
    Cast,
    Column,
    Compare,
    Expr,
    FieldOf,
    In,
    IsNull,
    Like,
    Literal,
    Not,
    Or,
)

Operand: TypeAlias = Expr | Raw

_FLIPPED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_ARROW_ERRORS = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowKeyError)


def told(operand: Operand) -> str:
    """An operand with its type, for messages."""
    if isinstance(operand, Raw):
        kind = "string" if isinstance(operand.value, str) else "null" if operand.value is None else "number"
        return f"{operand} ({kind})"
    return f"{describe(operand)} ({operand.type})"


def settle(operand: Operand) -> Expr:
    return Literal(literals.settle(operand)) if isinstance(operand, Raw) else operand


def fold(expression: Expr) -> Expr:
    """A literal in place of an expression whose children are all literals."""
    children = expression.children
    if not children or not all(isinstance(child, Literal) for child in children):
        return expression
    try:
        return Literal(evaluate_constant(expression))
    except _ARROW_ERRORS as error:
        raise InvalidInputError(f"{describe(expression)} has no value: {error}") from error


def boolean(operand: Operand, where: str) -> Expr:
    """An operand that must be boolean; NULL is the boolean null."""
    expression = settle(operand)
    if pt.is_null(expression.type):
        return (
            Literal(pa.scalar(None, pa.bool_()))
            if isinstance(expression, Literal)
            else Cast(expression, pa.bool_())
        )
    if not pt.is_boolean(expression.type):
        raise InvalidInputError(f"{where} must be true or false (bool), but {told(operand)} is not")
    return expression


def and_(*operands: Expr) -> Expr:
    return _junction(And, operands, neutral=True)


def or_(*operands: Expr) -> Expr:
    return _junction(Or, operands, neutral=False)


def _junction(kind: type[And | Or], operands: Sequence[Expr], *, neutral: bool) -> Expr:
    parts: list[Expr] = []
    for operand in operands:
        for part in operand.args if isinstance(operand, kind) else (operand,):
            if isinstance(part, Literal) and part.value is (not neutral):
                return part
            if not (isinstance(part, Literal) and part.value is neutral):
                parts.append(part)
    if not parts:
        return Literal(pa.scalar(neutral))
    return fold(kind(tuple(parts))) if len(parts) > 1 else parts[0]


def not_(operand: Expr) -> Expr:
    return operand.arg if isinstance(operand, Not) else fold(Not(operand))


def is_null(operand: Operand) -> Expr:
    return fold(IsNull(settle(operand)))


def constant_unless_null(expression: Expr, *, answer: bool) -> Expr:
    """`answer` for every row where the expression has a value, null elsewhere."""
    never = In(expression, pa.array([], expression.type))
    return not_(never) if answer else never


def compare(op: str, left: Operand, right: Operand) -> Expr:
    """`left op right`, brought to one type. Raises InvalidInputError when there is none."""
    if isinstance(left, Raw | Literal) and not isinstance(right, Raw | Literal):
        return compare(_FLIPPED[op], right, left)
    for side in (left, right):
        if isinstance(side, Raw) and side.value is None:
            verb = "IS NOT NULL" if op == "!=" else "IS NULL"
            raise InvalidInputError(
                f"a comparison with NULL is never true: write {verb} instead of {op} NULL"
            )
    if isinstance(left, Raw | Literal):
        left = _constant_beside(left, right)
    if isinstance(left, Expr) and isinstance(right, Raw | Literal):
        return _compare_constant(op, left, right)
    assert isinstance(left, Expr)
    assert isinstance(right, Expr)
    return _compare_typed(op, left, right)


def _constant_beside(left: Raw | Literal, right: Operand) -> Expr:
    if isinstance(left, Literal):
        return left
    if isinstance(right, Literal) and (scalar := literals.retype(left, right.type)) is not None:
        return Literal(scalar)
    return settle(left)


def _compare_constant(op: str, left: Expr, right: Raw | Literal) -> Expr:
    constant = right if isinstance(right, Raw) else right.scalar
    if isinstance(right, Literal) and not right.scalar.is_valid:
        return Literal(pa.scalar(None, pa.bool_()))
    if pt.is_null(left.type):
        return Literal(pa.scalar(None, pa.bool_()))
    fitted = literals.fit(op, constant, left.type)
    if isinstance(fitted, Fit):
        return fold(Compare(fitted.op, left, Literal(fitted.scalar)))
    if isinstance(fitted, bool):
        return fold(constant_unless_null(left, answer=fitted))
    if isinstance(right, Raw) and isinstance(right.value, str) and types.is_instant(left.type):
        raise InvalidInputError(
            f"{right} is no date or time to compare {told(left)} with: "
            "write it as '2024-01-31' or '2024-01-31 12:34:56.789', with +02:00 or Z for a zone"
        )
    if isinstance(right, Raw) and isinstance(right.value, str) and types.is_bytes(left.type):
        right = Literal(pa.scalar(literals.parse_bytes(right.value), pa.binary()))
    if isinstance(right, Raw) and (types.is_number(left.type) != isinstance(right.value, str)):
        return _compare_typed(op, left, settle(right))
    if isinstance(right, Raw):
        raise _mismatch(left, right)
    return _compare_typed(op, left, right)


def _compare_typed(op: str, left: Expr, right: Expr) -> Expr:
    common = types.common_type(left.type, right.type)
    if common is None:
        raise _mismatch(left, right)
    if not _comparable(common):
        raise InvalidInputError(
            f"{told(left)} can't be compared: only IS [NOT] NULL and functions apply to its type"
        )
    return fold(Compare(op, cast(left, common), cast(right, common)))


def _comparable(data_type: pa.DataType) -> bool:
    return not pt.is_nested(data_type)


def _mismatch(left: Expr, right: Operand) -> InvalidInputError:
    hint = ""
    other = right.value if isinstance(right, Raw | Literal) else None
    if isinstance(other, str) and types.is_number(left.type):
        hint = "; write the number without quotes"
    elif types.is_text(left.type) and isinstance(right, Raw) and not isinstance(other, str):
        hint = f"; write '{other}' for the string, or CAST({describe(left)} AS DOUBLE) for the number"
    elif pt.is_boolean(left.type):
        hint = f"; write {describe(left)} or NOT {describe(left)}"
    return InvalidInputError(f"can't compare {told(left)} with {told(right)}: the types differ{hint}")


def distinct(left: Operand, right: Operand) -> Expr:
    """IS DISTINCT FROM: `!=`, but null equals null."""
    return not_(not_distinct(left, right))


def not_distinct(left: Operand, right: Operand) -> Expr:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Raw) and one.value is None:
            return is_null(other)
    both, same = (settle(left), settle(right)), compare("=", left, right)
    given = [not_(is_null(side)) for side in both]
    return or_(and_(same, *given), and_(*(is_null(side) for side in both)))


def in_(operand: Operand, choices: Sequence[Operand]) -> Expr:
    """`operand IN (choices)`, exactly: choices that the type can't hold match nothing."""
    expression = settle(operand)
    null = any(isinstance(c, Raw) and c.value is None for c in choices)
    scalars: list[pa.Scalar] = []
    others: list[Expr] = []
    plain = _plain_choices(choices, expression.type)
    if plain is not None:
        return in_values(expression, plain)
    for choice in choices:
        if isinstance(choice, Raw) and choice.value is None:
            continue
        test = compare("=", expression, choice)
        if isinstance(test, Compare) and test.left == expression and isinstance(test.right, Literal):
            scalars.append(test.right.scalar)
        elif isinstance(test, In) and not len(test.values):
            continue
        else:
            others.append(test)
    if scalars or not others:
        others.insert(0, in_values(expression, _array(scalars, expression.type)))
    if null:
        others.append(Literal(pa.scalar(None, pa.bool_())))
    return or_(*others)


def _plain_choices(choices: Sequence[Operand], data_type: pa.DataType) -> pa.Array | None:
    """The choices as an array when they are the type's own: lists of ids are long, and mostly that."""
    values = [choice.value for choice in choices if isinstance(choice, Raw)]
    if len(values) != len(choices) or not values:
        return None
    if types.is_text(data_type) and all(isinstance(value, str) for value in values):
        return pa.array(values, data_type)
    if pt.is_integer(data_type) and all(isinstance(value, int) for value in values):
        low, high = types.integer_range(data_type)
        return pa.array([value for value in values if low <= value <= high], data_type)  # type: ignore[operator]
    return None


def _array(scalars: list[pa.Scalar], data_type: pa.DataType) -> pa.Array:
    return pa.concat_arrays([pa.array([], data_type), *(pa.repeat(s, 1) for s in scalars)])


def in_values(expression: Expr, values: pa.Array) -> Expr:
    """Membership in values of the expression's own type (nulls and NaN in them match nothing)."""
    values = pc.drop_null(values)
    if pt.is_floating(values.type):
        values = values.filter(pc.invert(pc.is_nan(values)))
        zero = pa.scalar(0.0, values.type)
        values = pc.if_else(pc.equal(values, zero), zero, values)
    values = pc.unique(values)
    if len(values) == 1:
        return fold(Compare("=", expression, Literal(values[0])))
    return fold(In(expression, values.take(pc.sort_indices(values))))


def between(operand: Operand, low: Operand, high: Operand) -> Expr:
    return and_(compare(">=", operand, low), compare("<=", operand, high))


def like(operand: Operand, pattern: str, *, escape: str | None, ignore_case: bool) -> Expr:
    """LIKE, restated as = or a prefix, suffix or substring match where the pattern is one."""
    expression = settle(operand)
    if not types.is_text(expression.type):
        raise InvalidInputError(f"LIKE takes a string, not {told(expression)}")
    tokens = _like_tokens(pattern, escape)
    middle = tokens.strip("\0")
    if not ignore_case and "\0" not in middle and "\1" not in middle:
        text = middle.replace("\2", "")
        starts, ends = not tokens.startswith("\0"), not tokens.endswith("\0")
        if starts and ends:
            return compare("=", expression, Raw(text))
        name = "starts_with" if starts else "ends_with" if ends else "contains"
        return call(name, [expression, Raw(text)])
    canonical = "".join(
        {"\0": "%", "\1": "_", "%": "\\%", "_": "\\_", "\\": "\\\\", "\2": ""}.get(c, c) for c in tokens
    )
    return fold(Like(expression, canonical, ignore_case))


def _like_tokens(pattern: str, escape: str | None) -> str:
    """The pattern with `%` as NUL and `_` as SOH, so that what was escaped is plain text."""
    if "\0" in pattern or "\1" in pattern or "\2" in pattern:
        raise InvalidInputError("a LIKE pattern must not have control characters")
    out: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character == escape:
            following = next(characters, None)
            if following is None:
                raise InvalidInputError(f"the LIKE pattern {pattern!r} ends with its escape character")
            out.append(following)
        else:
            out.append({"%": "\0", "_": "\1"}.get(character, character))
    return "".join(out)


def cast(operand: Operand, target: pa.DataType) -> Expr:
    """CAST. Raises InvalidInputError when Arrow has no such conversion, or a constant does not fit."""
    if isinstance(operand, Raw):
        scalar = literals.retype(operand, target)
        if scalar is not None:
            return Literal(scalar)
        operand = settle(operand)
    if operand.type.equals(target):
        return operand
    node = Cast(operand, target)
    try:
        evaluate_constant(Cast(Literal(pa.scalar(None, operand.type)), target))
    except (*_ARROW_ERRORS, KeyError) as error:
        raise InvalidInputError(f"{told(operand)} can't be cast to {target}") from error
    return fold(node)


def unify(operands: Sequence[Operand], where: str) -> tuple[list[Expr], pa.DataType]:
    """All operands in the one type they share. Raises InvalidInputError when there is none."""
    common = pa.null()
    for operand in operands:
        if isinstance(operand, Expr):
            common = _join(common, operand.type, operands, where)
    result: list[Operand] = list(operands)
    for i, operand in enumerate(operands):
        if (
            isinstance(operand, Raw)
            and not pt.is_null(common)
            and (found := literals.retype(operand, common)) is not None
        ):
            result[i] = Literal(found)
        elif isinstance(operand, Raw):
            result[i] = settle(operand)
    for operand in result:
        assert isinstance(operand, Expr)
        common = _join(common, operand.type, operands, where)
    return [cast(operand, common) for operand in result], common


def _join(one: pa.DataType, other: pa.DataType, operands: Sequence[Operand], where: str) -> pa.DataType:
    common = types.common_type(one, other)
    if common is None:
        raise InvalidInputError(
            f"{where} needs values of one type, not {', '.join(told(o) for o in operands)}"
        )
    return common


def case(conditions: Sequence[Expr], values: Sequence[Operand], default: Operand) -> Expr:
    unified, _ = unify([*values, default], "CASE")
    return fold(Case(tuple(conditions), tuple(unified[:-1]), unified[-1]))


def field_of(operand: Expr, name: str) -> Expr:
    """A struct's field. Raises InvalidInputError where there is none."""
    if not pt.is_struct(operand.type):
        raise InvalidInputError(f"{told(operand)} is no struct, so it has no field {name!r}")
    if operand.type.get_field_index(name) < 0:
        have = ", ".join(field.name for field in operand.type)
        raise InvalidInputError(f"{describe(operand)} has no field {name!r}; it has {have}")
    stored = operand.type.field(name).type
    if isinstance(operand, Column):
        return Column((*operand.path, name), types.plain_type(stored), stored)
    return fold(FieldOf(operand, name))


def call(name: str, operands: Sequence[Operand]) -> Expr:
    """A function of `FUNCTIONS` on operands. Raises InvalidInputError when it does not take them."""
    function = FUNCTIONS[name]
    if len(operands) < function.least or (function.most is not None and len(operands) > function.most):
        raise InvalidInputError(f"{name} takes {function.takes}; it got {len(operands)} arguments")
    args = _fit_arguments(name, operands)
    node = Call(name, tuple(args), _result(name, args))
    if name in ("list_extract", "list_contains") or types.is_list(args[0].type):
        return node
    return fold(node)


def _fit_arguments(name: str, operands: Sequence[Operand]) -> list[Expr]:
    if FUNCTIONS[name].same:
        return unify(operands, name)[0]
    if name in ("+", "-", "*", "/", "//", "%"):
        numbers = [isinstance(o, Raw) or types.is_number(o.type) for o in operands]
        if all(numbers) and not any(isinstance(o, Raw) and isinstance(o.value, str) for o in operands):
            return unify(operands, name)[0]
    if name == "list_contains" or (
        name == "contains" and isinstance(operands[0], Expr) and types.is_list(operands[0].type)
    ):
        return _fit_list_value(operands[0], operands[1])
    return [settle(operand) for operand in operands]


def _fit_list_value(lists: Operand, value: Operand) -> list[Expr]:
    expression = settle(lists)
    if not types.is_list(expression.type):
        raise InvalidInputError(f"list_contains takes a list and a value, not {told(lists)}")
    element = types.plain_type(expression.type.value_type)
    if isinstance(value, Raw | Literal):
        constant = value if isinstance(value, Raw) else value.scalar
        found = literals.retype(value, element) if isinstance(value, Raw) else None
        if isinstance(value, Literal) and isinstance(fitted := literals.fit("=", constant, element), Fit):
            found = fitted.scalar
        if found is None:
            raise InvalidInputError(f"{told(expression)} can't contain {told(value)}")
        return [expression, Literal(found)]
    return [expression, value]


def _result(name: str, args: Sequence[Expr]) -> pa.DataType:
    """The type a function gives for these arguments, found by computing it for no rows."""
    empty = [
        Argument(pa.array([], arg.type), arg.type, arg.scalar if isinstance(arg, Literal) else None)
        for arg in args
    ]
    try:
        return FUNCTIONS[name].lower(empty).type
    except InvalidInputError:
        raise
    except (*_ARROW_ERRORS, TypeError, KeyError) as error:
        given = ", ".join(told(arg) for arg in args)
        raise InvalidInputError(f"{name} takes {FUNCTIONS[name].takes}, not {given}") from error
