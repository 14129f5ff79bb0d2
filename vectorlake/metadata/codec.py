"""Metadata structs as JSON and back, such that what a newer release added survives an older one.

A struct with an `extra` attribute keeps the members it does not know there and writes them out again. Types are
encoded in the short form of the format specification (a scalar type is its bare name).
"""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from vectorlake import schema as _schema
from vectorlake.errors import CorruptDataError, UnsupportedError

S = TypeVar("S", bound=msgspec.Struct)

_TYPE_KINDS: dict[str, type[msgspec.Struct]] = {
    "struct": _schema.StructType,
    "list": _schema.ListType,
    "fixed_list": _schema.FixedListType,
    "map": _schema.MapType,
    "extension": _schema.ExtensionType,
}
_KIND_OF = {struct: kind for kind, struct in _TYPE_KINDS.items()}


def encode(value: msgspec.Struct) -> bytes:
    """A metadata struct as UTF-8 JSON; members that equal their default are left out."""
    return as_json(to_builtins(value))


def as_json(members: Any) -> bytes:
    """Plain values as metadata files have them."""
    return msgspec.json.format(msgspec.json.encode(members), indent=1)


def decode(
    cls: type[S], data: bytes, where: str, *, prepare: Callable[[Any], Any] = lambda members: members
) -> S:
    """A metadata struct from JSON; `prepare` sees the plain values first.

    Raises:
        CorruptDataError: the bytes are not JSON of that shape; `where` names the file.
        UnsupportedError: it holds a kind of type that this release does not know.
    """
    try:
        return from_builtins(cls, prepare(msgspec.json.decode(data)))
    except (
        msgspec.DecodeError,
        msgspec.ValidationError,
        KeyError,
        TypeError,
        AttributeError,
        UnicodeDecodeError,
    ) as e:
        raise CorruptDataError(
            f"{where} is damaged ({len(data)} bytes, not a valid {cls.__name__.lower()}: {e}); "
            "restore the file or open an earlier version"
        ) from e


def to_builtins(value: Any) -> Any:
    """Structs, tuples and mappings as plain JSON values."""
    if isinstance(value, _schema.ScalarType):
        return value.name
    if isinstance(value, msgspec.Struct):
        known: dict[str, Any] = {"kind": _KIND_OF[type(value)]} if type(value) in _KIND_OF else {}
        for info in _fields(type(value)):
            item = getattr(value, info.name)
            if info.name == "extra" or (not info.required and item == _default(info)):
                continue
            known[info.encode_name] = to_builtins(item)
        return {**getattr(value, "extra", {}), **known}
    if isinstance(value, tuple | list):
        return [to_builtins(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_builtins(item) for key, item in value.items()}
    return value


def _default(info: msgspec.structs.FieldInfo) -> Any:
    return info.default_factory() if info.default is msgspec.NODEFAULT else info.default


def from_builtins(cls: type[S], value: Any) -> S:
    """The struct of class `cls` from plain JSON values; unknown members go to `extra`."""
    if not isinstance(value, dict):
        raise msgspec.ValidationError(f"expected an object for {cls.__name__}, got {type(value).__name__}")
    hints = _hints(cls)
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, item in value.items():
        if name in hints and name != "extra":
            known[name] = _converter(hints[name])(item)
        elif name != "kind":
            extra[name] = item
    if extra and "extra" in hints:
        known["extra"] = extra
    return cls(**known)


@cache
def _fields(cls: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(cls)


@cache
def _hints(cls: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(cls)


@cache
def _converter(hint: Any) -> Callable[[Any], Any]:
    """What makes a value of a type from plain JSON: found once for each, as metadata has many."""
    if hint is Any:
        return _unchanged
    if hint == _schema.Type:
        return _type
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (some,) = [argument for argument in arguments if argument is not type(None)]
        return partial(_optional, _converter(some)) if type(None) in arguments else _converter(some)
    if origin is tuple:
        several = arguments[-1] is Ellipsis
        return partial(_several, _converter(arguments[0])) if several else partial(_tuple, arguments)
    if origin is dict:
        return partial(_dict, hint, arguments[0], _converter(arguments[1]))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return partial(from_builtins, hint)
    return partial(msgspec.convert, type=hint)


def _unchanged(value: Any) -> Any:
    return value


def _optional(convert: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else convert(value)


def _several(convert: Callable[[Any], Any], value: Any) -> tuple[Any, ...]:
    return tuple(map(convert, _listed(value)))


def _tuple(arguments: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if len(arguments) != len(_listed(value)):
        raise msgspec.ValidationError(f"expected an array of {len(arguments)}, got {len(value)}")
    return tuple(_converter(each)(item) for each, item in zip(arguments, value, strict=True))


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise msgspec.ValidationError(f"expected an array, got {type(value).__name__}")
    return value


def _dict(hint: Any, key_type: Any, convert: Callable[[Any], Any], value: Any) -> Any:
    if not isinstance(value, dict):
        return msgspec.convert(value, hint)
    return {msgspec.convert(key, key_type, strict=False): convert(item) for key, item in value.items()}


def _type(value: Any) -> _schema.Type:
    if isinstance(value, str):
        _schema.scalar_to_arrow(value)
        return _schema.ScalarType(value)
    if not isinstance(value, dict) or value.get("kind") not in _TYPE_KINDS:
        kind = value.get("kind") if isinstance(value, dict) else value
        raise UnsupportedError(
            f"the table uses a type of kind {kind!r}, which this release does not know: upgrade"
        )
    return from_builtins(_TYPE_KINDS[value["kind"]], value)  # type: ignore[return-value]
