"""The library itself, so that the suite is known to be right before an engine is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa
from engine import Capability, Engine, engine

import vectorlake as vl
from vectorlake.extend import commit_staged, stage_rows


@engine
class Core(Engine):
    name = "core"
    lacks: ClassVar = {
        Capability.SQL: "the library has no SQL of its own",
        Capability.SQL_WRITE: "the library has no SQL of its own",
    }

    def read(
        self,
        table: vl.Table,
        *,
        columns: Sequence[str] | None = None,
        filter: str | None = None,
        version: int | str | None = None,
        with_row_id: bool = False,
    ) -> pa.Table:
        pinned = table if version is None else table.at(version)
        scan = pinned.scan(columns, filter, with_row_id=with_row_id)
        batches = [batch for split in scan.splits(3) for batch in split.to_batches()]
        return pa.Table.from_batches(batches, schema=scan.schema)

    def write(
        self, lake: vl.Lake, name: str, rows: pa.Table, *, mode: str, primary_key: Sequence[str] = ()
    ) -> None:
        if mode == "create":
            lake.create_table(name, rows, primary_key=primary_key)
            return
        table = lake.table(name)
        halves = [rows.slice(0, rows.num_rows // 2), rows.slice(rows.num_rows // 2)]
        commit_staged(table, [stage_rows(table, half) for half in halves], mode=mode)

    def knn(self, table: vl.Table, queries: pa.Array, k: int, **options: Any) -> pa.Table:
        return table.knn(queries, k=k, **options)

    def metadata(self, table: vl.Table, name: str) -> pa.Table:
        shown: pa.Table = getattr(table, name)()
        return shown
