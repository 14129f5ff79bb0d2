"""A Python function by name: `module:function` or `file.py:function`, as commands and the records of jobs have it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from vectorlake.errors import InvalidInputError, NotFoundError
from vectorlake.schema import did_you_mean


def load_function(name: str) -> Callable[[Any], Any]:
    """Import it; the current folder is searched first, as `python -m` does.

    Raises:
        InvalidInputError: not of that form, or its module fails to import.
        NotFoundError: no such module or function.
    """
    where, _, function = name.rpartition(":")
    if not where or not function:
        raise InvalidInputError(
            f"a function is named module:function or file.py:function, which {name!r} is not"
        )
    module = _from_file(Path(where)) if where.endswith(".py") else _from_path(where)
    found: Any = module
    for part in function.split("."):
        if not hasattr(found, part):
            public = (
                [known for known in vars(found) if not known.startswith("_")]
                if hasattr(found, "__dict__")
                else []
            )
            raise NotFoundError(f"{where} has no {function!r}{did_you_mean(part, public)}")
        found = getattr(found, part)
    if not callable(found):
        raise InvalidInputError(f"{name} is no function but {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def _from_path(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        if e.name and (name == e.name or name.startswith(f"{e.name}.")):
            raise NotFoundError(f"no module {name!r} here or among the installed packages") from e
        raise InvalidInputError(f"module {name} can't be imported: {e}") from e
    except Exception as e:
        raise InvalidInputError(f"module {name} can't be imported: {type(e).__name__}: {e}") from e


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        raise InvalidInputError(f"{path} can't be imported: {type(e).__name__}: {e}") from e
    return module
