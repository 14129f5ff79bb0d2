"""How a command ends: the exit code of each kind of error, and the one line that tells it."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

from vectorlake.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    JobStoppedError,
    NotFoundError,
    OutcomeUnknownError,
    StorageError,
    UnsupportedError,
    VectorlakeError,
)


class ExitCode(IntEnum):
    """What a program that calls the command can tell from its exit code (docs/cli.md)."""

    OK = 0
    FINDINGS = 1
    INVALID_INPUT = 2
    NOT_FOUND = 3
    ALREADY_EXISTS = 4
    CONFLICT = 5
    CORRUPT_DATA = 6
    UNSUPPORTED = 7
    STORAGE = 8
    OUTCOME_UNKNOWN = 9
    JOB_STOPPED = 10
    INTERNAL = 70
    INTERRUPTED = 130
    BROKEN_PIPE = 141


_CODES: Final[tuple[tuple[type[VectorlakeError], ExitCode], ...]] = (
    (InvalidInputError, ExitCode.INVALID_INPUT),
    (NotFoundError, ExitCode.NOT_FOUND),
    (AlreadyExistsError, ExitCode.ALREADY_EXISTS),
    (ConflictError, ExitCode.CONFLICT),
    (CorruptDataError, ExitCode.CORRUPT_DATA),
    (UnsupportedError, ExitCode.UNSUPPORTED),
    (OutcomeUnknownError, ExitCode.OUTCOME_UNKNOWN),
    (StorageError, ExitCode.STORAGE),
    (JobStoppedError, ExitCode.JOB_STOPPED),
)
_LINES: Final = re.compile(r"\s*\n\s*")


def exit_code(error: BaseException) -> ExitCode:
    """The exit code for an error; `INTERNAL` for one that nobody raised on purpose."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.INTERNAL)


def error_line(error: BaseException) -> str:
    """What went wrong, in one paragraph."""
    # Errors that quote a filter point into it on lines of their own: those lines must stay as they are.
    message = str(error).strip() or type(error).__name__
    if isinstance(error, VectorlakeError):
        return message
    shown = _LINES.sub(" ", message)
    hint = "run again with --debug for the traceback, and please report it"
    return f"unexpected {type(error).__name__}: {shown} ({hint})"
