"""OpenTelemetry spans around planning, reading, writing, committing and maintenance, for programs that set a provider.

Where none is set, or the API is not even imported, a span is one shared object that does nothing. Spans carry names, counts
and sizes, never values: no filters, rows or keys, nor the messages of errors, which may quote some.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Protocol, Self, TypeAlias, TypeVar

_PREFIX: Final = "vectorlake"
_API: Final = "opentelemetry.trace"

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Attribute: TypeAlias = str | bool | int | float | Sequence[str]


class Span:
    """One piece of work. As a context manager it is the current span until its end; this one records nothing."""

    recording: bool = False
    """Whether anybody listens: whether attributes that cost something are worth computing."""

    def set(self, **attributes: Attribute) -> None:
        """Record attributes, each under `vectorlake.<name>`."""

    def end(self, error: BaseException | None = None) -> None:
        """End a span that is not used as a context manager (of a stream, say)."""

    def within(self) -> AbstractContextManager[None]:
        """Make it the current span of this thread for a while, without ending it."""
        return nullcontext()

    def carried(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, run within this span by whichever thread calls it."""
        return function

    def over(self, items: Iterator[T]) -> Iterator[T]:
        """The items, each made within this span: what consumes them in between is not part of it."""
        return items

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


_NOTHING: Final = Span()


class _Recorded(Span):
    recording = True

    def __init__(self, api: Any, name: str) -> None:
        self._api = api
        release = getattr(sys.modules.get(_PREFIX), "__version__", None)
        self._span = api.get_tracer(_PREFIX, release).start_span(f"{_PREFIX}.{name}")
        self._entered: AbstractContextManager[None] = nullcontext()

    def set(self, **attributes: Attribute) -> None:
        self._span.set_attributes({f"{_PREFIX}.{key}": value for key, value in attributes.items()})

    def end(self, error: BaseException | None = None) -> None:
        if isinstance(error, Exception):
            self._span.set_attribute("error.type", type(error).__qualname__)
            self._span.set_status(self._api.Status(self._api.StatusCode.ERROR, type(error).__name__))
        self._span.end()

    def within(self) -> AbstractContextManager[None]:
        current: AbstractContextManager[None] = self._api.use_span(
            self._span, end_on_exit=False, record_exception=False, set_status_on_exception=False
        )
        return current

    def carried(self, function: Callable[P, R]) -> Callable[P, R]:
        def carrying(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.within():
                return function(*args, **kwargs)

        return carrying

    def over(self, items: Iterator[T]) -> Iterator[T]:
        end = object()
        while True:
            with self.within():
                item = next(items, end)
            if item is end:
                return
            yield item  # type: ignore[misc]  # no end

    def __enter__(self) -> Self:
        self._entered = self.within()
        self._entered.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.__exit__(None, None, None)
        self.end(error)


def span(name: str, **attributes: Attribute) -> Span:
    """Begin a span `vectorlake.<name>`, below the current one of this thread, with some attributes."""
    api = _listening()
    if api is None:
        return _NOTHING
    begun = _Recorded(api, name)
    begun.set(**attributes)
    return begun


def carried(function: Callable[P, R]) -> Callable[P, R]:
    """The function, run within this thread's current span by whichever thread calls it."""
    if _listening() is None:
        return function
    from opentelemetry import context

    here = context.get_current()

    def carrying(*args: P.args, **kwargs: P.kwargs) -> R:
        token = context.attach(here)
        try:
            return function(*args, **kwargs)
        finally:
            context.detach(token)

    return carrying


class _Versioned(Protocol):
    @property
    def uri(self) -> str: ...
    @property
    def version(self) -> int: ...


S = TypeVar("S", bound=_Versioned)


def traced(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A table's method with a span of its name around it: below it hang those of what it reads, writes and commits."""

    @wraps(method)
    def traced_method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if _listening() is None:
            return method(self, *args, **kwargs)
        with span(method.__name__, table=self.uri, version=self.version):
            return method(self, *args, **kwargs)

    return traced_method


def _listening() -> Any:
    """The API's module if a provider is set, else None. Who sets one has imported the API, so we need not."""
    api = sys.modules.get(_API)
    if api is None or isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):
        return None
    return api
