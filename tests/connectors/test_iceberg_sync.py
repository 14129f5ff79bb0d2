"""Following a source: appends, deletes, overwrites, compactions, schema and partition changes, rollbacks; own columns stay."""

from __future__ import annotations

import datetime as dt
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import vectorlake_iceberg
from iceberg_support import HandMade, digest, new_catalog, rows_of
from pyiceberg import types as ice
from pyiceberg.schema import Schema
from pyiceberg.table import Table as IcebergTable

import vectorlake as vl
from vectorlake.errors import CorruptDataError, InvalidInputError, NotFoundError

SCHEMA = Schema(
    ice.NestedField(1, "id", ice.LongType(), required=True),
    ice.NestedField(2, "name", ice.StringType(), required=False),
)
KEYED = Schema(*SCHEMA.fields, identifier_field_ids=[1])


def items(*ids: int, name: str = "n") -> pa.Table:
    fields = [pa.field("id", pa.int64(), nullable=False), pa.field("name", pa.string())]
    return pa.table(
        [pa.array(ids, pa.int64()), pa.array([f"{name}{i}" for i in ids])], schema=pa.schema(fields)
    )


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    return vl.connect(tmp_path / "lake")


@pytest.fixture
def source(tmp_path: Path) -> IcebergTable:
    return new_catalog(tmp_path / "source").create_table("ns.items", SCHEMA)


def same(table: vl.Table, source: IcebergTable | HandMade) -> None:
    expected = source.scan() if isinstance(source, HandMade) else source.scan().to_arrow()
    assert rows_of(table.to_arrow().select(expected.column_names)) == rows_of(expected)


def embed(table: vl.Table) -> None:
    """An own vector and an own scalar, both computed from the row's id."""
    table.add_column(
        "vec", lambda b: [[float(i.as_py()), 1.0] for i in b["id"]], type=vl.vector(2), inputs=["id"]
    )
    table.add_column("label", "id * 10")


def own(table: vl.Table) -> dict[int, tuple[int, Any, Any]]:
    """Row id, vector and label of each row by its id."""
    rows = table.scan(columns=["id", "vec", "label"], with_row_id=True).to_arrow().to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: (row["_row_id"], row["vec"], row["label"]) for row in rows}


def test_appends_and_no_change(lake: vl.Lake, source: IcebergTable, tmp_path: Path) -> None:
    source.append(items(1, 2))
    table = vectorlake_iceberg.import_table(source, lake, "items")
    embed(table)
    before = own(table)
    assert vectorlake_iceberg.is_current(table)
    assert vectorlake_iceberg.sync(table, source).version == table.version == 3
    source.append(items(3, 4))
    source.append(items(5))
    assert not vectorlake_iceberg.is_current(table, source)
    bytes_before = digest(tmp_path / "source")
    snapshot = vectorlake_iceberg.sync(table, source)
    assert digest(tmp_path / "source") == bytes_before
    assert (snapshot.operation, snapshot.version) == ("sync", 4)
    assert (snapshot.summary["added_files"], snapshot.summary["added_rows"]) == (2, 3)
    same(table, source)
    after = own(table)
    assert {i: after[i] for i in before} == before
    assert after[5] == (4, None, None)
    table.backfill_column("label", "id * 10")
    assert own(table)[5][2] == 50
    assert vectorlake_iceberg.sync(table).version == table.version == 5
    assert table.verify() == []


