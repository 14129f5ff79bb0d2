"""A lake as a Daft catalog: namespaces, tables, tags and branches by name, in Python and in SQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import daft
from daft import DataFrame, Session
from daft.catalog import Catalog, Function, Identifier, Properties
from daft.catalog import NotFoundError as DaftNotFoundError
from daft.catalog import Table as DaftTable
from daft.io.partitioning import PartitionField
from daft.schema import Schema

from vectorlake import InvalidInputError, Lake, NotFoundError, Table, UnsupportedError
from vectorlake.extend import StageMode
from vectorlake_daft._read import TableSource, read
from vectorlake_daft._types import created_schema
from vectorlake_daft._write import write


def attach(lake: Lake, name: str = "lake", *, session: Session | None = None) -> LakeCatalog:
    """Make a lake a catalog of a Daft session: `lake.ns.items` is a table in SQL, `lake.ns."items@v1"` a version.

    Args:
        lake: the lake.
        name: the catalog's name.
        session: by default the current one, which `daft.sql` uses.
    """
    catalog = LakeCatalog(lake, name)
    (daft.current_session() if session is None else session).attach_catalog(catalog, name)
    return catalog


class LakeCatalog(Catalog):
    """The tables of a lake. Each use of a name reads the newest version; `items@v1` names a tag, branch or version."""

    def __init__(self, lake: Lake, name: str = "lake") -> None:
        self._lake = lake
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def _get_table(self, ident: Identifier) -> LakeTable:
        name, _, version = str(ident).partition("@")
        try:
            table = self._lake.table(name)
            return LakeTable(table.at(version) if version else table, str(ident))
        except (NotFoundError, InvalidInputError) as e:
            raise DaftNotFoundError(str(e)) from e

    def _has_table(self, ident: Identifier) -> bool:
        try:
            self._get_table(ident)
        except DaftNotFoundError:
            return False
        return True

    def _list_tables(self, pattern: str | None = None) -> list[Identifier]:
        return [Identifier(*name.split(".")) for name in self._lake.tables() if _matches(name, pattern)]

    def _has_namespace(self, ident: Identifier) -> bool:
        return any(name.startswith(f"{ident}.") for name in self._lake.tables())

    def _list_namespaces(self, pattern: str | None = None) -> list[Identifier]:
        names = sorted({name.rpartition(".")[0] for name in self._lake.tables()})
        return [Identifier(*name.split(".")) for name in names if _matches(name, pattern)]

    def _create_table(
        self,
        ident: Identifier,
        schema: Schema,
        properties: Properties | None = None,
        partition_fields: list[PartitionField] | None = None,
    ) -> LakeTable:
        if partition_fields:
            raise UnsupportedError("tables of a lake are not partitioned: leave partition_fields out")
        table = self._lake.create_table(
            str(ident), created_schema(schema.to_pyarrow_schema(), {}), properties=properties
        )
        return LakeTable(table, str(ident))

    def _drop_table(self, ident: Identifier) -> None:
        self._lake.drop_table(str(ident))

    def _create_namespace(self, ident: Identifier) -> None:
        """A namespace is there as soon as a table is in it."""

    def _drop_namespace(self, ident: Identifier) -> None:
        if self._has_namespace(ident):
            raise InvalidInputError(f"namespace {str(ident)!r} is not empty: drop its tables first")

    def _get_function(self, ident: Identifier) -> NoReturn:
        raise DaftNotFoundError(f"a lake holds no functions: no {str(ident)!r}")

    def _create_function(self, ident: Identifier, function: Function | Callable[..., Any]) -> None:
        raise UnsupportedError("a lake holds no functions: attach them to the session")


class LakeTable(DaftTable):
    """A table of a lake for Daft, at the version that was the newest when it was asked for."""

    def __init__(self, table: Table, name: str) -> None:
        self.table = table
        self._name = name

    @property
    def name(self) -> str:
        return self._name.rpartition(".")[2]

    def schema(self) -> Schema:
        return TableSource(self.table).schema

    def read(self, **options: Any) -> DataFrame:
        """The table as a frame; `options` are those of `vectorlake_daft.read`."""
        return read(self.table, **options)

    def append(self, df: DataFrame, **options: Any) -> None:
        """Add rows, in one commit."""
        self.table = write(df, self.table, StageMode.APPEND, **options)

    def overwrite(self, df: DataFrame, **options: Any) -> None:
        """Replace all rows, in one commit."""
        self.table = write(df, self.table, StageMode.OVERWRITE, **options)


def _matches(name: str, pattern: str | None) -> bool:
    """Whether a name begins with a pattern, which may end with `%` or `*`."""
    return pattern is None or name.startswith(pattern.rstrip("%*"))
