"""Small fragments read together in a compaction: the same rows as one by one, and damage is named."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.table.small_files import read_together, simple_fragments

SCHEMA = pa.schema(
    [("id", pa.int32()), ("s", pa.string()), ("vec", vl.vector(2)), ("l", pa.list_(pa.int64()))]
)


@pytest.fixture
def table(tmp_path: Path) -> vl.Table:
    table = vl.connect(tmp_path).create_table("t", SCHEMA, primary_key=["id"])
    for n in range(12):
        rows = [
            {"id": 3 * n + i, "s": None if i else f"s{n}", "vec": [n, i] if i < 2 else None, "l": [n] * i}
            for i in range(3)
        ]
        table.append(pa.Table.from_pylist(rows, SCHEMA))
    return table


def everything(table: vl.Table) -> pa.Table:
    columns = [*table.schema.names, "_row_id", "_last_updated_version"]
    return table.scan(columns=columns).to_arrow().combine_chunks()


def test_rows_are_those_of_a_scan(table: vl.Table) -> None:
    simple = simple_fragments(table.view)
    assert simple is not None
    fragments = list(table.view.fragments())
    assert all(map(simple, fragments))
    batch = read_together(table.view, fragments, table.snapshot.schema.fields)
    assert batch.to_pylist() == everything(table).to_pylist()


def test_what_is_not_simple_is_read_the_other_way(table: vl.Table) -> None:
    table.delete("id = 1")
    table.update({"s": "'u'"}, "id = 4", mode="rows")
    table.update({"s": "'c'"}, "id = 8", mode="columns")
    table.alter_column("id", type=pa.int64())
    table.append({"id": [100], "s": ["late"]})
    table.add_column("new", "id * 2")
    table.append({"id": [200], "new": [1]})
    before = everything(table)
    simple = simple_fragments(table.view)
    assert simple is not None
    told = {simple(fragment) for fragment in table.view.fragments()}
    assert told == {True, False}
    table.compact()
    assert table.snapshot.num_fragments == 1
    assert everything(table).sort_by("id").to_pylist() == before.sort_by("id").to_pylist()
    assert table.verify() == []


@pytest.mark.parametrize("damage", ["cut", "gone", "flipped"])
def test_damage_is_named_and_nothing_is_committed(table: vl.Table, damage: str) -> None:
    (file, *_) = next(table.view.fragments()).files
    path = table.store.local_path(file.path)
    assert path is not None
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-9] if damage == "cut" else data[:300] + b"\xff" + data[301:])
    with pytest.raises(vl.CorruptDataError, match=path.name):
        table.compact()
    assert table.refresh().version == 13


def test_damage_in_large_files_is_not_copied_either(table: vl.Table) -> None:
    table.compact()
    table.append({"id": range(1000, 40_000), "s": ["x"] * 39_000})
    table.append({"id": range(50_000, 90_000), "s": ["x"] * 40_000})
    path = table.store.local_path(list(table.view.fragments())[-1].files[0].path)
    assert path is not None
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(vl.CorruptDataError, match=path.name):
        table.compact()


def test_memory_stores_have_no_files_to_read(table: vl.Table) -> None:
    memory = vl.connect("memory://small-files").create_table("t", {"id": [1]})
    assert simple_fragments(memory.view) is None
    checked = vl.connect(table.uri.removeprefix("file://").removesuffix("/main/t"), integrity="checksum")
    assert simple_fragments(checked.table("t").view) is None