def test_a_delete_in_the_source_rewrites_files_and_own_columns_survive(
    lake: vl.Lake, source: IcebergTable
) -> None:
    source.append(items(*range(10)))
    source.append(items(*range(10, 20)))
    table = vectorlake_iceberg.import_table(source, lake, "items")
    embed(table)
    before = own(table)
    source.delete("id == 3 or id == 12")
    snapshot = vectorlake_iceberg.sync(table, source)
    same(table, source)
    assert own(table) == {i: row for i, row in before.items() if i not in (3, 12)}
    assert (
        snapshot.summary["kept_rows"],
        snapshot.summary["deleted_rows"],
        snapshot.summary["added_rows"],
    ) == (18, 2, 0)
    assert table.take([before[13][0]], columns=["id"])["id"].to_pylist() == [13]
    with pytest.raises(NotFoundError):
        table.take([before[12][0]])
    # Values that were only moved keep the version at which they were written; nothing in these files is newer.
    assert set(
        table.scan(columns=["_last_updated_version"]).to_arrow()["_last_updated_version"].to_pylist()
    ) == {3}
    assert table.verify() == []


def test_overwrite_with_some_of_the_same_rows(lake: vl.Lake, source: IcebergTable) -> None:
    source.append(items(1, 2, 3))
    table = vectorlake_iceberg.import_table(source, lake, "items")
    embed(table)
    before = own(table)
    source.overwrite(items(9, 3, 1))
    vectorlake_iceberg.sync(table, source)
    same(table, source)
    after = own(table)
    assert (after[1], after[3]) == (before[1], before[3])
    assert after[9][0] not in {row[0] for row in before.values()}
    assert after[9][1:] == (None, None)
    versions = (
        table.scan(columns=["id", "_last_updated_version"]).to_arrow()["_last_updated_version"].to_pylist()
    )
    assert set(versions) == {4}


def test_duplicates_are_matched_as_a_multiset(lake: vl.Lake, source: IcebergTable) -> None:
    rows = pa.concat_tables([items(7, 7, 7), items(8)])
    source.append(rows)
    table = vectorlake_iceberg.import_table(source, lake, "items")
    table.add_column("label", "_row_id * 10")
    source.overwrite(pa.concat_tables([items(7, 8), items(7)]))
    vectorlake_iceberg.sync(table, source)
    found = table.scan(columns=["id", "label"], with_row_id=True).to_arrow().to_pylist()
    assert sorted((row["id"], row["_row_id"], row["label"]) for row in found) == [
        (7, 0, 0),
        (7, 1, 10),
        (8, 3, 30),
    ]


def test_compaction_keeps_rows_and_deletes_made_here(tmp_path: Path, lake: vl.Lake) -> None:
    source = HandMade(tmp_path / "source", SCHEMA)
    files = [source.data(items(*range(start, start + 5))) for start in (0, 5, 10)]
    source.commit(files)
    deletes = source.position_deletes({files[0].file_path: [0], files[2].file_path: [4]})
    source.commit(deletes=[deletes])
    table = vectorlake_iceberg.import_table(source.metadata, lake, "items")
    embed(table)
    table.delete("id = 6 OR id = 1")
    before = own(table)
    compacted = source.data(items(13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1))
    source.commit([compacted], remove=files, remove_deletes=[deletes], operation="replace", keep_sequence=1)
    snapshot = vectorlake_iceberg.sync(table)
    assert own(table) == before
    assert (snapshot.summary["added_rows"], snapshot.summary["deleted_rows"]) == (0, 0)
    assert snapshot.num_fragments == 1
    assert {file.format for fragment in table.view.fragments() for file in fragment.files} == {
        "parquet",
        "arrow",
    }
    assert set(
        table.scan(columns=["_last_updated_version"]).to_arrow()["_last_updated_version"].to_pylist()
    ) == {3}
    # Once more: row ids are explicit now, and still carried over.
    again = source.data(items(*range(1, 14)))
    source.commit([again, source.data(items(99))], remove=[compacted], operation="overwrite")
    vectorlake_iceberg.sync(table)
    after = own(table)
    assert after.pop(99)[1:] == (None, None)
    assert after == before
    assert table.verify() == []


