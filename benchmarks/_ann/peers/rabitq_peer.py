"""rabitqlib, by the authors of RaBitQ and SymphonyQG: partitions with RaBitQ codes, and the quantised graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rabitqlib

from _ann.peers.faiss_peer import lists
from _ann.protocol import BEAMS, Contestant, Data, Setting, Skip, grid


class _Rabitq(Contestant):
    index: rabitqlib.IvfIndex | rabitqlib.SymqgIndex
    threads = 1
    effort = 0

    def save(self, folder: Path) -> int | None:
        self.index.save(str(folder / "rabitq.index"))
        return sum(file.stat().st_size for file in folder.glob("rabitq.index*"))

    def prepare(self, setting: Setting, *, k: int, threads: int) -> None:
        self.threads = threads
        (self.effort,) = setting.values.values()


class Ivf(_Rabitq):
    def build(self, data: Data, folder: Path, *, threads: int) -> None:
        count = lists(len(data.base))
        try:
            import faiss
        except ImportError as e:
            raise Skip("rabitqlib's IVF is given faiss's centroids, and faiss is not installed") from e
        faiss.omp_set_num_threads(threads)
        dimension = data.base.shape[1]
        kmeans = faiss.Kmeans(dimension, count, niter=10, seed=1)
        kmeans.train(data.base)
        nearest = faiss.knn(data.base, kmeans.centroids, 1)[1].reshape(-1).astype(np.uint32)
        metric = "ip" if data.metric == "dot" else "l2"
        self.index = rabitqlib.IvfIndex(dimension, len(data.base), count, 7, metric)
        self.index.build(data.base, kmeans.centroids, nearest, num_threads=threads)

    def settings(self) -> Sequence[Setting]:
        return grid(nprobe=(4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384))

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        return _ids(self.index.search(queries, k, self.effort, num_threads=self.threads), len(queries))


class Symphony(_Rabitq):
    def build(self, data: Data, folder: Path, *, threads: int) -> None:
        self.index = rabitqlib.SymqgIndex(data.base.shape[1], 32, "ip" if data.metric == "dot" else "l2")
        self.index.build(data.base, 200, num_threads=threads)

    def settings(self) -> Sequence[Setting]:
        return grid(ef=BEAMS)

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        search = self.index.search if len(queries) == 1 else self.index.search_batch
        return _ids(search(queries, k, self.effort, num_threads=self.threads), len(queries))


def _ids(found: tuple[np.ndarray, ...], count: int) -> np.ndarray:
    """The array of whole numbers among those that a search returns."""
    for array in found:
        if np.asarray(array).dtype.kind in "iu":
            return np.asarray(array, np.int64).reshape(count, -1)
    raise TypeError("rabitqlib returned no ids")
