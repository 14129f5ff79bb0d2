"""Importing Iceberg tables: every type, partitioning, evolution, name mapping, statistics; nothing of the source is copied."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import vectorlake_iceberg
from iceberg_support import HandMade, digest, new_catalog, rows_of
from pyiceberg import types as ice
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table as IcebergTable
from pyiceberg.transforms import BucketTransform, DayTransform, IdentityTransform, TruncateTransform

import vectorlake as vl
from vectorlake.errors import (
    AlreadyExistsError,
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    UnsupportedError,
)
from vectorlake.store.location import parse_location
from vectorlake.testing.s3 import S3Server

UTC = dt.UTC
MOMENT = dt.datetime(2024, 2, 29, 12, 30, 15, 123456)


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    return vl.connect(tmp_path / "lake")


def same(table: vl.Table, source: IcebergTable) -> None:
    """Both read the same rows, and the columns have the source's names in its order."""
    expected = source.scan().to_arrow()
    found = table.to_arrow()
    assert found.column_names == expected.column_names
    assert rows_of(found) == rows_of(expected)


STRUCT = ice.StructType(
    ice.NestedField(101, "a", ice.IntegerType(), required=False),
    ice.NestedField(102, "b", ice.ListType(103, ice.StringType(), element_required=False), required=False),
)
# (Iceberg type, Arrow type in a file, values, the type that the table shows)
TYPES: list[tuple[str, ice.IcebergType, pa.DataType, list[Any], pa.DataType]] = [
    ("boolean", ice.BooleanType(), pa.bool_(), [True, False, None], pa.bool_()),
    ("int", ice.IntegerType(), pa.int32(), [-(2**31), 2**31 - 1, None], pa.int32()),
    ("long", ice.LongType(), pa.int64(), [-(2**63), 2**63 - 1, None], pa.int64()),
    ("float", ice.FloatType(), pa.float32(), [float("nan"), -0.0, float("inf"), None], pa.float32()),
    ("double", ice.DoubleType(), pa.float64(), [1e308, float("nan"), None], pa.float64()),
    ("decimal", ice.DecimalType(9, 2), pa.decimal128(9, 2), [Decimal("-1234567.89"), Decimal("0.01"), None], pa.decimal128(9, 2)),
    ("decimal_wide", ice.DecimalType(38, 10), pa.decimal128(38, 10), [Decimal("1234567890123456789012345678.0123456789"), None],
     pa.decimal128(38, 10)),
    ("date", ice.DateType(), pa.date32(), [dt.date(1, 1, 1), dt.date(9999, 12, 31), None], pa.date32()),
    ("time", ice.TimeType(), pa.time64("us"), [dt.time(23, 59, 59, 999999), dt.time(0), None], pa.time64("us")),
    ("timestamp", ice.TimestampType(), pa.timestamp("us"), [MOMENT, dt.datetime(1900, 1, 1), None], pa.timestamp("us")),
    ("timestamptz", ice.TimestamptzType(), pa.timestamp("us", "UTC"), [MOMENT.replace(tzinfo=UTC), None], pa.timestamp("us", "UTC")),
    ("string", ice.StringType(), pa.string(), ["", "ä💡", "x" * 500, None], pa.string()),
    ("uuid", ice.UUIDType(), pa.uuid(), [uuid.UUID(int=7).bytes, uuid.UUID(int=2**127).bytes, None], pa.uuid()),
    ("fixed", ice.FixedType(3), pa.binary(3), [b"abc", b"\0\0\0", None], pa.binary(3)),
    ("binary", ice.BinaryType(), pa.binary(), [b"", b"\xff" * 40, None], pa.binary()),
    ("list", ice.ListType(100, ice.LongType(), element_required=False), pa.list_(pa.int64()), [[1, None], [], None], pa.list_(pa.int64())),
    ("list_of_struct", ice.ListType(100, STRUCT, element_required=False),
     pa.list_(pa.struct([("a", pa.int32()), ("b", pa.list_(pa.string()))])), [[{"a": 1, "b": ["x", None]}, None], None], pa.null()),
    ("struct", STRUCT, pa.struct([("a", pa.int32()), ("b", pa.list_(pa.string()))]),
     [{"a": 1, "b": ["x"]}, {"a": None, "b": None}, None], pa.null()),
    ("map", ice.MapType(100, ice.StringType(), 110, ice.DoubleType(), value_required=False),
     pa.map_(pa.string(), pa.float64()), [[("k", 1.5), ("l", None)], [], None], pa.null()),
    ("map_of_list", ice.MapType(100, ice.IntegerType(), 110, ice.ListType(111, ice.DateType(), element_required=False), value_required=False),
     pa.map_(pa.int32(), pa.list_(pa.date32())), [[(1, [dt.date(2020, 1, 1)])], None], pa.null()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "arrow", "values", "shown"), [case[1:] for case in TYPES], ids=[case[0] for case in TYPES]
)
def test_every_type(
    tmp_path: Path,
    lake: vl.Lake,
    kind: ice.IcebergType,
    arrow: pa.DataType,
    values: list[Any],
    shown: pa.DataType,
) -> None:
    schema = Schema(
        ice.NestedField(1, "id", ice.LongType(), required=True), ice.NestedField(2, "x", kind, required=False)
    )
    source = new_catalog(tmp_path / "source").create_table("ns.t", schema)
    storage = arrow.storage_type if isinstance(arrow, pa.BaseExtensionType) else arrow
    column = pa.array(values, storage)
    if storage is not arrow:
        column = pa.ExtensionArray.from_storage(arrow, column)
    fields = [pa.field("id", pa.int64(), nullable=False), pa.field("x", arrow)]
    source.append(pa.table([pa.array(range(len(values)), pa.int64()), column], schema=pa.schema(fields)))
    table = vectorlake_iceberg.import_table(source, lake, "t")
    same(table, source)
    assert shown == pa.null() or table.schema.field("x").type == shown
    assert not table.schema.field("id").nullable
    assert table.count("x IS NULL") == source.scan().to_arrow()["x"].null_count
    plain = [value for value in values if value is not None and value == value]
    if not pa.types.is_nested(arrow) and storage is arrow:
        # Bounds must not hide a value that is there.
        for value in plain:
            assert (
                table.scan(filter=pa.compute.field("x") == pa.scalar(value, arrow))
                .to_arrow()["x"]
                .to_pylist()
                .count(value)
                >= 1
            )


