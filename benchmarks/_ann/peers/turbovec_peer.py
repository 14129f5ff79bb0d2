"""turbovec: 2- or 4-bit codes, all of them scanned, the best re-scored here from the vectors in float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from turbovec import TurboQuantIndex

from _ann.protocol import Contestant, Data, Setting, Skip, grid


class _Turbovec(Contestant):
    bits = 2
    index: TurboQuantIndex
    base: np.ndarray
    pool = 10

    def build(self, data: Data, folder: Path, *, threads: int) -> None:
        if data.metric == "l2":
            raise Skip("turbovec knows inner products only")
        self.base = data.base
        self.index = TurboQuantIndex(dim=data.base.shape[1], bit_width=self.bits)
        sample = np.random.default_rng(1).choice(len(data.base), min(1024, len(data.base)), replace=False)
        self.index.calibrate(data.base[sample])
        self.index.add(data.base)
        self.index.prepare()

    def save(self, folder: Path) -> int | None:
        self.index.write(str(folder / "turbovec.index"))
        return (folder / "turbovec.index").stat().st_size

    def settings(self) -> Sequence[Setting]:
        return grid(rescored=(10, 15, 20, 30, 40, 60, 100))

    def prepare(self, setting: Setting, *, k: int, threads: int) -> None:
        # Its threads are rayon's: set by RAYON_NUM_THREADS before the process starts.
        self.pool = setting.values["rescored"]

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        slots = np.asarray(self.index.search(queries, self.pool)[1])
        scores = np.einsum("mpd,md->mp", self.base[slots], queries, optimize=True)
        best = np.argsort(-scores, axis=1)[:, :k]
        return np.take_along_axis(slots, best, axis=1)


class TwoBits(_Turbovec):
    bits = 2


class FourBits(_Turbovec):
    bits = 4
