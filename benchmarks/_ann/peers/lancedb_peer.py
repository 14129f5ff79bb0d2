"""LanceDB with the index that it makes by default for such data, searched query by query, as its API does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from _ann.peers.faiss_peer import lists
from _ann.protocol import Contestant, Data, Setting, grid


class LanceDb(Contestant):
    table: Any
    threads = 1
    values: Mapping[str, Any] = {}

    def load(self, data: Data, folder: Path) -> None:
        vec = pa.FixedSizeListArray.from_arrays(pa.array(data.base.reshape(-1)), data.base.shape[1])
        rows = pa.table({"id": np.arange(len(data.base)), "vector": vec})
        self.table = lancedb.connect(str(folder / "lancedb")).create_table("t", rows)

    def build(self, data: Data, folder: Path, *, threads: int) -> None:
        self.table.create_index(
            metric=data.metric,
            index_type="IVF_PQ",
            num_partitions=lists(len(data.base)),
            num_sub_vectors=data.base.shape[1] // 8,
            vector_column_name="vector",
        )
        self.metric = data.metric

    def save(self, folder: Path) -> int | None:
        found = (f for f in (folder / "lancedb").rglob("_indices/**/*") if f.is_file())
        return sum(file.stat().st_size for file in found)

    def settings(self) -> Sequence[Setting]:
        return grid(nprobes=(16, 64, 128, 256), refine_factor=(5, 10))

    def prepare(self, setting: Setting, *, k: int, threads: int) -> None:
        self.values = setting.values
        self.threads = threads

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        if len(queries) == 1 or self.threads == 1:
            return np.stack([self._one(query, k) for query in queries])
        with ThreadPoolExecutor(self.threads) as pool:
            return np.stack(list(pool.map(lambda query: self._one(query, k), queries)))

    def _one(self, query: np.ndarray, k: int) -> np.ndarray:
        search = self.table.search(query, vector_column_name="vector").metric(self.metric).select(["id"])
        for name, value in self.values.items():
            search = getattr(search, name)(value)
        ids = search.limit(k).to_arrow()["id"].to_numpy()
        return np.pad(ids, (0, k - len(ids)), constant_values=-1)
