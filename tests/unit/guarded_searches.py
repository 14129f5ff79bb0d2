"""Searches of every kind, small, for a process whose allocator ends it at a stray access."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa

import vectorlake as vl

ROWS, DIMENSION, QUERIES = 800, 72, 40


def main(folder: str) -> None:
    rng = np.random.default_rng(3)
    points = rng.standard_normal((ROWS + QUERIES, DIMENSION)).astype("f4")
    queries = points[ROWS:]
    lake = vl.connect(folder)
    for kind in ("flat", "ivf", "graph"):
        table = lake.create_table(kind, {"id": range(ROWS), "vec": points[:ROWS]})
        exact = table.knn(queries, mode="exact")
        table.create_index("vec", kind, name="ix")
        for count in (QUERIES, 1):
            found = table.knn(queries[:count], index="ix", target_recall=0.9)
            assert found.num_rows == 10 * count
        assert table.knn(queries, mode="exact").equals(exact)
        for target in (None, 0.99):
            assert table.knn_self(k=3, target_recall=target).read_all().num_rows == 3 * ROWS
        table.append({"id": range(200), "vec": points[:200]})  # duplicates of what is there
        table.delete("id % 3 = 1")
        table.optimize_indexes()
        assert table.knn(queries, index="ix", target_recall=0.9).num_rows == 10 * QUERIES
    tokens = pa.array([row.reshape(-1, 24).tolist() for row in points[:ROWS]], vl.multivector(24))
    table = lake.create_table("tokens", pa.table({"tokens": tokens}))
    asked = [query.reshape(-1, 24) for query in queries]
    assert table.knn(asked, metric="dot", mode="exact").num_rows == 10 * QUERIES
    table.create_index("tokens", "tokens", metric="dot", name="ix")
    assert table.knn(asked, index="ix").num_rows == 10 * QUERIES


if __name__ == "__main__":
    main(sys.argv[1])
