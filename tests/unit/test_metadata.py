"""Metadata values survive their codecs, keep what newer releases add, and refuse what they can't understand."""

from __future__ import annotations

import datetime as dt
import json
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vectorlake.errors import CorruptDataError, UnsupportedError
from vectorlake.metadata.deletion import decode_deletes, encode_deletes, to_bitmap, to_positions
from vectorlake.metadata.fragment import DataFile, DeletionVector, FieldBounds, Fragment, Layout
from vectorlake.metadata.literals import literal_from_json, literal_to_json
from vectorlake.metadata.manifest import Manifest, concat, decode_manifest
from vectorlake.metadata.snapshot import FORMAT_VERSION, Snapshot, decode_snapshot, encode_snapshot
from vectorlake.schema import Schema, schema_from_arrow, vector

LITERALS: list[tuple[Any, pa.DataType, Any]] = [
    (1, pa.int8(), 1),
    (-(2**63), pa.int64(), -(2**63)),
    (True, pa.bool_(), True),
    (1.5, pa.float16(), 1.5),
    (math.inf, pa.float32(), "Infinity"),
    (-math.inf, pa.float64(), "-Infinity"),
    ("é", pa.large_string(), "é"),
    (b"\x00ab", pa.binary(), "AGFi"),
    (Decimal("1.20"), pa.decimal128(10, 2), "1.20"),
    (dt.date(2024, 1, 2), pa.date32(), 19724),
    (dt.date(2024, 1, 2), pa.date64(), 1704153600000),
    (dt.time(1, 2, 3), pa.time32("s"), 3723),
    (7, pa.time64("ns"), 7),
    (12345678901, pa.timestamp("ns"), 12345678901),
    (dt.datetime(2024, 1, 2, tzinfo=dt.UTC), pa.timestamp("us", "Europe/Berlin"), 1704153600000000),
    (dt.timedelta(seconds=3), pa.duration("ms"), 3000),
    ([1.0, 2.0], pa.list_(pa.float32(), 2), [1.0, 2.0]),
    ({"a": 1, "b": None}, pa.struct([("a", pa.int8()), ("b", pa.string())]), {"a": 1, "b": None}),
    ([("k", 1)], pa.map_(pa.string(), pa.int8()), [["k", 1]]),
    (None, pa.int8(), None),
]


@pytest.mark.parametrize(("value", "kind", "encoded"), LITERALS, ids=lambda v: str(v)[:30])
def test_literals_round_trip(value: Any, kind: pa.DataType, encoded: Any) -> None:
    assert literal_to_json(value, kind) == encoded
    assert literal_from_json(json.loads(json.dumps(encoded)), kind).equals(pa.scalar(value, kind))


def test_nan_literal() -> None:
    assert literal_to_json(math.nan, pa.float32()) == "NaN"
    assert math.isnan(literal_from_json("NaN", pa.float32()).as_py())


def schema() -> Schema:
    arrow = pa.schema([pa.field("id", pa.int64(), False), ("name", pa.string()), ("vec", vector(4))])
    return schema_from_arrow(arrow)[0]


def snapshot(**changes: Any) -> Snapshot:
    values: dict[str, Any] = {
        "table_id": "t",
        "version": 3,
        "commit_id": "c",
        "timestamp_ms": 5,
        "operation": "append",
        "schema": schema(),
        "format_version": FORMAT_VERSION,
        "properties": {"a": "b"},
        "primary_key": (1,),
    }
    return Snapshot(**{**values, **changes})


def test_snapshot_round_trip() -> None:
    assert decode_snapshot(encode_snapshot(snapshot()), "x") == snapshot()


def test_members_of_newer_releases_survive() -> None:
    document = json.loads(encode_snapshot(snapshot()))
    document["statistics_file"] = {"path": "p"}
    document["schema"]["fields"][0]["comment"] = "hello"
    document["schema"]["identifier"] = [1]
    again = json.loads(encode_snapshot(decode_snapshot(json.dumps(document).encode(), "x")))
    assert again == document


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"required_features": ["column-encryption"]}, "column-encryption"),
    ],
)
def test_what_is_required_and_unknown_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    document = {**json.loads(encode_snapshot(snapshot())), **change}
    with pytest.raises(UnsupportedError, match=message):
        decode_snapshot(json.dumps(document).encode(), "x")


def test_unknown_type_is_refused_by_name() -> None:
    document = json.loads(encode_snapshot(snapshot()))
    document["schema"]["fields"][0]["type"] = "int128"
    with pytest.raises(UnsupportedError, match="int128"):
        decode_snapshot(json.dumps(document).encode(), "x")


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"version": 1}', b"\xff\xfe", b'{"format_version": 1, "version": "x"}']
)
def test_damaged_snapshots_are_named(damage: bytes) -> None:
    with pytest.raises(CorruptDataError, match=r"v7\.json"):
        decode_snapshot(damage, "v7.json")


TYPES = {1: pa.int64(), 2: pa.string()}


def fragment(index: int, layout: Layout, **changes: Any) -> Fragment:
    file = DataFile(f"data/{index}.parquet", "parquet", layout, 0, 10, 100, "xxh3-64:00", None, 1)
    bounds = {1: FieldBounds(pa.scalar(index * 10), pa.scalar(index * 10 + 9), 0)}
    return Fragment(
        **{
            "row_count": 10,
            "files": (file,),
            "id": index,
            "first_row_id": index * 10,
            "bounds": bounds,
            **changes,
        }
    )


