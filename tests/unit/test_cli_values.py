"""What the command line prints and parses: values as JSON and for people, widths of tables, types in words."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vectorlake as vl
from vectorlake.cli.output import allot
from vectorlake.cli.session import parse_names, parse_pairs, parse_version
from vectorlake.cli.typewords import parse_type
from vectorlake.cli.values import rows, short, size, to_json
from vectorlake.errors import InvalidInputError
from vectorlake.schema import describe, field_from_arrow

UTC = dt.UTC
NOON = dt.datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1, None]), [1, None]),
        (pa.array([1.5, math.nan, math.inf]), [1.5, None, None]),
        (pa.array([np.float16(0.5)], pa.float16()), [0.5]),
        (pa.array([[1, 2]], pa.list_(pa.float16(), 2)), [[1, 2]]),
        (pa.array([[[1, 2], [3, 4]]], pa.list_(pa.list_(pa.float32(), 2))), [[[1, 2], [3, 4]]]),
        (pa.array([decimal.Decimal("1.10")]), ["1.10"]),
        (pa.array([b"\x00\xff"]), ["AP8="]),
        (pa.array([NOON]), ["2026-01-31T12:00:00Z"]),
        (pa.array([NOON.replace(tzinfo=None)]), ["2026-01-31T12:00:00"]),
        (pa.array([1], pa.timestamp("ns")), ["1970-01-01T00:00:00.000000001"]),
        (pa.array([1], pa.timestamp("ns", "UTC")), ["1970-01-01T00:00:00.000000001Z"]),
        (pa.array([dt.date(2026, 1, 31)]), ["2026-01-31"]),
        (pa.array([dt.time(1, 2, 3)]), ["01:02:03"]),
        (pa.array([1], pa.time64("ns")), ["00:00:00.000000001"]),
        (pa.array([1_500_000_000], pa.duration("ns")), ["PT1.5S"]),
        (pa.array([{"a": 1, "b": [NOON]}]), [{"a": 1, "b": ["2026-01-31T12:00:00Z"]}]),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32())), [[["k", 1]]]),
        (pa.array([True, False]), [True, False]),
        (pa.array(['ü\n"']), ['ü\n"']),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_json_values(array: pa.Array, expected: list[Any]) -> None:
    batch = pa.record_batch([array], names=["x"])
    assert [json.loads(to_json(row)) for row in rows(batch)] == [{"x": value} for value in expected]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "·"),
        (True, "true"),
        (12345, "12345"),
        (0.1, "0.1"),
        (1 / 3, "0.3333"),
        (1e300, "1e+300"),
        (1234567.25, "1234567.25"),
        (float("nan"), "nan"),
        ("a\n  b", "a b"),
        ("x" * 100, "x" * 59 + "…"),
        (b"\x01\x02", "0102 (2 bytes)"),
        (b"0123456789", "3031323334353637… (10 bytes)"),
        ([0.123456, 0.5, 0.25, 1.0, 2.0], "[0.1235, 0.5, …] (5)"),
        ([1, 2], "[1, 2]"),
        ([[1.0] * 8, [2.0] * 8], "[[1, 1, …] (8), …] × 2"),
        ({"a": 1, "b": None}, "{a: 1, b: ·}"),
        (NOON, "2026-01-31 12:00:00Z"),
        (NOON.astimezone(dt.timezone(dt.timedelta(hours=5))), "2026-01-31 12:00:00Z"),
        (NOON.replace(tzinfo=None), "2026-01-31 12:00:00"),
    ],
)
def test_values_for_people(value: Any, expected: str) -> None:
    assert short(value) == expected


def test_sizes() -> None:
    assert [size(n) for n in (0, 999, 1000, 123_456, 5 * 10**9, 10**16)] == [
        "0 bytes", "999 bytes", "1 kB", "123 kB", "5 GB", "1e+04 TB",
    ]  # fmt: skip


@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=12), st.integers(20, 200))
def test_columns_fit(columns: list[tuple[int, bool]], room: int) -> None:
    wanted = [width for width, _ in columns]
    least = [width if whole else min(width, 10) for width, whole in columns]
    widths = allot(wanted, least, room)
    used = sum(widths) + 2 * (len(widths) - 1)
    assert all(low <= width <= high for low, width, high in zip(least, widths, wanted, strict=False))
    assert used <= room or len(widths) == 1
    # Nothing is cut, or left out, that has room.
    if len(widths) < len(wanted):
        assert sum(least[: len(widths) + 1]) + 2 * len(widths) > room
    assert widths == wanted[: len(widths)] or used >= room


TYPES: list[pa.DataType] = [
    pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.string(), pa.large_binary(), pa.binary(16),
    pa.date32(), pa.time32("ms"), pa.time64("ns"), pa.duration("us"), pa.timestamp("us"), pa.timestamp("ns", "Europe/Paris"),
    pa.decimal128(10, 2), pa.decimal256(50, 3), pa.list_(pa.string()), pa.map_(pa.string(), pa.list_(pa.int64())),
    pa.struct([("a", pa.int64()), ("b", pa.struct([("c", pa.timestamp("us", "UTC"))]))]), pa.list_(pa.string(), 3),
    vl.vector(384), vl.vector(8, "f16"), vl.vector(8, "f64"), vl.vector(8, "int8"), vl.multivector(128), vl.text(), vl.blob(),
    vl.geo(),
]  # fmt: skip


def _described(kind: pa.DataType) -> str:
    found = field_from_arrow(pa.field("x", kind), lambda: 1)
    return describe(found.type, found.logical)


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_types_are_read_as_schema_prints_them(kind: pa.DataType) -> None:
    words = _described(kind)
    assert _described(parse_type(words)) == words
    assert _described(parse_type(f" {words} ")) == words


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("bigint", pa.int64()),
        ("VARCHAR", pa.string()),
        ("double", pa.float64()),
        ("timestamp", pa.timestamp("us")),
        ("Vector( 3 , F16 )", vl.vector(3, "f16")),
        ("vector(16, binary)", vl.vector(16, "binary")),
        ("list(list(struct(a: int, b: map(string, double))))", pa.list_(pa.list_(pa.struct([
            ("a", pa.int32()), ("b", pa.map_(pa.string(), pa.float64()))])))),
    ],
)  # fmt: skip
def test_other_words_for_types(words: str, kind: pa.DataType) -> None:
    assert parse_type(words) == kind


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "types are written as"),
        ("strng", "did you mean 'string'"),
        ("vector", "write vector(384)"),
        ("vector(x)", "write vector(384)"),
        ("vector(3, f99)", "f99"),
        ("vector(-1)", "write vector"),
        ("list()", "1 parameter"),
        ("list(int, int)", "1 parameter"),
        ("list(strng)", "did you mean 'string'"),
        ("map(string)", "2 parameters"),
        ("struct(a)", "write struct"),
        ("decimal128(10)", "write decimal128"),
        ("decimal128(a, b)", "write decimal128"),
        ("timestamp(fortnights)", "write timestamp"),
        ("time32(ns)", "write time32"),
        ("fixed_list(string, x)", "write fixed_list"),
    ],
)
def test_words_that_are_no_type(words: str, says: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_type(words)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("3", 3),
        ("v1", "v1"),
        ("2026-01-31", dt.datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:00", NOON),
        ("2026-01-31T13:00:00+01:00", NOON),
        ("2026-01", "2026-01"),
    ],
)
def test_versions(text: str, version: object) -> None:
    assert parse_version(text) == version


def test_lists_and_pairs() -> None:
    assert parse_names(None) is None
    assert parse_names(" a, b,,c ") == ["a", "b", "c"]
    assert parse_pairs(["a=1", "b=x=y", "c="], "--p") == {"a": "1", "b": "x=y", "c": ""}
    for wrong in ("a", "=1"):
        with pytest.raises(InvalidInputError, match="--p takes key=value"):
            parse_pairs([wrong], "--p")
