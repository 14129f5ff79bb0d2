"""How the demo tells what it does: numbered steps with their times, facts, code and tables; or nothing at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

_WIDTH: Final = 100
_INDENT: Final = 3
_LABEL: Final = 14


class Story:
    """What the reader sees, in order, and how long each step took (`seconds`, by name)."""

    def __init__(self, console: Console | None, *, clock: Callable[[], float] = time.perf_counter) -> None:
        """Tell on a console, or with None nowhere."""
        self._console = console or Console(quiet=True)
        self._clock = clock
        self._width = min(self._console.width, _WIDTH)
        self.steps: list[str] = []
        self.seconds: dict[str, float] = {}

    def title(self, text: str, below: str) -> None:
        """The first words."""
        self._print(Text(text, style="bold"))
        self._print(Text(below, style="dim"))

    @contextmanager
    def step(self, name: str, title: str, why: str) -> Iterator[None]:
        """One step, timed: what it is called in the summary, what it does, and why that matters."""
        self.steps.append(name)
        self._print("")
        self._print(Rule(Text(f"{len(self.steps)}  {title}", style="bold cyan"), align="left", style="cyan"))
        self._print(Padding(Text(why, style="dim"), (0, 0, 0, _INDENT)))
        start = self._clock()
        yield
        self.seconds[name] = round(self._clock() - start, 3)
        self._print(Padding(Text(f"{_seconds(self.seconds[name])}", style="dim"), (0, 0, 0, _INDENT)))

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """A part of a step that is worth a time of its own."""
        start = self._clock()
        yield
        self.seconds[name] = round(self._clock() - start, 3)

    def fact(self, label: str, value: str, *, good: bool = False) -> None:
        """A thing that was found or done; `good` for the point of the step."""
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=_LABEL)
        grid.add_column()
        grid.add_row(Text(label), Text(value, style="bold green" if good else "bold"))
        self._print(Padding(grid, (0, 0, 0, _INDENT)))

    def say(self, text: str) -> None:
        """A sentence."""
        self._print(Padding(Text(text), (0, 0, 0, _INDENT)))

    def code(self, text: str, language: str) -> None:
        """Code that was run, as it can be run again."""
        syntax = Syntax(text, language, theme="ansi_dark", background_color="default", word_wrap=True)
        self._print(Padding(syntax, (1, 0, 1, _INDENT + 2)))

    def table(self, columns: Mapping[str, str], rows: Sequence[Sequence[str]]) -> None:
        """Rows found; columns are given as name → `left`, `right` or `wide` (cut to what room there is)."""
        grid = Table(
            box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False
        )
        for name, side in columns.items():
            grid.add_column(
                name,
                justify="right" if side == "right" else "left",
                no_wrap=True,
                overflow="ellipsis",
                ratio=1 if side == "wide" else None,
            )
        for row in rows:
            grid.add_row(*(Text(cell) for cell in row))
        grid.expand = "wide" in columns.values()
        self._print(Padding(grid, (0, 0, 0, _INDENT)))

    def rows(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Rows as a query gave them: numbers to the right, texts cut to what room there is."""
        number = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
        cells = [[_cell(value) for value in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        text = "wide" if sum(widths) + 2 * len(widths) > self._width - _INDENT else "left"
        self.table({name: "right" if number[i] else text for i, name in enumerate(columns)}, cells)

    def end(self, title: str, seconds: float) -> None:
        """The last words."""
        self._print("")
        self._print(
            Rule(Text(f"{title} in {_seconds(seconds)}", style="bold green"), align="left", style="green")
        )

    def commands(self, lines: Sequence[tuple[str, str]]) -> None:
        """Commands to try next, each with what it does; never wrapped, so that they can be copied."""
        for command, what in lines:
            self._print(Padding(Text(f"# {what}", style="dim"), (0, 0, 0, _INDENT)))
            self._console.print(Text(" " * _INDENT + command, style="bold"), soft_wrap=True)

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int | None], None]]:
        """A bar that is gone when its work is done; moved by the function given."""
        if not self._console.is_terminal or self._console.quiet:
            yield lambda done, total: None
            return
        columns = (
            TextColumn(" " * _INDENT + "{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def _print(self, what: object) -> None:
        self._console.print(what, width=self._width)


def _cell(value: Any) -> str:
    return (
        f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    )


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
