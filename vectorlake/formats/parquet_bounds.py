"""Row-group statistics of a Parquet file as bounds that filters prune by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vectorlake.expr import Bounds


def row_group_bounds(metadata: pq.FileMetaData, leaf: int, kind: pa.DataType) -> Bounds | None:
    """Bounds of one column in every row group; None where its statistics say nothing that can be relied on.

    Args:
        metadata: the file's footer.
        leaf: the Parquet column.
        kind: its Arrow type as the file reads back.
    """
    lows: list[Any] = []
    highs: list[Any] = []
    nulls: list[int | None] = []
    rows: list[int] = []
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        statistics = group.column(leaf).statistics
        low, high = _ends(statistics, kind)
        lows.append(low)
        highs.append(high)
        nulls.append(statistics.null_count if statistics is not None and statistics.has_null_count else None)
        rows.append(group.num_rows)
    try:
        low_array, high_array = _typed(lows, kind), _typed(highs, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        low_array = high_array = pa.nulls(len(rows), kind)
    if low_array.null_count == len(rows) and all(count is None for count in nulls):
        return None
    return Bounds(low_array, high_array, pa.array(nulls, pa.int64()), None, np.array(rows, np.int64))


def _ends(statistics: pq.Statistics | None, kind: pa.DataType) -> tuple[Any, Any]:
    t = pa.types
    if statistics is None or not statistics.has_min_max:
        return None, None
    if t.is_floating(kind):
        if t.is_float16(kind):
            return None, None
        low, high = statistics.min, statistics.max
        if math.isnan(low) or math.isnan(high):
            return None, None
        # Writers differ in which zero they keep.
        return (-0.0 if low == 0 else low), (0.0 if high == 0 else high)
    if t.is_temporal(kind):
        # The numbers themselves: as Python values they would lose nanoseconds. INT96 has no order.
        raw = statistics.physical_type in ("INT32", "INT64")
        return (statistics.min_raw, statistics.max_raw) if raw else (None, None)
    if t.is_integer(kind) or t.is_boolean(kind) or t.is_decimal(kind) or _is_text(kind):
        return statistics.min, statistics.max
    return None, None


def _is_text(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_binary(kind) or t.is_large_binary(kind))


def _typed(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_temporal(kind):
        return pa.array(values, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)
    return pa.array(values, kind)
