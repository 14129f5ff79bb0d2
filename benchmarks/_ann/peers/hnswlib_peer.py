"""hnswlib: the reference HNSW."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import hnswlib
import numpy as np

from _ann.protocol import Contestant, Data, Setting, grid


class Hnswlib(Contestant):
    index: hnswlib.Index

    def build(self, data: Data, folder: Path, *, threads: int) -> None:
        space = {"l2": "l2", "cosine": "l2", "dot": "ip"}[data.metric]
        self.index = hnswlib.Index(space=space, dim=data.base.shape[1])
        self.index.init_index(max_elements=len(data.base), ef_construction=200, M=16)
        self.index.add_items(data.base, num_threads=threads)

    def save(self, folder: Path) -> int | None:
        self.index.save_index(str(folder / "hnswlib.index"))
        return (folder / "hnswlib.index").stat().st_size

    def settings(self) -> Sequence[Setting]:
        return grid(ef=(10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512))

    def prepare(self, setting: Setting, *, k: int, threads: int) -> None:
        self.index.set_num_threads(threads)
        self.index.set_ef(setting.values["ef"])

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        return np.asarray(self.index.knn_query(queries, k)[0], np.int64)
