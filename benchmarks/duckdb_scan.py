"""Tables of a lake in DuckDB against DuckDB's own ways: scans against `read_parquet`, KNN joins against `array_distance`.

Run it with `python benchmarks/duckdb_scan.py [--rows 500000] [--data FOLDER]`. Every number is the median of some runs;
a ratio above 1 means that the lake is slower.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import vectorlake_duckdb

import vectorlake as vl

SCANS = {
    "count(*)": "SELECT count(*) FROM {t}",
    "sum of a column": "SELECT sum(price) FROM {t}",
    "filter, 1 row": "SELECT name FROM {t} WHERE id = 123456",
    "filter, 1 %": "SELECT count(*), max(name) FROM {t} WHERE price > 0.99",
    "filter, 50 %": "SELECT count(*), sum(price) FROM {t} WHERE price > 0.5",
    "group by": "SELECT category, count(*), avg(price) FROM {t} GROUP BY ALL",
    "LIKE (not pushed)": "SELECT count(*) FROM {t} WHERE name LIKE '%99'",
    "first 100 rows": "SELECT * FROM {t} LIMIT 100",
}


def rows(count: int) -> pa.Table:
    rng = np.random.default_rng(0)
    ids = np.arange(count)
    return pa.table(
        {
            "id": ids,
            "name": [f"item {i}" for i in ids],
            "category": rng.integers(0, 100, count).astype("i4"),
            "price": rng.random(count),
        }
    )


def vectors(folder: Path | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Vectors to search and queries: from `.npy` files of a folder if there are any, else random ones."""
    if folder is not None:
        base, queries = sorted(folder.glob("vectors.npy")), sorted(folder.glob("query_vectors.npy"))
        if base and queries:
            return np.load(base[0])[:50_000].astype("f4"), np.load(queries[0])[:100].astype("f4")
    return rng.standard_normal((50_000, 384)).astype("f4"), rng.standard_normal((100, 384)).astype("f4")


def timed(run: Callable[[], object], *, times: int = 5) -> float:
    """Median milliseconds of a call, after one to warm up."""
    run()
    took = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        took.append((time.perf_counter() - start) * 1000)
    return statistics.median(took)


def show(name: str, lake: float, peer: float) -> None:
    print(
        f"{name:<24} lake {lake:9.1f} ms   DuckDB's own {peer:9.1f} ms   ratio {lake / peer:6.2f}", flush=True
    )


def scans(con: duckdb.DuckDBPyConnection, lake: vl.Lake, folder: Path, count: int) -> None:
    data = rows(count)
    lake.create_table("bench.items", data)
    pq.write_table(data, folder / "items.parquet", compression="zstd", row_group_size=65_536)
    vectorlake_duckdb.refresh(con)
    print(f"\n{count:,} rows of 4 columns, against read_parquet of one file (zstd, 64k-row groups)")
    for name, sql in SCANS.items():
        mine = sql.format(t="lake.bench.items")
        peer = sql.format(t=f"read_parquet('{folder / 'items.parquet'}')")
        if "LIMIT" not in sql:
            check_same(con, mine, peer)
        show(
            name,
            timed(lambda q=mine: con.execute(q).fetchall()),
            timed(lambda q=peer: con.execute(q).fetchall()),
        )


def check_same(con: duckdb.DuckDBPyConnection, mine: str, peer: str) -> None:
    """The same rows, but for the order in which floats were added."""
    ours, theirs = sorted(con.execute(mine).fetchall()), sorted(con.execute(peer).fetchall())
    for a, b in zip(ours, theirs, strict=True):
        assert all(x == y or abs(x - y) < 1e-6 * abs(y) for x, y in zip(a, b, strict=True)), (a, b)


def joins(con: duckdb.DuckDBPyConnection, lake: vl.Lake, folder: Path | None) -> None:
    base, queries = vectors(folder, np.random.default_rng(1))
    dimension = base.shape[1]
    lake.create_table("bench.vectors", {"id": np.arange(len(base)), "vec": base})
    vectorlake_duckdb.refresh(con)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(queries.reshape(-1)), dimension)
    asked_rows = pa.table({"qid": np.arange(len(queries)), "vec": flat})
    con.register("asked_rows", asked_rows)
    con.execute("CREATE TABLE asked AS FROM asked_rows; CREATE TABLE native AS FROM lake.bench.vectors")
    print(
        f"\nKNN join, {len(queries)} queries x {len(base):,} x {dimension}, k = 10, against SQL over a native table"
    )
    mine = "SELECT qid, id FROM knn_join('asked', 'bench.vectors', 10)"
    peer = (
        "SELECT q.qid, n.id FROM asked q, LATERAL ("
        "SELECT id, array_distance(q.vec, vec) AS distance FROM native ORDER BY distance LIMIT 10) n"
    )
    found, expected = set(con.execute(mine).fetchall()), set(con.execute(peer).fetchall())
    print(f"the same neighbours: {len(found & expected) / len(expected):.4f} (DuckDB adds in float32)")
    show(
        "join",
        timed(lambda: con.execute(mine).fetchall(), times=3),
        timed(lambda: con.execute(peer).fetchall(), times=1),
    )
    one = f"[{', '.join(map(repr, queries[0].tolist()))}]::FLOAT[{dimension}]"
    single = f"SELECT id, distance FROM knn('bench.vectors', {one}, 10)"
    native = f"SELECT id, array_distance(vec, {one}) AS distance FROM native ORDER BY distance LIMIT 10"
    show(
        "one query",
        timed(lambda: con.execute(single).fetchall()),
        timed(lambda: con.execute(native).fetchall()),
    )
    table = lake.table("bench.vectors")
    direct = timed(lambda: table.knn(queries, k=10, columns=["id"]), times=3)
    print(f"{'join without SQL':<24} lake {direct:9.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--data", type=Path, help="a folder with vectors.npy and query_vectors.npy")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as con:
        lake = vl.connect(Path(folder) / "lake")
        vectorlake_duckdb.attach(con, lake)
        scans(con, lake, Path(folder), arguments.rows)
        joins(con, lake, arguments.data)


if __name__ == "__main__":
    main()
