"""OpenTelemetry spans around planning, reading, writing and committing, if its API is installed and a provider is set.

Without either, a span is one shared object that does nothing. Only names, counts and sizes are recorded: no values.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final, Protocol, Self

try:
    from opentelemetry import trace as _trace
except ImportError:
    _trace = None  # type: ignore[assignment]

_PREFIX: Final = "vectorlake"


class Span(Protocol):
    """One piece of work; as a context manager it is the current span until its end."""

    def set(self, **attributes: str | float | bool) -> None:
        """Record attributes, each under `vectorlake.<name>`."""
        ...

    def end(self, error: BaseException | None = None) -> None:
        """End a span that is not used as a context manager (of a stream, say)."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class _Nothing:
    def set(self, **attributes: str | float | bool) -> None:
        return None

    def end(self, error: BaseException | None = None) -> None:
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


_NOTHING: Final = _Nothing()


class _Recorded:
    def __init__(self, name: str) -> None:
        self._span = _trace.get_tracer(_PREFIX).start_span(f"{_PREFIX}.{name}")
        self._current: Any = None

    def set(self, **attributes: str | float | bool) -> None:
        self._span.set_attributes({f"{_PREFIX}.{key}": value for key, value in attributes.items()})

    def end(self, error: BaseException | None = None) -> None:
        if isinstance(error, Exception):
            self._span.record_exception(error)
            self._span.set_status(_trace.Status(_trace.StatusCode.ERROR, type(error).__name__))
        self._span.end()

    def __enter__(self) -> Self:
        self._current = _trace.use_span(self._span, end_on_exit=False, record_exception=False)
        self._current.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._current.__exit__(None, None, None)
        self.end(error)


def span(name: str, **attributes: str | float | bool) -> Span:
    """Begin a span `vectorlake.<name>` with some attributes."""
    if _trace is None or isinstance(_trace.get_tracer_provider(), _trace.ProxyTracerProvider):
        return _NOTHING
    begun = _Recorded(name)
    begun.set(**attributes)
    return begun
