"""Searches of every kind, small, for a process whose allocator ends it at a stray access."""

from __future__ import annotations

import contextlib
import ctypes
import sys

import numpy as np
import pyarrow as pa

import vectorlake as vl

DIMENSION, QUERIES = 72, 40


def guard(wanted: bool) -> None:
    """Tell the allocator whether to look after what is asked for from now on, where it is there."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).guard(int(wanted))


def search(folder: str, rows: int) -> None:
    rng = np.random.default_rng(3)
    points = rng.standard_normal((rows + QUERIES, DIMENSION)).astype("f4")
    queries = points[rows:]
    lake = vl.connect(folder)
    for kind in ("flat", "ivf", "graph"):
        table = lake.create_table(kind, {"id": range(rows), "vec": points[:rows]})
        exact = table.knn(queries, mode="exact")
        table.create_index("vec", kind, name="ix")
        for count in (QUERIES, 1):
            found = table.knn(queries[:count], index="ix", target_recall=0.9)
            assert found.num_rows == 10 * count
        assert table.knn(queries, mode="exact").equals(exact)
        for target in (None, 0.99):
            assert table.knn_self(k=3, target_recall=target).read_all().num_rows == 3 * rows
        table.append({"id": range(200), "vec": points[:200]})  # duplicates of what is there
        table.delete("id % 3 = 1")
        table.optimize_indexes()
        assert table.knn(queries, index="ix", target_recall=0.9).num_rows == 10 * QUERIES
    tokens = pa.array([row.reshape(-1, 24).tolist() for row in points[:rows]], vl.multivector(24))
    table = lake.create_table("tokens", pa.table({"tokens": tokens}))
    asked = [query.reshape(-1, 24) for query in queries]
    assert table.knn(asked, metric="dot", mode="exact").num_rows == 10 * QUERIES
    table.create_index("tokens", "tokens", metric="dot", name="ix")
    assert table.knn(asked, index="ix").num_rows == 10 * QUERIES


if __name__ == "__main__":
    # What is loaded and compiled once lives on, and would use up what can be guarded.
    guard(wanted=False)
    search(sys.argv[1] + "/first", 400)
    guard(wanted=True)
    search(sys.argv[1] + "/guarded", 1500)