def test_types_that_only_v3_has(tmp_path: Path, lake: vl.Lake) -> None:
    schema = Schema(
        ice.NestedField(1, "naive", ice.TimestampNanoType(), required=False),
        ice.NestedField(2, "zoned", ice.TimestamptzNanoType(), required=False),
        ice.NestedField(3, "nothing", ice.UnknownType(), required=False),
        ice.NestedField(4, "added", ice.IntegerType(), required=False, initial_default=7),
        ice.NestedField(5, "day", ice.DateType(), required=True, initial_default="2024-02-29"),
    )
    source = HandMade(tmp_path / "source", schema, version=3)
    nanos = pa.array([1, 1_700_000_000_123_456_789, None], pa.int64())
    source.commit(
        [
            source.data(
                pa.table(
                    {"naive": nanos.cast(pa.timestamp("ns")), "zoned": nanos.cast(pa.timestamp("ns", "UTC"))}
                ),
                stats=False,
            )
        ]
    )
    table = vectorlake_iceberg.import_table(source.metadata, lake, "t")
    found = table.to_arrow()
    assert found["naive"].cast(pa.int64()).to_pylist() == nanos.to_pylist()
    assert found.schema.field("zoned").type == pa.timestamp("ns", "UTC")
    assert found["nothing"].null_count == 3
    assert found["added"].to_pylist() == [7, 7, 7]
    assert found["day"].to_pylist() == [dt.date(2024, 2, 29)] * 3


