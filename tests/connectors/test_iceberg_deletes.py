"""Deletes by position: position delete files and v3 deletion vectors become the table's own deletion vectors."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import vectorlake_iceberg
from iceberg_support import HandMade, rows_of
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField, StringType

import vectorlake as vl
from vectorlake.errors import CorruptDataError, UnsupportedError

SCHEMA = Schema(
    NestedField(1, "id", LongType(), required=False), NestedField(2, "name", StringType(), required=False)
)


def items(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "name": [f"n{i}" for i in ids]})


def ids(table: vl.Table) -> list[int]:
    return sorted(table.scan(columns=["id"]).to_arrow()["id"].to_pylist())


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    return vl.connect(tmp_path / "lake")


def test_position_deletes_over_several_files(tmp_path: Path, lake: vl.Lake) -> None:
    source = HandMade(tmp_path / "source", SCHEMA)
    first, second, third = (source.data(items(*range(start, start + 5))) for start in (0, 10, 20))
    source.commit([first, second, third])
    source.commit(
        deletes=[source.position_deletes({first.file_path: [0, 4], second.file_path: [2]})],
        operation="delete",
    )
    source.commit(deletes=[source.position_deletes({first.file_path: [4, 1]})], operation="delete")
    table = vectorlake_iceberg.import_table(source.metadata, lake, "items")
    assert ids(table) == [2, 3, 10, 11, 13, 14, 20, 21, 22, 23, 24]
    assert rows_of(table.to_arrow()) == rows_of(source.scan())
    assert len(table) == 11
    assert table.verify() == []


def test_position_deletes_leave_newer_files_alone(tmp_path: Path, lake: vl.Lake) -> None:
    source = HandMade(tmp_path / "source", SCHEMA)
    file = source.data(items(1, 2, 3))
    source.commit(deletes=[source.position_deletes({file.file_path: [0]})])
    source.commit([file])
    table = vectorlake_iceberg.import_table(source.metadata, lake, "items")
    assert ids(table) == [1, 2, 3]


def test_deletion_vectors_stand_for_all_deletes_of_a_file(tmp_path: Path, lake: vl.Lake) -> None:
    source = HandMade(tmp_path / "source", SCHEMA, version=3)
    first, second = source.data(items(0, 1, 2, 3)), source.data(items(10, 11, 12))
    source.commit([first, second])
    source.commit(deletes=source.deletion_vectors({first.file_path: [1, 3], second.file_path: [0]}))
    table = vectorlake_iceberg.import_table(source.metadata, lake, "items")
    assert ids(table) == [0, 2, 11, 12]
    assert rows_of(table.to_arrow()) == rows_of(source.scan())


@pytest.mark.parametrize("version", [2, 3])
def test_sync_merges_new_deletes_with_those_made_here(tmp_path: Path, lake: vl.Lake, version: int) -> None:
    source = HandMade(tmp_path / "source", SCHEMA, version=version)
    file, other = source.data(items(*range(6))), source.data(items(20, 21))
    source.commit([file, other])
    table = vectorlake_iceberg.import_table(source.metadata, lake, "items")
    table.delete("id = 5 OR id = 20")
    if version == 2:
        source.commit(deletes=[source.position_deletes({file.file_path: [0, 5]})], operation="delete")
    else:
        source.commit(deletes=source.deletion_vectors({file.file_path: [0, 5]}), operation="delete")
    snapshot = vectorlake_iceberg.sync(table, source.metadata)
    assert ids(table) == [1, 2, 3, 4, 21]
    assert snapshot.summary["deleted_rows"] == 1
    assert snapshot.summary["added_files"] == snapshot.summary["removed_files"] == 0


def test_a_newer_deletion_vector_replaces_the_older(tmp_path: Path, lake: vl.Lake) -> None:
    source = HandMade(tmp_path / "source", SCHEMA, version=3)
    file = source.data(items(*range(6)))
    older = source.deletion_vectors({file.file_path: [0, 1]})
    source.commit([file])
    source.commit(deletes=older)
    table = vectorlake_iceberg.import_table(source.metadata, lake, "items")
    table.delete("id = 5")
    source.commit(deletes=source.deletion_vectors({file.file_path: [1, 2]}), remove_deletes=older)
    vectorlake_iceberg.sync(table, source.metadata)
    assert ids(table) == [0, 3, 4]
    assert ids(table.at(1)) == [2, 3, 4, 5]


def test_a_rollback_brings_rows_back_but_not_those_deleted_here(tmp_path: Path, lake: vl.Lake) -> None:
    source = HandMade(tmp_path / "source", SCHEMA)
    file = source.data(items(*range(6)))
    source.commit([file])
    before, manifests = source.current, source.manifests
    source.commit(deletes=[source.position_deletes({file.file_path: [0, 1, 5]})])
    table = vectorlake_iceberg.import_table(source.metadata, lake, "items")
    table.delete("id = 3")
    assert ids(table) == [2, 4]
    source.current, source.manifests = before, manifests
    source.write_metadata()
    vectorlake_iceberg.sync(table)
    assert ids(table) == [0, 1, 2, 4, 5]


def test_a_file_whose_rows_are_all_deleted_can_come_back(tmp_path: Path, lake: vl.Lake) -> None:
    source = HandMade(tmp_path / "source", SCHEMA)
    file = source.data(items(1, 2))
    source.commit([file])
    before, manifests = source.current, source.manifests
    source.commit(deletes=[source.position_deletes({file.file_path: [0, 1]})])
    table = vectorlake_iceberg.import_table(source.metadata, lake, "items")
    assert ids(table) == []
    source.current, source.manifests = before, manifests
    source.write_metadata()
    vectorlake_iceberg.sync(table)
    assert ids(table) == [1, 2]


def test_equality_deletes_are_refused_before_anything_is_written(tmp_path: Path, lake: vl.Lake) -> None:
    source = HandMade(tmp_path / "source", SCHEMA)
    source.commit([source.data(items(1, 2))])
    table = vectorlake_iceberg.import_table(source.metadata, lake, "before")
    file = source.equality_deletes(pa.table({"id": pa.array([1], pa.int64())}))
    source.commit(deletes=[file])
    with pytest.raises(UnsupportedError, match=r"equality.*rewrite_data_files") as caught:
        vectorlake_iceberg.import_table(source.metadata, lake, "items")
    assert file.file_path in str(caught.value)
    assert not lake.exists("items")
    with pytest.raises(UnsupportedError, match="equality"):
        vectorlake_iceberg.sync(table)
    assert table.refresh().version == 1


def test_damaged_delete_files_are_named(tmp_path: Path, lake: vl.Lake) -> None:
    source = HandMade(tmp_path / "source", SCHEMA, version=3)
    file = source.data(items(*range(4)))
    (vector,) = source.deletion_vectors({file.file_path: [0, 1]})
    source.commit([file], deletes=[vector])
    path = Path(vector.file_path.removeprefix("file://"))
    whole = path.read_bytes()
    path.write_bytes(whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])
    with pytest.raises(CorruptDataError, match=path.name):
        vectorlake_iceberg.import_table(source.metadata, lake, "items")
    path.unlink()
    with pytest.raises(CorruptDataError, match=path.name):
        vectorlake_iceberg.import_table(source.metadata, lake, "items")
    path.write_bytes(whole)
    assert ids(vectorlake_iceberg.import_table(source.metadata, lake, "items")) == [2, 3]