def test_manifest_round_trip_with_all_members() -> None:
    layout, other = (
        Layout(schema().fields),
        Layout(schema().fields[:1], by_field_id=True, name_mapping=({"field-id": 1},)),
    )
    foreign = DataFile("s3://b/f.parquet", "parquet", other, 5, 15, 100, None, "etag", 2)
    fragments = [
        fragment(0, layout),
        fragment(1, layout, deletes=DeletionVector("deletes/a.dv", 0, 20, 3, "xxh3-64:11")),
        fragment(2, layout, files=(foreign,), constants={7: "x"}, first_row_id=None, bounds={}),
        fragment(
            3, layout, bounds={2: FieldBounds(pa.scalar("a"), None, 4), 9: FieldBounds(None, None, None, 2)}
        ),
    ]
    manifest = Manifest.of(fragments)
    data = manifest.encode()
    ref = manifest.ref("m", data, TYPES)
    assert (ref.fragments, ref.rows, ref.deleted) == (4, 40, 3)
    assert decode_manifest(data, ref, "m").fragments() == fragments
    assert decode_manifest(data, ref, "m").fragments(np.array([3, 1])) == [fragments[3], fragments[1]]


def test_manifests_merge_replace_and_keep_layouts_apart() -> None:
    layouts = [Layout(schema().fields), Layout(schema().fields[:2])]
    first = Manifest.of([fragment(0, layouts[0]), fragment(2, layouts[1])])
    second = Manifest.of([fragment(1, layouts[1]), fragment(3, layouts[0])])
    merged = concat([second, first])
    assert [f.id for f in merged.fragments()] == [0, 1, 2, 3]
    assert [f.files[0].layout for f in merged.fragments()] == [layouts[0], layouts[1], layouts[1], layouts[0]]
    changed = merged.replace(removed=[1], updated=[fragment(2, layouts[0], row_count=7)])
    assert [(f.id, f.row_count) for f in changed.fragments()] == [(0, 10), (2, 7), (3, 10)]


def test_bounds_of_a_widened_column_merge() -> None:
    layout = Layout(schema().fields)
    narrow = Manifest.of(
        [fragment(0, layout, bounds={1: FieldBounds(pa.scalar(1, pa.int32()), pa.scalar(2, pa.int32()), 0)})]
    )
    wide = Manifest.of([fragment(1, layout, bounds={1: FieldBounds(pa.scalar(2**40), pa.scalar(2**41), 0)})])
    low = concat([narrow, wide]).bound("min", 1)
    assert low is not None
    assert low.to_pylist() == [1, 2**40]


def test_columns_of_newer_manifests_survive_a_rewrite() -> None:
    manifest = Manifest.of([fragment(0, Layout(schema().fields)), fragment(1, Layout(schema().fields))])
    newer = Manifest(manifest.table.append_column("sort_order", pa.array([4, 5])), manifest.layouts)
    rewritten = newer.replace(removed=[0])
    assert rewritten.table["sort_order"].to_pylist() == [5]


@pytest.mark.parametrize("position", [0, 100, -1])
def test_flipped_bytes_in_a_manifest_are_found(position: int) -> None:
    manifest = Manifest.of([fragment(0, Layout(schema().fields))])
    data = bytearray(manifest.encode())
    ref = manifest.ref("m", bytes(data), TYPES)
    data[position] ^= 1
    with pytest.raises(CorruptDataError, match="some/m"):
        decode_manifest(bytes(data), ref, "some/m")
    with pytest.raises(CorruptDataError, match="some/m"):
        decode_manifest(bytes(data[:50]), ref, "some/m")


def test_deletion_vectors_round_trip_and_are_checked() -> None:
    positions = np.array([0, 5, 2**33], np.int64)
    data, (first, second) = encode_deletes("d", [to_bitmap(positions), to_bitmap(np.array([7]))])
    block = data[second.offset : second.offset + second.length]
    assert to_positions(decode_deletes(block, second, "d")).tolist() == [7]
    assert to_positions(decode_deletes(data[: first.length], first, "d")).tolist() == positions.tolist()
    for bad in (data[: first.length - 1], data[: first.length] + b"x", b"", b"\x01" + data[1 : first.length]):
        with pytest.raises(CorruptDataError, match="deletion vector"):
            decode_deletes(bad, first, "d")


def test_indexes_survive_a_rewrite_whatever_they_are() -> None:
    file = {"path": "index/1.arrow", "size": 9, "checksum": "xxh3-64:00", "arrays": {}, "later": 1}
    segment = {"id": "s", "file": file, "version": 3, "rows": 2, "newer": {"a": [1]}}
    known = {
        "name": "i",
        "field_id": 2,
        "kind": "learned",
        "kind_version": 7,
        "metric": "manhattan",
        "dimension": 4,
        "element": "float32",
        "model_id": "m",
        "model": file,
        "segments": [segment],
        "calibration": [[8, 20, 0.95]],
        "more": "kept",
    }
    text = {"name": "words", "kind": "text", "fields": [3], "files": ["index/2.bin"]}
    document = json.loads(encode_snapshot(snapshot()))
    document["indexes"] = [text, known]
    read = decode_snapshot(json.dumps(document).encode(), "x")
    assert [index.name for index in read.indexes] == ["i"]
    assert read.indexes[0].calibration == ((8, 20, 0.95),)
    assert read.indexes[0].extra == {"more": "kept"}
    again = json.loads(encode_snapshot(read))
    assert sorted(again["indexes"], key=lambda index: index["name"]) == [known, text]
    assert "other_indexes" not in again
