"""DuckDB's vss extension: HNSW in a table, searched by ORDER BY … LIMIT."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from _ann.protocol import Contestant, Data, Setting, Skip, grid


def extension() -> str:
    """What to LOAD: the file in the package `duckdb-extension-vss` if that is installed, else what INSTALL vss left."""
    try:
        package = importlib.resources.files("duckdb_extension_vss")
    except ImportError:
        return "vss"
    return f"'{package / 'extensions' / f'v{duckdb.__version__}' / 'vss.duckdb_extension'}'"


class Vss(Contestant):
    con: Any

    def load(self, data: Data, folder: Path) -> None:
        self.con = duckdb.connect(str(folder / "vss.duckdb"))
        try:
            self.con.execute(f"LOAD {extension()}")
        except duckdb.Error as e:
            reason = str(e).splitlines()[0]
            raise Skip(
                f"DuckDB {duckdb.__version__} can't load vss ({reason}). Run INSTALL vss where the network allows it, or name"
                " an interpreter that has the packages duckdb and duckdb-extension-vss (of duckdb's version), numpy and"
                " pyarrow: --python duckdb-vss=PATH"
            ) from e
        self.con.execute("SET hnsw_enable_experimental_persistence = true")
        self.width = data.base.shape[1]
        self.order = {"l2": "l2sq", "cosine": "cosine", "dot": "ip"}[data.metric]
        flat = pa.array(data.base.reshape(-1))
        rows = pa.table(
            {"id": np.arange(len(data.base)), "vec": pa.FixedSizeListArray.from_arrays(flat, self.width)}
        )
        self.con.register("rows", rows)
        self.con.execute("CREATE TABLE t AS FROM rows")

    def build(self, data: Data, folder: Path, *, threads: int) -> None:
        self.con.execute(f"SET threads = {threads}")
        self.con.execute(f"CREATE INDEX ix ON t USING HNSW (vec) WITH (metric = '{self.order}')")

    def save(self, folder: Path) -> int | None:
        self.con.execute("CHECKPOINT")
        return (folder / "vss.duckdb").stat().st_size

    def settings(self) -> Sequence[Setting]:
        return grid(ef=(32, 64, 128, 256, 512))

    def prepare(self, setting: Setting, *, k: int, threads: int) -> None:
        self.con.execute(f"SET threads = {threads}; SET hnsw_ef_search = {setting.values['ef']}")

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        distance = {
            "l2sq": "array_distance",
            "cosine": "array_cosine_distance",
            "ip": "array_negative_inner_product",
        }
        sql = f"SELECT id FROM t ORDER BY {distance[self.order]}(vec, ?::FLOAT[{self.width}]) LIMIT {k}"
        found = np.full((len(queries), k), -1, np.int64)
        for i, query in enumerate(queries):
            # As text: DuckDB takes lists and arrays as parameters ten times as slowly.
            ids = self.con.execute(sql, [str(query.tolist())]).fetchnumpy()["id"]
            found[i, : len(ids)] = ids
        return found
