"""Column statistics gathered while batches are written: bounds, nulls and NaNs of each top-level column."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.formats.protocol import ColumnStats

BOUND_BYTES: Final = 64
"""Longer strings and binaries are cut to this many bytes in bounds."""

_MERGE_AT: Final = 256


class Statistics:
    """Statistics of a schema's columns over all batches added.

    Nested columns (vectors among them) and `counted_only` ones have their nulls counted and nothing else.
    """

    def __init__(self, schema: pa.Schema, *, counted_only: Collection[str] = ()) -> None:
        self._columns = {field.name: _column(field.type, field.name in counted_only) for field in schema}

    def add(self, batch: pa.RecordBatch) -> None:
        """Account for the rows of a batch that has the schema's columns."""
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            self._columns[name].add(column)

    def result(self) -> dict[str, ColumnStats]:
        """The statistics of the rows added so far, by column name."""
        return {name: column.result() for name, column in self._columns.items()}


class _Counted:
    """A column whose nulls are counted."""

    def __init__(self) -> None:
        self.nulls = 0

    def add(self, column: pa.Array) -> None:
        self.nulls += column.null_count

    def result(self) -> ColumnStats:
        return ColumnStats(None, None, self.nulls)


class _Bounded(_Counted):
    """A column whose values are ordered."""

    def __init__(self, kind: pa.DataType) -> None:
        super().__init__()
        self.kind = kind
        self.lows: list[pa.Scalar] = []
        self.highs: list[pa.Scalar] = []
        self.open_above = False

    def add(self, column: pa.Array) -> None:
        super().add(column)
        if column.null_count == len(column):
            return
        bounds = pc.min_max(self.comparable(column))
        self.extend(bounds["min"], bounds["max"])
        if len(self.lows) >= _MERGE_AT:
            self.merge()

    def comparable(self, column: pa.Array) -> pa.Array:
        """The column as a type that `min_max` knows, in the same order."""
        return column.view(pa.int64()) if pa.types.is_duration(self.kind) else column

    def extend(self, low: pa.Scalar, high: pa.Scalar) -> None:
        self.lows.append(low)
        self.highs.append(high)

    def merge(self) -> None:
        """Replace the bounds of many batches by one pair."""
        if len(self.lows) > 1:
            self.lows = [pc.min_max(_gathered(self.lows))["min"]]
        if len(self.highs) > 1:
            self.highs = [pc.min_max(_gathered(self.highs))["max"]]

    def result(self) -> ColumnStats:
        self.merge()
        low = self.lows[0].cast(self.kind) if self.lows else None
        high = self.highs[0].cast(self.kind) if self.highs and not self.open_above else None
        return ColumnStats(low, high, self.nulls)


class _Floating(_Bounded):
    """Floats: NaN is outside of all bounds and counted; a zero bound includes both zeros."""

    def __init__(self, kind: pa.DataType) -> None:
        super().__init__(kind)
        self.nans = 0

    def comparable(self, column: pa.Array) -> pa.Array:
        # There is no `min_max` of half floats; each is exact as a float.
        wide = column.cast(pa.float32()) if pa.types.is_float16(self.kind) else column
        self.nans += pc.sum(pc.is_nan(wide)).as_py() or 0
        return wide

    def extend(self, low: pa.Scalar, high: pa.Scalar) -> None:
        if not math.isnan(low.as_py()):  # NaN only if there is nothing else
            super().extend(low, high)

    def result(self) -> ColumnStats:
        self.merge()
        if not self.lows:
            return ColumnStats(None, None, self.nulls, self.nans)
        low, high = self.lows[0].as_py(), self.highs[0].as_py()
        # Arrow orders neither zero before the other, so a bound may be the wrong one of the two.
        low, high = (-0.0 if low == 0 else low), (0.0 if high == 0 else high)
        return ColumnStats(_float(low, self.kind), _float(high, self.kind), self.nulls, self.nans)


class _Bytes(_Bounded):
    """Strings and binaries, in byte order: the minimum is cut, the maximum cut and rounded up."""

    def extend(self, low: pa.Scalar, high: pa.Scalar) -> None:
        self.lows.append(pa.scalar(cut_below(low.as_py()), self.kind))
        above = cut_above(high.as_py())
        if above is None:
            self.open_above = True
        else:
            self.highs.append(pa.scalar(above, self.kind))


def _column(kind: pa.DataType, counted_only: bool) -> _Counted:
    t = pa.types
    if (
        counted_only
        or t.is_nested(kind)
        or t.is_null(kind)
        or t.is_dictionary(kind)
        or isinstance(kind, pa.BaseExtensionType)
    ):
        return _Counted()
    if t.is_floating(kind):
        return _Floating(kind)
    if t.is_string(kind) or t.is_large_string(kind) or t.is_binary(kind) or t.is_large_binary(kind):
        return _Bytes(kind)
    if t.is_fixed_size_binary(kind) and kind.byte_width > BOUND_BYTES:
        return _Counted()
    return _Bounded(kind)


def _gathered(scalars: list[pa.Scalar]) -> pa.Array:
    return pa.array(scalars, scalars[0].type)


def _float(value: float, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(value, pa.float64()).cast(kind)


def cut_below(value: str | bytes, most: int = BOUND_BYTES) -> str | bytes:
    """A prefix of at most `most` bytes (UTF-8, whole characters): not above any value that begins with it."""
    if isinstance(value, bytes):
        return value[:most]
    encoded = value.encode()
    return value if len(encoded) <= most else encoded[:most].decode(errors="ignore")


def cut_above(value: str | bytes, most: int = BOUND_BYTES) -> str | bytes | None:
    """The value if it is short; else a string of at most `most` bytes above it; None if there is none."""
    prefix = cut_below(value, most)
    if len(prefix) == len(value):
        return value
    if isinstance(prefix, bytes):
        kept = prefix.rstrip(b"\xff")
        return kept[:-1] + bytes([kept[-1] + 1]) if kept else None
    kept_text = prefix.rstrip("\U0010ffff")
    while kept_text:
        # The next character may need a byte more; then the one before is raised instead.
        raised = kept_text[:-1] + _next_character(kept_text[-1])
        if len(raised.encode()) <= most:
            return raised
        kept_text = kept_text[:-1].rstrip("\U0010ffff")
    return None


def _next_character(character: str) -> str:
    code = ord(character) + 1
    return chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)