def test_a_row_deleted_here_comes_back_only_as_a_new_row(tmp_path: Path, lake: vl.Lake) -> None:
    source = HandMade(tmp_path / "source", SCHEMA)
    file = source.data(items(1, 2))
    source.commit([file])
    table = vectorlake_iceberg.import_table(source.metadata, lake, "items")
    embed(table)
    table.delete("id < 3")
    source.commit([source.data(items(2, 1, 2))], remove=[file], operation="overwrite")
    vectorlake_iceberg.sync(table)
    assert {i: row[1:] for i, row in own(table).items()} == {2: (None, None)}


def test_identifier_fields_tell_updated_rows(tmp_path: Path, lake: vl.Lake) -> None:
    source = HandMade(tmp_path / "source", KEYED)
    old = source.data(items(1, 2, 3))
    source.commit([old])
    clearing = vectorlake_iceberg.import_table(source.metadata, lake, "clearing")
    keeping = vectorlake_iceberg.import_table(source.metadata, lake, "keeping")
    for table in (clearing, keeping):
        embed(table)
    before = own(clearing)
    source.commit(
        [source.data(pa.concat_tables([items(3), items(2, name="new"), items(4)]))],
        remove=[old],
        operation="overwrite",
    )
    snapshot = vectorlake_iceberg.sync(clearing)
    assert (
        snapshot.summary["kept_rows"],
        snapshot.summary["updated_rows"],
        snapshot.summary["deleted_rows"],
    ) == (2, 1, 1)
    after = own(clearing)
    assert after[3] == before[3]
    assert after[2] == (before[2][0], None, None)
    clearing.backfill_column("label", "id * 10")
    assert own(clearing)[2][2] == 20
    vectorlake_iceberg.sync(keeping, updated="keep")
    assert own(keeping)[2] == before[2]
    same(clearing, source)
    same(keeping, source)
    source.commit([source.data(items(50))])
    with pytest.raises(InvalidInputError, match="'clear', 'keep'"):
        vectorlake_iceberg.sync(keeping, updated="forget")


def test_identifiers_that_are_not_unique_are_not_trusted(tmp_path: Path, lake: vl.Lake) -> None:
    source = HandMade(tmp_path / "source", KEYED)
    old = source.data(pa.concat_tables([items(1), items(1, name="m")]))
    source.commit([old])
    table = vectorlake_iceberg.import_table(source.metadata, lake, "items")
    source.commit([source.data(pa.concat_tables([items(1, name="m"), items(1, name="x")]))], remove=[old])
    vectorlake_iceberg.sync(table)
    rows = table.scan(with_row_id=True).to_arrow().to_pylist()
    assert [(row["name"], row["_row_id"]) for row in rows] == [("m1", 1), ("x1", 3)]


def test_row_lineage_tells_rows_whatever_changed(tmp_path: Path, lake: vl.Lake) -> None:
    source = HandMade(tmp_path / "source", SCHEMA, version=3)
    first, second = source.data(items(1, 2, 3)), source.data(items(3, 4))
    source.commit([first, second])
    table = vectorlake_iceberg.import_table(source.metadata, lake, "items")
    table.add_column("label", "_row_id * 10")
    # Rows 1 and 4 as they were, row 0 with a new name (changed by this very commit), rows 2 and 3 gone, one row new.
    lineage = {
        "_row_id": pa.array([4, 0, 1, None], pa.int64()),
        "_last_updated_sequence_number": pa.array([1, None, 1, None], pa.int64()),
    }
    rows = pa.table(
        {"id": pa.array([4, 1, 2, 9], pa.int64()), "name": ["n4", "changed", "n2", "n9"], **lineage},
        schema=pa.schema([*items().schema, *(pa.field(name, pa.int64()) for name in lineage)]),
    )
    source.commit([source.data(rows)], remove=[first, second], operation="overwrite")
    snapshot = vectorlake_iceberg.sync(table)
    found = {row["id"]: row for row in table.scan(with_row_id=True).to_arrow().to_pylist()}
    assert {i: (row["_row_id"], row["label"]) for i, row in found.items()} == {
        4: (4, 40), 1: (0, None), 2: (1, 10), 9: (8, None),
    }  # fmt: skip
    assert snapshot.summary["updated_rows"] == 1
    assert table.schema.names == ["id", "name", "label"]
    # The next rewrite finds them by the lineage that the file states.
    kept = source.data(rows.slice(0, 3))
    source.commit([kept], remove=[source.manifests[0].entries[0][0]], operation="replace")
    vectorlake_iceberg.sync(table)
    found = {row["id"]: row for row in table.scan(with_row_id=True).to_arrow().to_pylist()}
    assert {i: row["_row_id"] for i, row in found.items()} == {4: 4, 1: 0, 2: 1}