def test_an_import_copies_nothing_and_own_columns_write_only_own_files(tmp_path: Path, lake: vl.Lake) -> None:
    source = new_catalog(tmp_path / "source").create_table(
        "ns.t", pa.schema([("id", pa.int64()), ("text", pa.string())])
    )
    for start in range(0, 40, 10):
        source.append(
            pa.table({"id": range(start, start + 10), "text": [f"text {i}" * 100 for i in range(10)]})
        )
    before = digest(tmp_path / "source")
    table = vectorlake_iceberg.import_table(source, lake, "ns.t", properties={"owner": "me"})
    assert not list((tmp_path / "lake").rglob("*.parquet"))
    assert {path.parent.name for path in (tmp_path / "lake").rglob("*") if path.is_file()} == {"metadata"}
    table.add_column(
        "vec", lambda batch: [[i.as_py(), 1.0] for i in batch["id"]], type=vl.vector(2), inputs=["id"]
    )
    assert table.to_arrow()["vec"].to_pylist() == [[float(i), 1.0] for i in range(40)]
    assert digest(tmp_path / "source") == before
    assert table.snapshot.schema.field("vec").id >= 1_000_000_000
    assert table.properties["owner"] == "me"
    assert table.at(1).schema.names == ["id", "text"]
    assert table.verify() == []
    state = vectorlake_iceberg.source_of(table)
    assert state is not None
    assert (state.table_uuid, state.snapshot_id) == (
        str(source.metadata.table_uuid),
        source.current_snapshot().snapshot_id,
    )
    assert (state.catalog, state.identifier) == ("test", "ns.t")
    assert vectorlake_iceberg.source_of(lake.create_table("own", {"id": [1]})) is None


PARTITIONS = [
    ("identity", PartitionField(2, 1000, IdentityTransform(), "p")),
    ("bucket", PartitionField(2, 1000, BucketTransform(4), "p")),
    ("truncate", PartitionField(2, 1000, TruncateTransform(1), "p")),
    ("day", PartitionField(3, 1000, DayTransform(), "p")),
]


@pytest.mark.parametrize("field", [case[1] for case in PARTITIONS], ids=[case[0] for case in PARTITIONS])
def test_partitioned_tables(tmp_path: Path, lake: vl.Lake, field: PartitionField) -> None:
    schema = Schema(
        ice.NestedField(1, "id", ice.LongType(), required=False),
        ice.NestedField(2, "kind", ice.StringType(), required=False),
        ice.NestedField(3, "at", ice.TimestampType(), required=False),
    )
    source = new_catalog(tmp_path / "source").create_table(
        "ns.t", schema, partition_spec=PartitionSpec(field)
    )
    rows = {
        "id": range(12),
        "kind": [None if i % 5 == 4 else "abc"[i % 3] * (i % 4) for i in range(12)],
        "at": [dt.datetime(2024, 1, 1 + i % 3, i) for i in range(12)],
    }
    source.append(
        pa.table(
            rows, schema=pa.schema([("id", pa.int64()), ("kind", pa.string()), ("at", pa.timestamp("us"))])
        )
    )
    table = vectorlake_iceberg.import_table(source, lake, "t")
    same(table, source)
    for condition in (
        "kind = 'aaa'",
        "kind IS NULL",
        "at < TIMESTAMP '2024-01-02 00:00:00'",
        "id >= 6 AND kind <> 'b'",
    ):
        expected = vl.connect("memory://").create_table("t", table.to_arrow()).count(condition)
        assert table.count(condition) == expected


