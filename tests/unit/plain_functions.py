"""Functions over batches for tests of backfills, at the top of a module as workers need them."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def doubled(batch: pa.RecordBatch) -> Any:
    return pc.multiply(batch.column("id"), 2)


def short(batch: pa.RecordBatch) -> Any:
    return batch.column("id")[1:]


def words(batch: pa.RecordBatch) -> Any:
    return ["word"] * batch.num_rows


def unlucky(batch: pa.RecordBatch) -> Any:
    raise ConnectionError("no answer from the model's server")


def circumstances(batch: pa.RecordBatch) -> Any:
    """What a worker's own variable, folder and random numbers are, and which process it is."""
    drawn = f"{random.random()} {np.random.random()}"
    return [f"{os.getpid()} {os.environ.get('OF_THE_DRIVER')} {os.getcwd()} {drawn}"] * batch.num_rows


class Embedder:
    """As many numbers as asked for; marks each instance and each call in a folder, and waits while a file is there."""

    def __init__(self, size: int, marks: str = "") -> None:
        self.size, self.marks = size, marks
        self.mark("made")

    def mark(self, what: str) -> None:
        if self.marks:
            Path(self.marks, f"{what}-{time.time_ns()}-{os.getpid()}").touch()

    def __call__(self, batch: pa.RecordBatch) -> Any:
        ids = batch.column("id").to_numpy()
        self.mark(f"call-{ids[0]}")
        while self.marks and Path(self.marks, f"hold-{ids[0]}").exists():
            time.sleep(0.02)
        return np.repeat(ids.astype(np.float32)[:, None], self.size, axis=1)
