"""What libraries raise while files are read and written, as the library's own errors that name the file."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Final

import pyarrow as pa

from vectorlake.errors import CorruptDataError, NotFoundError, StorageError, VectorlakeError
from vectorlake.formats.protocol import FileSource

_FAILURES: Final = (pa.ArrowException, OSError, ValueError, RuntimeError, LookupError, EOFError)
_NETWORK: Final = (
    "generic s3",
    "generic gcs",
    "generic microsoft",
    "http error",
    "connect",
    "timed out",
    "credential",
)
_ABSENT: Final = ("not found", "no such file", "nosuchkey", "404")


def check_length(source: FileSource) -> None:
    """Refuse a local file that is missing or has another length than `source.size`; others are checked as
    they open.

    Raises:
        CorruptDataError: names the file and both lengths.
    """
    path = source.local
    if path is None:
        return
    try:
        found = os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError) as e:
        raise missing(source) from e
    except OSError as e:
        raise StorageError(
            f"{source.uri} can't be read: {e.strerror}; check its permissions and retry"
        ) from e
    if source.size is not None and found != source.size:
        raise wrong_length(source, found)


def missing(source: FileSource) -> CorruptDataError:
    """The error for a file that is registered but not there."""
    return CorruptDataError(
        f"{source.uri} is missing: a file was removed behind our back; restore it, or an earlier version of "
        "the table"
    )


def wrong_length(source: FileSource, found: int) -> CorruptDataError:
    """The error for a file that was cut or replaced."""
    return CorruptDataError(
        f"{source.uri} has {found} bytes, the manifest says {source.size}: it was cut or replaced; restore "
        "the file, or "
        "an earlier version of the table"
    )


class reading:  # noqa: N801 - used as `with reading(source):`
    """Turns what a library raises while it reads `source` into errors that name the file; our own errors
    pass.

    A class and not a generator, so that generators can be entered around each step at no cost.
    """

    __slots__ = ("_source",)

    def __init__(self, source: FileSource) -> None:
        self._source = source

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, MemoryError):
            return
        if isinstance(error, VectorlakeError):
            if isinstance(error, NotFoundError) and self._source.uri in str(error):
                raise missing(self._source) from error
            return
        if isinstance(error, _FAILURES) or is_panic(error):
            raise self._read_error(error) from error

    def _read_error(self, error: BaseException) -> VectorlakeError:
        source, reason = self._source, first_line(error)
        if source.local is not None:
            try:
                check_length(source)
            except VectorlakeError as better:
                return better
            if isinstance(error, PermissionError):
                return StorageError(f"{source.uri} can't be read: {reason}; check its permissions and retry")
        else:
            lowered = reason.lower()
            if any(word in lowered for word in _ABSENT):
                return missing(source)
            if any(word in lowered for word in _NETWORK):
                return StorageError(f"{source.uri} can't be read: {reason}; check the store and retry")
        return CorruptDataError(
            f"{source.uri} is damaged: {reason}; restore the file, or an earlier version of the table"
        )


class writing:  # noqa: N801 - used as `with writing(path):`
    """Turns what a library raises while it writes `path` into `StorageError`; our own errors pass."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, (VectorlakeError, MemoryError)):
            return
        if isinstance(error, _FAILURES) or is_panic(error):
            raise StorageError(
                f"{self._path} could not be written: {first_line(error)}; check that the folder is there, "
                "writable and "
                "has space, then retry"
            ) from error


def is_panic(error: BaseException) -> bool:
    """Whether a Rust library panicked: its exception derives from `BaseException` alone and can't be
    imported."""
    return type(error).__name__ == "PanicException"


def first_line(error: BaseException) -> str:
    """The start of a library's message: the rest is often a back trace or a dump of the plan."""
    text = str(error).strip() or type(error).__name__
    line = text.splitlines()[0]
    return line if len(line) <= 300 else line[:299] + "…"
