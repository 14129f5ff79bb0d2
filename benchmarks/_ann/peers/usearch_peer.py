"""usearch: HNSW over half-precision vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from usearch.index import Index

from _ann.protocol import Contestant, Data, Setting, grid


class Usearch(Contestant):
    index: Index
    threads = 1

    def build(self, data: Data, folder: Path, *, threads: int) -> None:
        metric = {"l2": "l2sq", "cosine": "cos", "dot": "ip"}[data.metric]
        self.index = Index(
            ndim=data.base.shape[1], metric=metric, dtype="f16", connectivity=16, expansion_add=128
        )
        self.index.add(np.arange(len(data.base)), data.base, threads=threads)

    def save(self, folder: Path) -> int | None:
        self.index.save(str(folder / "usearch.index"))
        return (folder / "usearch.index").stat().st_size

    def settings(self) -> Sequence[Setting]:
        return grid(expansion=(16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768))

    def prepare(self, setting: Setting, *, k: int, threads: int) -> None:
        self.threads = threads
        self.index.expansion_search = setting.values["expansion"]

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        keys = self.index.search(queries, k, threads=self.threads).keys
        return np.asarray(keys, np.int64).reshape(len(queries), -1)
