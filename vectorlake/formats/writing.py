"""The writer that all formats share: check, lower, count and regroup batches, and hand them to a format's
sink."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from vectorlake.errors import AlreadyExistsError, InvalidInputError, UnsupportedError
from vectorlake.formats.batches import Regrouped
from vectorlake.formats.checksum import checksum_of
from vectorlake.formats.failures import is_panic, writing
from vectorlake.formats.lowering import converted
from vectorlake.formats.protocol import WriteOptions, WrittenFile
from vectorlake.formats.stats import Statistics


class Sink(Protocol):
    """A file being written by a format's library, in the format's own types."""

    def write(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None:
        """Stop and let go of the file, finished or not."""
        ...


class DataFileWriter:
    """A `FileWriter` over a format's `Sink`.

    Args:
        path: where the file goes; nothing may be there.
        schema: the logical schema of the batches.
        physical: the schema that the sink takes.
        options: of blob columns only nulls are counted.
        group_rows: rows of each batch that the sink gets; None leaves batches as they come.
        start: opens the sink.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        *,
        physical: pa.Schema,
        options: WriteOptions,
        group_rows: int | None,
        start: Callable[[], Sink],
    ) -> None:
        self._path = path
        self._schema = schema
        self._physical = physical
        self._groups = Regrouped(group_rows) if group_rows else None
        self._statistics = Statistics(schema, counted_only=options.blob_columns)
        self._rows = 0
        self._done = False
        with writing(path):
            if path.exists():
                raise AlreadyExistsError(f"{path} exists already: data files are never overwritten")
            if not path.parent.is_dir():
                raise FileNotFoundError(f"there is no folder {path.parent}")
            self._sink = start()

    def write(self, batch: pa.RecordBatch) -> None:
        if self._done:
            raise InvalidInputError(f"{self._path} is closed: nothing can be written to it any more")
        if not batch.schema.equals(self._schema, check_metadata=False):
            raise InvalidInputError(
                f"a batch for {self._path} has the schema {_line(batch.schema)}, the file has "
                f"{_line(self._schema)}"
            )
        if not batch.num_rows:
            return
        with writing(self._path):
            self._statistics.add(batch)
            lowered = converted(_whole(batch), self._physical)
            if self._groups is None:
                self._sink.write(lowered)
            else:
                for group in self._groups.push(lowered):
                    self._sink.write(group)
            self._rows += batch.num_rows

    def close(self) -> WrittenFile:
        if self._done:
            raise InvalidInputError(f"{self._path} is closed already")
        with writing(self._path):
            if self._groups is not None:
                for group in self._groups.rest():
                    self._sink.write(group)
            self._sink.close()
            self._done = True
            size = os.stat(self._path).st_size
            return WrittenFile(self._rows, size, checksum_of(self._path), self._statistics.result())

    def abort(self) -> None:
        if not self._done:
            self._done = True
            try:
                self._sink.abort()
            except BaseException as e:
                # The file goes away: how its library failed to finish it concerns nobody. Ctrl-C does.
                if not isinstance(e, Exception) and not is_panic(e):
                    raise
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


def refuse(format_name: str, schema: pa.Schema, unsupported: Sequence[str]) -> None:
    """Raise `UnsupportedError` naming column and type if a format can't hold some columns of a schema."""
    if unsupported:
        named = ", ".join(f"{name!r} ({schema.field(name).type})" for name in unsupported)
        raise UnsupportedError(
            f"the {format_name} format can't hold column{'s' if len(unsupported) > 1 else ''} {named}: "
            "choose another format for it, or another type"
        )


def _whole(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with structs that are windows of longer ones copied: Lance and Vortex fail on structs inside those."""
    if not any(pa.types.is_struct(column.type) and column.offset for column in batch.columns):
        return batch
    columns = [
        pa.concat_arrays([column, column.slice(0, 0)])
        if pa.types.is_struct(column.type) and column.offset
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _line(schema: pa.Schema) -> str:
    text = ", ".join(f"{f.name}: {f.type}{'' if f.nullable else ' not null'}" for f in schema)
    return text if len(text) <= 400 else text[:399] + "…"
