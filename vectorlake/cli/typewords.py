"""A type as typed on the command line, in the words that `vectorlake schema` prints: `vector(384, f16)`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import pyarrow as pa

from vectorlake.errors import InvalidInputError, UnsupportedError
from vectorlake.schema import blob, did_you_mean, geo, multivector, scalar_to_arrow, text, vector

_CALL: Final = re.compile(r"([a-z_0-9]+)\s*\((.*)\)", re.DOTALL | re.IGNORECASE)
_ALIASES: Final[Mapping[str, str]] = {
    "str": "string", "varchar": "string", "bytes": "binary", "boolean": "bool",
    "tinyint": "int8", "smallint": "int16", "int": "int32", "integer": "int32", "bigint": "int64",
    "long": "int64",
    "half": "float16", "float": "float32", "real": "float32", "double": "float64",
    "date": "date32", "timestamp": "timestamp(us)", "timestamptz": "timestamp(us, UTC)",
}  # fmt: skip
_LOGICAL: Final[Mapping[str, Callable[[], pa.DataType]]] = {"text": text, "blob": blob, "geo": geo}
_KNOWN: Final = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
    "float64", "string", "large_string", "binary", "large_binary", "fixed_size_binary", "decimal128",
    "decimal256", "date32", "date64", "timestamp", "time32", "time64", "duration", "list", "fixed_list",
    "map", "struct", "vector", "multivector", "text", "blob", "geo",
)  # fmt: skip


def parse_type(words: str) -> pa.DataType:
    """An Arrow type from words: `int64`, `timestamp(us, UTC)`, `vector(384, f16)`, `struct(a: list(string))`.

    Raises:
        InvalidInputError: words that name no type; says what was probably meant.
    """
    stripped = words.strip()
    name = stripped.lower()
    name = _ALIASES.get(name, name)
    if name in _LOGICAL:
        return _LOGICAL[name]()
    call = _CALL.fullmatch(stripped)
    head = call[1].lower() if call else name
    try:
        if call and head in _CONSTRUCTORS:
            return _CONSTRUCTORS[head](_split(call[2]), stripped)
        # Parameters keep their case: a time zone has one.
        return scalar_to_arrow(f"{head}({call[2]})" if call else name)
    except (UnsupportedError, pa.ArrowInvalid, ValueError) as e:
        if isinstance(e, InvalidInputError):
            raise
        hint = (
            did_you_mean(head, list(_KNOWN))
            if head not in _KNOWN
            else f": {_EXAMPLES.get(head, 'its parameters are wrong')}"
        )
        raise InvalidInputError(
            f"no type {words!r}{hint}; types are written as in int64, timestamp(us, UTC), vector(384, f16)"
        ) from e


_EXAMPLES: Final[Mapping[str, str]] = {
    "timestamp": "write timestamp(us) or timestamp(us, UTC)",
    "time32": "write time32(s) or time32(ms)",
    "time64": "write time64(us) or time64(ns)",
    "duration": "write duration(us)",
    "decimal128": "write decimal128(10, 2)",
    "decimal256": "write decimal256(40, 2)",
    "vector": "write vector(384) or vector(384, f16)",
    "multivector": "write multivector(128)",
    "list": "write list(string)",
    "map": "write map(string, int64)",
    "struct": "write struct(a: int64, b: string)",
    "fixed_list": "write fixed_list(string, 3)",
    "fixed_size_binary": "write fixed_size_binary(16)",
}


def _vector(make: Callable[[int, str], pa.DataType]) -> Callable[[list[str], str], pa.DataType]:
    def build(arguments: list[str], words: str) -> pa.DataType:
        if len(arguments) not in (1, 2) or not arguments[0].isdigit():
            raise InvalidInputError(f"no type {words!r}: write vector(384) or vector(384, f16)")
        return make(int(arguments[0]), arguments[1].lower() if len(arguments) == 2 else "f32")

    return build


def _list(arguments: list[str], words: str) -> pa.DataType:
    (element,) = _exactly(arguments, 1, words)
    return pa.list_(parse_type(element))


def _fixed_list(arguments: list[str], words: str) -> pa.DataType:
    element, length = _exactly(arguments, 2, words)
    return pa.list_(parse_type(element), int(length))


def _map(arguments: list[str], words: str) -> pa.DataType:
    key, value = _exactly(arguments, 2, words)
    return pa.map_(parse_type(key), parse_type(value))


def _struct(arguments: list[str], words: str) -> pa.DataType:
    children = []
    for argument in arguments:
        name, colon, kind = argument.partition(":")
        if not colon:
            raise InvalidInputError(f"no type {words!r}: write struct(a: int64, b: string)")
        children.append(pa.field(name.strip(), parse_type(kind)))
    return pa.struct(children)


_CONSTRUCTORS: Final[Mapping[str, Callable[[list[str], str], pa.DataType]]] = {
    "vector": _vector(vector),
    "multivector": _vector(multivector),
    "list": _list,
    "fixed_list": _fixed_list,
    "map": _map,
    "struct": _struct,
}


def _exactly(arguments: list[str], count: int, words: str) -> list[str]:
    if len(arguments) != count or not all(arguments):
        raise InvalidInputError(f"no type {words!r}: it takes {count} parameter{'s' if count > 1 else ''}")
    return arguments


def _split(arguments: str) -> list[str]:
    """Arguments at the commas outside of parentheses."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(arguments):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(arguments[start:at].strip())
            start = at + 1
    return [*parts, arguments[start:].strip()]
