"""Milvus Lite: Milvus in one process over one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import milvus_lite  # noqa: F401 - pymilvus starts it for a file's name
import numpy as np
from pymilvus import DataType, MilvusClient

from _ann.peers.faiss_peer import lists
from _ann.protocol import Contestant, Data, Setting, grid

BLOCK = 2_000


class MilvusLite(Contestant):
    client: MilvusClient
    values: Mapping[str, Any] = {}

    def load(self, data: Data, folder: Path) -> None:
        self.client = MilvusClient(str(folder / "milvus.db"))
        schema = self.client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vec", DataType.FLOAT_VECTOR, dim=data.base.shape[1])
        self.client.create_collection("t", schema=schema)
        for start in range(0, len(data.base), BLOCK):
            rows = data.base[start : start + BLOCK]
            self.client.insert("t", [{"id": start + i, "vec": row} for i, row in enumerate(rows)])

    def build(self, data: Data, folder: Path, *, threads: int) -> None:
        index = self.client.prepare_index_params()
        self.metric = {"l2": "L2", "cosine": "COSINE", "dot": "IP"}[data.metric]
        index.add_index(
            "vec", index_type="IVF_FLAT", metric_type=self.metric, params={"nlist": lists(len(data.base))}
        )
        self.client.create_index("t", index)
        self.client.load_collection("t")

    def save(self, folder: Path) -> int | None:
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    def settings(self) -> Sequence[Setting]:
        return grid(nprobe=(16, 64, 128, 256))

    def prepare(self, setting: Setting, *, k: int, threads: int) -> None:
        self.values = setting.values

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        found = np.full((len(queries), k), -1, np.int64)
        options = {"metric_type": self.metric, "params": dict(self.values)}
        answers = self.client.search("t", list(queries), anns_field="vec", limit=k, search_params=options)
        for i, hits in enumerate(answers):
            found[i, : len(hits)] = [hit["id"] for hit in hits]
        return found
