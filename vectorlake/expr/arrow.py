"""Read pyarrow expressions into bound expressions.

A pyarrow expression serialises (as when pickled) to an Arrow IPC file: the tree in prefix order as the
schema's key-value metadata (`call` … `end`, `field_ref`, `literal`), with the constants and the functions'
options as columns of one row. That tree is read here; nothing is taken from the expression's text. Unlike
Substrait, it holds every expression, whatever functions are in it.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from vectorlake.errors import InvalidInputError
from vectorlake.expr import build, types
from vectorlake.expr.evaluate import plain
from vectorlake.expr.literals import Raw
from vectorlake.expr.nodes import Column, Expr, Literal, OpaqueExpr
from vectorlake.expr.semantics import Semantics


@dataclass(frozen=True)
class _Field:
    path: tuple[str, ...]


@dataclass(frozen=True)
class _Constant:
    scalar: pa.Scalar


@dataclass(frozen=True)
class _Call:
    """A function on arguments; `start` and `stop` are its entries, to make it an expression again."""

    function: str
    args: tuple[_Node, ...]
    options: dict[str, pa.Array]
    start: int
    stop: int


_Node = _Field | _Constant | _Call


class _Untranslatable(Exception):
    """This part of the tree has no counterpart here."""


def from_pyarrow(
    expression: pc.Expression, schema: pa.Schema, semantics: Semantics = Semantics.ARROW
) -> Expr:
    """Bind a pyarrow expression to a schema; `semantics` say whether null is in a list (not how NaN compares).

    What has no counterpart here becomes an `OpaqueExpr`, the smallest part that can be, and evaluates through
    pyarrow. Raises InvalidInputError for a column that is not in the schema or types that don't meet.
    """
    try:
        make, entries, constants = _serialized(expression)
        reader = _Reader(entries, constants)
        node = reader.node()
        if reader.position != len(entries):
            raise _Untranslatable
    except (pa.ArrowException, NotImplementedError, _Untranslatable, LookupError, ValueError):
        return _opaque(expression, schema, frozenset((name,) for name in schema.names))
    try:
        return _Translator(schema, entries, constants, make, semantics).expression(node)
    except RecursionError:
        raise InvalidInputError("the filter is nested too deeply: use isin(…) for many values") from None


def _serialized(
    expression: pc.Expression,
) -> tuple[Callable[..., Any], list[tuple[str, str]], pa.RecordBatch]:
    make, (buffer,) = expression.__reduce__()
    batch = pa.ipc.open_file(buffer).get_batch(0)
    return make, _metadata(batch.schema), batch


class _ArrowSchema(ctypes.Structure):
    """The start of the Arrow C data interface's ArrowSchema."""

    _fields_ = (("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", ctypes.c_void_p))


def _metadata(schema: pa.Schema) -> list[tuple[str, str]]:
    """A schema's key-value metadata in order with repeated keys, which `Schema.metadata` merges."""
    capsule = schema.__arrow_c_schema__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = _ArrowSchema.from_address(pointer(capsule, b"arrow_schema")).metadata
    if not address:
        raise _Untranslatable

    def number() -> int:
        nonlocal address
        (value,) = struct.unpack("=i", ctypes.string_at(address, 4))
        address += 4
        return int(value)

    def text() -> str:
        nonlocal address
        size = number()
        value = ctypes.string_at(address, size)
        address += size
        return value.decode()

    return [(text(), text()) for _ in range(number())]


