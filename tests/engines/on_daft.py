"""Daft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa
from engine import Capability, Engine, engine, numbered

import vectorlake as vl


@engine
class Daft(Engine):
    name = "daft"
    needs = ("daft",)
    lacks: ClassVar = {
        Capability.SQL_WRITE: "Daft's SQL has no INSERT: vectorlake_daft.write, or Catalog.write_table",
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
        import vectorlake_daft

        frame = vectorlake_daft.read(table.uri, columns, filter, version=version, with_row_id=with_row_id)
        return frame.to_arrow()

    def sql(self, lake: vl.Lake, query: str) -> pa.Table:
        import daft
        import vectorlake_daft

        session = daft.Session()
        vectorlake_daft.attach(lake, session=session)
        return session.sql(query).to_arrow()

    def write(
        self, lake: vl.Lake, name: str, rows: pa.Table, *, mode: str, primary_key: Sequence[str] = ()
    ) -> None:
        import daft
        import vectorlake_daft

        frame = daft.from_arrow(rows)
        if mode == "create":
            vectorlake_daft.create_table(frame, lake, name, primary_key=primary_key)
        else:
            vectorlake_daft.write(frame, lake.table(name), mode)

    def knn(self, table: vl.Table, queries: pa.Array, k: int, **options: Any) -> pa.Table:
        import daft
        import vectorlake_daft

        asked = daft.from_arrow(numbered(queries))
        return vectorlake_daft.knn_join(asked, table, k, vec="vector", columns=[], **options).to_arrow()

    def metadata(self, table: vl.Table, name: str) -> pa.Table:
        import vectorlake_daft

        return vectorlake_daft.read_metadata(table, name).to_arrow()
