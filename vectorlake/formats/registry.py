"""Data-file formats by name, each loaded when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final, TypeAlias

from vectorlake.errors import AlreadyExistsError, UnsupportedError
from vectorlake.formats.protocol import FileFormat
from vectorlake.schema import did_you_mean, listing

Load: TypeAlias = Callable[[], FileFormat]
"""Makes a format; may raise `ImportError` where its library is not installed."""


def _builtin(module: str, type_name: str) -> Load:
    def load() -> FileFormat:
        made: FileFormat = getattr(import_module(f"vectorlake.formats.{module}"), type_name)()
        return made

    return load


_LOADERS: Final[dict[str, tuple[Load, str]]] = {
    "parquet": (_builtin("parquet", "ParquetFormat"), "pyarrow"),
    "lance": (_builtin("lance", "LanceFormat"), "pylance"),
    "vortex": (_builtin("vortex", "VortexFormat"), "vortex-data"),
    "arrow": (_builtin("arrow", "ArrowFormat"), "pyarrow"),
}
_LOADED: Final[dict[str, FileFormat]] = {}


def format_named(name: str) -> FileFormat:
    """The format of that name; built in are `parquet`, `lance`, `vortex` and `arrow`.

    Raises:
        UnsupportedError: no such format, or its library is not installed; says which one.
    """
    found = _LOADED.get(name)
    if found is not None:
        return found
    if name not in _LOADERS:
        raise UnsupportedError(
            f"no data-file format {name!r}{did_you_mean(name, format_names())}; known are "
            f"{listing(format_names())}: "
            "upgrade vectorlake, or register the format"
        )
    load, package = _LOADERS[name]
    try:
        made = load()
    except ImportError as e:
        raise UnsupportedError(
            f"the {name} format needs the package {package}: pip install {package} ({e})"
        ) from e
    return _LOADED.setdefault(name, made)


def register(name: str, load: Load, *, package: str) -> None:
    """Add a format of another package under a new name.

    Args:
        name: what data files' `format` says.
        load: makes the format, called at first use.
        package: what to install where `load` raises `ImportError`.

    Raises:
        AlreadyExistsError: the name is taken.
    """
    if name in _LOADERS:
        raise AlreadyExistsError(f"a data-file format {name!r} is registered already: choose another name")
    _LOADERS[name] = (load, package)


def format_names() -> list[str]:
    """Names of all registered formats."""
    return sorted(_LOADERS)