def test_identity_partition_values_fill_in_for_columns_that_files_lack(tmp_path: Path, lake: vl.Lake) -> None:
    schema = Schema(
        ice.NestedField(1, "id", ice.LongType(), required=False),
        ice.NestedField(2, "kind", ice.StringType(), required=False),
        ice.NestedField(3, "day", ice.DateType(), required=False),
        ice.NestedField(4, "amount", ice.DecimalType(9, 2), required=False),
    )
    spec = PartitionSpec(
        PartitionField(2, 1000, IdentityTransform(), "kind"),
        PartitionField(3, 1001, IdentityTransform(), "day"),
        PartitionField(4, 1002, IdentityTransform(), "amount"),
    )
    source = HandMade(tmp_path / "source", schema, spec=spec)
    days = (dt.date(2024, 2, 29) - dt.date(1970, 1, 1)).days
    source.commit(
        [
            source.data(pa.table({"id": [1, 2]}), partition=("a", days, Decimal("1.50"))),
            source.data(pa.table({"id": [3]}), partition=(None, None, None)),
        ]
    )
    table = vectorlake_iceberg.import_table(source.metadata, lake, "t")
    expected = [("a", dt.date(2024, 2, 29), Decimal("1.50"))] * 2 + [(None, None, None)]
    found = table.to_arrow()
    assert (
        list(zip(*(found[name].to_pylist() for name in ("kind", "day", "amount")), strict=True)) == expected
    )
    assert table.count("kind = 'a'") == 2
    assert table.count("kind IS NULL") == 1
    assert table.count("day = DATE '2024-02-29'") == 2


def test_schema_evolution_before_the_import(tmp_path: Path, lake: vl.Lake) -> None:
    source = new_catalog(tmp_path / "source").create_table(
        "ns.t",
        pa.schema(
            [
                ("id", pa.int32()),
                ("old", pa.string()),
                ("f", pa.float32()),
                ("s", pa.struct([("x", pa.int32()), ("y", pa.string())])),
                ("gone", pa.string()),
                ("l", pa.list_(pa.struct([("u", pa.int32())]))),
                ("d", pa.decimal128(5, 2)),
            ]
        ),
    )
    source.append(
        pa.table(
            {
                "id": [1, -2],
                "old": ["a", None],
                "f": [0.1, float("nan")],
                "s": [{"x": 1, "y": "p"}, None],
                "gone": ["g", "h"],
                "l": [[{"u": 1}, {"u": None}], None],
                "d": [Decimal("1.25"), None],
            },
            schema=source.schema().as_arrow(),
        )
    )
    with source.update_schema() as update:
        update.rename_column("old", "new").delete_column("gone").update_column("id", ice.LongType())
        update.update_column("f", ice.DoubleType()).update_column("s.x", ice.LongType()).update_column(
            "d", ice.DecimalType(12, 2)
        )
    with source.update_schema() as update:
        update.rename_column("s.y", "z").add_column(("s", "w"), ice.BooleanType()).add_column(
            "gone", ice.LongType()
        )
        update.add_column(("l", "v"), ice.StringType()).move_first("new").update_column(
            "l.element.u", ice.LongType()
        )
    source.append(
        pa.table(
            {
                "new": ["b"],
                "id": [2**40],
                "f": [1e300],
                "s": [{"x": 2**40, "z": "q", "w": True}],
                "gone": [5],
                "l": [[{"u": 2**40, "v": "v"}]],
                "d": [Decimal("9999999999.99")],
            },
            schema=source.schema().as_arrow(),
        )
    )
    table = vectorlake_iceberg.import_table(source, lake, "t")
    same(table, source)
    # Bounds of files from before the promotion are narrower, and still prune rightly.
    assert table.count("id < 0") == 1
    assert table.count("id > 1000000") == 1
    assert table.count("f > 0.05") == 2
    assert table.count("d = 1.25") == 1


