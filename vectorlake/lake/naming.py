"""Names in engines: tables and their versions by one text, `ns.items@v1`, and columns of two tables side by side."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from vectorlake.errors import InvalidInputError
from vectorlake.lake.lake import Lake
from vectorlake.table.table import Table


def named_table(lake: Lake, name: str) -> Table:
    """A table by name, `ns.items`, or a version of it: `ns.items@3`, a tag or branch `ns.items@v1`, a time.

    Raises:
        NotFoundError: no such table, version, tag or branch.
        InvalidInputError: something that can't be a name.
    """
    if not isinstance(name, str):
        raise InvalidInputError(f"a table is named by text, such as 'ns.items', not by {name!r}")
    table, at, version = name.partition("@")
    return table_at(lake.table(table), version) if at else lake.table(table)


def table_at(table: Table, version: str) -> Table:
    """A table at a version that text names: a number, a tag, a branch, or a time (UTC unless it says otherwise).

    Raises:
        NotFoundError: no such version, tag or branch, or the table is younger than that time.
        InvalidInputError: a time that is none.
    """
    try:
        time = dt.datetime.fromisoformat(version) if ":" in version else None
    except ValueError as e:
        raise InvalidInputError(f"{version!r} is no version: name a number, a tag or a time") from e
    if time is None:
        return table.at(version)
    return table.at(time if time.tzinfo else time.replace(tzinfo=dt.UTC))


def free_names(taken: Sequence[str], names: Sequence[str]) -> list[str]:
    """Names for columns beside others: each as it is, or with the lowest number that tells it apart, `id_1`."""
    used, free = set(taken), []
    for name in names:
        number = 0
        while (candidate := f"{name}_{number}" if number else name) in used:
            number += 1
        used.add(candidate)
        free.append(candidate)
    return free