class _Reader:
    """Reads nodes from the entries, one after the other."""

    def __init__(self, entries: Sequence[tuple[str, str]], batch: pa.RecordBatch) -> None:
        self._entries = entries
        self._batch = batch
        self.position = 0

    def _take(self) -> tuple[str, str]:
        entry = self._entries[self.position]
        self.position += 1
        return entry

    def node(self) -> _Node:
        """The next node. With a stack of the calls begun, since chains of AND nest thousands deep."""
        calls: list[tuple[int, str, list[_Node], dict[str, pa.Array]]] = []
        while True:
            start = self.position
            key, value = self._take()
            if key == "call":
                calls.append((start, value, [], {}))
                continue
            if key == "options":
                column = self._batch.column(int(value))
                fields = {field.name: pc.struct_field(column, [i]) for i, field in enumerate(column.type)}
                calls[-1][3].update(fields)
                continue
            found: _Node
            if key == "end":
                begun, function, args, options = calls.pop()
                found = _Call(function, tuple(args), options, begun, self.position)
            else:
                found = self._leaf(key, value)
            if not calls:
                return found
            calls[-1][2].append(found)

    def _leaf(self, key: str, value: str) -> _Node:
        if key == "field_ref":
            return _Field((value,))
        if key == "nested_field_ref":
            return _Field(tuple(self._name() for _ in range(int(value))))
        if key == "literal":
            return _Constant(self._batch.column(int(value))[0])
        raise _Untranslatable

    def _name(self) -> str:
        key, name = self._take()
        if key != "field_ref":
            raise _Untranslatable
        return name


def _rebuild(
    entries: Sequence[tuple[str, str]], batch: pa.RecordBatch, make: Callable[..., Any]
) -> pc.Expression:
    """The pyarrow expression of some of the entries."""
    part = batch.replace_schema_metadata(pa.KeyValueMetadata(list(entries)))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, part.schema) as writer:
        writer.write_batch(part)
    return make(sink.getvalue())


_COMPARE = {
    "equal": "=",
    "not_equal": "!=",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
}
_PATTERNS = {
    "starts_with": "starts_with",
    "ends_with": "ends_with",
    "match_substring": "contains",
    "match_substring_regex": "regexp_matches",
}
_FUNCTIONS = {
    "add_checked": "+",
    "subtract_checked": "-",
    "multiply_checked": "*",
    "negate_checked": "negate",
    "utf8_lower": "lower",
    "utf8_upper": "upper",
    "is_nan": "isnan",
    "coalesce": "coalesce",
}