def test_files_without_ids_are_read_by_name_mapping(tmp_path: Path, lake: vl.Lake) -> None:
    schema = Schema(
        ice.NestedField(1, "id", ice.LongType(), required=False),
        ice.NestedField(2, "title", ice.StringType(), required=False),
        ice.NestedField(
            3,
            "s",
            ice.StructType(ice.NestedField(4, "inner", ice.LongType(), required=False)),
            required=False,
        ),
        ice.NestedField(5, "tags", ice.ListType(6, ice.StringType(), element_required=False), required=False),
    )
    mapping = [
        {"field-id": 1, "names": ["id", "identity"]},
        {"field-id": 2, "names": ["title", "name"]},
        {"field-id": 3, "names": ["s"], "fields": [{"field-id": 4, "names": ["inner", "nested"]}]},
        {"field-id": 5, "names": ["tags"], "fields": [{"field-id": 6, "names": ["element"]}]},
    ]
    source = HandMade(
        tmp_path / "source", schema, properties={"schema.name-mapping.default": json.dumps(mapping)}
    )
    rows = pa.table(
        {
            "name": ["a", "b"],
            "unmapped": [0, 0],
            "identity": pa.array([1, 2], pa.int64()),
            "s": pa.array([{"nested": 5}, None], pa.struct([("nested", pa.int64())])),
            "tags": [["x"], []],
        }
    )
    source.commit([source.data(rows, ids=False, stats=False)])
    table = vectorlake_iceberg.import_table(source.metadata, lake, "t")
    assert table.to_arrow().to_pylist() == [
        {"id": 1, "title": "a", "s": {"inner": 5}, "tags": ["x"]},
        {"id": 2, "title": "b", "s": None, "tags": []},
    ]
    source.properties["schema.name-mapping.default"] = "{"
    source.write_metadata()
    with pytest.raises(InvalidInputError, match="name-mapping"):
        vectorlake_iceberg.import_table(source.metadata, lake, "u")


@pytest.mark.parametrize("version", ["1", "2"])
def test_versions_snapshots_and_empty_tables(tmp_path: Path, lake: vl.Lake, version: str) -> None:
    schema = pa.schema([("id", pa.int64())])
    source = new_catalog(tmp_path / "source").create_table(
        "ns.t", schema, properties={"format-version": version}
    )
    empty = vectorlake_iceberg.import_table(source, lake, "empty")
    assert (len(empty), empty.schema.names) == (0, ["id"])
    source.append(pa.table({"id": [1, 2]}))
    first = source.current_snapshot().snapshot_id
    source.append(pa.table({"id": [3]}))
    same(vectorlake_iceberg.import_table(source, lake, "t"), source)
    older = vectorlake_iceberg.import_table(source, lake, "older", snapshot_id=first)
    assert older.to_arrow()["id"].to_pylist() == [1, 2]
    vectorlake_iceberg.sync(older, source)
    same(older, source)
    vectorlake_iceberg.sync(empty)
    same(empty, source)
    with pytest.raises(NotFoundError, match="no snapshot 17"):
        vectorlake_iceberg.import_table(source, lake, "none", snapshot_id=17)


@pytest.mark.parametrize("uri", ["", "file:", "file://"])
def test_sources_by_path(tmp_path: Path, lake: vl.Lake, uri: str) -> None:
    schema = Schema(ice.NestedField(1, "id", ice.LongType(), required=False))
    source = HandMade(tmp_path / "a source", schema)
    source.commit([source.data(pa.table({"id": [1, 2]}), uri=uri)])
    source.commit([source.data(pa.table({"id": [3]}), uri=uri)])
    for name, place in (("file", source.metadata), ("text", str(source.metadata)), ("folder", source.folder),
                        ("uri", f"file://{source.metadata}")):  # fmt: skip
        table = vectorlake_iceberg.import_table(place, lake, name)
        assert table.to_arrow()["id"].to_pylist() == [1, 2, 3], place
    with pytest.raises(NotFoundError, match="metadata"):
        vectorlake_iceberg.import_table(tmp_path / "nowhere", lake, "nowhere")
    (source.folder / "metadata" / f"v{source.number}-other.metadata.json").write_text("{}")
    with pytest.raises(InvalidInputError, match="same number"):
        vectorlake_iceberg.import_table(source.folder, lake, "two")
    with pytest.raises(InvalidInputError, match="pyiceberg table"):
        vectorlake_iceberg.import_table(17, lake, "number")  # type: ignore[arg-type]
    broken = tmp_path / "broken.metadata.json"
    broken.write_text('{"location": ')
    with pytest.raises(CorruptDataError, match="broken"):
        vectorlake_iceberg.import_table(broken, lake, "broken")
    with pytest.raises(AlreadyExistsError):
        vectorlake_iceberg.import_table(source.metadata, lake, "file")


