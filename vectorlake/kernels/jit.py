"""Compile the arithmetic to machine code: numba with one cache policy, behind typed wrappers.

Import this module, and those that use it, only when something is to be computed: numba takes half a second to
load. Compiled code is cached beside the package, or in numba's user cache where the package is read-only; the
environment variable `NUMBA_CACHE_DIR` names another folder.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import pathlib
import threading
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

import numba
from numba.extending import intrinsic as numba_intrinsic

P = ParamSpec("P")
R = TypeVar("R")

_COMPILING: Final = threading.RLock()

Builder = Any  # llvmlite.ir.IRBuilder and its values carry no types
Value = Any


def entry(signature: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function that Python calls: compiled for one signature at its first call, cached, and free of the GIL."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        ready: list[Callable[P, R]] = []

        def build() -> Callable[P, R]:
            dispatcher: Any = numba.njit(nogil=True, error_model="numpy")(function)
            # No folder for the cache may be writable, as in a container: then each process compiles anew.
            with contextlib.suppress(RuntimeError):
                dispatcher.enable_caching()
                _stamp(dispatcher)
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
    compiled: Callable[P, R] = numba.njit(error_model="numpy")(function)
    return compiled


def pasted(function: Callable[P, R]) -> Callable[P, R]:
    """Like `inner`, for what is called in one place: it becomes part of its caller before anything is optimised, once."""
    compiled: Callable[P, R] = numba.njit(error_model="numpy", inline="always")(function)
    return compiled


def relaxed(function: Callable[P, R]) -> Callable[P, R]:
    """Like `inner`, for sums whose order may vary because their error bound holds for every order."""
    compiled: Callable[P, R] = numba.njit(error_model="numpy", fastmath={"reassoc", "contract", "nsz"})(
        function
    )
    return compiled


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose body is LLVM IR, built at compile time."""
    compiled: Callable[..., Any] = numba_intrinsic(function)
    return compiled


def _stamp(dispatcher: Any) -> None:
    """Tie the cache to every kernel source: numba looks only at the function's own file."""
    cache_file: Any = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if hasattr(cache_file, "_source_stamp"):
        cache_file._source_stamp = (cache_file._source_stamp, sources_digest())


@functools.cache
def sources_digest() -> str:
    """A digest of all source files in this package."""
    digest = hashlib.sha256()
    for source in sorted(pathlib.Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()
