"""A function over batches that a job calls on its workers: by import path or as an object; a class has an instance each."""

from __future__ import annotations

import hashlib
import inspect
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import CodeType
from typing import Any, Final

import pyarrow as pa

from vectorlake.errors import InvalidInputError
from vectorlake.jobs import load_function

_KEPT: Final = threading.local()
"""The instance of a class that this thread has made last."""


@dataclass(frozen=True)
class Function:
    """What computes a column.

    Attributes:
        target: an import path (`module:name` or `/folder/file.py:name`), a function, or a class.
        arguments: with which a class is called once for each worker (process or thread): what takes long, such as loading
            a model, belongs there. The instance is then called with batch after batch.
    """

    target: str | Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, target: str | Callable[..., Any], arguments: Mapping[str, Any] | None) -> Function:
        """A function as given, checked.

        Raises:
            InvalidInputError: it's no function or class, or there are arguments for what is no class.
            NotFoundError: there is none at that import path.
        """
        if isinstance(target, str):
            where, _, name = target.rpartition(":")
            target = f"{os.path.abspath(where)}:{name}" if where.endswith(".py") else target
        elif not callable(target):
            raise InvalidInputError(f"a function is an import path or can be called, which {target!r} can't")
        found = cls(target, dict(arguments or {}))
        if found.arguments and not inspect.isclass(found.loaded):
            raise InvalidInputError(f"arguments are for a class, which {found.name} is not")
        return found

    @cached_property
    def loaded(self) -> Callable[..., Any]:
        """The function or class itself."""
        return load_function(self.target) if isinstance(self.target, str) else self.target

    def __getstate__(self) -> dict[str, Any]:
        # What was loaded by its path here is loaded by its path there.
        return {"target": self.target, "arguments": self.arguments}

    @property
    def name(self) -> str:
        """By which people know it."""
        if isinstance(self.target, str):
            where, _, name = self.target.rpartition(":")
            return f"{os.path.basename(where)}:{name}"
        named = self.target if hasattr(self.target, "__qualname__") else type(self.target)
        return f"{named.__module__}:{named.__qualname__}"

    @property
    def hash(self) -> str:
        """Of its source, or of its compiled code where there is no source: tells that it was edited."""
        return hashlib.sha256(_source(self.loaded)).hexdigest()[:16]

    @property
    def identity(self) -> dict[str, Any]:
        """What names it in a job's parameters."""
        return {"name": self.name, "hash": self.hash, "arguments": dict(self.arguments)}

    def __call__(self, batch: pa.RecordBatch) -> Any:
        if not inspect.isclass(self.loaded):
            return self.loaded(batch)
        if getattr(_KEPT, "of", None) != (self.target, self.arguments):
            _KEPT.instance = None  # two models may not fit
            _KEPT.instance = self.loaded(**self.arguments)
            _KEPT.of = (self.target, self.arguments)
        return _KEPT.instance(batch)


def _source(found: Callable[..., Any]) -> bytes:
    named = found if inspect.isclass(found) or inspect.isroutine(found) else type(found)
    try:
        return inspect.getsource(named).encode()
    except (OSError, TypeError):
        code = getattr(named, "__code__", None)
        return b"".join(_compiled(code)) if code is not None else repr(named).encode()


def _compiled(code: CodeType) -> Iterator[bytes]:
    yield code.co_code
    yield repr(code.co_names).encode()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _compiled(constant)
        else:
            yield repr(constant).encode()
