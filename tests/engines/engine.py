"""What the conformance suite asks of an engine: one adapter each, which does everything through its connector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from importlib.util import find_spec
from typing import Any, ClassVar

import pyarrow as pa
import pytest

import vectorlake as vl


class Capability(StrEnum):
    """What not every engine can do; an adapter says of each that it lacks why."""

    SQL = "reads tables by name in SQL"
    SQL_WRITE = "writes tables by SQL"
    WRITE = "writes tables"
    ROW_IDS = "shows row ids"
    UPSERT = "replaces rows by primary key"
    METADATA = "shows snapshots, files, fragments and refs"
    BRANCHES = "reads branches"
    ORDER = "keeps the table's order of rows without being asked to"
    FLOAT16 = "holds half floats"
    NULL_QUERIES = "can ask for the neighbours of null"
    FILTER_TEXT = "takes filters as SQL text"


class Engine:
    """An engine with its connector. Rows and matches come back as Arrow tables, in the engine's own types."""

    name: ClassVar[str]
    needs: ClassVar[Sequence[str]] = ()
    """Modules without which it is skipped."""
    lacks: ClassVar[Mapping[Capability, str]] = {}
    unheld: ClassVar[Mapping[str, str]] = {}
    """Columns of `cases.TYPES` that it can't hold, and why."""

    def start(self) -> None:
        """Start what the cases share, such as a session."""

    def stop(self) -> None:
        """Stop it."""

    def read(
        self,
        table: vl.Table,
        *,
        columns: Sequence[str] | None = None,
        filter: str | None = None,
        version: int | str | None = None,
        with_row_id: bool = False,
    ) -> pa.Table:
        """Rows of a table, by its connector: the newest version, or a number, tag or branch."""
        raise NotImplementedError

    def sql(self, lake: vl.Lake, query: str) -> pa.Table:
        """A query over tables that it names `lake.<namespace>.<table>`."""
        raise NotImplementedError

    def write(
        self, lake: vl.Lake, name: str, rows: pa.Table, *, mode: str, primary_key: Sequence[str] = ()
    ) -> None:
        """Rows that the engine has, written: mode `create`, `append`, `overwrite` or `upsert`."""
        raise NotImplementedError

    def knn(self, table: vl.Table, queries: pa.Array, k: int, **options: Any) -> pa.Table:
        """The nearest rows of each query vector: at least `query`, `rank`, `row_id`, `distance`.

        Options are those of `Table.knn`: `column`, `metric`, `filter`, `mode`, `index`, `target_recall`.
        """
        raise NotImplementedError

    def metadata(self, table: vl.Table, name: str) -> pa.Table:
        """One of the metadata tables: `snapshots`, `files`, `fragments` or `refs`."""
        raise NotImplementedError


ENGINES: dict[str, Callable[[], Engine]] = {}


def engine(make: Callable[[], Engine]) -> Callable[[], Engine]:
    """Register an adapter."""
    ENGINES[make.__name__.lower()] = make
    return make


def numbered(queries: pa.Array) -> pa.Table:
    """Query vectors as a table that an engine is given: `query` counts them, `vector` holds them."""
    return pa.table({"query": pa.array(range(len(queries)), pa.int64()), "vector": queries})


def selected(table: vl.Table, columns: Sequence[str] | None, *, with_row_id: bool) -> str:
    """What is between SELECT and FROM."""
    names = table.schema.names if columns is None else list(columns)
    return ", ".join(f'"{name}"' for name in [*names, *(["_row_id"] if with_row_id else [])])


def search_options(options: Mapping[str, Any]) -> dict[str, str]:
    """Options of `Table.knn` as SQL names them, and their values as literals."""
    return {"col" if name == "column" else name: _literal(value) for name, value in options.items()}


def _literal(value: object) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def lake_of(table: vl.Table) -> vl.Lake:
    """The lake in which a table lies."""
    folder = table.name.replace(".", "/")
    return vl.connect(table.uri.removesuffix(f"/{folder}"))


def missing(engine: Engine) -> str | None:
    """The module that an engine lacks on this machine."""
    return next((module for module in engine.needs if find_spec(module) is None), None)


def started(name: str) -> Engine:
    """An engine, ready; skips the test where it is not installed."""
    made = ENGINES[name]()
    if (module := missing(made)) is not None:
        pytest.skip(f"{name} needs {module}, which is not installed")
    made.start()
    return made
