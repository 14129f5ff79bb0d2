"""A lake as a DataFusion catalog: a schema for each namespace, in which tables and their versions are found by name."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
from datafusion import SessionContext
from datafusion.catalog import CatalogProvider, SchemaProvider, Table

from vectorlake import AlreadyExistsError, InvalidInputError, Lake, NotFoundError, UnsupportedError
from vectorlake import Table as LakeTable
from vectorlake.extend import did_you_mean, named_table
from vectorlake_datafusion._read import TableDataset, apart, table_dataset

_KNOWN: Final = 256
"""Tables and versions of which what was read of their metadata is kept."""


class LakeCatalog(CatalogProvider):
    """All tables of a lake; every namespace that a table could be in is a schema."""

    def __init__(self, lake: Lake, name: str, *, with_row_id: bool) -> None:
        self.lake = lake
        self.name = name
        self._with_row_id = with_row_id
        self._known: dict[str, LakeTable] = {}

    def schema_names(self) -> set[str]:
        """The namespaces that hold tables."""
        return set(self.lake.namespaces())

    def schema(self, name: str) -> LakeSchema:  # type: ignore[override]  # declared as what DataFusion wraps it in
        """A namespace, whether it holds a table yet or not: the first one makes it."""
        return LakeSchema(self, name, with_row_id=self._with_row_id)

    def table(self, name: str) -> LakeTable:
        """A table at its newest version, `ns.items`, or at another one: `ns.items@v1`. Nobody else moves the handle.

        Raises:
            NotFoundError: no such table or version.
        """
        found = named_table(self.lake, name)
        known = self._known.get(name)
        if known is not None and known.snapshot.commit_id == found.snapshot.commit_id:
            return known  # which has read what it needs for a search
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[name] = found
        return found


class LakeSchema(SchemaProvider):
    """One namespace of a lake. DataFusion asks for the tables that a statement names when it plans it."""

    def __init__(self, catalog: LakeCatalog, namespace: str, *, with_row_id: bool) -> None:
        self._catalog = catalog
        self._namespace = namespace
        self._with_row_id = with_row_id

    # DataFusion calls what the base class declares as a method as if it were an attribute.
    @property
    def table_names(self) -> list[str]:  # type: ignore[override]
        """The tables of the namespace, without their versions."""
        prefix = f"{self._namespace}."
        names = (name.removeprefix(prefix) for name in self._catalog.lake.tables(self._namespace))
        return [name for name in names if "." not in name]

    def table(self, name: str) -> TableDataset | None:
        """A table at its newest version, `items`, or at another one, `items@3` or `items@v1`.

        None for a table that does not exist, which DataFusion asks for too when it creates one.

        Raises:
            NotFoundError: the table has no such version.
        """
        if not self.table_exist(name):
            return None
        return table_dataset(self._catalog.table(f"{self._namespace}.{name}"), with_row_id=self._with_row_id)

    def table_exist(self, name: str) -> bool:
        """Whether there is such a table; of which version is not asked."""
        try:
            return self._catalog.lake.exists(f"{self._namespace}.{name.partition('@')[0]}")
        except InvalidInputError:  # no name that a table of a lake can have
            return False

    def register_table(self, name: str, table: Any) -> None:
        """`CREATE TABLE lake.ns.items AS SELECT …`: DataFusion has the rows in memory, and they are committed once."""
        full = f"{self._namespace}.{name}"
        # In a context of its own, since the one that runs the statement can't run another one.
        rows = apart(lambda: pa.table(SessionContext().read_table(Table(table))))
        self._catalog.lake.create_table(full, rows)

    def deregister_table(self, name: str, cascade: bool = True) -> None:
        """`DROP TABLE` and `CREATE OR REPLACE TABLE`: refused, since all versions would go with one statement.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            f"{self._catalog.name}.{self._namespace}.{name} can't be dropped in SQL: a table goes with all its versions, so "
            f"say lake.drop_table('{self._namespace}.{name}') in Python"
        )


def attach(ctx: SessionContext, lake: Lake, name: str = "lake", *, with_row_id: bool = False) -> None:
    """Attach a lake to a DataFusion context as a catalog.

    Table `ns.items` is `name.ns.items` in SQL, and a version, tag or branch of it `name.ns."items@v1"`; a nested namespace
    `a.b` is the schema `"a.b"`. Each statement reads the newest version as of when it is planned; a frame or view keeps
    what it was planned with. The table functions `knn`, `knn_join`, `table_at`, `table_snapshots`, `table_files`,
    `table_fragments` and `table_refs` see all lakes that are attached.

    Args:
        ctx: a DataFusion context.
        lake: the lake.
        name: what the catalog is called.
        with_row_id: show the column `_row_id` at the end of every table.

    Raises:
        AlreadyExistsError: there is a catalog of that name.
    """
    from vectorlake_datafusion._functions import table_functions

    if name in ctx.catalog_names():
        raise AlreadyExistsError(
            f"DataFusion has a catalog {name!r} already: attach the lake under another name"
        )
    ctx.register_catalog_provider(name, LakeCatalog(lake, name, with_row_id=with_row_id))
    for function in table_functions():
        ctx.register_udtf(function)


def find_lake(ctx: SessionContext, name: str) -> Lake:
    """The lake attached under a name.

    Raises:
        NotFoundError: there is none.
    """
    known = _attached(ctx)
    if name not in known:
        raise NotFoundError(
            f"no lake is attached as {name!r}{did_you_mean(name, list(known))}: attach it first"
        )
    return known[name].lake


def find_table(ctx: SessionContext, name: object) -> LakeTable:
    """A table of an attached lake as SQL functions name it: `ns.items`, `lake.ns.items`, `ns.items@v1`.

    Raises:
        NotFoundError: no such table or version.
        InvalidInputError: several lakes are attached, and the name does not say which is meant.
    """
    if not isinstance(name, str):
        raise InvalidInputError(f"a table is named by text, such as 'ns.items', not by {name!r}")
    known = _attached(ctx)
    plain = name.replace('"', "")
    first, _, rest = plain.partition(".")
    if "." in rest.partition("@")[0] and first in known:
        return known[first].table(rest)
    if len(known) != 1:
        choices = " or ".join(f"'{lake}.{plain}'" for lake in known)
        raise InvalidInputError(f"several lakes are attached: write {choices} to say which is meant")
    return next(iter(known.values())).table(plain)


def _attached(ctx: SessionContext) -> dict[str, LakeCatalog]:
    catalogs = {name: ctx.catalog(name).catalog for name in sorted(ctx.catalog_names())}
    return {name: catalog for name, catalog in catalogs.items() if isinstance(catalog, LakeCatalog)}