def test_schema_changes_follow_and_own_columns_stay_last(lake: vl.Lake, source: IcebergTable) -> None:
    source.append(items(1, 2))
    table = vectorlake_iceberg.import_table(source, lake, "items")
    embed(table)
    before = own(table)
    with source.update_schema() as update:
        update.rename_column("name", "title").add_column("price", ice.DoubleType()).add_column(
            "n", ice.IntegerType()
        )
    snapshot = vectorlake_iceberg.sync(table, source)
    assert snapshot.schema.names == ["id", "title", "price", "n", "vec", "label"]
    with source.update_schema() as update:
        update.move_first("price").update_column("n", ice.LongType()).delete_column("title")
    price = pa.table(
        {"price": [1.5], "id": pa.array([3], pa.int64()), "n": [2**40]},
        schema=pa.schema(
            [("price", pa.float64()), pa.field("id", pa.int64(), nullable=False), ("n", pa.int64())]
        ),
    )
    source.append(price)
    vectorlake_iceberg.sync(table, source)
    assert table.schema.names == ["price", "id", "n", "vec", "label"]
    same(table, source)
    assert {i: own(table)[i] for i in before} == before
    # A rewrite under the new schema still finds rows that were written under the old one.
    source.delete("id == 1")
    vectorlake_iceberg.sync(table, source)
    assert own(table)[2] == before[2]
    same(table, source)


def test_what_was_renamed_and_dropped_here_stays_so(lake: vl.Lake, source: IcebergTable) -> None:
    source.append(items(1))
    with source.update_schema() as update:
        update.add_column("extra", ice.LongType())
    table = vectorlake_iceberg.import_table(source, lake, "items")
    table.rename_column("name", "label")
    table.drop_column("extra")
    with source.update_schema() as update:
        update.add_column("more", ice.LongType())
    vectorlake_iceberg.sync(table, source)
    assert table.schema.names == ["id", "label", "more"]
    assert table.to_arrow().to_pylist() == [{"id": 1, "label": "n1", "more": None}]


def test_a_name_taken_by_an_own_column_is_refused(lake: vl.Lake, source: IcebergTable) -> None:
    source.append(items(1))
    table = vectorlake_iceberg.import_table(source, lake, "items")
    table.add_column("label", "id * 10")
    with source.update_schema() as update:
        update.add_column("label", ice.StringType())
    with pytest.raises(InvalidInputError, match=r"'label' \(field id 3\).*'label'.*\(field id 1000000000\)"):
        vectorlake_iceberg.sync(table, source)
    assert table.version == 2
    table.rename_column("label", "my_label")
    vectorlake_iceberg.sync(table, source)
    assert table.to_arrow().to_pylist() == [{"id": 1, "name": "n1", "label": None, "my_label": 10}]


