"""One run of the command: what its common options say, where it prints, and how it opens lakes and tables."""

from __future__ import annotations

import datetime as dt
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from vectorlake.errors import InvalidInputError

if TYPE_CHECKING:
    from rich.console import Console

    from vectorlake.lake.lake import Lake
    from vectorlake.table.branches import Version
    from vectorlake.table.table import Table

PRINCIPAL_VARIABLE: Final = "VECTORLAKE_PRINCIPAL"
"""On whose behalf commands commit; nothing is guessed from the user who runs them."""
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?")
_UNBOUNDED: Final = 1000
"""Columns of text that a pipe or file takes: nothing is cut there."""


@dataclass(frozen=True)
class Session:
    """The common options of one command."""

    json: bool = False
    debug: bool = False
    storage_options: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def out(self) -> Console:
        """Standard output, for people: as wide as the terminal, unbounded where there is none."""
        return _console(sys.stdout)

    @cached_property
    def err(self) -> Console:
        """Standard error: progress, notes and errors, which never mix with the answer."""
        return _console(sys.stderr)

    def lake(self, uri: str) -> Lake:
        """Open a lake."""
        import vectorlake

        return vectorlake.connect(
            uri,
            storage_options=self.storage_options,
            application=f"vectorlake-cli/{vectorlake.__version__}",
            principal=os.environ.get(PRINCIPAL_VARIABLE) or None,
        )

    def table(self, lake: str, name: str, version: str | None = None) -> Table:
        """Open a table, at a version if one is named."""
        table = self.lake(lake).table(name)
        return table if version is None else table.at(parse_version(version))

    def document(self, value: Any) -> None:
        """Print one JSON document."""
        from vectorlake.cli.values import to_json

        sys.stdout.write(to_json(value) + "\n")

    def note(self, message: str) -> None:
        """Tell people something that is not part of the answer."""
        if not self.json:
            self.err.print(message, style="dim", highlight=False)


def _console(file: Any) -> Console:
    from rich.console import Console

    class Quiet(Console):
        """A console that lets the command handle a reader that went away."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    bounded = file.isatty() or "COLUMNS" in os.environ
    return Quiet(
        file=file, width=None if bounded else _UNBOUNDED, soft_wrap=False, emoji=False, highlight=False
    )


def parse_version(text: str) -> Version:
    """A version as typed: a number, a time (ISO 8601; UTC unless it says otherwise), or a tag.

    Raises:
        InvalidInputError: what looks like a time is none.
    """
    if text.isdigit():
        return int(text)
    if not _TIME.fullmatch(text):
        return text
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError as e:
        raise InvalidInputError(f"{text!r} is no time: write it like 2026-01-31T12:00:00Z") from e
    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)


def parse_pairs(pairs: Sequence[str], option: str) -> dict[str, str]:
    """Repeated `key=value` options as a mapping.

    Raises:
        InvalidInputError: one without `=`, or with an empty key.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidInputError(f"{option} takes key=value, not {pair!r}")
        found[key] = value
    return found


def parse_names(text: str | None) -> list[str] | None:
    """Names separated by commas; None for none given."""
    if text is None:
        return None
    return [name for part in text.split(",") if (name := part.strip())]
