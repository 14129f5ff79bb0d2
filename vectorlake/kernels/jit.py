"""Compile the arithmetic to machine code: numba with one cache policy, behind typed wrappers.

Import this module, and those that use it, only when something is to be computed: numba takes half a second to
load. Compiled code is cached beside the package, or in numba's user cache where the package is read-only; the
environment variable `NUMBA_CACHE_DIR` names another folder. Of processes that start side by side, as workers do, one
compiles, and the others wait for what it puts there.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import pathlib
import threading
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

import numba
from numba.extending import intrinsic as numba_intrinsic

from vectorlake.turns import turn

P = ParamSpec("P")
R = TypeVar("R")

_COMPILING: Final = threading.RLock()
_WAIT_S: Final = 120.0
"""For another process that compiles; then this one does it too."""
_POLL_S: Final = 0.02

_FROM_PYTHON: Final[dict[str, Any]] = {"no_cfunc_wrapper": True}
_FROM_COMPILED: Final[dict[str, Any]] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Who calls a function: a way in for others would take as long to compile as small functions do themselves."""

Builder = Any  # llvmlite.ir.IRBuilder and its values carry no types
Value = Any


def entry(signature: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function that Python calls: compiled for one signature at its first call, cached, and free of the GIL."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        ready: list[Callable[P, R]] = []

        def build() -> Callable[P, R]:
            dispatcher: Any = numba.njit(nogil=True, error_model="numpy", **_FROM_PYTHON)(function)
            # No folder for the cache may be writable, as in a container: then each process compiles anew.
            with contextlib.suppress(RuntimeError):
                dispatcher.enable_caching()
                _stamp(dispatcher)
            # Workers that start side by side would all compile the same: one does, and the others find it in the cache.
            with turn(pathlib.Path(function.__code__.co_filename), wait_s=_WAIT_S, poll_s=_POLL_S):
                dispatcher.compile(signature)
            dispatcher.disable_compile()
            return dispatcher  # type: ignore[no-any-return]

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not ready:
                with _COMPILING:
                    if not ready:
                        ready.append(build())
            return ready[0](*args, **kwargs)

        return call

    return wrap


def inner(function: Callable[P, R]) -> Callable[P, R]:
    """A function that compiled functions call; it is inlined into them and cached with them."""
    compiled: Callable[P, R] = numba.njit(error_model="numpy", **_FROM_COMPILED)(function)
    return compiled


def pasted(function: Callable[P, R]) -> Callable[P, R]:
    """Like `inner`, for what is called in one place: it becomes part of its caller before anything is optimised, once."""
    compiled: Callable[P, R] = numba.njit(error_model="numpy", inline="always")(function)
    return compiled


def relaxed(function: Callable[P, R]) -> Callable[P, R]:
    """Like `inner`, for sums whose order may vary because their error bound holds for every order."""
    compiled: Callable[P, R] = numba.njit(
        error_model="numpy", fastmath={"reassoc", "contract", "nsz"}, **_FROM_COMPILED
    )(function)
    return compiled


def finite(function: Callable[P, R]) -> Callable[P, R]:
    """Like `inner`, for what meets no NaN and no infinity, so that the least of many may be found several at a time."""
    compiled: Callable[P, R] = numba.njit(
        error_model="numpy", fastmath={"nnan", "ninf", "nsz"}, **_FROM_COMPILED
    )(function)
    return compiled


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose body is LLVM IR, built at compile time."""
    compiled: Callable[..., Any] = numba_intrinsic(function)
    return compiled


def _stamp(dispatcher: Any) -> None:
    """Tie the cache to every source that may be compiled in: numba looks only at the function's own file."""
    cache_file: Any = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if hasattr(cache_file, "_source_stamp"):
        digest = sources_digest(dispatcher.py_func.__module__)
        cache_file._source_stamp = (cache_file._source_stamp, digest)


@functools.cache
def sources_digest(module: str) -> str:
    """A digest of a module's source and of those in this package that it imports, directly or not."""
    digest = hashlib.sha256()
    for source in sorted(sources_of(module)):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def sources_of(module: str) -> frozenset[pathlib.Path]:
    """The source files of a module of this package and of all in this package that it imports, directly or not.

    For a module elsewhere, whose imports are not read, all source files of this package.
    """
    if _source(module) is None:
        return frozenset(pathlib.Path(__file__).parent.rglob("*.py"))
    found: set[pathlib.Path] = set()
    waiting = [module]
    while waiting:
        source = _source(waiting.pop())
        if source is not None and source not in found:
            found.add(source)
            waiting += _imported(source)
    return frozenset(found)


def _source(module: str) -> pathlib.Path | None:
    """The file of a module of this package; None for a package, a name within a module, and what is elsewhere."""
    package = __name__.rpartition(".")[0] + "."
    if not module.startswith(package):
        return None
    parts = module.removeprefix(package).split(".")
    source = pathlib.Path(__file__).parent.joinpath(*parts).with_suffix(".py")
    return source if source.is_file() else None


def _imported(source: pathlib.Path) -> list[str]:
    """The modules that a source names in its import statements, wherever they stand."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names
