"""Every row's nearest others as a job, and by asking a Lance index for each row.

    python benchmarks/knn_join_job.py [--rows 25000,100000] [--workers 1,2] [--k 10] [--lance-rows 300] [--data FOLDER]

The folder holds `vectors.npy`. Workers are processes with one thread each, so that their number tells how the time falls; it
holds their start and the loading of kernels. Lance is asked row by row, for `--lance-rows` of the rows, and its time for all
told from these; its index is built before. Its recall is measured against ours, which is exact.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "pypi_minilm"


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rows", type=numbers, default=[25_000, 100_000])
    options.add_argument("--workers", type=numbers, default=[1, 2])
    options.add_argument("--k", type=int, default=10)
    options.add_argument("--mode", choices=["exact", "index"], action="append")
    options.add_argument("--lance-rows", type=int, default=300, help="0 leaves Lance out")
    options.add_argument("--data", type=Path, default=DATA)
    given = options.parse_args()
    if not (given.data / "vectors.npy").exists():
        print(f"skipped: {given.data} has no vectors.npy; name a folder that has one by --data")
        return 0
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    import numpy as np

    everything = np.load(given.data / "vectors.npy")
    for rows in given.rows:
        vectors = everything[:rows].astype("f4")
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        print(f"{len(vectors):,} x {vectors.shape[1]}, cosine, k = {given.k}, all rows against all")
        with tempfile.TemporaryDirectory() as folder:
            measure(vectors, Path(folder), given)
    return 0


def measure(vectors: Any, folder: Path, given: argparse.Namespace) -> None:
    import vectorlake_jobs

    import vectorlake as vl
    from vectorlake.jobs import Capacity
    from vectorlake.jobs.processes import Processes

    class OneThread(Processes):
        def capacity(self, workers: int | None) -> Capacity:
            return Capacity(workers or 1, 1)

    lake = vl.connect(folder / "lake")
    items = lake.create_table("items", {"vec": vectors.astype("f2")})
    modes = given.mode or ["exact", "index"]
    if "index" in modes:
        items.create_index("vec", "ivf", metric="cosine")
    best, exact = float("inf"), None
    for mode in modes:
        search = {"mode": mode} if mode == "exact" else {"mode": mode, "target_recall": 0.95}
        for workers in given.workers:
            name = f"{mode}_{workers}"
            started = time.perf_counter()
            done = vectorlake_jobs.knn_join(
                None,
                items,
                into=name,
                lake=lake,
                k=given.k,
                metric="cosine",
                task_rows=max(2048, len(vectors) // 8),
                workers=workers,
                engine=OneThread(),
                **search,
            )
            took = time.perf_counter() - started
            best = min(best, took)
            pairs = lake.table(name).scan(columns=["query", "row_id"]).to_arrow()
            exact = pairs if exact is None and mode == "exact" else exact
            told = "" if mode == "exact" or exact is None else f", recall {overlap(pairs, exact):.3f}"
            print(f"  job, {mode:5}, {workers} worker(s) {took:8.1f} s  ({done.executed} tasks{told})")
    if given.lance_rows:
        probe_lance(vectors, folder, given, exact, best)


def overlap(pairs: Any, exact: Any) -> float:
    """The share of the exact pairs that is among some pairs."""
    wanted = set(zip(exact.column("query").to_pylist(), exact.column("row_id").to_pylist(), strict=True))
    got = set(zip(pairs.column("query").to_pylist(), pairs.column("row_id").to_pylist(), strict=True))
    return len(wanted & got) / len(wanted)


def probe_lance(vectors: Any, folder: Path, given: argparse.Namespace, exact: Any, best: float) -> None:
    import lance
    import pyarrow as pa
    import pyarrow.compute as pc

    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    table = pa.table({"id": pa.array(range(len(vectors))), "vec": column})
    dataset = lance.write_dataset(table, str(folder / "lance"))
    partitions = max(16, int(len(vectors) ** 0.5))
    dataset.create_index(
        "vec", "IVF_PQ", metric="cosine", num_partitions=partitions, num_sub_vectors=vectors.shape[1] // 8
    )
    asked = range(0, len(vectors), max(1, len(vectors) // given.lance_rows))

    def probe(row: int) -> list[int]:
        nearest = {
            "column": "vec",
            "q": vectors[row],
            "k": given.k + 1,
            "nprobes": max(1, partitions // 8),
            "refine_factor": 5,
        }
        found = dataset.to_table(columns=["id", "_distance"], nearest=nearest).column("id").to_pylist()
        return [other for other in found if other != row][: given.k]

    probe(0)
    started = time.perf_counter()
    answers = {row: probe(row) for row in asked}
    took = (time.perf_counter() - started) * len(vectors) / len(answers)
    told = ""
    if exact is not None:
        hits = 0
        for row, found in answers.items():
            wanted = exact.filter(pc.equal(exact.column("query"), row)).column("row_id").to_pylist()
            hits += len(set(wanted) & set(found))
        told = f", recall {hits / (given.k * len(answers)):.3f}"
    print(f"  Lance IVF_PQ row by row {took:12.1f} s  (from {len(answers)} rows{told}; {took / best:.0f}x)")


if __name__ == "__main__":
    sys.exit(main())
