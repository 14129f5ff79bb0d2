"""Tables for people: what fits the terminal, and a word on what doesn't."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from vectorlake.cli.values import NULL, rows, short, to_json

if TYPE_CHECKING:
    import pyarrow as pa

    from vectorlake.cli.session import Session

SHOWN_ROWS: Final = 20
"""Rows that people see of an answer without a limit."""
Side: TypeAlias = Literal["left", "fixed", "right"]
"""A text to the left, one that is never cut, or a number to the right: a number that is cut is another number."""
_LEAST: Final = 10
"""A text cut to less than this is not worth showing."""
_GAP: Final = 2


def listing(
    session: Session, records: Iterable[Mapping[str, Any]], columns: Mapping[str, Side], *, empty: str
) -> None:
    """Records: one JSON object a line, or a table with the given columns (key → its side)."""
    if session.json:
        for record in records:
            sys.stdout.write(to_json(record) + "\n")
        return
    found = [
        [record[key] if isinstance(record[key], str) else short(record[key]) for key in columns]
        for record in records
    ]
    if found:
        table(session, list(columns), found, sides=list(columns.values()))
    else:
        session.note(empty)


def facts(session: Session, record: Mapping[str, Any], shown: Mapping[str, str]) -> None:
    """One thing: a JSON object, or its facts one under another."""
    if session.json:
        session.document(record)
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in shown.items():
        grid.add_row(Text(key), Text(value))
    session.out.print(grid)


def stream(
    session: Session, batches: Iterable[pa.RecordBatch], *, limited: bool, total: int | None = None
) -> None:
    """Rows of an answer: all as JSON lines, or a table that ends after a screenful unless a limit was set."""
    if session.json:
        for batch in batches:
            for row in rows(batch):
                sys.stdout.write(to_json(row) + "\n")
        return
    names: list[str] = []
    sides: list[Side] = []
    found: list[list[str]] = []
    more = False
    for batch in batches:
        names = batch.schema.names
        sides = [_side(field.type) for field in batch.schema]
        left = batch.num_rows if limited else SHOWN_ROWS - len(found)
        found.extend([short(value) for value in row.values()] for row in rows(batch.slice(0, left)))
        if batch.num_rows > left:
            more = True
            break
    if not found:
        session.note("no rows")
        return
    table(session, names, found, sides=sides)
    if more:
        of = f" of {total:,}" if total is not None else ""
        session.note(f"the first {len(found)}{of} rows; --limit N shows more, --json writes all")


def _side(kind: pa.DataType) -> Side:
    import pyarrow as pa

    t = pa.types
    if t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind):
        return "right"
    return "fixed" if t.is_temporal(kind) or t.is_boolean(kind) else "left"


def table(
    session: Session, names: Sequence[str], cells: Sequence[Sequence[str]], *, sides: Sequence[Side]
) -> None:
    """A table no wider than the terminal: long texts are cut, and the last columns left out if need be."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    wanted = [max(cell_len(name), *(cell_len(row[i]) for row in cells)) for i, name in enumerate(names)]
    least = [
        min(width, _LEAST) if side == "left" else width for width, side in zip(wanted, sides, strict=True)
    ]
    widths = allot(wanted, least, session.out.width)
    grid = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold cyan", show_edge=False
    )
    for index, width in enumerate(widths):
        grid.add_column(
            Text(names[index]),
            justify="right" if sides[index] == "right" else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=width,
        )
    for row in cells:
        grid.add_row(*(Text(cell, style="dim" if cell == NULL else "") for cell in row[: len(widths)]))
    session.out.print(grid)
    if len(widths) < len(names):
        rest = ", ".join(names[len(widths) :])
        session.note(f"no room for {rest}: ask for fewer columns, or with --json for all")


def allot(wanted: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths for the leading columns that fit into `room`, at least the first, as wide as they may be.

    Args:
        wanted: the widths at which nothing is cut.
        least: the widths below which a column is left out.
        room: characters in all.
    """
    count, used = 1, least[0]
    while count < len(wanted) and used + _GAP + least[count] <= room:
        used += _GAP + least[count]
        count += 1
    widths = list(least[:count])
    spare = room - used
    # The narrowest grow first, so that a long text takes only what the others leave.
    while spare > 0 and (growing := [i for i in range(count) if widths[i] < wanted[i]]):
        narrowest = min(growing, key=lambda i: widths[i])
        widths[narrowest] += 1
        spare -= 1
    return widths