def test_partition_evolution(lake: vl.Lake, tmp_path: Path) -> None:
    schema = Schema(*SCHEMA.fields, ice.NestedField(3, "day", ice.DateType(), required=False))
    source = new_catalog(tmp_path / "source").create_table("ns.items", schema)

    def rows(*ids: int) -> pa.Table:
        days = pa.array([dt.date(2024, 1, 1 + i % 3) for i in ids])
        return items(*ids).append_column("day", days)

    source.append(rows(*range(4)))
    table = vectorlake_iceberg.import_table(source, lake, "items")
    embed(table)
    before = own(table)
    with source.update_spec() as update:
        update.add_identity("day")
    source.append(rows(*range(4, 10)))
    vectorlake_iceberg.sync(table, source)
    same(table, source)
    with source.update_spec() as update:
        update.remove_field("day").add_field("id", "bucket[2]", "b")
    source.append(rows(10, 11))
    source.delete("id == 0")
    vectorlake_iceberg.sync(table, source)
    same(table, source)
    assert table.count("day = DATE '2024-01-02'") == source.scan("day == '2024-01-02'").to_arrow().num_rows
    assert {i: row for i, row in own(table).items() if i in before} == {
        i: row for i, row in before.items() if i != 0
    }


def test_rollback_of_the_source(lake: vl.Lake, source: IcebergTable) -> None:
    source.append(items(1, 2))
    first = source.current_snapshot().snapshot_id
    table = vectorlake_iceberg.import_table(source, lake, "items")
    embed(table)
    before = own(table)
    source.append(items(3))
    source.delete("id == 1")
    vectorlake_iceberg.sync(table, source)
    assert sorted(own(table)) == [2, 3]
    source.manage_snapshots().rollback_to_snapshot(first).commit()
    vectorlake_iceberg.sync(table, source)
    same(table, source)
    after = own(table)
    assert after[2] == before[2]
    assert after[1][1:] == (None, None)


def test_another_table_is_refused(tmp_path: Path, lake: vl.Lake, source: IcebergTable) -> None:
    source.append(items(1))
    table = vectorlake_iceberg.import_table(source, lake, "items")
    source.catalog.drop_table("ns.items")
    again = source.catalog.create_table("ns.items", SCHEMA)
    again.append(items(2))
    for call in (vectorlake_iceberg.sync, vectorlake_iceberg.is_current):
        with pytest.raises(InvalidInputError, match="UUID"):
            call(table, again)
    with pytest.raises(InvalidInputError, match="not imported from Iceberg"):
        vectorlake_iceberg.sync(lake.create_table("own", {"id": [1]}), again)


def test_a_source_that_can_not_be_found_is_asked_for(
    lake: vl.Lake, source: IcebergTable, tmp_path: Path
) -> None:
    source.append(items(1))
    table = vectorlake_iceberg.import_table(source, lake, "items")
    (tmp_path / "source" / "warehouse" / "ns" / "items" / "metadata").rename(tmp_path / "elsewhere")
    with pytest.raises(NotFoundError, match="load_table"):
        vectorlake_iceberg.sync(table)


