"""Batches pushed to Vortex, which pulls: its writer runs in a thread and reads from a short queue."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
import vortex as vx

_WAITING_BATCHES: Final = 2
_POLL_SECONDS: Final = 0.05


class _Abandoned(Exception):
    """Raised in the writing thread to stop it."""


_Item: TypeAlias = pa.RecordBatch | _Abandoned | None


class VortexSink:
    """A Vortex file being written. Adds the hidden columns: the row's position, and one whose name is the
    schema.

    Args:
        path: where the file goes.
        schema: physical columns, the hidden ones last.
        hidden: how many are hidden, 1 or 2.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, hidden: int) -> None:
        self._schema = schema
        self._hidden = hidden
        self._rows = 0
        self._queue: queue.Queue[_Item] = queue.Queue(_WAITING_BATCHES)
        self._outcome: list[BaseException] = []
        self._thread = threading.Thread(
            target=_write,
            args=(str(path), schema, self._queue, self._outcome),
            name=f"vortex-writer-{path.name[-24:]}",
            daemon=True,
        )
        # The file must be creatable now, when an error can still say so, and not at the first batch.
        path.open("xb").close()
        self._thread.start()

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [*batch.columns, pa.array(np.arange(self._rows, self._rows + batch.num_rows))]
        if self._hidden > 1:
            columns.append(pa.repeat(False, batch.num_rows))
        self._rows += batch.num_rows
        self._put(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        self._put(None)
        self._thread.join()
        self._raise()

    def abort(self) -> None:
        with contextlib.suppress(BaseException):
            self._put(_Abandoned())
        self._thread.join()

    def __del__(self) -> None:
        # A writer that was dropped unfinished must not leave its thread waiting.
        if self._thread.is_alive():
            self.abort()

    def _put(self, item: _Item) -> None:
        while True:
            if not self._thread.is_alive():
                self._raise()
                raise RuntimeError("the writer ended before all batches were written")
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=_POLL_SECONDS)
                return

    def _raise(self) -> None:
        if self._outcome:
            raise self._outcome[0]


def _write(path: str, schema: pa.Schema, items: queue.Queue[_Item], outcome: list[BaseException]) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        while True:
            item = items.get()
            if isinstance(item, _Abandoned):
                raise item
            if item is None:
                return
            yield item

    try:
        vx.io.write(pa.RecordBatchReader.from_batches(schema, batches()), path)
    except BaseException as e:  # noqa: BLE001 - a panic is one; the thread that writes raises it
        outcome.append(e)