def test_missing_and_changed_source_files_are_named(tmp_path: Path, lake: vl.Lake) -> None:
    source = new_catalog(tmp_path / "source").create_table("ns.t", pa.schema([("id", pa.int64())]))
    source.append(pa.table({"id": [1, 2, 3]}))
    source.append(pa.table({"id": [4, 5, 6]}))
    table = vectorlake_iceberg.import_table(source, lake, "t")
    path = Path("/" + parse_location(next(iter(table.view.fragments())).files[0].path).path)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0")
    with pytest.raises(CorruptDataError, match=path.name):
        lake.table("t").to_arrow()
    with pytest.raises(CorruptDataError, match=path.name):
        vectorlake_iceberg.import_table(source, lake, "again")
    path.unlink()
    with pytest.raises(CorruptDataError, match=f"{path.name}.*missing"):
        lake.table("t").to_arrow()
    with pytest.raises(CorruptDataError, match=f"{path.name}.*missing"):
        vectorlake_iceberg.import_table(source, lake, "again")
    assert [finding.path.rpartition("/")[2] for finding in lake.table("t").verify()] == [path.name]
    assert lake.tables() == ["main.t"]
    assert len(lake.table("t").scan(filter="id > 100").to_arrow()) == 0


def test_other_formats_and_reserved_names_are_refused(tmp_path: Path, lake: vl.Lake) -> None:
    schema = Schema(ice.NestedField(1, "id", ice.LongType(), required=False))
    source = HandMade(tmp_path / "source", schema)
    file = source.data(pa.table({"id": [1]}))
    file[2] = "ORC"
    source.commit([file])
    with pytest.raises(UnsupportedError, match=r"ORC.*rewrite_data_files"):
        vectorlake_iceberg.import_table(source.metadata, lake, "t")
    reserved = HandMade(
        tmp_path / "reserved", Schema(ice.NestedField(1, "_row_id", ice.LongType(), required=False))
    )
    reserved.commit([reserved.data(pa.table({"_row_id": pa.array([1], pa.int64())}))])
    with pytest.raises(InvalidInputError, match="_row_id"):
        vectorlake_iceberg.import_table(reserved.metadata, lake, "t")
    assert lake.tables() == []


def test_column_comments_and_uneven_schemas_carry_over(tmp_path: Path, lake: vl.Lake) -> None:
    schema = Schema(ice.NestedField(1, "id", ice.LongType(), required=True, doc="the key"))
    source = HandMade(tmp_path / "source", schema)
    source.commit([source.data(pa.table({"id": pa.array([1], pa.int64())}))])
    table = vectorlake_iceberg.import_table(source.metadata, lake, "t")
    assert table.schema.field("id").metadata == {b"doc": b"the key"}


@pytest.mark.s3
def test_sources_on_s3(s3: S3Server, tmp_path: Path) -> None:
    uri = s3.fresh_uri()
    catalog = SqlCatalog(
        "s3",
        uri=f"sqlite:///{tmp_path}/catalog.db",
        warehouse=f"{uri}/warehouse",
        **{
            "s3.endpoint": s3.endpoint,
            "s3.access-key-id": s3.access_key_id,
            "s3.secret-access-key": s3.secret_access_key,
            "s3.region": "us-east-1",
        },
    )
    catalog.create_namespace("ns")
    source = catalog.create_table("ns.t", pa.schema([("id", pa.int64())]))
    source.append(pa.table({"id": [1, 2]}))
    lake = vl.connect(f"{uri}/lake", storage_options=s3.storage_options)
    table = vectorlake_iceberg.import_table(source, lake, "t")
    assert next(iter(table.view.fragments())).files[0].e_tag
    same(table, source)
    by_path = vectorlake_iceberg.import_table(source.metadata_location, lake, "by_path")
    source.append(pa.table({"id": [3]}))
    vectorlake_iceberg.sync(table, source)
    vectorlake_iceberg.sync(by_path)
    same(table, source)
    same(by_path, source)
