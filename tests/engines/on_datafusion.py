"""DataFusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa
from engine import Capability, Engine, engine, lake_of, numbered, search_options, selected

import vectorlake as vl


@engine
class DataFusion(Engine):
    name = "datafusion"
    needs = ("datafusion",)
    lacks: ClassVar = {
        Capability.ORDER: "a filter that DataFusion applies itself runs on batches dealt out between cores",
        Capability.SQL_WRITE: "INSERT is not offered to Python catalogs: vectorlake_datafusion.write, or CREATE TABLE AS",
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
        shown = selected(table, columns, with_row_id=with_row_id)
        where = "" if filter is None else f" WHERE {filter}"
        at = "" if version is None else f"@{version}"
        namespace, _, short = table.name.rpartition(".")
        return self.sql(lake_of(table), f'SELECT {shown} FROM lake."{namespace}"."{short}{at}"{where}')

    def sql(self, lake: vl.Lake, query: str) -> pa.Table:
        return _attached(lake).sql(query).to_arrow_table()

    def write(
        self, lake: vl.Lake, name: str, rows: pa.Table, *, mode: str, primary_key: Sequence[str] = ()
    ) -> None:
        import vectorlake_datafusion

        ctx = _attached(lake)
        ctx.from_arrow(rows, name="given")
        vectorlake_datafusion.write(
            ctx, "SELECT * FROM given", lake, name, mode=mode, primary_key=primary_key
        )

    def knn(self, table: vl.Table, queries: pa.Array, k: int, **options: Any) -> pa.Table:
        ctx = _attached(lake_of(table))
        ctx.from_arrow(numbered(queries), name="queries")
        given = [
            f"'{name}': {value}" for name, value in {"vec": "'vector'", **search_options(options)}.items()
        ]
        sql = f"FROM knn_join('queries', '{table.name}', {k}, {{{', '.join(given)}}})"
        return ctx.sql(f"SELECT query, rank, row_id, distance {sql} ORDER BY query, rank").to_arrow_table()

    def metadata(self, table: vl.Table, name: str) -> pa.Table:
        return self.sql(lake_of(table), f"SELECT * FROM table_{name}('{table.name}')")


def _attached(lake: vl.Lake) -> Any:
    import datafusion
    import vectorlake_datafusion

    ctx = datafusion.SessionContext()
    vectorlake_datafusion.attach(ctx, lake, with_row_id=True)
    return ctx
