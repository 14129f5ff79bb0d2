"""Rows handed over by the user, kept where they can be read again: in memory, or in a mapped file if they are many."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pyarrow as pa

_IN_MEMORY: Final = 64 * 1024 * 1024


class Spooled:
    """A stream of batches as one table. The file, if there is one, goes when this object does."""

    def __init__(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        held: list[pa.RecordBatch] = []
        size = 0
        iterator = iter(batches)
        for batch in iterator:
            held.append(batch)
            size += batch.nbytes
            if size > _IN_MEMORY:
                self.table = self._to_file(held, iterator, schema)
                return
        self.table = pa.Table.from_batches(held, schema=schema).combine_chunks()

    def _to_file(
        self, held: list[pa.RecordBatch], rest: Iterable[pa.RecordBatch], schema: pa.Schema
    ) -> pa.Table:
        self._folder = tempfile.TemporaryDirectory(prefix="vectorlake-")
        path = Path(self._folder.name) / "rows.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            while held:
                writer.write_batch(held.pop(0))
            for batch in rest:
                writer.write_batch(batch)
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
