"""What SQL calls the functions and the types, as sqlglot reads them."""

from __future__ import annotations

from typing import TypeAlias

import pyarrow as pa
from sqlglot import exp

from vectorlake.errors import InvalidInputError
from vectorlake.expr import types

# Every node of sqlglot's trees.
Tree: TypeAlias = exp.Expr

# Names that are spelled in several ways, and what sqlglot calls the ones it knows.
ALIASES = {
    "len": "length",
    "char_length": "length",
    "character_length": "length",
    "array_length": "length",
    "list_length": "length",
    "cardinality": "length",
    "prefix": "starts_with",
    "startswith": "starts_with",
    "suffix": "ends_with",
    "endswith": "ends_with",
    "substring": "substr",
    "ceiling": "ceil",
    "pow": "power",
    "is_nan": "isnan",
    "array_contains": "list_contains",
    "list_has": "list_contains",
    "array_has": "list_contains",
    "list_element": "list_extract",
    "array_extract": "list_extract",
    "weekofyear": "week",
    "dayofmonth": "day",
    "datetrunc": "date_trunc",
    "lcase": "lower",
    "ucase": "upper",
}
CALLS: dict[type[Tree], tuple[str, tuple[str, ...]]] = {
    exp.Add: ("+", ("this", "expression")),
    exp.Sub: ("-", ("this", "expression")),
    exp.Mul: ("*", ("this", "expression")),
    exp.Div: ("/", ("this", "expression")),
    exp.IntDiv: ("//", ("this", "expression")),
    exp.Mod: ("%", ("this", "expression")),
    exp.DPipe: ("||", ("this", "expression")),
    exp.Pow: ("power", ("this", "expression")),
    exp.Lower: ("lower", ("this",)),
    exp.Upper: ("upper", ("this",)),
    exp.Length: ("length", ("this",)),
    exp.ArraySize: ("length", ("this",)),
    exp.Substring: ("substr", ("this", "start", "length")),
    exp.Left: ("left", ("this", "expression")),
    exp.Replace: ("replace", ("this", "expression", "replacement")),
    exp.StartsWith: ("starts_with", ("this", "expression")),
    exp.EndsWith: ("ends_with", ("this", "expression")),
    exp.Contains: ("contains", ("this", "expression")),
    exp.RegexpLike: ("regexp_matches", ("this", "expression")),
    exp.Abs: ("abs", ("this",)),
    exp.Sign: ("sign", ("this",)),
    exp.Round: ("round", ("this", "decimals")),
    exp.Floor: ("floor", ("this",)),
    exp.Ceil: ("ceil", ("this",)),
    exp.Trunc: ("trunc", ("this",)),
    exp.Sqrt: ("sqrt", ("this",)),
    exp.Exp: ("exp", ("this",)),
    exp.Ln: ("ln", ("this",)),
    exp.IsNan: ("isnan", ("this",)),
    exp.IsInf: ("isinf", ("this",)),
    exp.Coalesce: ("coalesce", ("this", "*expressions")),
    exp.Nullif: ("nullif", ("this", "expression")),
    exp.Greatest: ("greatest", ("this", "*expressions")),
    exp.Least: ("least", ("this", "*expressions")),
    exp.Concat: ("concat", ("*expressions",)),
    exp.Year: ("year", ("this",)),
    exp.Quarter: ("quarter", ("this",)),
    exp.Month: ("month", ("this",)),
    exp.Week: ("week", ("this",)),
    exp.WeekOfYear: ("week", ("this",)),
    exp.Day: ("day", ("this",)),
    exp.DayOfMonth: ("day", ("this",)),
    exp.DayOfWeekIso: ("isodow", ("this",)),
    exp.Hour: ("hour", ("this",)),
    exp.Minute: ("minute", ("this",)),
    exp.Second: ("second", ("this",)),
    exp.ArrayContains: ("list_contains", ("this", "expression")),
}

_TYPES = {
    "BOOLEAN": pa.bool_(),
    "INT": pa.int32(),
    "UINT": pa.uint32(),
    "TEXT": pa.string(),
    "VARCHAR": pa.string(),
    "CHAR": pa.string(),
    "NVARCHAR": pa.string(),
    "BINARY": pa.binary(),
    "VARBINARY": pa.binary(),
    "BLOB": pa.binary(),
    "DATETIME": pa.timestamp("us"),
    "TIMESTAMPNTZ": pa.timestamp("us"),
    "TIMESTAMPLTZ": pa.timestamp("us", "UTC"),
}


def data_type(node: Tree) -> pa.DataType:
    if not isinstance(node, exp.DataType):
        raise InvalidInputError(f"{node.sql(dialect='duckdb')} is no type that is known here")
    kind = node.this
    if kind in (exp.DataType.Type.DECIMAL, exp.DataType.Type.BIGDECIMAL):
        numbers = [int(p.this.name) for p in node.expressions]
        precision, scale = (*numbers, *(18, 3)[len(numbers) :]) if len(numbers) != 1 else (numbers[0], 0)
        found = types.decimal_type(precision, scale) if precision > 0 and 0 <= scale <= precision else None
    else:
        name = str(node.args.get("kind") or "") if kind == exp.DataType.Type.USERDEFINED else kind.value
        found = _TYPES.get(name) or types.type_named(name)
        if node.args.get("nested") and node.expressions:
            found = None
    if found is None:
        raise InvalidInputError(
            f"CAST to {node.sql(dialect='duckdb')} is not supported; "
            f"the types are {', '.join(types.type_names())}"
        )
    return found
