"""faiss: brute force, IVF as stored, IVF with 4-bit product codes scanned by SIMD and refined, and HNSW."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np

from _ann.protocol import Contestant, Data, Setting, grid

PROBES = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


class _Faiss(Contestant):
    index: faiss.Index

    def _new(self, data: Data, metric: int) -> faiss.Index:
        raise NotImplementedError

    def build(self, data: Data, folder: Path, *, threads: int) -> None:
        faiss.omp_set_num_threads(threads)
        self.index = self._new(data, faiss.METRIC_INNER_PRODUCT if data.metric == "dot" else faiss.METRIC_L2)
        if not self.index.is_trained:
            self.index.train(data.base)
        self.index.add(data.base)

    def save(self, folder: Path) -> int | None:
        faiss.write_index(self.index, str(folder / "faiss.index"))
        return (folder / "faiss.index").stat().st_size

    def prepare(self, setting: Setting, *, k: int, threads: int) -> None:
        faiss.omp_set_num_threads(threads)
        space = faiss.ParameterSpace()
        for name, value in setting.values.items():
            space.set_index_parameter(self.index, name, value)

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        return np.asarray(self.index.search(queries, k)[1])


class Flat(_Faiss):
    def _new(self, data: Data, metric: int) -> faiss.Index:
        return faiss.IndexFlat(data.base.shape[1], metric)


def lists(rows: int) -> int:
    """Partitions for so many rows: the power of two nearest to 3 √rows."""
    return max(1, min(1 << round(math.log2(3 * math.sqrt(rows))), rows // 39 or 1))


class Ivf(_Faiss):
    def _new(self, data: Data, metric: int) -> faiss.Index:
        return faiss.index_factory(data.base.shape[1], f"IVF{lists(len(data.base))},Flat", metric)

    def settings(self) -> Sequence[Setting]:
        return grid(nprobe=PROBES)


class FastScan(_Faiss):
    """Two dimensions a code, as its authors advise for recall, and the stored vectors for the refine step."""

    def _new(self, data: Data, metric: int) -> faiss.Index:
        d = data.base.shape[1]
        codes = d // 2 if d % 2 == 0 else d
        return faiss.index_factory(d, f"IVF{lists(len(data.base))},PQ{codes}x4fs,RFlat", metric)

    def settings(self) -> Sequence[Setting]:
        return grid(nprobe=PROBES, k_factor_rf=(3, 6, 12))


class Hnsw(_Faiss):
    def _new(self, data: Data, metric: int) -> faiss.Index:
        index = faiss.IndexHNSWFlat(data.base.shape[1], 32, metric)
        index.hnsw.efConstruction = 200
        return index

    def settings(self) -> Sequence[Setting]:
        return grid(efSearch=(10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512))
