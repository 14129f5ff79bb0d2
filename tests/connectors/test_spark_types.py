"""Types in Spark and back: what shows as what, what a table made of a frame has, and what is refused."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from spark_support import session

import vectorlake as vl

vectorlake_spark = pytest.importorskip("vectorlake_spark")

from pyspark.sql import types as spark_types  # noqa: E402
from pyspark.sql.types import StructField, StructType  # noqa: E402
from vectorlake_spark._types import arrow_schema, shown_array, spark_schema, stored_schema  # noqa: E402

UTC = dt.UTC

SHOWN = [
    (pa.int8(), "tinyint"),
    (pa.uint8(), "smallint"),
    (pa.uint16(), "int"),
    (pa.uint32(), "bigint"),
    (pa.uint64(), "decimal(20,0)"),
    (pa.float16(), "float"),
    (pa.float64(), "double"),
    (pa.large_string(), "string"),
    (pa.large_binary(), "binary"),
    (pa.binary(4), "binary"),
    (pa.date64(), "date"),
    (pa.decimal128(10, 2), "decimal(10,2)"),
    (pa.decimal256(38, 4), "decimal(38,4)"),
    (pa.decimal256(50, 4), "string"),
    (pa.timestamp("ms"), "timestamp_ntz"),
    (pa.timestamp("ns", "Europe/Paris"), "timestamp"),
    (pa.time32("s"), "time(6)"),
    (pa.duration("ms"), "interval day to second"),
    (vl.vector(3, "f16"), "array<float>"),
    (vl.vector(3, "int8"), "array<tinyint>"),
    (vl.vector(16, "binary"), "array<smallint>"),
    (vl.multivector(2), "array<array<float>>"),
    (pa.uuid(), "binary"),
    (pa.large_list(pa.uint8()), "array<smallint>"),
    (pa.map_(pa.string(), pa.uint32()), "map<string,bigint>"),
    (pa.struct([("a", pa.float16()), ("b", pa.list_(pa.int8(), 2))]), "struct<a:float,b:array<tinyint>>"),
]


@pytest.mark.parametrize(("kind", "shown"), SHOWN, ids=[str(kind) for kind, _ in SHOWN])
def test_every_type_shows_and_comes_back(kind: pa.DataType, shown: str) -> None:
    schema = pa.schema([pa.field("x", kind), pa.field("y", kind, nullable=False)])
    spark = spark_schema(schema)
    assert [field.dataType.simpleString() for field in spark] == [shown, shown]
    assert [field.nullable for field in spark] == [True, False]
    stored = stored_schema(StructType.fromJson(spark.jsonValue()))
    assert stored == schema


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([[1.0, 2.0], None, [3.0, 4.0]], vl.vector(2, "f16")),
        ([[[1, 2], [3, 4]], None, []], vl.multivector(2, "int8")),
        ([{"a": 1.5, "b": [1, 2]}, None, {"a": None, "b": None}], SHOWN[-1][0]),
        ([[("k", 1)], None, []], pa.map_(pa.string(), pa.uint32())),
        ([[{"v": [1, 2]}], [], None], pa.list_(pa.struct([("v", pa.list_(pa.uint8(), 2))]))),
        ([2**64 - 1, None, 0], pa.uint64()),
        ([None, None, None], vl.vector(2)),
    ],
)
def test_arrays_show_with_nulls_and_offsets(values: list[Any], kind: pa.DataType) -> None:
    wanted = arrow_schema(spark_schema(pa.schema([pa.field("x", kind)]))).field(0).type
    whole = pa.array([values[0], *values], kind)
    for array, expected in (
        (whole, [values[0], *values]),
        (whole[1:], values),
        (whole[2:3], values[1:2]),
        (whole[:0], []),
    ):
        shown = shown_array(array, wanted)
        shown.validate(full=True)
        assert shown.type == wanted
        found = [int(v) if isinstance(v, Decimal) else v for v in shown.to_pylist()]
        assert found == expected


def test_a_marked_column_is_another_type_once_it_was_changed() -> None:
    marked = spark_schema(pa.schema([pa.field("x", vl.vector(3, "f16"))]))
    marked.fields[0].dataType = spark_types.StringType()
    assert stored_schema(marked).field("x").type == pa.string()


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({"x": "three"}, "a dimension and maybe an element, such as '384'"),
        ({"x": "3, f17"}, "unknown vector element 'f17'"),
        ({"y": "3"}, "column 'y' is no array, but bigint"),
        ({"z": "3"}, "'vector.z' names no column"),
    ],
)
def test_vectors_that_are_none_are_refused(vectors: dict[str, str], message: str) -> None:
    numbers = spark_types.ArrayType(spark_types.FloatType())
    schema = StructType([StructField("x", numbers), StructField("y", spark_types.LongType())])
    with pytest.raises(vl.InvalidInputError, match=message):
        stored_schema(schema, vectors)


def test_types_that_no_table_has_are_refused() -> None:
    months = StructType([StructField("x", spark_types.YearMonthIntervalType())])
    with pytest.raises(
        vl.UnsupportedError, match="column 'x' is interval year to month, which no table can hold"
    ):
        stored_schema(months)


@pytest.mark.slow
def test_a_table_with_every_type_is_copied_through_spark(tmp_path: Path) -> None:
    lake = vl.connect(tmp_path / "lake")
    columns = {
        "id": pa.array([1, 2, 3]),
        "u8": pa.array([255, None, 0], pa.uint8()),
        "u64": pa.array([2**64 - 1, None, 0], pa.uint64()),
        "f16": pa.array(np.array([1.5, -0.0, 2], "f2")),
        "dec": pa.array([Decimal("12.34"), None, Decimal(0)], pa.decimal256(38, 2)),
        "at": pa.array([dt.datetime(2024, 1, 2, 3, tzinfo=UTC), None, dt.datetime(1950, 1, 1, tzinfo=UTC)], pa.timestamp("ms", "UTC")),
        "local": pa.array([dt.datetime(2024, 1, 2, 3, 4, 5, 6), None, dt.datetime(1950, 1, 1)], pa.timestamp("us")),
        "day": pa.array([dt.date(2024, 2, 29), None, dt.date(1600, 1, 1)]),
        "time": pa.array([dt.time(23, 59, 59, 999999), None, dt.time(0)], pa.time64("us")),
        "dur": pa.array([dt.timedelta(microseconds=7), None, dt.timedelta(days=-1)], pa.duration("us")),
        "fixed": pa.array([b"abcd", None, b"\0\0\0\0"], pa.binary(4)),
        "blob": pa.array([b"x" * 100, None, b""], pa.large_binary()),
        "v16": pa.array([[1, 2], None, [0.5, -1]], vl.vector(2, "f16")),
        "v8": pa.array([[1, -2], None, [127, -128]], vl.vector(2, "int8")),
        "mv": pa.array([[[1, 2], [3, 4]], None, []], vl.multivector(2)),
        "s": pa.array([{"a": 1.5, "b": ["x", None]}, None, {"a": None, "b": []}], pa.struct([("a", pa.float32()), ("b", pa.list_(pa.string()))])),
        "m": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int16())),
    }  # fmt: skip
    columns |= {
        "text": pa.ExtensionArray.from_storage(vl.text(), pa.array(["words", None, ""])),
        "geo": pa.ExtensionArray.from_storage(vl.geo(), pa.array([b"wkb", None, b""])),
    }
    table = lake.create_table("ns.typed", pa.table(columns))
    spark = session()
    copy = vectorlake_spark.write(vectorlake_spark.read(spark, table), lake, "ns.copy")
    assert copy.schema == table.schema
    assert copy.to_arrow().sort_by("id").equals(table.to_arrow())


@pytest.mark.slow
def test_finer_times_than_spark_s_are_refused_by_name(tmp_path: Path) -> None:
    lake = vl.connect(tmp_path / "lake")
    table = lake.create_table("ns.fine", {"id": [1], "at": pa.array([1], pa.timestamp("ns"))})
    with pytest.raises(Exception, match=r"column 'at' holds values that Spark's type can't"):
        vectorlake_spark.read(session(), table).collect()
    assert vectorlake_spark.read(session(), table, columns=["id"]).count() == 1
