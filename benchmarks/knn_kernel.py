"""Exact nearest neighbours of vectors in memory: ours, faiss.knn and numpy's bare product.

    python benchmarks/knn_kernel.py [--runs 7] [--threads 2] [--data FOLDER] [--bytes-queries 2000]

Two cases: the vectors of a folder, 500 queries among 100,000 if it is the one that others are measured on; and 490,000
uint8 vectors of 128 dimensions drawn like SIFT descriptors, which faiss is given as float32.

Runs alternate, and the least and the median of each are printed: other work on the machine then meets all alike.
The folder holds `vectors.npy`, `query_vectors.npy` and, for recall under l2, `neighbors.npy`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path as FilePath

PAUSE = 0.1
"""Seconds between runs: the threads of OpenMP and OpenBLAS keep a core busy for a while after their work."""

DATA = FilePath(__file__).resolve().parents[2] / "shared" / "data" / "pypi_minilm"


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", type=int, default=7)
    options.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    options.add_argument("--data", type=FilePath, default=DATA)
    options.add_argument("--bytes-queries", type=int, default=2000, help="0 leaves the uint8 vectors out")
    options.add_argument("--bytes-runs", type=int, default=3)
    given = options.parse_args()
    # Read when the libraries load.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(given.threads)
    try:
        import faiss
    except ImportError:
        print("skipped: faiss is not installed (pip install 'vectorlake[bench]')")
        return 0
    faiss.omp_set_num_threads(given.threads)
    if (given.data / "vectors.npy").exists():
        compare_folder(given)
    else:
        print(f"skipped: {given.data} has no vectors.npy; name a folder that has one by --data")
    if given.bytes_queries:
        compare_bytes(given)
    return 0


def compare_folder(given: argparse.Namespace) -> None:
    import faiss
    import numpy as np

    from vectorlake.kernels import ExactKnn, Metric

    def unit(name: str) -> np.ndarray:
        values = np.load(given.data / name).astype("f4")
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    vectors, queries = unit("vectors.npy"), unit("query_vectors.npy")
    halves = vectors.astype("f2")
    row_ids = np.arange(len(vectors))
    truth = given.data / "neighbors.npy"

    def ours(k: int, metric: Metric, data: np.ndarray, asked: np.ndarray = queries) -> np.ndarray:
        knn = ExactKnn(asked, k=k, metric=metric, threads=given.threads)
        knn.add(data, row_ids)
        return knn.result()[0]

    print(
        f"{len(queries)} queries x {len(vectors):,} x {vectors.shape[1]}, {given.threads} threads, {given.runs} runs"
    )
    for metric in (Metric.L2, Metric.DOT):
        kind = faiss.METRIC_L2 if metric is Metric.L2 else faiss.METRIC_INNER_PRODUCT
        for k in (10, 100):
            contest: dict[str, Callable[[], object]] = {
                "ours": lambda k=k, metric=metric: ours(k, metric, vectors),
                "ours, float16": lambda k=k, metric=metric: ours(k, metric, halves),
                "faiss.knn": lambda k=k, kind=kind: faiss.knn(queries, vectors, k, metric=kind),
                "numpy product": lambda: queries @ vectors.T,
            }
            times = measure(contest, given.runs)
            recall = ""
            if metric is Metric.L2 and truth.exists():
                known = np.load(truth)[:, :k]
                hits = [
                    len(np.intersect1d(a, b)) for a, b in zip(ours(k, metric, vectors), known, strict=True)
                ]
                recall = f", recall {sum(hits) / known.size:.6f}"
            print(f"{metric.value}, k = {k}{recall}")
            report(times, against="faiss.knn")
    for count in (1, 4, 16):
        few = queries[:count]
        contest = {
            "ours": lambda few=few: ours(10, Metric.L2, vectors, few),
            "faiss.knn": lambda few=few: faiss.knn(few, vectors, 10),
        }
        print(f"l2, k = 10, {count} queries")
        report(measure(contest, given.runs), against="faiss.knn")


def compare_bytes(given: argparse.Namespace) -> None:
    import faiss
    import numpy as np

    from vectorlake.kernels import ExactKnn, Metric

    rng = np.random.default_rng(0)
    centres = rng.gamma(0.6, 1, (1000, 128)).astype("f4")

    def drawn(count: int) -> np.ndarray:
        values = centres[rng.integers(0, len(centres), count)] * rng.gamma(3, 1 / 3, (count, 128)).astype(
            "f4"
        )
        values *= 512 / np.linalg.norm(values, axis=1, keepdims=True)
        return values.clip(0, 255).round().astype("u1")

    vectors, queries = drawn(490_000), drawn(given.bytes_queries)
    row_ids = np.arange(len(vectors))
    wide, asked = vectors.astype("f4"), queries.astype("f4")

    def ours(data: np.ndarray, queries: np.ndarray) -> np.ndarray:
        knn = ExactKnn(queries, k=10, metric=Metric.L2, threads=given.threads)
        knn.add(data, row_ids)
        return knn.result()[1]

    contest: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(vectors, queries),
        "ours, float32": lambda: ours(wide, asked),
        "faiss.knn": lambda: faiss.knn(asked, wide, 10),
    }
    print(f"l2, k = 10, {len(queries):,} queries x {len(vectors):,} x 128 of uint8, {given.bytes_runs} runs")
    report(measure(contest, given.bytes_runs), against="faiss.knn")


def measure(contest: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Seconds of every run, after one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contest}
    for run in range(runs + 1):
        for name, call in contest.items():
            time.sleep(PAUSE)
            started = time.perf_counter()
            call()
            if run:
                times[name].append(time.perf_counter() - started)
    return times


def report(times: dict[str, list[float]], *, against: str) -> None:
    for name, taken in times.items():
        least, middle = min(taken), statistics.median(taken)
        ratios = f"{min(times[against]) / least:5.2f}x {statistics.median(times[against]) / middle:5.2f}x"
        print(f"  {name:<14} least {least:.4f} s, median {middle:.4f} s: {ratios} as fast as {against}")


if __name__ == "__main__":
    sys.exit(main())
