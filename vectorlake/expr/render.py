"""Write an expression as SQL that parses back to the same expression."""

from __future__ import annotations

import datetime as dt
import re

import pyarrow as pa
import pyarrow.types as pt
from sqlglot.dialects.duckdb import DuckDB

from vectorlake.errors import UnsupportedError
from vectorlake.expr import literals, types
from vectorlake.expr.functions import OPERATORS
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
    OpaqueExpr,
    Or,
)

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEYWORDS = frozenset(DuckDB.Tokenizer.KEYWORDS) | frozenset(DuckDB.Parser.FUNCTIONS)
_EPOCH = dt.date(1970, 1, 1).toordinal()


def quote_name(name: str) -> str:
    """A column or field name as an SQL identifier."""
    if _PLAIN_NAME.fullmatch(name) and name.upper() not in _KEYWORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def render(expression: Expr, *, lenient: bool = False) -> str:
    """The SQL of an expression.

    Raises UnsupportedError for what SQL can't say, unless `lenient`: then the text is for people only.
    """
    return _Renderer(lenient).expression(expression)


class _Renderer:
    def __init__(self, lenient: bool) -> None:
        self._lenient = lenient

    def expression(self, node: Expr) -> str:
        match node:
            case Column():
                return ".".join(quote_name(name) for name in node.path)
            case Literal():
                return self.literal(node.scalar)
            case Compare():
                return f"{self.operand(node.left)} {node.op} {self.beside(node.right, node.left)}"
            case And():
                return " AND ".join(self.operand(arg) for arg in node.args)
            case Or():
                return " OR ".join(self.operand(arg) for arg in node.args)
            case Not(IsNull() as test):
                return f"{self.operand(test.arg)} IS NOT NULL"
            case Not():
                return f"NOT {self.operand(node.arg)}"
            case IsNull():
                return f"{self.operand(node.arg)} IS NULL"
            case In():
                values = ", ".join(self.beside(Literal(value), node.arg) for value in node.values)
                return f"{self.operand(node.arg)} IN ({values})"
            case _:
                return self.other(node)

    def other(self, node: Expr) -> str:
        match node:
            case Like():
                word = "ILIKE" if node.ignore_case else "LIKE"
                escape = " ESCAPE '\\'" if "\\" in node.pattern else ""
                return f"{self.operand(node.arg)} {word} {quote_text(node.pattern)}{escape}"
            case Cast():
                return f"CAST({self.expression(node.arg)} AS {self.type_name(node.target)})"
            case Case():
                whens = (
                    f"WHEN {self.expression(c)} THEN {self.expression(v)}"
                    for c, v in zip(node.conditions, node.values, strict=True)
                )
                return f"CASE {' '.join(whens)} ELSE {self.expression(node.default)} END"
            case FieldOf():
                return f"struct_extract({self.expression(node.arg)}, {quote_text(node.name)})"
            case Call():
                return self.call(node)
            case OpaqueExpr() if self._lenient:
                return str(node.expression)
        raise UnsupportedError(
            f"the pyarrow expression {self.__class__(True).other(node)} can't be written as SQL"
        )

    def call(self, node: Call) -> str:
        if node.function in OPERATORS:
            return f"{self.operand(node.args[0])} {node.function} {self.operand(node.args[1])}"
        if node.function == "negate":
            return f"-({self.expression(node.args[0])})"
        return f"{node.function}({', '.join(self.expression(arg) for arg in node.args)})"

    def operand(self, node: Expr) -> str:
        text = self.expression(node)
        if isinstance(node, Column | Literal | Cast | FieldOf) or (
            isinstance(node, Call) and node.function not in OPERATORS and node.function != "negate"
        ):
            return text
        return f"({text})"

    def beside(self, node: Expr, other: Expr) -> str:
        """A side of a comparison: a constant takes the other side's type, so its own need not be written."""
        if isinstance(node, Literal) and not isinstance(other, Literal) and node.scalar.is_valid:
            raw = self.bare(node.scalar)
            if raw is not None:
                return raw
        return self.operand(node)

    def bare(self, scalar: pa.Scalar) -> str | None:
        data_type = scalar.type
        if pt.is_integer(data_type):
            return str(scalar.as_py())
        if pt.is_decimal(data_type):
            return f"{scalar.as_py():f}"
        if pt.is_float32(data_type) and pa.compute.is_finite(scalar).as_py():
            return str(scalar)
        if types.is_text(data_type):
            return quote_text(scalar.as_py())
        return None

    def literal(self, scalar: pa.Scalar) -> str:
        data_type = scalar.type
        if pt.is_null(data_type):
            return "NULL"
        if not scalar.is_valid:
            return f"CAST(NULL AS {self.type_name(data_type)})"
        if pt.is_boolean(data_type):
            return "TRUE" if scalar.as_py() else "FALSE"
        if pt.is_float64(data_type) and pa.compute.is_finite(scalar).as_py():
            text = repr(scalar.as_py())
            return text if "e" in text or "." in text else text + ".0"
        if pt.is_int64(data_type) or pt.is_string(data_type):
            return self.bare(scalar) or ""
        if pt.is_duration(data_type):
            return f"CAST({int(scalar.value)} AS {self.type_name(data_type)})"
        if types.is_bytes(data_type):
            data = "".join(f"\\x{byte:02X}" for byte in scalar.as_py())
            return f"CAST('{data}' AS {self.type_name(data_type)})"
        text = self.temporal(scalar) or self.bare(scalar) or str(scalar)
        if not text.startswith("'"):
            text = (
                text
                if types.is_number(data_type) and pa.compute.is_finite(scalar).as_py()
                else quote_text(text)
            )
        return f"CAST({text} AS {self.type_name(data_type)})"

    def temporal(self, scalar: pa.Scalar) -> str | None:
        quantity = literals.exact(scalar)
        if quantity is None or quantity[0] not in ("instant", "time"):
            return None
        days, nanos = divmod(int(quantity[1]), 86_400 * 10**9)
        seconds, fraction = divmod(nanos, 10**9)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        if fraction:
            clock += f".{fraction:09}".rstrip("0")
        if quantity[0] == "time":
            return clock
        try:
            date = dt.date.fromordinal(days + _EPOCH).isoformat()
        except (ValueError, OverflowError) as error:
            raise UnsupportedError(
                f"{scalar} is outside of the years 1 to 9999, so SQL can't say it"
            ) from error
        if pt.is_date(scalar.type):
            return date
        zone = "+00:00" if scalar.type.tz is not None else ""
        return f"{date} {clock}{zone}"

    def type_name(self, data_type: pa.DataType) -> str:
        name = types.type_name(data_type)
        if name is None and pt.is_timestamp(data_type):
            name = types.type_name(pa.timestamp(data_type.unit, "UTC"))
        if name is None and pt.is_fixed_size_binary(data_type):
            name = "BLOB"
        if name is None and not self._lenient:
            raise UnsupportedError(f"the type {data_type} has no SQL name")
        return name or str(data_type)