class _Translator:
    def __init__(
        self,
        schema: pa.Schema,
        entries: Sequence[tuple[str, str]],
        constants: pa.RecordBatch,
        make: Callable[..., Any],
        semantics: Semantics,
    ) -> None:
        self._schema = schema
        self._entries = entries
        self._constants = constants
        self._make = make
        self._semantics = semantics

    def expression(self, node: _Node) -> Expr:
        if isinstance(node, _Constant):
            return Literal(_plain_scalar(node.scalar))
        if isinstance(node, _Field):
            return self.column(node)
        try:
            return self.call(node)
        except _Untranslatable:
            return self.opaque(node)

    def column(self, node: _Field) -> Expr:
        index = self._schema.get_all_field_indices(node.path[0])
        if len(index) != 1:
            have = ", ".join(self._schema.names)
            raise InvalidInputError(
                f"there is {'no column' if not index else 'more than one column'} {node.path[0]!r}; "
                f"the columns are: {have}"
            )
        stored = self._schema.field(index[0]).type
        found: Expr = Column(node.path[:1], types.plain_type(stored), stored)
        for name in node.path[1:]:
            found = build.field_of(found, name)
        return found

    def opaque(self, node: _Call) -> Expr:
        """The call through pyarrow, which reads no more than the fields below it."""
        reads = frozenset(self.column(leaf).paths() for leaf in _fields(node))
        expression = _rebuild(self._entries[node.start : node.stop], self._constants, self._make)
        return _opaque(expression, self._schema, frozenset().union(*reads))

    def call(self, node: _Call) -> Expr:
        name, args = node.function, node.args
        if name in _COMPARE:
            return self.compare(_COMPARE[name], *args)
        if name in ("and_kleene", "or_kleene"):
            return self.junction(node)
        if name == "invert":
            return build.not_(self.condition(args[0]))
        if name in ("is_null", "is_valid"):
            return self.is_null(node)
        if name in ("is_in", "if_else", "cast", "struct_field", "match_like"):
            return getattr(self, name)(node)  # type: ignore[no-any-return]
        if name in _PATTERNS:
            if _option(node, "ignore_case"):
                raise _Untranslatable
            return self.function(_PATTERNS[name], [self.expression(args[0]), Raw(_option(node, "pattern"))])
        if name in _FUNCTIONS:
            return self.function(_FUNCTIONS[name], [self.operand(arg) for arg in args])
        raise _Untranslatable

    def function(self, name: str, operands: list[build.Operand]) -> Expr:
        try:
            return build.call(name, operands)
        except InvalidInputError:
            # pyarrow may take types that SQL does not.
            raise _Untranslatable from None

    def operand(self, node: _Node) -> build.Operand:
        """A node; as in pyarrow, an integer constant adapts to the types around it."""
        found = self.expression(node)
        if isinstance(node, _Constant) and isinstance(found, Literal) and pt.is_integer(found.type):
            return Raw(found.value)
        return found

    def condition(self, node: _Node) -> Expr:
        return build.boolean(self.expression(node), "what a filter joins")

    def junction(self, node: _Call) -> Expr:
        join = build.and_ if node.function == "and_kleene" else build.or_
        parts: list[_Node] = []
        stack = list(node.args)
        while stack:
            part = stack.pop(0)
            if isinstance(part, _Call) and part.function == node.function:
                stack[:0] = part.args
            else:
                parts.append(part)
        return join(*(self.condition(part) for part in parts))

    def compare(self, op: str, left: _Node, right: _Node) -> Expr:
        sides = [self.expression(left), self.expression(right)]
        for i, side in enumerate(sides):
            other = sides[1 - i]
            # A string beside a date is read as one, as in SQL.
            if isinstance(side, Literal) and types.is_text(side.type) and types.is_instant(other.type):
                return build.compare(op, *(Raw(s.value) if s is side else s for s in sides))
        return build.compare(op, *sides)

    def is_null(self, node: _Call) -> Expr:
        arg = self.expression(node.args[0])
        found = build.is_null(arg)
        if node.function == "is_null" and _option(node, "nan_is_null") and pt.is_floating(arg.type):
            found = build.or_(found, build.call("isnan", [arg]))
        return build.not_(found) if node.function == "is_valid" else found

    def member(self, node: _Call) -> tuple[Expr, Expr, bool]:
        """What is tested, the test with SQL's null, and whether null counts as one of the values."""
        values = _option_array(node, "value_set")
        arg = self.expression(node.args[0])
        behavior = _option(node, "null_matching_behavior")
        if behavior not in (0, 1) or not (
            types.common_type(arg.type, values.type) or pt.is_null(values.type)
        ):
            raise _Untranslatable
        if values.type.equals(arg.type):
            test = build.in_values(arg, values)
        elif len(values) > 10_000:
            raise _Untranslatable
        else:
            choices = [Literal(value) for value in values if value.is_valid]
            test = build.in_(arg, choices)
        if pt.is_floating(values.type) and pc.any(pc.is_nan(values)).as_py():
            raise _Untranslatable
        return arg, test, bool(values.null_count) and behavior == 0

    def is_in(self, node: _Call) -> Expr:
        if self._semantics is Semantics.SQL:
            return self.sql_member(node)
        arg, test, null_matches = self.member(node)
        if null_matches:
            return build.or_(build.is_null(arg), build.and_(test, build.not_(build.is_null(arg))))
        return build.and_(test, build.not_(build.is_null(arg)))

    def sql_member(self, node: _Call) -> Expr:
        """`x IN (…)`: null for null, and where null is in the list for what else is not; NaN is in a list with NaN."""
        values = _option_array(node, "value_set")
        arg = self.expression(node.args[0])
        if values.type.equals(arg.type):
            tests = [build.in_values(arg, values)]
        else:
            tests = [build.in_(arg, [Literal(value) for value in values if value.is_valid])]
        if pt.is_floating(values.type) and pc.any(pc.is_nan(values)).as_py():
            tests.append(build.call("isnan", [arg]))
        if values.null_count:
            tests.append(Literal(pa.scalar(None, pa.bool_())))
        return build.or_(*tests)

    def if_else(self, node: _Call) -> Expr:
        condition, then, otherwise = node.args
        if (
            isinstance(condition, _Call)
            and condition.function == "is_valid"
            and isinstance(then, _Call)
            and then.function == "is_in"
            and isinstance(otherwise, _Constant)
            and not otherwise.scalar.is_valid
        ):
            arg, test, _ = self.member(then)
            if arg == self.expression(condition.args[0]):
                return test
        tested = self.condition(condition)
        picked = self.case(tested, then, otherwise)
        # A null condition gives null in pyarrow, but the default in CASE.
        return build.case([build.is_null(tested)], [Raw(None)], picked)

    def case(self, condition: Expr, then: _Node, otherwise: _Node) -> Expr:
        try:
            return build.case([condition], [self.operand(then)], self.operand(otherwise))
        except InvalidInputError:
            raise _Untranslatable from None

    def cast(self, node: _Call) -> Expr:
        arg = self.expression(node.args[0])
        target = _option_array(node, "to_type").type
        # Only the casts that lose nothing, which need no look at the options.
        if types.common_type(arg.type, target) != target:
            raise _Untranslatable
        return build.cast(arg, target)

    def struct_field(self, node: _Call) -> Expr:
        reference = _option(node, "field_ref")
        arg = self.expression(node.args[0])
        # Written as a dot path, in which these characters have a meaning.
        name = reference.removeprefix(".") if isinstance(reference, str) else ""
        if not name or any(character in name for character in ".[]\\()") or not pt.is_struct(arg.type):
            raise _Untranslatable
        return build.field_of(arg, name)

    def match_like(self, node: _Call) -> Expr:
        pattern = _option(node, "pattern")
        ignore_case = bool(_option(node, "ignore_case"))
        return build.like(self.expression(node.args[0]), pattern, escape="\\", ignore_case=ignore_case)


