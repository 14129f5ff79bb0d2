"""KNN joins in SQL, in DuckDB and DataFusion: `knn_join` over a lake against what SQL alone offers, in one run.

Run it with `python benchmarks/knn_sql.py [--data FOLDER] [--base 50000] [--queries 100]`, the folder with `vectors.npy` and
`query_vectors.npy`; random vectors without one. The engines' tables are their own, in memory.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import datafusion
import duckdb
import numpy as np
import pyarrow as pa
import vectorlake_datafusion
import vectorlake_duckdb

import vectorlake as vl

K = 10
RANKED = """
    SELECT qid, id FROM (
        SELECT q.qid, n.id, row_number() OVER (PARTITION BY q.qid ORDER BY array_distance(q.vec, n.vec)) AS rank
        FROM asked q CROSS JOIN native n
    ) AS ranked WHERE rank <= 10
"""
LATERAL = """
    SELECT q.qid, n.id FROM asked q, LATERAL (
        SELECT id, array_distance(q.vec, vec) AS distance FROM native ORDER BY distance LIMIT 10
    ) n
"""


def vectors(folder: Path | None, base: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors to search and queries: from `.npy` files of a folder, else random ones."""
    if folder is not None:
        found = (np.load(folder / name) for name in ("vectors.npy", "query_vectors.npy"))
        rows, asked = (array.astype("f4") for array in found)
        return rows[:base], asked[:queries]
    rng = np.random.default_rng(1)
    return rng.standard_normal((base, 384)).astype("f4"), rng.standard_normal((queries, 384)).astype("f4")


def as_table(name: str, array: np.ndarray) -> pa.Table:
    flat = pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])
    return pa.table({name: np.arange(len(array)), "vec": flat})


def timed(run: Callable[[], set[tuple[int, int]]], *, times: int) -> tuple[float, set[tuple[int, int]]]:
    """Median milliseconds of a call, and what it found."""
    took, found = [], set()
    for _ in range(times):
        start = time.perf_counter()
        found = run()
        took.append((time.perf_counter() - start) * 1000)
    return statistics.median(took), found


def show(
    name: str, took: float, found: set[tuple[int, int]], exact: set[tuple[int, int]], own: float
) -> None:
    same = len(found & exact) / len(exact)
    print(f"{name:<34} {took:10.1f} ms   same neighbours {same:.4f}   x lake {took / own:8.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder with vectors.npy and query_vectors.npy")
    parser.add_argument("--base", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=100)
    arguments = parser.parse_args()
    base, asked = vectors(arguments.data, arguments.base, arguments.queries)
    rows, queries = as_table("id", base), as_table("qid", asked)
    print(f"KNN join, {len(asked):,} queries x {len(base):,} x {base.shape[1]}, k = {K}, exact")
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as con:
        lake = vl.connect(folder)
        table = lake.create_table("bench.vectors", rows)
        exact = table.knn(asked, k=K, columns=["id"])
        truth = set(zip(exact["query"].to_pylist(), exact["id"].to_pylist(), strict=True))
        ours = "SELECT qid, id FROM knn_join('asked', 'bench.vectors', 10)"

        vectorlake_duckdb.attach(con, lake)
        con.register("queries", queries)
        con.register("rows", rows)
        con.execute("CREATE TABLE asked AS FROM queries; CREATE TABLE native AS FROM rows")
        con.execute(ours).fetchall()
        own, found = timed(lambda: set(con.execute(ours).fetchall()), times=3)
        show("DuckDB, knn_join", own, found, truth, own)
        took, found = timed(lambda: set(con.execute(LATERAL).fetchall()), times=1)
        show("DuckDB, LATERAL … ORDER BY LIMIT", took, found, truth, own)

        ctx = datafusion.SessionContext()
        vectorlake_datafusion.attach(ctx, lake)
        ctx.from_arrow(queries, name="asked")
        ctx.from_arrow(rows, name="native")

        def pairs(sql: str) -> set[tuple[int, int]]:
            got = ctx.sql(sql).to_pydict()
            return set(zip(got["qid"], got["id"], strict=True))

        pairs(ours)
        own, found = timed(lambda: pairs(ours), times=3)
        show("DataFusion, knn_join", own, found, truth, own)
        # Its time grows with the queries: fewer of them, scaled.
        few = min(5, len(asked))
        ctx.deregister_table("asked")
        ctx.from_arrow(queries.slice(0, few), name="asked")
        took, found = timed(lambda: pairs(RANKED), times=1)
        some = {pair for pair in truth if pair[0] < few}
        show(f"DataFusion, window ({few} queries, scaled)", took * len(asked) / few, found, some, own)


if __name__ == "__main__":
    main()
