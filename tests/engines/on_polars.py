"""polars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa
from engine import Capability, Engine, engine, numbered

import vectorlake as vl


@engine
class Polars(Engine):
    name = "polars"
    needs = ("polars",)
    lacks: ClassVar = {
        Capability.SQL: "polars' SQL has no catalogs: a frame is registered under a name of one part",
        Capability.SQL_WRITE: "polars' SQL reads frames",
        Capability.METADATA: "they are Arrow tables, which polars.from_arrow takes",
    }
    unheld: ClassVar[dict[str, str]] = {"dec256": "polars' decimals have 38 digits"}

    def read(
        self,
        table: vl.Table,
        *,
        columns: Sequence[str] | None = None,
        filter: str | None = None,
        version: int | str | None = None,
        with_row_id: bool = False,
    ) -> pa.Table:
        import vectorlake_polars

        frame = vectorlake_polars.scan_vectorlake(
            table, version=version, filter=filter, with_row_id=with_row_id
        )
        if columns is not None:
            frame = frame.select(*columns, *(["_row_id"] if with_row_id else []))
        return frame.collect().to_arrow()

    def write(
        self, lake: vl.Lake, name: str, rows: pa.Table, *, mode: str, primary_key: Sequence[str] = ()
    ) -> None:
        import polars as pl
        import vectorlake_polars

        frame = pl.from_arrow(rows)
        vectorlake_polars.write(frame.lazy(), lake, name, mode=mode, primary_key=primary_key)  # type: ignore[union-attr]

    def knn(self, table: vl.Table, queries: pa.Array, k: int, **options: Any) -> pa.Table:
        import polars as pl
        import vectorlake_polars

        frame = pl.from_arrow(numbered(queries)).lazy()  # type: ignore[union-attr]
        found = vectorlake_polars.knn_join(frame, table, k, vec="vector", columns=[], **options)
        return found.select("query", "rank", "row_id", "distance").collect().to_arrow()
