"""Arrow batches of a table as polars frames, and which types polars lacks."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from vectorlake import UnsupportedError


def schema_of(schema: pa.Schema) -> pl.Schema:
    """The schema under which polars shows a table's columns: vectors are arrays of their dimension.

    Raises:
        UnsupportedError: a type that polars lacks; names the column.
    """
    for field in schema:
        if _holds_decimal256(field.type):
            raise UnsupportedError(
                f"polars has no type for column {field.name!r}, which is {field.type}: choose other columns with columns="
            )
    return to_frame(pa.RecordBatch.from_pylist([], schema)).schema


def to_frame(batch: pa.RecordBatch) -> pl.DataFrame:
    """A batch as a frame, without a copy where polars has the same layout."""
    frame = pl.from_arrow(batch, rechunk=False)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _holds_decimal256(kind: pa.DataType) -> bool:
    # Asked before polars is, which panics.
    if pa.types.is_decimal256(kind):
        return True
    return any(_holds_decimal256(kind.field(i).type) for i in range(kind.num_fields))
