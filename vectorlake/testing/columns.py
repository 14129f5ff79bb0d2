"""Columns of every Arrow type that a data file may hold, with nulls and extreme values, for conformance
suites."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from typing import Final

import numpy as np
import pyarrow as pa

_DAY_MS: Final = 86_400_000


def _integers(kind: pa.DataType) -> pa.Array:
    info = np.iinfo(kind.to_pandas_dtype())
    return pa.array([info.min, None, 0, 1, info.max, None, 7], kind)


def _floats(kind: pa.DataType) -> pa.Array:
    info = np.finfo(kind.to_pandas_dtype())
    values = [0.0, -0.0, np.nan, np.inf, -np.inf, 1.5, float(info.max), float(info.tiny), -2.25]
    array = np.array(values, kind.to_pandas_dtype())
    return pa.concat_arrays([pa.array(array, kind), pa.nulls(2, kind)])


def _ticks(kind: pa.DataType, values: list[int | None]) -> pa.Array:
    storage = pa.int32() if kind.bit_width == 32 else pa.int64()
    return pa.array(values, storage).view(kind)


def _vectors(element: pa.DataType, dim: int, *, nulls: bool) -> pa.Array:
    rng = np.random.default_rng(dim)
    if pa.types.is_floating(element):
        flat = rng.standard_normal(9 * dim).astype(element.to_pandas_dtype())
        flat[1], flat[dim] = np.nan, np.inf
    else:
        info = np.iinfo(element.to_pandas_dtype())
        flat = rng.integers(info.min, info.max, 9 * dim, dtype=element.to_pandas_dtype(), endpoint=True)
    mask = pa.array([i in (0, 4) for i in range(9)]) if nulls else None
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, element), type=pa.list_(element, dim), mask=mask)


def _multivectors(element: pa.DataType, dim: int) -> pa.Array:
    vectors = _vectors(element, dim, nulls=False)
    offsets = pa.array([0, 2, 2, None, 5, 9], pa.int32())
    return pa.ListArray.from_arrays(offsets, vectors)


@cache
def columns() -> Mapping[str, pa.Array]:
    """A short column of every supported type by a name for it; each holds nulls unless its name says
    `required`."""
    utc, zone = "UTC", "Europe/Berlin"
    made: dict[str, pa.Array] = {}
    for kind in (
        pa.int8(),
        pa.int16(),
        pa.int32(),
        pa.int64(),
        pa.uint8(),
        pa.uint16(),
        pa.uint32(),
        pa.uint64(),
    ):
        made[str(kind)] = _integers(kind)
    for kind in (pa.float16(), pa.float32(), pa.float64()):
        made[str(kind)] = _floats(kind)
    made["bool"] = pa.array([True, None, False, True, False])
    made["int64-all-null"] = pa.nulls(5, pa.int64())
    made["string-all-null"] = pa.nulls(5, pa.string())
    made["decimal128"] = pa.array(
        [Decimal("1.25"), None, Decimal("-99999999.99"), Decimal("0.00")], pa.decimal128(10, 2)
    )
    made["decimal128-wide"] = pa.array([Decimal(10**37), None, -Decimal(10**37)], pa.decimal128(38, 0))
    made["decimal256"] = pa.array([Decimal(10) ** 60, None, Decimal(-7)], pa.decimal256(70, 3))
    texts = ["", None, "a", "Grüße, 世界 🌍", "x" * 300, "nul\0inside", "z" * 13, "y" * 12]
    for kind in (pa.string(), pa.large_string()):
        made[str(kind)] = pa.array(texts, kind)
    for kind in (pa.binary(), pa.large_binary()):
        made[str(kind)] = pa.array([b"", None, b"\x00\xff", b"q" * 300, b"\xff" * 70], kind)
    made["fixed_size_binary"] = pa.array([b"0123456789abcdef", None, bytes(16), b"\xff" * 16], pa.binary(16))
    made["date32"] = pa.array([dt.date(2024, 2, 29), None, dt.date(1, 1, 1), dt.date(9999, 12, 31)])
    made["date64"] = _ticks(pa.date64(), [0, None, _DAY_MS * 19_000, -_DAY_MS])
    for unit in ("s", "ms"):
        made[f"time32-{unit}"] = _ticks(pa.time32(unit), [0, None, 86_399, 1])
    for unit in ("us", "ns"):
        made[f"time64-{unit}"] = _ticks(pa.time64(unit), [0, None, 86_399_999_999, 1])
    for unit in ("s", "ms", "us", "ns"):
        ticks = [0, None, -1, 1_700_000_000, -62_135_596_800, 253_402_300_799]
        made[f"timestamp-{unit}"] = _ticks(pa.timestamp(unit), ticks)
        made[f"timestamp-{unit}-utc"] = _ticks(pa.timestamp(unit, utc), ticks)
        made[f"timestamp-{unit}-zone"] = _ticks(pa.timestamp(unit, zone), ticks)
        made[f"duration-{unit}"] = _ticks(pa.duration(unit), [0, None, -5, 2**62])
    lists = [[1, None, 3], None, [], [4], [None]]
    made["list"] = pa.array(lists, pa.list_(pa.int32()))
    made["large_list"] = pa.array(lists, pa.large_list(pa.int32()))
    made["list-string"] = pa.array([["a", None, ""], None, [], ["bc"]], pa.list_(pa.string()))
    made["list-named-child"] = pa.array(
        [[1, 2], None, []], pa.list_(pa.field("element", pa.int64(), nullable=False))
    )
    made["fixed_size_list-int"] = pa.array([[1, 2, 3], None, [4, None, 6]], pa.list_(pa.int32(), 3))
    made["fixed_size_list-string"] = pa.array([["a", "b"], None, [None, ""]], pa.list_(pa.string(), 2))
    made["fixed_size_list-bool"] = pa.array([[True, None], None, [False, False]], pa.list_(pa.bool_(), 2))
    made["fixed_size_list-struct"] = pa.array(
        [[{"a": 1}, None], None], pa.list_(pa.struct([("a", pa.int8())]), 2)
    )
    made["fixed_size_list-list"] = pa.array(
        [[[1], None], None, [[], [2, 3]]], pa.list_(pa.list_(pa.int16()), 2)
    )
    made["fixed_size_list-decimal"] = pa.array([[Decimal("1.5")] * 2, None], pa.list_(pa.decimal128(5, 1), 2))
    made["matrix"] = pa.array([[[1.0, 2.0], [3.0, 4.0]], None], pa.list_(pa.list_(pa.float32(), 2), 2))
    person = pa.struct([("name", pa.string()), ("age", pa.int32()), ("at", pa.timestamp("us", "UTC"))])
    made["struct"] = pa.array(
        [{"name": "a", "age": 1, "at": None}, None, {"name": None, "age": None, "at": 5}], person
    )
    made["map"] = pa.array([[("a", 1), ("b", None)], None, [], [("c", 3)]], pa.map_(pa.string(), pa.int64()))
    made["map-struct"] = pa.array(
        [[(1, {"x": 1.5})], None, [(2, None)]], pa.map_(pa.int32(), pa.struct([("x", pa.float32())]))
    )
    deep = pa.list_(
        pa.struct([("tags", pa.list_(pa.string())), ("m", pa.map_(pa.string(), pa.duration("us")))])
    )
    made["nested"] = pa.array(
        [
            [{"tags": ["x", None], "m": [("k", 5)]}, None],
            None,
            [],
            [{"tags": None, "m": None}, {"tags": [], "m": []}],
        ],
        deep,
    )
    made["struct-in-struct"] = pa.array(
        [{"in": {"d": Decimal("1.5"), "b": b"xyz"}}, {"in": None}, None],
        pa.struct([("in", pa.struct([("d", pa.decimal128(5, 1)), ("b", pa.binary(3))]))]),
    )
    for element in (pa.float32(), pa.float16(), pa.float64(), pa.int8(), pa.uint8()):
        for dim in (3, 128):
            made[f"vector-{element}-{dim}"] = _vectors(element, dim, nulls=True)
            made[f"vector-{element}-{dim}-required"] = _vectors(element, dim, nulls=False)
    made["vector-all-null"] = pa.nulls(4, pa.list_(pa.float32(), 8))
    made["multivector-float32"] = _multivectors(pa.float32(), 16)
    made["multivector-float16"] = _multivectors(pa.float16(), 128)
    made["struct-vector"] = pa.StructArray.from_arrays(
        [_vectors(pa.float32(), 4, nulls=True), pa.array(range(9), pa.int8())],
        ["v", "i"],
        mask=pa.array([i == 2 for i in range(9)]),
    )
    return made


def required(array: pa.Array) -> tuple[pa.Field, pa.Array]:
    """The column without its nulls, and a non-nullable field of its type named `c`."""
    return pa.field("c", array.type, nullable=False), array.drop_null()
