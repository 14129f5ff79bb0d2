"""Lance's dataset with its own indexes: PQ, RaBitQ and HNSW over scalar codes, refined from the stored vectors."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import lance
import numpy as np
import pyarrow as pa

from _ann.peers.faiss_peer import lists
from _ann.protocol import Contestant, Data, Setting, grid


class _Lance(Contestant):
    kind = ""
    options: ClassVar[Mapping[str, Any]] = {}
    dataset: lance.LanceDataset
    values: Mapping[str, Any] = {}

    def load(self, data: Data, folder: Path) -> None:
        self.dataset = write(data, folder / "data.lance")

    def build(self, data: Data, folder: Path, *, threads: int) -> None:
        options = dict(self.options)
        if "num_sub_vectors" in options:
            options["num_sub_vectors"] = data.base.shape[1] // options["num_sub_vectors"]
        metric = {"l2": "L2", "cosine": "cosine", "dot": "dot"}[data.metric]
        self.dataset.create_index(
            "vec", self.kind, metric=metric, num_partitions=self._lists(len(data.base)), **options
        )

    def _lists(self, rows: int) -> int:
        return lists(rows)

    def save(self, folder: Path) -> int | None:
        """The index alone: the table's own files are needed by every engine."""
        return sum(f.stat().st_size for f in (folder / "data.lance" / "_indices").rglob("*") if f.is_file())

    def settings(self) -> Sequence[Setting]:
        return grid(nprobes=(16, 64, 128, 256, 512), refine_factor=(3, 10))

    def prepare(self, setting: Setting, *, k: int, threads: int) -> None:
        self.values = setting.values

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        found = np.full((len(queries), k), -1, np.int64)
        asked = {"column": "vec", "k": k, "q": queries if len(queries) > 1 else queries[0], **self.values}
        answer = self.dataset.to_table(columns=["id", "_distance"], nearest=asked)
        ids = answer["id"].to_numpy()
        which = answer["query_index"].to_numpy() if len(queries) > 1 else np.zeros(len(ids), np.int64)
        order = np.argsort(which, kind="stable")
        which, ids = which[order], ids[order]
        rank = np.arange(len(ids)) - np.searchsorted(which, which)
        found[which, rank] = ids
        return found


class Pq(_Lance):
    kind = "IVF_PQ"
    options: ClassVar[Mapping[str, Any]] = {"num_sub_vectors": 8}


class Rq(_Lance):
    kind = "IVF_RQ"
    options: ClassVar[Mapping[str, Any]] = {"num_bits": 5}


class HnswSq(_Lance):
    kind = "IVF_HNSW_SQ"

    def _lists(self, rows: int) -> int:
        return max(1, rows // 100_000)

    def settings(self) -> Sequence[Setting]:
        return grid(ef=(20, 40, 80, 160, 320, 640), refine_factor=(2,), nprobes=(1,))


def write(data: Data, path: Path) -> lance.LanceDataset:
    """The vectors as a Lance dataset `id, vec`, in the element type that they came in where it is a float."""
    shutil.rmtree(path, ignore_errors=True)
    values = data.base.astype(np.float16 if data.element == "float16" else np.float32)
    flat = pa.array(values.reshape(-1))
    vec = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return lance.write_dataset(pa.table({"id": np.arange(len(values)), "vec": vec}), str(path))