def test_catalogs_that_pyiceberg_knows_are_asked(
    lake: vl.Lake, source: IcebergTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.append(items(1))
    table = vectorlake_iceberg.import_table(source, lake, "items")
    source.append(items(2))
    # A metadata file that never was committed: only the catalog knows.
    newest = Path(source.metadata_location.removeprefix("file://"))
    newest.with_name("00009-left-behind.metadata.json").write_bytes(
        newest.read_bytes().replace(b'"ns.items"', b'""')
    )
    monkeypatch.setenv("PYICEBERG_CATALOG__TEST__TYPE", "sql")
    monkeypatch.setenv("PYICEBERG_CATALOG__TEST__URI", f"sqlite:///{tmp_path}/source/catalog.db")
    vectorlake_iceberg.sync(table)
    state = vectorlake_iceberg.source_of(table)
    assert state is not None
    assert state.metadata_location == source.metadata_location


def test_only_changed_manifests_are_opened(tmp_path: Path, lake: vl.Lake) -> None:
    source = HandMade(tmp_path / "source", SCHEMA)
    for start in range(0, 20, 2):
        source.commit([source.data(items(start, start + 1))])
    table = vectorlake_iceberg.import_table(source.metadata, lake, "items")
    old = [Path(manifest.path.removeprefix("file://")) for manifest in source.manifests]
    old_data = list((source.folder / "data").iterdir())
    source.commit([source.data(items(100))])
    for path in (*old, *old_data):
        path.write_bytes(b"not to be read")
    snapshot = vectorlake_iceberg.sync(table)
    assert snapshot.summary["manifests_read"] == 1
    assert snapshot.summary["added_rows"] == 1


def test_expired_snapshots_of_the_source(tmp_path: Path, lake: vl.Lake) -> None:
    source = HandMade(tmp_path / "source", SCHEMA)
    files = [source.data(items(1, 2)), source.data(items(3, 4))]
    source.commit(files[:1])
    source.commit(files[1:])
    table = vectorlake_iceberg.import_table(source.metadata, lake, "items")
    embed(table)
    table.delete("id <= 2")
    before = own(table)
    source.commit([source.data(items(5))])
    source.snapshots = source.snapshots[-1:]
    source.write_metadata()
    vectorlake_iceberg.sync(table)
    assert {i: row for i, row in own(table).items() if i != 5} == before
    # The old files are gone as well: their rows can't be found again in the new one.
    compacted = source.data(items(4, 3, 2, 1))
    source.commit([compacted], remove=files, operation="replace")
    source.snapshots = source.snapshots[-1:]
    source.write_metadata()
    Path(files[1].file_path.removeprefix("file://")).unlink()
    table = lake.table("items")
    with pytest.raises(CorruptDataError, match="lost='renew'"):
        vectorlake_iceberg.sync(table)
    vectorlake_iceberg.sync(table, lost="renew")
    # Rows 1 and 2 are found in the file that is still there, and stay deleted; the others are new.
    after = own(table)
    assert sorted(after) == [3, 4, 5]
    assert after[3][1:] == after[4][1:] == (None, None)


def test_expired_files_do_not_stop_a_table_without_own_columns(tmp_path: Path, lake: vl.Lake) -> None:
    source = HandMade(tmp_path / "source", SCHEMA)
    gone, there = source.data(items(1, 2)), source.data(items(3, 4))
    source.commit([gone, there])
    vectorlake_iceberg.import_table(source.metadata, lake, "items")
    source.commit([source.data(items(4, 3, 2, 1))], remove=[gone, there], operation="replace")
    Path(gone.file_path.removeprefix("file://")).unlink()
    table = lake.table("items")
    vectorlake_iceberg.sync(table)
    rows = table.scan(columns=["id"], with_row_id=True).to_arrow().to_pylist()
    assert [(row["id"], row["_row_id"]) for row in rows] == [(4, 3), (3, 2), (2, 6), (1, 7)]


def test_a_column_promoted_after_the_import_still_prunes_rightly(tmp_path: Path, lake: vl.Lake) -> None:
    def schema(number: int, *kinds: ice.IcebergType) -> Schema:
        fields = [ice.NestedField(i + 1, f"x{i}", kind, required=False) for i, kind in enumerate(kinds)]
        return Schema(*fields, schema_id=number)

    source = HandMade(
        tmp_path / "source",
        schema(0, ice.IntegerType(), ice.FloatType(), ice.DecimalType(5, 2), ice.DateType()),
        version=3,
    )
    day, number = dt.date(2024, 1, 1), Decimal("1.25")
    old = pa.table(
        {"x0": pa.array([1], pa.int32()), "x1": pa.array([0.5], pa.float32()), "x2": [number], "x3": [day]}
    )
    source.commit([source.data(old.set_column(2, "x2", pa.array([number], pa.decimal128(5, 2))))])
    table = vectorlake_iceberg.import_table(source.metadata, lake, "items")
    source.evolve(schema(1, ice.LongType(), ice.DoubleType(), ice.DecimalType(12, 2), ice.TimestampType()))
    later, large = dt.datetime(2025, 6, 1, 12), Decimal("9999999999.99")
    new = {
        "x0": [2**40],
        "x1": [1e300],
        "x2": pa.array([large], pa.decimal128(12, 2)),
        "x3": pa.array([later], pa.timestamp("us")),
    }
    source.commit([source.data(pa.table(new))])
    vectorlake_iceberg.sync(table)
    midnight = dt.datetime(2024, 1, 1)
    assert table.to_arrow().to_pylist() == [
        {"x0": 1, "x1": 0.5, "x2": number, "x3": midnight}, {"x0": 2**40, "x1": 1e300, "x2": large, "x3": later},
    ]  # fmt: skip
    for condition, count in (
        ("x0 > 5", 1),
        ("x0 = 1", 1),
        ("x1 < 1", 1),
        ("x2 = 1.25", 1),
        ("x3 < TIMESTAMP '2025-01-01 00:00:00'", 1),
    ):
        assert table.count(condition) == count, condition


def test_own_children_of_a_struct_of_the_source_stay(tmp_path: Path, lake: vl.Lake) -> None:
    struct = ice.StructType(ice.NestedField(2, "a", ice.LongType(), required=False))
    source = new_catalog(tmp_path / "source").create_table(
        "ns.t", Schema(ice.NestedField(1, "s", struct, required=False))
    )
    source.append(pa.table({"s": [{"a": 1}]}))
    table = vectorlake_iceberg.import_table(source, lake, "t")
    table.add_column("s.mine", type=pa.int64(), default=5)
    with source.update_schema() as update:
        update.add_column(("s", "b"), ice.StringType())
    source.append(pa.table({"s": [{"a": 2, "b": "x"}]}))
    vectorlake_iceberg.sync(table, source)
    assert table.to_arrow()["s"].to_pylist() == [
        {"a": 1, "b": None, "mine": 5},
        {"a": 2, "b": "x", "mine": 5},
    ]


def test_own_rows_and_own_writes_in_between_are_kept(
    tmp_path: Path, lake: vl.Lake, source: IcebergTable
) -> None:
    source.append(items(*range(6)))
    table = vectorlake_iceberg.import_table(source, lake, "items")
    embed(table)
    table.append({"id": [1000], "name": ["mine"], "vec": [[9.0, 9.0]], "label": [7]})
    source.delete("id == 2")
    # Another handle computes a column after the sync has looked at the table, and before it commits.
    other = lake.table("items")
    original = table.commit
    calls: list[int] = []

    def late(build: Any) -> Any:
        def building(head: Any) -> Any:
            delta = build(head)
            if not calls:
                calls.append(head.version)
                other.backfill_column("label", "id * 100", rows="all")
            return delta

        return original(building)

    table.commit = late  # type: ignore[method-assign]
    vectorlake_iceberg.sync(table, source)
    assert calls
    found = own(table)
    assert {i: row[2] for i, row in found.items()} == {0: 0, 1: 100, 3: 300, 4: 400, 5: 500, 1000: 100000}
    assert found[4][:2] == (4, [4.0, 1.0])


def test_two_syncs_at_once_make_one_version(tmp_path: Path, lake: vl.Lake, source: IcebergTable) -> None:
    source.append(items(1, 2))
    vectorlake_iceberg.import_table(source, lake, "items")
    source.append(items(3))
    source.delete("id == 1")
    barrier = threading.Barrier(4)
    versions: list[int] = []

    def follow() -> None:
        table = lake.table("items")
        barrier.wait()
        versions.append(vectorlake_iceberg.sync(table, source.metadata_location).version)

    threads = [threading.Thread(target=follow) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions == [2, 2, 2, 2]
    assert lake.table("items").version == 2
    same(lake.table("items"), source)


def test_a_restored_version_can_be_synced_again(lake: vl.Lake, source: IcebergTable) -> None:
    source.append(items(1))
    table = vectorlake_iceberg.import_table(source, lake, "items")
    source.append(items(2))
    vectorlake_iceberg.sync(table, source)
    table.restore(1)
    assert not vectorlake_iceberg.is_current(table, source)
    vectorlake_iceberg.sync(table, source)
    same(table, source)
