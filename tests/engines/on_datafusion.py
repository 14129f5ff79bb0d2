"""DataFusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa
from engine import Capability, engine

import vectorlake as vl


@engine
class DataFusion:
    name = "datafusion"
    needs = ("datafusion",)
    lacks: ClassVar = {
        Capability.ORDER: "a filter that DataFusion applies itself runs on batches dealt out between cores",
        Capability.SQL_WRITE: "INSERT is not offered to Python catalogs: vectorlake_datafusion.write, or CREATE TABLE AS",
    }
    unheld: ClassVar[dict[str, str]] = {}

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def read(
        self,
        table: vl.Table,
        *,
        columns: Sequence[str] | None = None,
        filter: str | None = None,
        version: int | str | None = None,
        with_row_id: bool = False,
    ) -> pa.Table:
        names = table.schema.names if columns is None else list(columns)
        shown = ", ".join(f'"{name}"' for name in [*names, *(["_row_id"] if with_row_id else [])])
        where = "" if filter is None else f" WHERE {filter}"
        at = "" if version is None else f"@{version}"
        namespace, _, short = table.name.rpartition(".")
        return self.sql(_lake_of(table), f'SELECT {shown} FROM lake."{namespace}"."{short}{at}"{where}')

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
        ctx = _attached(_lake_of(table))
        numbered = pa.table({"query": pa.array(range(len(queries)), pa.int64()), "vector": queries})
        ctx.from_arrow(numbered, name="queries")
        names = {"column": "col"}
        given = ["'vec': 'vector'", *(f"'{names.get(n, n)}': {_literal(v)}" for n, v in options.items())]
        sql = f"FROM knn_join('queries', '{table.name}', {k}, {{{', '.join(given)}}})"
        return ctx.sql(f"SELECT query, rank, row_id, distance {sql} ORDER BY query, rank").to_arrow_table()

    def metadata(self, table: vl.Table, name: str) -> pa.Table:
        return self.sql(_lake_of(table), f"SELECT * FROM table_{name}('{table.name}')")


def _attached(lake: vl.Lake) -> Any:
    import datafusion
    import vectorlake_datafusion

    ctx = datafusion.SessionContext()
    vectorlake_datafusion.attach(ctx, lake, with_row_id=True)
    return ctx


def _literal(value: object) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def _lake_of(table: vl.Table) -> vl.Lake:
    folder = table.name.replace(".", "/")
    return vl.connect(table.uri.removesuffix(f"/{folder}"))
