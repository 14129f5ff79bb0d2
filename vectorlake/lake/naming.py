"""How users of engines name a table and its versions: by a handle, by the URI of its folder, or by text, `ns.items@v1`."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping
from typing import TypeAlias

from vectorlake.errors import InvalidInputError
from vectorlake.lake.lake import Lake, open_table
from vectorlake.table.table import Table

TableLike: TypeAlias = "Table | str | os.PathLike[str]"
"""A table, or the URI of its folder."""

Version: TypeAlias = "int | str | dt.datetime"
"""A version number, a tag, a branch or a point in time."""


def given_table(table: TableLike, *, storage_options: Mapping[str, str] | None = None) -> Table:
    """The table itself; one that is given by its URI is opened.

    Raises:
        NotFoundError: there is no table at that URI.
        InvalidInputError: something that names no table.
    """
    if isinstance(table, str | os.PathLike):
        return open_table(table, storage_options=storage_options)
    if not isinstance(table, Table):
        raise InvalidInputError(
            f"pass a vectorlake table or the URI of its folder, not {type(table).__name__}: {table!r}"
        )
    return table


def pinned_table(
    table: TableLike, version: Version | None = None, *, storage_options: Mapping[str, str] | None = None
) -> Table:
    """The table at the version that is asked for, by default the handle's own, of a URI the newest; moved by nobody.

    Raises:
        NotFoundError: no such table, version, tag or branch.
        InvalidInputError: something that names no table, or no version.
    """
    handle = given_table(table, storage_options=storage_options)
    if isinstance(version, str):
        return table_at(handle, version)
    return handle.at(handle.version if version is None else version)


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
