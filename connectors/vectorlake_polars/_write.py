"""Write frames into a table of a lake, lazy ones batch by batch, in one atomic commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import polars as pl
import pyarrow as pa

from vectorlake import Lake, Table
from vectorlake.extend import WriteMode, write_into


def write(
    frame: pl.DataFrame | pl.LazyFrame,
    lake: Lake,
    name: str,
    *,
    mode: str | WriteMode = WriteMode.APPEND,
    primary_key: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
) -> Table:
    """Write a frame into a table, in one atomic commit. A lazy frame is computed and written batch by batch.

    Args:
        frame: the rows. Columns of `pl.Array` become vectors.
        lake: where the table is.
        name: the table, `ns.items`.
        mode: `"append"`, `"overwrite"` (replace all rows), `"upsert"` (replace those of the same primary key) or
            `"create"` (with `primary_key` and `properties`).

    Returns:
        The table, at the version written.

    Raises:
        AlreadyExistsError: the table to create exists.
        NotFoundError: the table to write to does not.
        InvalidInputError: an unknown mode, or columns and values that don't fit; nothing is written.
        polars.exceptions.PolarsError: a lazy frame failed; nothing is written.
    """
    parsed = WriteMode.parse(mode)  # before a frame is computed
    return write_into(lake, name, _reader(frame), parsed, primary_key=primary_key, properties=properties)


def create_table(
    frame: pl.DataFrame | pl.LazyFrame,
    lake: Lake,
    name: str,
    *,
    primary_key: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
) -> Table:
    """Create a table from a frame: `write` with mode `"create"`."""
    return write(frame, lake, name, mode=WriteMode.CREATE, primary_key=primary_key, properties=properties)


def _reader(frame: pl.DataFrame | pl.LazyFrame) -> pa.RecordBatchReader:
    # With strings as views, which tables store as strings; the older layout has them as large ones.
    newest = pl.CompatLevel.newest()
    if isinstance(frame, pl.DataFrame):
        return frame.to_arrow(compat_level=newest).to_reader()
    schema = frame.collect_schema().to_frame().to_arrow(compat_level=newest).schema

    def batches() -> Iterator[pa.RecordBatch]:
        for part in frame.collect_batches(maintain_order=True):
            yield from part.to_arrow(compat_level=newest).to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())
