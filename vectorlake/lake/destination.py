"""Where the rows of many workers go: into a table that is there, or into one that appears with all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import pyarrow as pa

from vectorlake.errors import AlreadyExistsError
from vectorlake.ids import NewId, random_id
from vectorlake.lake.lake import Lake
from vectorlake.plan.layout import check_properties
from vectorlake.table.context import Context
from vectorlake.table.create import check_distinct, planned
from vectorlake.table.ingest import as_reader, check_columns, conforming
from vectorlake.table.key_segments import KeyCollector
from vectorlake.table.ref import TableRef
from vectorlake.table.staging import (
    StagedRows,
    StageMode,
    StreamPosition,
    commit_staged,
    discard_staged,
    stage_rows,
)
from vectorlake.table.table import Table
from vectorlake.table.writer import discard, write_fragments


class Destination(Protocol):
    """What an engine's sink is given. A small value that can be pickled: workers stage rows, and one commits them."""

    def stage(self, data: object) -> StagedRows:
        """Write some rows to files that nobody refers to yet; on a worker.

        Raises:
            InvalidInputError: columns or values that don't fit; nothing is left.
        """

    def commit(self, staged: Sequence[StagedRows], *, position: StreamPosition | None = None) -> Table:
        """Make visible what all workers staged, in the order given, as one version; with a position, exactly once.

        Raises:
            InvalidInputError: a primary key twice among the rows.
            AlreadyExistsError: the table has such keys, or is there already. After both nothing is left.
        """

    def discard(self, staged: Sequence[StagedRows]) -> None:
        """Remove what was staged for a write that is given up; never after a commit that may have taken place."""


@dataclass(frozen=True)
class IntoTable:
    """A table that is there.

    Attributes:
        table: at the version when the write was planned; rows are conformed to its columns.
        mode: what becomes of the rows.
    """

    table: TableRef
    mode: StageMode = StageMode.APPEND

    def stage(self, data: object) -> StagedRows:
        return stage_rows(self.table.open(), data)

    def commit(self, staged: Sequence[StagedRows], *, position: StreamPosition | None = None) -> Table:
        table = self.table.open_head()
        commit_staged(table, staged, mode=self.mode, position=position)
        return table

    def discard(self, staged: Sequence[StagedRows]) -> None:
        discard_staged(self.table.open(), staged)


@dataclass(frozen=True)
class IntoNewTable:
    """A table that is not there before all of its rows are.

    Attributes:
        lake: where; it pickles as its URI and options.
        name: the table's name.
        schema: its columns.
        primary_key: as for `Lake.create_table`.
        properties: likewise.
    """

    lake: Lake
    name: str
    schema: pa.Schema
    primary_key: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def plan(
        cls,
        lake: Lake,
        name: str,
        schema: pa.Schema,
        *,
        primary_key: Sequence[str] = (),
        properties: Mapping[str, str] | None = None,
    ) -> Self:
        """The table, once it is known that it could be created.

        Raises:
            AlreadyExistsError: there is a table of that name.
            InvalidInputError: as for `Lake.create_table`.
        """
        lake.check_free(name)
        planned(name, schema, primary_key)
        return cls(lake, name, schema, tuple(primary_key), check_properties(properties or {}))

    def stage(self, data: object) -> StagedRows:
        return stage_new(
            self.lake,
            self.name,
            data,
            schema=self.schema,
            primary_key=self.primary_key,
            properties=self.properties,
        )

    def commit(self, staged: Sequence[StagedRows], *, position: StreamPosition | None = None) -> Table:
        reached = {} if position is None else position.properties
        try:
            return create_staged(
                self.lake,
                self.name,
                self.schema,
                staged,
                primary_key=self.primary_key,
                properties={**self.properties, **reached},
            )
        except AlreadyExistsError:
            self.discard(staged)
            raise

    def discard(self, staged: Sequence[StagedRows]) -> None:
        for part in staged:
            discard(self.lake.folder(self.name), part.fragments())


def stage_new(
    lake: Lake,
    name: str,
    data: object,
    *,
    schema: pa.Schema | None = None,
    primary_key: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
    new_id: NewId = random_id,
) -> StagedRows:
    """Write rows of a table that is not there yet, as `stage_rows` does for one that is.

    Args:
        schema: the table's columns; by default those of the data, which all workers must give alike.
        primary_key: as for `create_staged`, to which the same is to be given.
        properties: likewise.

    Until `create_staged` the files belong to no table.

    Raises:
        InvalidInputError: values that don't fit, or a bad property; nothing is left.
    """
    reader = as_reader(data)
    columns, _, key = planned(name, reader.schema if schema is None else schema, primary_key)
    check_columns(reader.schema, columns)
    fragments = write_fragments(
        lake.folder(name),
        conforming(reader, columns.fields),
        columns.fields,
        properties=check_properties(properties or {}),
        new_id=new_id,
        keys=KeyCollector(key) if key else None,
    )
    return StagedRows.of(fragments)


def create_staged(
    lake: Lake,
    name: str,
    schema: pa.Schema,
    staged: Sequence[StagedRows],
    *,
    primary_key: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
    summary: Mapping[str, Any] | None = None,
) -> Table:
    """Create a table of what workers staged for it, in the order given: one commit, after which it's there whole.

    Args:
        schema: of the data that was staged.
        primary_key: names of the columns that identify a row.
        summary: what the first snapshot is to say besides.

    Raises:
        AlreadyExistsError: there is a table of that name.
        InvalidInputError: a primary key twice among the rows; what was staged is removed.
    """
    columns, next_field_id, key = planned(name, schema, primary_key)
    fragments = [fragment for part in staged for fragment in part.fragments()]
    if key:
        check_distinct(lake.folder(name), fragments, key, Context(lake.storage_options))
    return lake.register_table(
        name,
        columns,
        fragments,
        next_field_id=next_field_id,
        operation="create",
        primary_key=primary_key,
        properties=properties,
        summary=summary,
    )
