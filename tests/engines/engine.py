"""What the conformance suite asks of an engine: one adapter each, which does everything through its connector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from importlib.util import find_spec
from typing import Any, Protocol

import pyarrow as pa
import pytest

import vectorlake as vl


class Capability(StrEnum):
    """What not every engine can do; an adapter says of each that it lacks why."""

    SQL = "reads tables by name in SQL"
    SQL_WRITE = "writes tables by SQL"
    ROW_IDS = "shows row ids"
    UPSERT = "replaces rows by primary key"
    METADATA = "shows snapshots, files, fragments and refs"
    BRANCHES = "reads branches"
    ORDER = "keeps the table's order of rows without being asked to"
    FLOAT16 = "holds half floats"
    FILTER_TEXT = "takes filters as SQL text"


class Engine(Protocol):
    """An engine with its connector. Rows and matches come back as Arrow tables, in the engine's own types."""

    name: str
    needs: Sequence[str]
    """Modules without which it is skipped."""
    lacks: Mapping[Capability, str]
    unheld: Mapping[str, str]
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

    def sql(self, lake: vl.Lake, query: str) -> pa.Table:
        """A query over tables that it names `lake.<namespace>.<table>`."""

    def write(
        self, lake: vl.Lake, name: str, rows: pa.Table, *, mode: str, primary_key: Sequence[str] = ()
    ) -> None:
        """Rows that the engine has, written: mode `create`, `append`, `overwrite` or `upsert`."""

    def knn(self, table: vl.Table, queries: pa.Array, k: int, **options: Any) -> pa.Table:
        """The nearest rows of each query vector: at least `query`, `rank`, `row_id`, `distance`.

        Options are those of `Table.knn`: `column`, `metric`, `filter`, `mode`, `index`, `target_recall`.
        """

    def metadata(self, table: vl.Table, name: str) -> pa.Table:
        """One of the metadata tables: `snapshots`, `files`, `fragments` or `refs`."""


ENGINES: dict[str, Callable[[], Engine]] = {}


def engine(make: Callable[[], Engine]) -> Callable[[], Engine]:
    """Register an adapter."""
    ENGINES[make.__name__.lower()] = make
    return make


def started(name: str) -> Engine:
    """An engine, ready; skips the test where it is not installed."""
    made = ENGINES[name]()
    for module in made.needs:
        if find_spec(module) is None:
            pytest.skip(f"{name} needs {module}, which is not installed")
    made.start()
    return made
