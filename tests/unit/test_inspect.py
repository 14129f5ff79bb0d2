"""A table's metadata as Arrow tables, against its fragments and snapshots as values."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.errors import NotFoundError
from vectorlake.extend import Delta, FragmentUpdate
from vectorlake.metadata.fragment import DataFile, FieldBounds, Fragment, Layout
from vectorlake.metadata.manifest import Manifest
from vectorlake.plan.metadata_tables import FRAGMENTS, fragment_batch
from vectorlake.schema import Field, ScalarType, Schema
from vectorlake.table import key_segments
from vectorlake.table.inspect import MetadataTable, inspect

TYPES = {
    "id": pa.int64(), "name": pa.string(), "raw": pa.binary(), "at": pa.timestamp("us", "UTC"), "day": pa.date32(),
    "half": pa.float16(), "price": pa.decimal128(5, 2), "took": pa.duration("ms"), "ok": pa.bool_(), "x": pa.float64(),
    "vec": vl.vector(2),
}  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> vl.Table:
    lake = vl.connect(tmp_path / "lake", application="test/1", principal="ann")
    properties = {
        "write.fragment-rows": "4",
        "write.small-rows": "1",
        "write.scalar-format": "parquet",
    }
    return lake.create_table("t", pa.schema(list(TYPES.items())), primary_key=["id"], properties=properties)


def rows(start: int, count: int) -> pa.Table:
    at = list(range(start, start + count))
    begin = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    columns = {
        "id": at,
        "name": [f"n{i:03}" if i % 5 else None for i in at],
        "raw": [bytes([i]) for i in at],
        "at": [begin + dt.timedelta(days=i) for i in at],
        "day": [dt.date(2026, 1, 1) + dt.timedelta(days=i) for i in at],
        "half": np.array(at, np.float16),
        "price": [Decimal(i) for i in at],
        "took": [dt.timedelta(seconds=i) for i in at],
        "ok": [i % 2 == 0 for i in at],
        "x": [float("nan") if i % 4 == 0 else i / 2 for i in at],
        "vec": pa.FixedSizeListArray.from_arrays(np.zeros(2 * count, np.float32), 2),
    }
    return pa.table({name: pa.array(values) for name, values in columns.items()})


def test_fragments_are_those_of_the_version(table: vl.Table) -> None:
    table.append(rows(0, 10))
    table.delete("id IN (1, 5, 6)")
    found = table.fragments()
    found.validate(full=True)
    assert found.schema == FRAGMENTS
    wanted = list(table.view.fragments())
    assert len(wanted) == 3
    assert [(r["fragment_id"], r["rows"], r["live_rows"], r["first_row_id"]) for r in found.to_pylist()] == [
        (f.id, f.row_count, f.live_rows, f.first_row_id) for f in wanted
    ]
    assert found["deleted_rows"].to_pylist() == [1, 2, 0]
    assert found["files"].to_pylist() == [len(f.files) for f in wanted]
    assert found["bytes"].to_pylist() == [sum(file.size for file in f.files) for f in wanted]
    assert sum(found["live_rows"].to_pylist()) == table.count()


def test_bounds_are_text_by_column(table: vl.Table) -> None:
    table.append(rows(0, 4))
    table.append(rows(9, 1))
    table.rename_column("name", "title")
    table.drop_column("took")
    first, second = (dict(bounds) for bounds in table.fragments()["bounds"].to_pylist())
    shown = {name: (known["min"], known["max"]) for name, known in first.items()}
    assert shown == {
        "id": ("0", "3"), "title": ("n001", "n003"), "raw": ("00", "03"), "price": ("0.00", "3.00"),
        "at": ("2026-01-01 00:00:00.000000Z", "2026-01-04 00:00:00.000000Z"), "day": ("2026-01-01", "2026-01-04"),
        "half": ("-0", "3"), "#8": ("0 ms", "3000 ms"), "ok": ("false", "true"), "x": ("0.5", "1.5"),
        "vec": (None, None),
    }  # fmt: skip
    assert (first["title"]["nulls"], first["x"]["nans"], first["id"]["nans"]) == (1, 1, None)
    assert second["id"] == {"min": "9", "max": "9", "nulls": 0, "nans": None}


def test_a_filter_leaves_the_fragments_that_a_scan_would_open(table: vl.Table) -> None:
    table.append(rows(0, 10))
    for condition in ("id > 7", "id BETWEEN 2 AND 5", "name = 'n009'", "id > 99", None):
        wanted = [fragment.id for fragment in table.view.fragments(table.view.bind(condition))]
        assert table.fragments(condition)["fragment_id"].to_pylist() == wanted


def test_files_are_data_deletes_and_keys(table: vl.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_segments, "SEGMENT_ROWS", 4)
    table.append(rows(0, 6))
    table.delete("id = 2")
    table.add_column("twice", "id * 2")
    found = table.files()
    found.validate(full=True)
    wanted = []
    for fragment in table.view.fragments():
        for file in fragment.files:
            names = [field.name for field in file.layout.fields]
            held = (file.path, file.format, names, file.row_start, file.row_stop - file.row_start, file.size)
            wanted.append((fragment.id, "data", *held, file.checksum, file.sequence, False))
        if fragment.deletes is not None:
            vector = fragment.deletes
            held = (vector.path, None, [], None, vector.cardinality, vector.length)
            wanted.append((fragment.id, "deletes", *held, vector.checksum, None, False))
        if fragment.keys is not None:
            segment = fragment.keys
            held = (segment.path, None, [], None, fragment.row_count, segment.size)
            wanted.append((fragment.id, "keys", *held, segment.checksum, None, False))
    names = [
        "fragment_id",
        "content",
        "path",
        "format",
        "columns",
        "row_start",
        "rows",
        "size",
        "checksum",
        "sequence",
        "foreign",
    ]
    assert [tuple(row.values()) for row in found.select(names).to_pylist()] == wanted
    assert {row["content"] for row in found.to_pylist()} == {"data", "deletes", "keys"}


def test_snapshots_are_the_audit_log(table: vl.Table) -> None:
    table.append(rows(0, 5))
    table.delete("id < 2")
    with table.transaction() as tx:
        tx.append(rows(10, 2))
        tx.update({"ok": "true"}, "id = 3")
    found = table.snapshots()
    found.validate(full=True)
    assert found["version"].to_pylist() == [4, 3, 2, 1]
    assert found["parent"].to_pylist() == [3, 2, 1, None]
    assert found["operation"].to_pylist() == ["transaction", "delete", "append", "create"]
    counts = ("added_rows", "deleted_rows", "updated_rows")
    assert [tuple(row[name] for name in counts) for row in found.to_pylist()] == [
        (2, None, 1), (None, 2, None), (5, None, None), (0, None, None),
    ]  # fmt: skip
    assert found["rows"].to_pylist() == [5, 3, 5, 0]
    assert set(found["application"].to_pylist()) == {"test/1"}
    assert set(found["principal"].to_pylist()) == {"ann"}
    assert found["timestamp"].to_pylist() == [snapshot.timestamp for snapshot in table.history()]
    assert found["commit_id"].to_pylist() == [snapshot.commit_id for snapshot in table.history()]
    newest = dict(found["summary"][0].as_py())
    assert json.loads(newest["operations"]) == ["append", "update"]
    assert newest["added_rows"] == "2"
    assert table.at(2).snapshots()["version"].to_pylist() == [2, 1]


def test_counts_of_files_and_fragments_are_what_changed(table: vl.Table) -> None:
    def files() -> dict[str, int]:
        return {file.path: file.size for fragment in table.view.fragments() for file in fragment.files}

    def fragments() -> dict[int, Fragment]:
        return {fragment.id: fragment for fragment in table.view.fragments()}

    steps = [
        lambda: table.append(rows(0, 6)),
        lambda: table.delete("id = 1"),
        lambda: table.add_column("twice", "id * 2"),
        lambda: table.update({"x": "x + 1"}, "id = 3"),
        lambda: table.compact(target_rows=100),
        lambda: table.overwrite(rows(50, 3).append_column("twice", pa.array([1, 2, 3]))),
    ]
    for step in steps:
        held, there = files(), fragments()
        summary = step().summary  # type: ignore[union-attr]
        new = {path: size for path, size in files().items() if path not in held}
        now = fragments()
        assert summary.get("added_files", 0) == len(new), summary
        assert summary.get("added_bytes", 0) == sum(new.values()), summary
        assert summary.get("added_fragments", 0) == len(now.keys() - there.keys()), summary
        assert summary.get("removed_fragments", 0) == len(there.keys() - now.keys()), summary
        changed = [key for key in now.keys() & there.keys() if now[key] != there[key]]
        assert summary.get("changed_fragments", 0) == len(changed), summary


def test_refs_are_the_lines_and_tags(table: vl.Table) -> None:
    table.append(rows(0, 2))
    tag = table.tag("v1", 1)
    dev = table.branch("dev")
    dev.append(rows(5, 1))
    found = table.refs().to_pylist()
    assert [(ref["name"], ref["kind"], ref["version"], ref["fork_version"]) for ref in found] == [
        ("main", "main", 2, None), ("dev", "branch", 3, 2), ("v1", "tag", 1, None),
    ]  # fmt: skip
    assert found[2]["created"] == dt.datetime.fromtimestamp(tag.timestamp_ms / 1000, dt.UTC)
    assert dev.snapshots()["version"].to_pylist() == [3, 2, 1]
    assert dev.refs().to_pylist() == found


@pytest.mark.parametrize("kind", list(MetadataTable))
def test_an_empty_table_has_typed_metadata(kind: MetadataTable, table: vl.Table) -> None:
    found = pa.Table.from_batches(inspect(table.view, kind), schema=kind.schema)
    assert len(found) == (0 if kind in (MetadataTable.FILES, MetadataTable.FRAGMENTS) else 1)
    some = kind.schema.names[2:0:-1]
    assert [batch.schema.names for batch in inspect(table.view, kind, columns=some)] == [some] * bool(
        len(found)
    )


def test_unknown_names_are_told(table: vl.Table) -> None:
    with pytest.raises(NotFoundError, match="did you mean 'snapshots'"):
        MetadataTable.parse("snapshot")
    with pytest.raises(NotFoundError, match="did you mean 'path'"):
        list(inspect(table.view, MetadataTable.FILES, columns=["pathh"]))


def test_constants_and_foreign_files_of_many_fragments() -> None:
    """Sliced manifests, shared constants, and fragments without anything in between."""
    layout = Layout((Field(1, "a", ScalarType("int64")),))
    fragments = [
        Fragment(
            10 + i,
            tuple(
                DataFile(f"s3://b/{i}-{j}", "parquet", layout, 0, 10 + i, 100 + j, e_tag="e", sequence=1)
                for j in range(i % 3)
            ),
            id=i,
            first_row_id=i * 100,
            constants={} if i % 4 == 0 else {2: f"day {i % 2}"},
            bounds={} if i % 5 == 0 else {1: FieldBounds(pa.scalar(i), pa.scalar(2 * i), 0, None)},
        )
        for i in range(40)
    ]
    schema = Schema((Field(1, "a", ScalarType("int64")), Field(2, "day", ScalarType("string"))))
    whole = Manifest.of(fragments)
    part = Manifest(whole.table.slice(7, 20).combine_chunks(), whole.layouts)
    found = fragment_batch(part, schema, FRAGMENTS.names)
    found.validate(full=True)
    for row, fragment in zip(found.to_pylist(), fragments[7:27], strict=True):
        assert row["fragment_id"] == fragment.id
        assert row["files"] == len(fragment.files)
        assert row["bytes"] == sum(file.size for file in fragment.files)
        assert row["constants"] == (
            [("day", json.dumps(fragment.constants[2]))] if fragment.constants else []
        )
        bounds = {name: (known["min"], known["max"]) for name, known in row["bounds"]}
        i = fragment.id
        assert bounds == ({"a": (str(i), str(2 * i))} if i % 5 else {})


def test_deltas_of_connectors_are_counted_too(table: vl.Table) -> None:
    table.append(rows(0, 4))
    (fragment,) = table.view.fragments()
    snapshot = table.commit(
        lambda head: Delta("import", updates=(FragmentUpdate(fragment.id, files=fragment.files),))
    )
    assert snapshot.summary["changed_fragments"] == 1
    assert snapshot.summary["added_files"] == len(fragment.files)
