"""Exact nearest neighbours on a GPU: ours, on the CPU too, beside products and top-k by torch alone.

    python benchmarks/gpu_knn.py [--device cuda] [--runs 5] [--threads 16] [--data FOLDER] [--queries 1000] [--bytes-queries 10000]

Two cases: the vectors of a folder under l2 and cosine, its `query_vectors.npy` filled up by rows of `vectors.npy`; and 500,000
uint8 vectors of 128 dimensions drawn like SIFT descriptors. All stands in the computer's memory at first, as numbers that ours and
the peers share. The peers are what a few lines of torch do:

- float32 products, then the k largest of each query; and the same on rows that are on the device already, which ours never are;
- bfloat16 products, the 4k largest, and those of them that are nearest in float32.

They round, so that some of their neighbours are others: the share of the exact ones is printed. Ours are checked to be those of the
CPU, bit for bit. Runs alternate, and the least and the median of each are printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from vectorlake.kernels import Metric

DATA = FilePath(__file__).resolve().parents[2] / "shared" / "data" / "pypi_minilm"
K = 10
PAUSE = 0.05
"""Seconds between runs: threads of libraries keep a core busy for a while after their work."""
PAIRS = 1 << 28
"""Products at a time of the peers: one gibibyte."""


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--device", default="cuda")
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--threads", type=int, default=None, help="all, by default")
    options.add_argument("--data", type=FilePath, default=DATA)
    options.add_argument("--queries", type=int, default=1000)
    options.add_argument("--bytes-rows", type=int, default=500_000)
    options.add_argument("--bytes-queries", type=int, default=10_000, help="0 leaves the uint8 vectors out")
    given = options.parse_args()
    try:
        import torch
    except ImportError:
        print("skipped: torch is not installed (pip install 'vectorlake[gpu]')")
        return 0
    on_gpu = torch.device(given.device).type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("skipped: no GPU that torch can use; --device cpu runs all of this on torch's CPU device")
        return 0
    name = torch.cuda.get_device_name(given.device) if on_gpu else given.device
    print(f"{name}, {os.cpu_count()} cores, torch {torch.__version__}")
    if (given.data / "vectors.npy").exists():
        compare_folder(given)
    else:
        print(f"skipped: {given.data} has no vectors.npy; name a folder that has one by --data")
    if given.bytes_queries:
        compare_bytes(given)
    return 0


def compare_folder(given: argparse.Namespace) -> None:
    import numpy as np

    from vectorlake.kernels import Metric

    vectors, asked = (np.load(given.data / name) for name in ("vectors.npy", "query_vectors.npy"))
    more = vectors[:: max(1, len(vectors) // given.queries)]
    queries = np.concatenate([asked, more])[: given.queries].astype("f4")
    for metric in (Metric.L2, Metric.COSINE):
        compare(given, queries, vectors.astype("f4"), metric)


def compare_bytes(given: argparse.Namespace) -> None:
    import numpy as np

    from vectorlake.kernels import Metric

    rng = np.random.default_rng(0)
    centres = rng.gamma(0.6, 1, (1000, 128)).astype("f4")

    def drawn(count: int) -> np.ndarray:
        values = centres[rng.integers(0, len(centres), count)]
        values *= rng.standard_gamma(3, (count, 128), dtype="f4")
        values *= 512 / np.linalg.norm(values, axis=1, keepdims=True)
        return values.clip(0, 255).round().astype("u1")

    compare(given, drawn(given.bytes_queries), drawn(given.bytes_rows), Metric.L2)


def compare(given: argparse.Namespace, queries: np.ndarray, vectors: np.ndarray, metric: Metric) -> None:
    import numpy as np

    from vectorlake.kernels import ExactKnn

    row_ids = np.arange(len(vectors))

    def ours(device: str | None) -> tuple[np.ndarray, ...]:
        knn = ExactKnn(queries, k=K, metric=metric, threads=given.threads, device=device)
        knn.add(vectors, row_ids)
        return knn.result()

    peer = Peer(given.device, queries, vectors, metric)
    contest: dict[str, Callable[[], Any]] = {
        "ours, on the CPU": lambda: ours(None),
        "ours, on the device": lambda: ours(given.device),
        "torch, float32": lambda: peer.nearest(peer.copied()),
        "torch, float32, rows there": lambda: peer.nearest(peer.resident),
        "torch, bfloat16": lambda: peer.nearest_rounded(peer.copied()),
        "torch, bfloat16, rows there": lambda: peer.nearest_rounded(peer.resident, peer.halves),
    }
    exact = ours(None)
    same = all(np.array_equal(one, other) for one, other in zip(exact, ours(given.device), strict=True))
    print(
        f"{metric.value}, k = {K}, {len(queries):,} queries x {len(vectors):,} x {vectors.shape[1]} of {vectors.dtype}, "
        f"{given.runs} runs; the device's answer is {'the same' if same else 'ANOTHER'}"
    )
    times, found = measure(contest, given.runs)
    for name, taken in times.items():
        ids = found[name][0] if isinstance(found[name], tuple) else found[name]
        hits = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(ids, exact[0], strict=True)])
        least, middle = min(taken), statistics.median(taken)
        ratio = statistics.median(times["ours, on the device"]) / middle
        print(
            f"  {name:<28} least {least * 1e3:8.1f} ms, median {middle * 1e3:8.1f} ms: {ratio:6.2f}x as fast as ours on the "
            f"device, recall {hits:.5f}"
        )


class Peer:
    """What a few lines of torch do: all products of some queries at a time, then the largest of each query."""

    def __init__(self, device: str, queries: np.ndarray, vectors: np.ndarray, metric: Metric) -> None:
        import torch

        self.device, self.vectors, self.metric = device, torch.from_numpy(vectors), metric
        self.queries = torch.from_numpy(queries)
        self.resident = self.copied()
        self.halves = self.resident.bfloat16()
        self.step = max(1, PAIRS // len(vectors))

    def copied(self) -> Any:
        return self.prepared(self.vectors.to(self.device).float())

    def prepared(self, values: Any) -> Any:
        import torch

        from vectorlake.kernels import Metric

        return torch.nn.functional.normalize(values) if self.metric is Metric.COSINE else values

    def nearest(self, vectors: Any) -> np.ndarray:
        squares = vectors.square().sum(dim=1)
        return self.by_groups(lambda queries: self.scores(queries, vectors, squares).topk(K, dim=1).indices)

    def nearest_rounded(self, vectors: Any, halves: Any = None) -> np.ndarray:
        import torch

        rounded = vectors.bfloat16() if halves is None else halves
        squares = vectors.square().sum(dim=1)

        def nearest(queries: Any) -> Any:
            near = self.scores(queries.bfloat16(), rounded, squares).topk(4 * K, dim=1).indices
            scores = torch.einsum("qd,qnd->qn", queries, vectors[near]) - 0.5 * squares[near]
            return near.gather(1, scores.topk(K, dim=1).indices)

        return self.by_groups(nearest)

    def scores(self, queries: Any, vectors: Any, squares: Any) -> Any:
        return (queries @ vectors.T).float().sub_(squares, alpha=0.5)

    def by_groups(self, nearest: Callable[[Any], Any]) -> np.ndarray:
        import torch

        groups = self.queries.split(self.step)
        parts = [nearest(self.prepared(group.to(self.device).float())) for group in groups]
        found: np.ndarray = torch.cat(parts).cpu().numpy()
        return found


def measure(
    contest: dict[str, Callable[[], Any]], runs: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of every run, after one that is not counted, and what each found."""
    times: dict[str, list[float]] = {name: [] for name in contest}
    found = {}
    for run in range(runs + 1):
        for name, call in contest.items():
            time.sleep(PAUSE)
            started = time.perf_counter()
            found[name] = call()
            if run:
                times[name].append(time.perf_counter() - started)
    return times, found


if __name__ == "__main__":
    sys.exit(main())
