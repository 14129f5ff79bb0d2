"""One KNN join on every engine, over a folder's vectors: the answers must be identical, bit for bit; times are printed.

    python benchmarks/knn_engines.py [--engines duckdb,datafusion,spark,ray,daft] [--queries 200] [--rows 100000] [--data FOLDER]

Each engine runs `knn` by its connector, exactly and by an index, on a table on disk; a first small join starts it. The library's own
answer is what the others are compared with. The folder holds `vectors.npy` and `query_vectors.npy`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data" / "pypi_minilm"
K = 10


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--engines", default="duckdb,datafusion,polars,spark,ray,daft")
    options.add_argument("--queries", type=int, default=200)
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--data", type=Path, default=DATA)
    given = options.parse_args()
    if not (given.data / "vectors.npy").exists():
        print(f"skipped: {given.data} has no vectors.npy; name a folder that has one by --data")
        return 0
    # The adapters by which the conformance suite talks to each engine.
    sys.path[:0] = [str(HERE.parent / "tests" / folder) for folder in ("engines", "connectors")]
    return compare(given)


def compare(given: argparse.Namespace) -> int:
    import numpy as np
    import pyarrow as pa
    from engine import ENGINES, missing

    import vectorlake as vl

    for name in given.engines.split(","):
        try:
            importlib.import_module(f"on_{name}")
        except ImportError as e:
            print(f"{name}: skipped ({e})")

    def column(file: str, most: int) -> pa.Array:
        vectors = np.load(given.data / file, mmap_mode="r")[:most].astype("f4")
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])

    queries = column("query_vectors.npy", given.queries)
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="vectorlake-engines-") as folder:
        vectors = column("vectors.npy", given.rows)
        items = vl.connect(folder).create_table("ns.items", {"id": np.arange(len(vectors)), "vec": vectors})
        items.create_index("vec", metric="cosine", name="by_vec")
        modes = {"exact": {"mode": "exact"}, "index": {"mode": "index", "index": "by_vec", "nprobe": 32}}
        expected = {}
        for mode, chosen in modes.items():
            wish = {"column": "vec", "metric": "cosine", **chosen}
            items.knn(queries, k=K, **wish)
            start = time.perf_counter()
            expected[mode] = rows_of(items.knn(queries, k=K, **wish))
            print(f"{'library':12}{mode:8}{time.perf_counter() - start:8.2f} s", flush=True)
        for name, make in ENGINES.items():
            engine = make()
            if (module := missing(engine)) is not None:
                print(f"{name}: skipped ({module} is not installed)")
                continue
            engine.start()
            try:
                engine.knn(items, queries[:2], K, column="vec", metric="cosine")
                for mode, chosen in modes.items():
                    start = time.perf_counter()
                    found = engine.knn(items, queries, K, column="vec", metric="cosine", **chosen)
                    took = time.perf_counter() - start
                    same = rows_of(found) == expected[mode]
                    wrong += not same
                    print(
                        f"{name:12}{mode:8}{took:8.2f} s  {'identical' if same else 'DIFFERENT'}", flush=True
                    )
            finally:
                engine.stop()
    print(f"{len(queries)} queries x {len(vectors):,} rows, k = {K}; {wrong} answers differ")
    return 1 if wrong else 0


def rows_of(found: object) -> list[tuple[int, int, int, bytes]]:
    import numpy as np
    import pyarrow as pa

    assert isinstance(found, pa.Table)
    ordered = found.sort_by([("query", "ascending"), ("rank", "ascending")])
    columns = [ordered[name].to_pylist() for name in ("query", "rank", "row_id")]
    distances = [value.tobytes() for value in np.asarray(ordered["distance"].cast(pa.float64()))]
    return list(zip(*columns, distances, strict=True))


if __name__ == "__main__":
    sys.exit(main())
