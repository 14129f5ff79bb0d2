"""MaxSim of 100 queries over 5,000 documents of token vectors: ours, exact and by index, beside numpy and per-token faiss.

    python benchmarks/maxsim.py [--runs 5] [--threads 2] [--data FOLDER] [--json FILE]

Runs alternate, and the least of each is printed. The folder holds `documents.parquet` and `queries.parquet` with a column
`tokens`, and `neighbors.npy`. The peers: numpy's matrix product with segmented maxima and sums; and the usual detour, an
index of single tokens (faiss, IVF) whose nearest tokens name the documents that are then measured.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

DATA = FilePath(__file__).resolve().parents[2] / "shared" / "data" / "multivector"


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    options.add_argument("--data", type=FilePath, default=DATA)
    options.add_argument("--json", type=FilePath)
    given = options.parse_args()
    if not (given.data / "documents.parquet").exists():
        print(f"skipped: {given.data} has no documents.parquet; name a folder that has one by --data")
        return 0
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(given.threads)
    import numpy as np
    import pyarrow.parquet as pq

    import vectorlake as vl

    documents = pq.read_table(given.data / "documents.parquet", columns=["tokens"])
    queries = pq.read_table(given.data / "queries.parquet", columns=["tokens"])
    truth = np.load(given.data / "neighbors.npy")[:, :10]
    tokens, starts = flat(documents)
    asked, begins = flat(queries)
    asked = asked.astype("f4")

    def numpy_exact() -> np.ndarray:
        scores = np.empty((len(starts) - 1, len(begins) - 1), "f4")
        for first in range(0, len(starts) - 1, 512):
            end = min(first + 512, len(starts) - 1)
            part = tokens[starts[first] : starts[end]].astype("f4")
            best = np.maximum.reduceat(part @ asked.T, starts[first:end] - starts[first], axis=0)
            scores[first:end] = np.add.reduceat(best, begins[:-1], axis=1)
        return np.argsort(-scores, axis=0)[:10].T

    def recall(found: np.ndarray) -> float:
        return float(np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, truth, strict=True)]))

    contest: dict[str, Callable[[], np.ndarray]] = {}
    notes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        table = vl.connect(folder).create_table("t", documents)
        begun, spent = time.perf_counter(), time.process_time()
        table.create_index("tokens", "tokens", metric="dot", threads=given.threads)
        notes["build seconds"] = time.perf_counter() - begun
        notes["build cpu seconds"] = time.process_time() - spent
        table = vl.connect(folder).table("t")
        notes["index bytes"] = sum(file.stat().st_size for file in FilePath(folder).rglob("index/*"))
        notes["data bytes"] = sum(file.stat().st_size for file in FilePath(folder).rglob("data/*"))

        def ours(**how: Any) -> np.ndarray:
            found = table.knn(queries, "tokens", 10, "dot", threads=given.threads, **how)
            return found["row_id"].to_numpy().reshape(len(truth), -1)

        contest["ours, exact, from the table"] = lambda: ours(mode="exact")
        contest["numpy, exact, in memory"] = numpy_exact
        for target in (0.9, 0.95, 0.99):
            contest[f"ours, by index, target {target}"] = lambda target=target: ours(target_recall=target)
        contest |= faiss_tokens(tokens, starts, asked, begins, given.threads)
        times: dict[str, list[float]] = {name: [] for name in contest}
        recalls = {name: recall(run()) for name, run in contest.items()}
        for _ in range(given.runs):
            for name, run in contest.items():
                begun = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - begun)
    print(
        f"{len(truth)} queries ({len(asked)} tokens) x {len(starts) - 1:,} documents ({len(tokens):,} tokens)"
    )
    for name, note in notes.items():
        print(f"  {name}: {note:,.2f}")
    results = {
        name: {"seconds": min(each), "queries_per_second": len(truth) / min(each), "recall@10": recalls[name]}
        for name, each in times.items()
    }
    for name, result in results.items():
        print(
            f"  {name:34} {result['seconds'] * 1e3:9.1f} ms {result['queries_per_second']:9.0f} QPS "
            f"recall {result['recall@10']:.3f}"
        )
    if given.json:
        given.json.write_text(json.dumps({"notes": notes, "results": results}, indent=1))
    return 0


def flat(table: Any) -> tuple[Any, Any]:
    """All tokens [t, d], and where each row's begin."""
    array = table["tokens"].combine_chunks()
    values = array.flatten()
    size = values.type.list_size
    return values.flatten().to_numpy().reshape(-1, size), array.offsets.to_numpy().astype("i8")


def faiss_tokens(
    tokens: Any, starts: Any, asked: Any, begins: Any, threads: int
) -> dict[str, Callable[[], Any]]:
    """The detour over single tokens, if faiss is installed."""
    try:
        import faiss
    except ImportError:
        print("faiss is not installed (pip install 'vectorlake[bench]'): left out")
        return {}
    import numpy as np

    faiss.omp_set_num_threads(threads)
    wide = tokens.astype("f4")
    size = wide.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(size), size, 1024, faiss.METRIC_INNER_PRODUCT)
    index.train(wide[::4])
    index.add(wide)
    owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))

    def search(nprobe: int, near: int) -> np.ndarray:
        index.nprobe = nprobe
        _, found = index.search(asked, near)
        answers = np.empty((len(begins) - 1, 10), np.int64)
        for q in range(len(begins) - 1):
            mine = asked[begins[q] : begins[q + 1]]
            chosen = np.unique(owner[found[begins[q] : begins[q + 1]]])
            held = [wide[starts[d] : starts[d + 1]] for d in chosen]
            offsets = np.cumsum([0, *(len(part) for part in held)])[:-1]
            scores = np.maximum.reduceat(np.concatenate(held) @ mine.T, offsets, axis=0).sum(axis=1)
            answers[q] = chosen[np.argsort(-scores)[:10]]
        return answers

    return {
        "faiss IVF over tokens, 8 x 32": lambda: search(8, 32),
        "faiss IVF over tokens, 16 x 128": lambda: search(16, 128),
    }


if __name__ == "__main__":
    raise SystemExit(main())
