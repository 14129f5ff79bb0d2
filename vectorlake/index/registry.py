"""The index kinds that there are, by name; further ones can be registered."""

from __future__ import annotations

import importlib
from typing import Final

from vectorlake.errors import AlreadyExistsError, InvalidInputError, UnsupportedError
from vectorlake.index.protocol import IndexKind
from vectorlake.schema import did_you_mean, listing

_BUILT_IN: Final[dict[str, str]] = {
    "flat": "vectorlake.index.flat:FlatKind",
    "ivf": "vectorlake.index.ivf:IvfKind",
    "graph": "vectorlake.index.graph:GraphKind",
    "tokens": "vectorlake.index.tokens:TokensKind",
}
"""Loaded when they are first asked for: they bring compiled code."""
_kinds: Final[dict[str, IndexKind]] = {}


def register(kind: IndexKind) -> None:
    """Add a kind under its name.

    Raises:
        AlreadyExistsError: there is one of that name.
    """
    if kind.name in _BUILT_IN or kind.name in _kinds:
        raise AlreadyExistsError(f"there is an index kind {kind.name!r} already: choose another name")
    _kinds[kind.name] = kind


def kind_names() -> list[str]:
    """The names of all kinds."""
    return sorted(_BUILT_IN.keys() | _kinds.keys())


def kind_named(name: str) -> IndexKind:
    """The kind of that name.

    Raises:
        InvalidInputError: there is none; the message lists those that exist.
    """
    if name in _BUILT_IN and name not in _kinds:
        module, _, attribute = _BUILT_IN[name].partition(":")
        _kinds[name] = getattr(importlib.import_module(module), attribute)()
    if name not in _kinds:
        raise InvalidInputError(
            f"unknown index kind {name!r}{did_you_mean(name, kind_names())}; choose from {listing(kind_names())}"
        )
    return _kinds[name]


def kind_for_reading(name: str, version: int, where: str) -> IndexKind:
    """The kind that reads an index.

    Raises:
        UnsupportedError: this release does not know the kind, or not its newer layout.
    """
    if name not in kind_names():
        raise UnsupportedError(f"{where} is of kind {name!r}, unknown to this release: upgrade vectorlake")
    kind = kind_named(name)
    if version > kind.version:
        raise UnsupportedError(
            f"{where} has version {version} of kind {name!r}; this release reads up to {kind.version}: upgrade vectorlake"
        )
    return kind
