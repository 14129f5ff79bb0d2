"""Every row's nearest others: ours from a table on disk, faiss.knn, and turbovec's 4-bit codes with the best measured again.

    python benchmarks/self_join.py [--rows 100000] [--k 10] [--threads 2] [--data FOLDER] [--recalls 0.99] [--peer-rows 10000]

The folder holds `vectors.npy`. The peers compare every query with every row, so that their time grows with the queries:
`--peer-rows` says for how many they are measured, and the time for all is told from it; turbovec's holds its build.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    import vectorlake as vl

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "pypi_minilm"


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--k", type=int, default=10)
    options.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    options.add_argument("--data", type=Path, default=DATA)
    options.add_argument("--recalls", type=float, nargs="*", default=[0.99])
    options.add_argument("--peer-rows", type=int, default=10_000, help="0 leaves the peers out")
    given = options.parse_args()
    # Read when the libraries load.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(given.threads)
    if not (given.data / "vectors.npy").exists():
        print(f"skipped: {given.data} has no vectors.npy; name a folder that has one by --data")
        return 0
    import numpy as np

    import vectorlake as vl

    vectors = np.load(given.data / "vectors.npy")[: given.rows].astype("f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    print(f"{len(vectors):,} x {vectors.shape[1]}, cosine, k = {given.k}, {given.threads} threads")
    with tempfile.TemporaryDirectory() as folder:
        table = vl.connect(folder).create_table("rows", {"vec": vectors.astype("f2")})
        # Compiles, where that has not been done.
        vl.connect("memory://").create_table("few", {"vec": vectors[:2000]}).knn_self(
            metric="cosine"
        ).read_all()
        exact, ours = timed(table, given, None)
        print(f"  ours, exact, from the table on disk  {ours:7.2f} s")
        for recall in given.recalls:
            found, took = timed(table, given, recall)
            share = np.isin(codes_of(found), codes_of(exact)).mean() if len(found) else 1.0
            print(f"  ours, target_recall={recall:<5}            {took:7.2f} s  (recall {share:.4f})")
    if given.peer_rows:
        asked = vectors[: given.peer_rows]
        compare_with_faiss(asked, vectors, given, ours)
        compare_with_turbovec(asked, vectors, given, exact)
    return 0


def timed(table: vl.Table, given: argparse.Namespace, recall: float | None) -> tuple[pa.Table, float]:
    started = time.perf_counter()
    reader = table.knn_self("vec", given.k, "cosine", target_recall=recall, threads=given.threads)
    return reader.read_all(), time.perf_counter() - started


def codes_of(pairs: pa.Table) -> np.ndarray:
    """Each pair as one number."""
    rows, others = pairs["row_id"].to_numpy(), pairs["neighbor"].to_numpy()
    return rows * (2**31) + others


def compare_with_faiss(
    asked: np.ndarray, vectors: np.ndarray, given: argparse.Namespace, ours: float
) -> None:
    try:
        import faiss
    except ImportError:
        print("  skipped faiss: it is not installed (pip install 'vectorlake[bench]')")
        return
    faiss.omp_set_num_threads(given.threads)
    started = time.perf_counter()
    faiss.knn(asked, vectors, given.k + 1, metric=faiss.METRIC_INNER_PRODUCT)
    took = (time.perf_counter() - started) * len(vectors) / len(asked)
    print(
        f"  faiss.knn, from {len(asked):,} queries       {took:7.2f} s  ({took / ours:.1f}x the exact join)"
    )


def compare_with_turbovec(
    asked: np.ndarray, vectors: np.ndarray, given: argparse.Namespace, exact: pa.Table
) -> None:
    import numpy as np

    try:
        from turbovec import TurboQuantIndex
    except ImportError:
        print("  skipped turbovec: it is not installed (pip install 'vectorlake[peers]')")
        return
    started = time.perf_counter()
    index = TurboQuantIndex(dim=vectors.shape[1], bit_width=4)
    index.calibrate(np.ascontiguousarray(vectors[:: max(1, len(vectors) // 1024)]))
    index.add(vectors)
    index.prepare()
    build = time.perf_counter() - started
    wanted = exact.slice(0, len(asked) * given.k)
    for pool in (15, 20, 30):
        started = time.perf_counter()
        found = []
        for first in range(0, len(asked), 1000):
            part = asked[first : first + 1000]
            slots = np.asarray(index.search(part, pool)[1]).astype(np.int64)
            scores = np.einsum("mpd,md->mp", vectors[slots], part, optimize=True)
            scores[slots == np.arange(first, first + len(part))[:, None]] = -np.inf
            best = np.argsort(-scores, axis=1)[:, : given.k]
            found.append(np.take_along_axis(slots, best, axis=1))
        took = (time.perf_counter() - started) * len(vectors) / len(asked) + build
        pairs = (np.arange(len(asked))[:, None] * 2**31 + np.concatenate(found)).reshape(-1)
        share = np.isin(pairs, codes_of(wanted)).mean()
        print(f"  turbovec, 4 bits, {pool} re-ranked       {took:7.2f} s  (recall {share:.4f})")


if __name__ == "__main__":
    sys.exit(main())
