"""A lake as a DuckDB catalog: attach and detach, a schema for each namespace, a view for each table and tag."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any, Final
from weakref import WeakValueDictionary

import duckdb
import pyarrow as pa

from vectorlake import AlreadyExistsError, InvalidInputError, Lake, NotFoundError, Table
from vectorlake.extend import ROW_ID, did_you_mean, table_at, write_into
from vectorlake_duckdb import _functions as functions
from vectorlake_duckdb._functions import quoted_name, quoted_text
from vectorlake_duckdb._read import PIN, Pins, Shown, TableHandle, TableSource

_DEFAULT: Final = "main"
_PLACES: Final = 16
"""Views that show whatever table a macro asks for, so many different ones at a time."""

_attached: WeakValueDictionary[str, Attached] = WeakValueDictionary()
"""Lakes by the key that DuckDB keeps for them; the sources of their views keep them alive."""

_left_behind: list[Attached] = []
"""Lakes that were detached through another connection than attached: only that one can remove their functions."""

_ids = itertools.count()


class Attached:
    """A lake attached to a DuckDB database under a name."""

    def __init__(
        self, lake: Lake, name: str, include: Sequence[str] | None, *, key: str, with_row_id: bool
    ) -> None:
        self.lake = lake
        self.name = name
        self.include = include
        self.with_row_id = with_row_id
        self.key = key
        self.prefix = f"__vl_{name}_{key}_"
        self.functions = functions.make_functions(self)
        self._pins = Pins()
        self._lock = threading.Lock()
        self._handles: dict[str, TableHandle] = {}
        self._sources: list[TableSource] = []
        self._places: dict[tuple[str, Shown], int] = {}
        self._placed: dict[int, set[int]] = {}

    # --- what the SQL functions ask ---

    def pin(self, key: str) -> str:
        """The snapshot that this thread bound last, for a view's source (`#3`) or a table (`ns.items`)."""
        self._placed.pop(threading.get_ident(), None)
        if key.startswith("#"):
            return self._sources[int(key[1:])].pin().name
        handle = self.handle(key)
        return self._pins.put(handle, handle.bound(), Shown.ROWS).name

    def pinned(self, name: str) -> Table:
        """The table at a pinned snapshot."""
        return self._pins.get(name).table

    def place(self, table: str, version: str | None, shown: str) -> str:
        """A view that shows a table from now on; the one not used for longest is given away.

        Raises:
            InvalidInputError: the statement being bound needs more of them than there are.
        """
        what = Shown(f" {shown}" if shown else "")
        handle = self.handle(table if version is None else f"{table}@{version}")
        handle.bind()
        with self._lock:
            key = (handle.name if handle.version is None else f"{handle.name}@{handle.version}", what)
            # A statement is bound whole before it is planned, so these belong to one (or to some never planned).
            placed = self._placed.setdefault(threading.get_ident(), set())
            oldest = next(iter(self._places), None)
            if key not in self._places and len(self._places) < _PLACES:
                index = len(self._places)
            elif key not in self._places and oldest is not None:
                index = self._places[oldest]
                if index in placed:
                    del self._placed[threading.get_ident()]
                    raise InvalidInputError(
                        f"a statement can name at most {_PLACES} tables and versions in knn, knn_join, table_at and "
                        "its kin: split it, or attach versions as views with include="
                    )
                del self._places[oldest]
            else:
                index = self._places.pop(key)
            placed.add(index)
            self._places[key] = index
            self._sources[index].show(handle, what)
        return quoted_name(f"{self.name}$", _DEFAULT, f"place_{index}")

    def write(self, table: str, rows: pa.StructArray, mode: str) -> dict[str, Any]:
        """Write rows in one commit."""
        data = pa.Table.from_struct_array(rows)
        written = write_into(self.lake, plain_name(table, self.name), data, mode)
        return {"table": written.name, "version": written.version, "rows": len(data)}

    # --- handles, sources and views ---

    def handle(self, name: str) -> TableHandle:
        """The handle of a table, `ns.items`, or of a version or tag of it, `ns.items@3`."""
        if not isinstance(name, str):
            raise InvalidInputError(f"a table is named by text, such as 'ns.items', not by {name!r}")
        table, at, version = plain_name(name, self.name).partition("@")
        full = table if "." in table else f"{_DEFAULT}.{table}"
        with self._lock:
            return self._handles.setdefault(
                f"{full}{at}{version}", TableHandle(self.lake, full, version or None, table_at)
            )

    def create_places(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Create the views that macros read, before they show anything."""
        for index in range(_PLACES):
            source = TableSource(self._pins, None, owner=self)
            self._create_view(cursor, f"place_{index}", source, shown=f"* EXCLUDE ({quoted_name(PIN)})")

    def create_view(self, cursor: duckdb.DuckDBPyConnection, namespace: str, view: str) -> None:
        """Create the view of a table or version in the cursor's schema."""
        handle = self.handle(f"{namespace}.{view}")
        handle.bind()  # DuckDB would tell of a missing version in its own words
        source = TableSource(self._pins, handle, owner=self)
        row_id = f", {quoted_name(ROW_ID)}" if self.with_row_id else ""
        shown = f"* EXCLUDE ({quoted_name(ROW_ID)}, {quoted_name(PIN)}){row_id}"
        self._create_view(cursor, view, source, shown=shown)

    def _create_view(
        self, cursor: duckdb.DuckDBPyConnection, view: str, source: TableSource, *, shown: str
    ) -> None:
        with self._lock:
            key = f"#{len(self._sources)}"
            self._sources.append(source)
        pin = f"{quoted_name(self.prefix + 'pin')}({quoted_text(key)})"
        sql = f"SELECT {shown} FROM source WHERE {quoted_name(PIN)} = {pin}"
        relation = cursor.from_arrow(source).query("source", sql)
        assert relation is not None  # a SELECT always is one
        relation.create_view(view, replace=False)

    def wanted(self) -> list[tuple[str, str]]:
        """Namespace and name of every view there should be: tables, and their tags and versions as `table@version`."""
        named = [pattern for pattern in self.include or () if "@" not in pattern]
        if self.include is not None and not any(set("*?[") & set(pattern) for pattern in named):
            # Looking for patterns lists the whole lake; a table that is named is opened.
            names = [self.handle(name).name for name in named]
        else:
            names = [name for name in self.lake.tables() if self.include is None or _included(name, named)]
        with ThreadPoolExecutor(8) as pool:
            tagged = list(pool.map(self._tags, names))
        wanted = [
            f"{name}{version}" for name, tags in zip(names, tagged, strict=True) for version in ("", *tags)
        ]
        wanted += [name for name in self.include or () if "@" in name and name not in wanted]
        return [split_name(name) for name in wanted]

    def _tags(self, name: str) -> list[str]:
        return [f"@{tag.name}" for tag in self.handle(name).bind().tags()]


def attach(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    name: str = "lake",
    *,
    include: Iterable[str] | None = None,
    with_row_id: bool = False,
) -> None:
    """Attach a lake to a DuckDB database as a catalog, for all connections and cursors of that database.

    Table `ns.items` becomes the view `name.ns.items`, and tag `v1` of it `name.ns."items@v1"`; a nested namespace `a.b`
    is the schema `"a.b"`. Each statement reads the newest version of a table when it starts. The table macros `knn`,
    `knn_join`, `table_at`, `table_snapshots` and its kin, and `write_table` are found as `name.knn` and so on, and
    without `name.` where that is free.

    Args:
        con: a DuckDB connection.
        lake: the lake.
        name: what the catalog is called.
        include: only these tables: names, patterns such as `"ns.*"`, or versions such as `"ns.items@3"`.
        with_row_id: show the column `_row_id` at the end of every table.

    Raises:
        AlreadyExistsError: a catalog of that name is attached.
        NotFoundError: `include` names a table or version that does not exist.
    """
    with con.cursor() as cursor:
        taken = cursor.execute(
            "SELECT database_name FROM duckdb_databases() WHERE lower(database_name) IN ($1, $1 || '$') ORDER BY 1",
            [name.lower()],
        ).fetchall()
        if taken:
            raise AlreadyExistsError(
                f"DuckDB has a catalog {taken[0][0]!r} already: detach it, or attach the lake under another name"
            )
        attached = Attached(
            lake,
            name,
            None if include is None else list(include),
            key=f"{next(_ids)}",
            with_row_id=with_row_id,
        )
        try:
            _attach(con, cursor, attached)
        except BaseException:
            with suppress(NotFoundError):
                detach(con, name)
            raise


def _attach(con: duckdb.DuckDBPyConnection, cursor: duckdb.DuckDBPyConnection, attached: Attached) -> None:
    name, hidden = quoted_name(attached.name), quoted_name(f"{attached.name}$")
    cursor.execute(f"ATTACH ':memory:' AS {name}; ATTACH ':memory:' AS {hidden}")
    cursor.execute(f"CREATE TABLE {hidden}.{_DEFAULT}.attached AS SELECT {quoted_text(attached.key)} AS key")
    _attached[attached.key] = attached
    for function in attached.functions:
        con.create_function(  # type: ignore[call-overload]  # the stubs name enums, the function takes their names
            attached.prefix + function.name,
            function.call,
            function.parameters,
            function.returns,
            type="arrow",
            null_handling="special",
            side_effects=function.volatile,
        )
    cursor.execute(f"USE {hidden}.{_DEFAULT}")
    attached.create_places(cursor)
    macros = functions.macros(attached.prefix, with_row_id=attached.with_row_id)
    for macro, body in macros.items():
        cursor.execute(f"CREATE MACRO {name}.{_DEFAULT}.{quoted_name(macro)}{body}")
    _create_short(con, macros)
    _refresh(cursor, attached)


def _create_short(con: duckdb.DuckDBPyConnection, macros: Mapping[str, str]) -> None:
    """Create macros under their short names, unless taken: in the user's own catalog, if nothing of it is kept."""
    ((catalog, path),) = con.execute(
        "SELECT database_name, path FROM duckdb_databases() WHERE database_name = current_database()"
    ).fetchall()
    for macro, body in macros.items():
        if path:
            con.execute(f"CREATE TEMP MACRO IF NOT EXISTS {quoted_name(macro)}{body}")
        else:
            con.execute(f"CREATE MACRO IF NOT EXISTS {quoted_name(catalog, _DEFAULT, macro)}{body}")


def detach(con: duckdb.DuckDBPyConnection, name: str = "lake") -> None:
    """Undo `attach`: remove the catalog, its macros and functions. Nothing of the lake itself changes.

    Raises:
        NotFoundError: no lake is attached under that name.
    """
    key, attached = _find(con, name)
    _drop_short(con, attached)
    with con.cursor() as cursor:
        cursor.execute(f"DETACH {quoted_name(attached.name)}; DETACH {quoted_name(attached.name + '$')}")
    try:
        for function in attached.functions:
            con.remove_function(attached.prefix + function.name)
    except duckdb.InvalidInputException:
        # DuckDB holds no reference to a function that it may still call: losing ours would crash the process.
        _left_behind.append(attached)
    _attached.pop(key, None)


def _drop_short(con: duckdb.DuckDBPyConnection, attached: Attached) -> None:
    rows = con.execute(
        "SELECT database_name, function_name FROM duckdb_functions() "
        "WHERE function_type = 'table_macro' AND regexp_matches(macro_definition, $1) AND database_name <> $2",
        [re.escape(attached.prefix), attached.name],
    ).fetchall()
    for database, macro in rows:
        con.execute(f"DROP MACRO TABLE {quoted_name(database, _DEFAULT, macro)}")


def refresh(con: duckdb.DuckDBPyConnection, name: str = "lake") -> None:
    """Look for tables and tags that were created or dropped since. New versions and columns are seen without it.

    Raises:
        NotFoundError: no lake is attached under that name.
    """
    _, attached = _find(con, name)
    with con.cursor() as cursor:
        _refresh(cursor, attached)


def _refresh(cursor: duckdb.DuckDBPyConnection, attached: Attached) -> None:
    catalog = quoted_name(attached.name)
    wanted = attached.wanted()
    rows = cursor.execute(
        "SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = $1 AND NOT internal",
        [attached.name],
    ).fetchall()
    there = set(rows)
    for namespace, view in there - set(wanted):
        cursor.execute(f"DROP VIEW {catalog}.{quoted_name(namespace, view)}")
    for namespace in sorted({namespace for namespace, _ in wanted}):
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {catalog}.{quoted_name(namespace)}")
        cursor.execute(f"USE {catalog}.{quoted_name(namespace)}")
        for view in (view for within, view in wanted if within == namespace and (within, view) not in there):
            try:
                attached.create_view(cursor, namespace, view)
            except duckdb.CatalogException as e:
                raise AlreadyExistsError(
                    f"DuckDB tells names apart without regard to case, and has {namespace}.{view} already: {e}"
                ) from e
    cursor.execute(f"USE {catalog}.{_DEFAULT}")


def find_attached(con: duckdb.DuckDBPyConnection, name: str) -> Attached:
    """The lake attached under a name.

    Raises:
        NotFoundError: there is none.
    """
    return _find(con, name)[1]


def _find(con: duckdb.DuckDBPyConnection, name: str) -> tuple[str, Attached]:
    with con.cursor() as cursor:
        marked = cursor.execute(
            "SELECT database_name FROM duckdb_tables() WHERE table_name = 'attached'"
        ).fetchall()
        known = [database.removesuffix("$") for (database,) in marked if database.endswith("$")]
        if name in known:
            (key,) = cursor.execute(
                f"SELECT key FROM {quoted_name(name + '$', _DEFAULT, 'attached')}"
            ).fetchall()[0]
            if key in _attached:
                return key, _attached[key]
    raise NotFoundError(f"no lake is attached as {name!r}{did_you_mean(name, known)}: attach it first")


def plain_name(name: str, catalog: str) -> str:
    """A table's name in the lake: `lake.ns.items` and `ns."items@3"` are read like `ns.items` and `ns.items@3`."""
    plain = name.replace('"', "")
    return plain.removeprefix(f"{catalog}.") if plain.count(".") > 1 else plain


def split_name(name: str) -> tuple[str, str]:
    """Namespace and name of a table, the default namespace if it names none."""
    table, at, version = name.partition("@")
    namespace, _, last = table.rpartition(".")
    return namespace or _DEFAULT, f"{last}{at}{version}"


def _included(name: str, patterns: Sequence[str]) -> bool:
    return any(
        fnmatchcase(name, pattern if "." in pattern else f"{_DEFAULT}.{pattern}") for pattern in patterns
    )
