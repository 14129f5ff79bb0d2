"""vectorlake, through a table on disk: the exact scan, and its kinds of index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

import vectorlake as vl
from _ann.protocol import BEAMS, Contestant, Data, Setting, grid

WARM_ROWS = 2_000
ELEMENTS = {"float16": "f16", "float32": "f32", "int8": "int8", "uint8": "uint8"}


class _Ours(Contestant):
    table: vl.Table
    metric = "l2"
    answer: Callable[[np.ndarray], np.ndarray]

    def load(self, data: Data, folder: Path) -> None:
        self.table = write(data, str(folder / "lake"))
        self.metric = data.metric

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        return self.answer(queries)


class Exact(_Ours):
    def load(self, data: Data, folder: Path) -> None:
        """Also search once each way, so that kernels are compiled (once for each installation) before times are taken."""
        super().load(data, folder)
        for queries in (data.queries[:1], data.queries):
            self.table.knn(queries, "vec", 10, data.metric, mode="exact")

    def build(self, data: Data, folder: Path, *, threads: int) -> None:
        """Nothing: a scan needs no index."""

    def prepare(self, setting: Setting, *, k: int, threads: int) -> None:
        def answer(queries: np.ndarray) -> np.ndarray:
            found = self.table.knn(queries, "vec", k, self.metric, mode="exact", threads=threads)
            return np.asarray(found["row_id"]).reshape(len(queries), -1)

        self.answer = answer


class _Index(_Ours):
    kind = ""
    options: ClassVar[Mapping[str, Any]] = {}

    def load(self, data: Data, folder: Path) -> None:
        """Also index a few rows, so that kernels are compiled (once for each installation) before times are taken."""
        super().load(data, folder)
        few = write(replace(data, base=data.base[:WARM_ROWS]), str(folder / "warm"))
        few.create_index("vec", self.kind, metric=data.metric, threads=2, **self.options)
        for queries in (data.queries[:1], data.queries[:20]):
            few.searcher("vec", k=10).search(queries)

    def build(self, data: Data, folder: Path, *, threads: int) -> None:
        self.table.create_index("vec", self.kind, metric=data.metric, threads=threads, **self.options)

    def save(self, folder: Path) -> int | None:
        return sum(file.stat().st_size for file in (folder / "lake").rglob("index/*"))

    def prepare(self, setting: Setting, *, k: int, threads: int) -> None:
        searcher = self.table.searcher("vec", k=k, threads=threads, **setting.values)
        self.answer = lambda queries: searcher.search(queries)[0]


class Ivf(_Index):
    kind = "ivf"

    def settings(self) -> Sequence[Setting]:
        return grid(nprobe=(4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384), pool=(50, 100, 200))


class IvfFourBits(Ivf):
    options: ClassVar[Mapping[str, Any]] = {"codes": "rabitq", "bits": 4}

    def settings(self) -> Sequence[Setting]:
        return grid(nprobe=(4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384), pool=(20, 40))


class Graph(_Index):
    kind = "graph"

    def settings(self) -> Sequence[Setting]:
        return grid(ef=BEAMS)


def write(data: Data, lake: str, storage_options: Mapping[str, str] | None = None) -> vl.Table:
    """The vectors as a table `id, vec`, in the element type that they came in."""
    element = data.element if data.element in ELEMENTS else "float32"
    values = data.base.astype(element)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    vec = pa.FixedSizeListArray.from_arrays(flat, type=vl.vector(values.shape[1], ELEMENTS[element]))
    rows = pa.table({"id": np.arange(len(values)), "vec": vec})
    return vl.connect(lake, storage_options=storage_options).create_table("t", rows)
