"""Tables of a lake in DuckDB against DuckDB's own ways: scans against `read_parquet` and a Lance dataset, KNN joins against SQL.

    python benchmarks/duckdb_scan.py [--rows 200000] [--dimension 384] [--times 3] [--only filter] [--joins] [--data FOLDER]

Every number is the median of some runs after one to warm up; a ratio above 1 means that the lake is slower.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import vectorlake_duckdb
from _scan import compare, options, sources, timed

import vectorlake as vl

SCANS = {
    "count(*)": "SELECT count(*) FROM {t}",
    "sum of a column": "SELECT sum(price) FROM {t}",
    "filter, 1 row": "SELECT name FROM {t} WHERE id = 12345",
    "filter, 1 %": "SELECT count(*), max(name) FROM {t} WHERE price > 0.99",
    "filter, 1 %, all": "SELECT count(*), sum(vec[1]), max(name), sum(category) FROM {t} WHERE price > 0.99",
    "filter, 50 %": "SELECT count(*), sum(price) FROM {t} WHERE price > 0.5",
    "group by": "SELECT category, count(*), avg(price) FROM {t} GROUP BY ALL",
    "LIKE (not pushed)": "SELECT count(*) FROM {t} WHERE name LIKE '%99'",
    "first 100 rows": "SELECT id, name, price FROM {t} LIMIT 100",
    "vectors": "SELECT sum(vec[1]), sum(id) FROM {t}",
}


def vectors(folder: Path | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Vectors to search and queries: from `.npy` files of a folder if there are any, else random ones."""
    if folder is not None:
        base, queries = sorted(folder.glob("vectors.npy")), sorted(folder.glob("query_vectors.npy"))
        if base and queries:
            return np.load(base[0])[:50_000].astype("f4"), np.load(queries[0])[:100].astype("f4")
    return rng.standard_normal((50_000, 384)).astype("f4"), rng.standard_normal((100, 384)).astype("f4")


def scans(con: duckdb.DuckDBPyConnection, rows: int, dimension: int, only: str, times: int) -> None:
    with sources(rows, dimension) as made:
        vectorlake_duckdb.attach(con, made.lake)
        readers = {"Parquet": f"read_parquet('{made.parquet}/*.parquet')"}
        try:
            import lance

            con.register("lance_items", lance.dataset(made.write_lance()))
            con.execute("SELECT id FROM lance_items LIMIT 1").fetchall()
            readers["Lance"] = "lance_items"
        except Exception as e:  # noqa: BLE001  # whatever keeps DuckDB and this release of Lance apart
            print(f"Lance: skipped ({type(e).__name__}: {e})")
        for name, sql in SCANS.items():
            if only not in name:
                continue
            mine = sql.format(t="lake.bench.items")
            peers: dict[str, Callable[[], object]] = {}
            for peer, reader in readers.items():
                theirs = sql.format(t=reader)
                if "LIMIT" not in sql:
                    check_same(con, mine, theirs)
                peers[peer] = lambda q=theirs: con.execute(q).fetchall()  # type: ignore[misc]
            compare(name, lambda q=mine: con.execute(q).fetchall(), peers, times=times)
        vectorlake_duckdb.detach(con)


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
    compare(
        "join",
        lambda: con.execute(mine).fetchall(),
        {"SQL": lambda: con.execute(peer).fetchall()},
        times=1,
    )
    one = f"[{', '.join(map(repr, queries[0].tolist()))}]::FLOAT[{dimension}]"
    single = f"SELECT id, distance FROM knn('bench.vectors', {one}, 10)"
    native = f"SELECT id, array_distance(vec, {one}) AS distance FROM native ORDER BY distance LIMIT 10"
    compare(
        "one query",
        lambda: con.execute(single).fetchall(),
        {"SQL": lambda: con.execute(native).fetchall()},
        times=3,
    )
    table = lake.table("bench.vectors")
    direct = timed(lambda: table.knn(queries, k=10, columns=["id"]), times=3)
    print(f"{'join without SQL':<24} lake {direct:9.1f} ms")


def main() -> None:
    wanted = options(__doc__)
    wanted.add_argument(
        "--joins", action="store_true", help="KNN joins too (benchmarks/knn_sql.py has more of them)"
    )
    wanted.add_argument("--data", type=Path, help="a folder with vectors.npy and query_vectors.npy")
    given = wanted.parse_args()
    with duckdb.connect() as con:
        scans(con, given.rows, given.dimension, given.only, given.times)
        if given.joins:
            lake = vl.connect("memory://joins")
            vectorlake_duckdb.attach(con, lake)
            joins(con, lake, given.data)


if __name__ == "__main__":
    main()
