"""Batches pushed to Vortex, which pulls: they wait in memory, or beyond some MiB in a file, until the writer closes.

Feeding Vortex from a thread while batches arrive is no way: its runtime may pull the next batch on any thread that
calls Vortex, and so wait in the very thread that is to push that batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import vortex as vx

_MEMORY_BYTES: Final = 64 * 1024 * 1024
"""What may wait in memory; a larger file is spilled, so that memory stays bounded."""


class VortexSink:
    """A Vortex file being written. Adds the hidden columns: the row's position, and one whose name is the
    schema.

    Args:
        path: where the file goes.
        schema: physical columns, the hidden ones last.
        hidden: how many are hidden, 1 or 2.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, hidden: int) -> None:
        self._path = path
        self._schema = schema
        self._hidden = hidden
        self._rows = 0
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0
        self._spill = path.with_name(f"{path.name}.spill")
        self._spilling: pa.RecordBatchFileWriter | None = None
        # The file must be creatable now, when an error can still say so, and not at the end.
        path.open("xb").close()

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [*batch.columns, pa.array(np.arange(self._rows, self._rows + batch.num_rows))]
        if self._hidden > 1:
            columns.append(pa.repeat(False, batch.num_rows))
        self._rows += batch.num_rows
        self._waiting.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self._waiting_bytes += batch.nbytes
        if self._waiting_bytes > _MEMORY_BYTES:
            self._flush()

    def close(self) -> None:
        try:
            if self._spilling is not None:
                self._flush()
                self._spilling.close()
            vx.io.write(pa.RecordBatchReader.from_batches(self._schema, self._batches()), str(self._path))
        finally:
            self._forget()

    def abort(self) -> None:
        if self._spilling is not None:
            with contextlib.suppress(Exception):
                self._spilling.close()
        self._forget()

    def _flush(self) -> None:
        if self._spilling is None:
            self._spilling = pa.ipc.new_file(str(self._spill), self._schema)
        for batch in self._waiting:
            self._spilling.write_batch(batch)
        self._waiting, self._waiting_bytes = [], 0

    def _batches(self) -> Iterator[pa.RecordBatch]:
        if self._spilling is None:
            yield from self._waiting
            return
        with pa.memory_map(str(self._spill)) as file:
            reader = pa.ipc.open_file(file)
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index)

    def _forget(self) -> None:
        self._waiting, self._spilling = [], None
        self._spill.unlink(missing_ok=True)