def _plain_scalar(scalar: pa.Scalar) -> pa.Scalar:
    array = plain(pa.repeat(scalar, 1)) if scalar.is_valid else pa.nulls(1, types.plain_type(scalar.type))
    return array[0]


def _fields(node: _Node) -> Iterator[_Field]:
    if isinstance(node, _Field):
        yield node
    elif isinstance(node, _Call):
        for arg in node.args:
            yield from _fields(arg)


def _option(node: _Call, name: str) -> Any:
    return _option_array(node, name)[0].as_py()


def _option_array(node: _Call, name: str) -> pa.Array:
    """An option's column of one row; a list is given as its values."""
    found = node.options.get(name)
    if found is None:
        raise _Untranslatable
    return found[0].values if types.is_list(found.type) else found


def _opaque(expression: pc.Expression, schema: pa.Schema, reads: frozenset[tuple[str, ...]]) -> Expr:
    """An opaque expression, typed by asking pyarrow to bind it to the schema."""
    import pyarrow.dataset as ds  # late: it loads pandas where that is installed

    try:
        scanner = ds.Scanner.from_batches([], schema=schema, columns={"value": expression})
        result = types.plain_type(scanner.projected_schema.field(0).type)
    except (pa.ArrowException, LookupError, ValueError, TypeError) as error:
        raise InvalidInputError(f"pyarrow can't apply {expression} to these columns: {error}") from error
    names = {path[0] for path in reads}
    return OpaqueExpr(expression, result, reads, tuple(name for name in schema.names if name in names))
