"""DuckDB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa
from engine import Capability, Engine, engine, lake_of, numbered, search_options, selected

import vectorlake as vl


@engine
class DuckDB(Engine):
    name = "duckdb"
    needs = ("duckdb",)
    lacks: ClassVar = {
        Capability.SQL_WRITE: "a catalog shown by Python is read only for SQL: vectorlake_duckdb.write, or write_table(…)",
        Capability.FLOAT16: "DuckDB has no half floats: they show as FLOAT",
    }
    unheld: ClassVar[dict[str, str]] = {
        "uuid": "it is DuckDB's own UUID, which it exports as text",
        "dec256": "DuckDB's decimals have 38 digits",
        "dur": "DuckDB has intervals, not durations",
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
        place = f"lake.{table.name}" if version is None else f"lake.table_at('{table.name}', '{version}')"
        return self.sql(lake_of(table), f"SELECT {shown} FROM {place}{where}")

    def sql(self, lake: vl.Lake, query: str) -> pa.Table:
        import duckdb
        import vectorlake_duckdb

        with duckdb.connect() as con:
            vectorlake_duckdb.attach(con, lake, with_row_id=True)
            return con.sql(query).to_arrow_table()

    def write(
        self, lake: vl.Lake, name: str, rows: pa.Table, *, mode: str, primary_key: Sequence[str] = ()
    ) -> None:
        import duckdb
        import vectorlake_duckdb

        with duckdb.connect() as con:
            con.register("given", rows)
            vectorlake_duckdb.write(
                con, "SELECT * FROM given", lake, name, mode=mode, primary_key=primary_key
            )

    def knn(self, table: vl.Table, queries: pa.Array, k: int, **options: Any) -> pa.Table:
        import duckdb
        import vectorlake_duckdb

        given = "".join(f", {name} := {value}" for name, value in search_options(options).items())
        with duckdb.connect() as con:
            vectorlake_duckdb.attach(con, lake_of(table))
            con.register("queries", numbered(queries))
            found = con.sql(
                f"SELECT query, rank, row_id, distance FROM knn_join('queries', '{table.name}', {k}, vec := 'vector'{given})"
            ).to_arrow_table()
            joined = vectorlake_duckdb.knn_join(
                con, "FROM queries", table, k, vec="vector", columns=[], **options
            )
            assert joined.project("query, rank, row_id, distance").to_arrow_table().equals(found)
            return found

    def metadata(self, table: vl.Table, name: str) -> pa.Table:
        return self.sql(lake_of(table), f"SELECT * FROM lake.table_{name}('{table.name}')")
