"""Near-duplicate groups of a folder's vectors: the dedup job, from a table on disk, beside faiss' range search.

    python benchmarks/dedup.py [--rows 100000] [--max-distance 0.1] [--runs 2] [--threads 2] [--data FOLDER]

Both find all pairs by cosine distance, and the groups that they connect; faiss is given the normalised vectors in memory, and
its pairs go through the same connected components. The groups are compared. The folder holds `vectors.npy`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "pypi_minilm"


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--max-distance", type=float, default=0.1)
    options.add_argument("--runs", type=int, default=2)
    options.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    options.add_argument("--data", type=Path, default=DATA)
    given = options.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(given.threads)
    try:
        import faiss
    except ImportError:
        print("skipped: faiss is not installed (pip install 'vectorlake[bench]')")
        return 0
    if not (given.data / "vectors.npy").exists():
        print(f"skipped: {given.data} has no vectors.npy; name a folder that has one by --data")
        return 0
    faiss.omp_set_num_threads(given.threads)
    compare(given)
    return 0


def compare(given: argparse.Namespace) -> None:
    import faiss
    import numpy as np
    import pyarrow as pa
    import vectorlake_jobs
    from vectorlake_jobs._forest import components

    import vectorlake as vl

    vectors = np.load(given.data / "vectors.npy", mmap_mode="r")[: given.rows].astype("f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory(prefix="vectorlake-dedup-") as folder:
        lake = vl.connect(folder)
        column = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
        items = lake.create_table("items", {"id": np.arange(len(vectors)), "vec": column})
        # The kernels compile at the first search: not what is compared.
        items.knn(vectors[:2], k=None, max_distance=0.01, metric="cosine")
        ours = []
        for run in range(given.runs):
            start = time.perf_counter()
            done = vectorlake_jobs.dedup(
                items, max_distance=given.max_distance, as_column="group", engine="threads", workers=1
            )
            ours.append(time.perf_counter() - start)
            items.refresh()
            print(f"run {run + 1}: dedup job {ours[-1]:.2f} s, {done.outcome['groups']:,} groups", flush=True)
        groups = items.scan(["group"], "group IS NOT NULL", with_row_id=True).to_arrow()
    theirs = []
    for run in range(given.runs):
        start = time.perf_counter()
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        limits, _, found = index.range_search(vectors, 1 - given.max_distance)
        query = np.repeat(np.arange(len(vectors)), np.diff(limits.astype(np.int64)))
        other = query != found
        ids, lowest = components(query[other], found[other])
        theirs.append(time.perf_counter() - start)
        print(
            f"run {run + 1}: faiss range_search {theirs[-1]:.2f} s, {len(np.unique(lowest)):,} groups",
            flush=True,
        )
    same = np.array_equal(ids, groups["_row_id"].to_numpy()) and np.array_equal(
        lowest, groups["group"].to_numpy()
    )
    print(
        f"{len(vectors):,} x {vectors.shape[1]}, cosine distance up to {given.max_distance}, {given.threads} threads"
    )
    print(
        f"faiss / ours: {min(theirs) / min(ours):.2f}x; groups {'equal' if same else 'differ by rounding at the limit'}"
    )


if __name__ == "__main__":
    sys.exit(main())
