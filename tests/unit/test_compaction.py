"""Compaction and clustering keep every value, row id and version, and are planned before they are run."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
from pathlib import Path

import pyarrow as pa
import pytest

import vectorlake as vl

NUMBERS = itertools.count()
SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("s", pa.string()),
        pa.field("d", pa.decimal128(12, 3)),
        pa.field("at", pa.timestamp("us", "UTC")),
        pa.field("vec", vl.vector(3, "f16")),
        pa.field("many", vl.multivector(2)),
        pa.field("blob", vl.blob()),
        pa.field("point", pa.struct([("x", pa.int32()), ("tags", pa.list_(pa.string()))])),
        pa.field("map", pa.map_(pa.string(), pa.int64())),
    ]
)


def row(n: int) -> dict[str, object]:
    if n % 4 == 3:
        return {"id": n}
    return {
        "id": n,
        "s": f"s{n}" * (n % 3),
        "d": decimal.Decimal(n) / 8,
        "at": dt.datetime(2025, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=n),
        "vec": [n, 0.5, -n],
        "many": [[n, i] for i in range(n % 3)],
        "blob": bytes([n % 251]) * (n * 100),
        "point": {"x": n, "tags": [None, "t"] if n % 2 else []},
        "map": [("k", n)],
    }


@pytest.fixture(params=["arrow", "defaults", "parquet"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> vl.Table:
    formats = {} if request.param == "defaults" else {"write.scalar-format": request.param}
    properties = {**formats, **({"write.small-rows": "1"} if request.param == "defaults" else {})}
    lake = vl.connect(tmp_path / "lake")
    table = lake.create_table("t", SCHEMA, primary_key=["id"], properties=properties)
    for start in range(0, 24, 6):
        table.append(pa.Table.from_pylist([row(n) for n in range(start, start + 6)], SCHEMA))
    return table


def everything(table: vl.Table) -> pa.Table:
    columns = [*table.schema.names, "_row_id", "_last_updated_version"]
    return table.scan(columns=columns).to_arrow()


def by_id(table: vl.Table) -> list[dict[str, object]]:
    return everything(table).sort_by("id").to_pylist()


def test_every_kind_of_value_and_history_is_kept(table: vl.Table) -> None:
    table.delete("id % 5 = 1")
    table.update({"s": "'rows'"}, "id < 4", mode="rows")
    table.update({"s": "'columns'"}, "id > 20", mode="columns")
    table.add_column("twice", "id * 2")
    table.rename_column("s", "text")
    table.add_column("late", type=pa.int32(), default=7)
    table.drop_column("map")
    before, version = by_id(table), table.version
    knn = table.knn([1.0, 0.5, -1.0], "vec", 5)
    plan = table.compact(dry_run=True)
    assert (plan.fragments_after, plan.rows) == (1, len(before))
    assert table.version == version, "a dry run writes nothing"
    snapshot = table.compact()
    assert (snapshot.operation, snapshot.num_fragments) == ("compact", 1)
    assert by_id(table) == before
    assert table.knn([1.0, 0.5, -1.0], "vec", 5).equals(knn)
    ids = [row["_row_id"] for row in before]
    assert table.take(ids[::-1], ["id"])["id"].to_pylist() == [row["id"] for row in before][::-1]
    assert table.count("twice > 20") == sum(row["twice"] > 20 for row in before)
    assert table.verify() == []
    assert by_id(table.at(version)) == before, "time travel"
    assert not table.compact(dry_run=True)
    assert table.compact() == snapshot
    with pytest.raises(vl.AlreadyExistsError, match="id=2"):
        table.append({"id": [2]})


def test_deleted_rows_are_folded_only_where_they_are_many(table: vl.Table) -> None:
    table.compact()
    table.delete("id = 3")
    assert not table.compact(dry_run=True), "one row of 24"
    table.delete("id < 6")
    before = by_id(table)
    plan = table.compact(dry_run=True)
    assert plan.deleted_rows == 6
    table.compact()
    assert next(table.view.fragments()).deletes is None
    assert by_id(table) == before
    table.delete("true")
    table.compact()
    assert table.count() == table.snapshot.num_fragments == 0


@pytest.mark.parametrize(
    ("sort_by", "key"),
    [
        ("s", lambda r: (r["s"] is None, r["s"] or "", r["id"])),
        ([("d", "desc")], lambda r: (r["d"] is None, -(r["d"] or 0), r["id"])),
        (["point_x", ("id", "desc")], lambda r: (r["point_x"], -r["id"])),
    ],
)
def test_clustering_orders_all_rows(table: vl.Table, sort_by: object, key: object) -> None:
    table.add_column("point_x", "id % 3")
    before = by_id(table)
    snapshot = table.compact(sort_by=sort_by, target_rows=10)  # type: ignore[arg-type]
    assert snapshot.operation == "cluster"
    assert [fragment.row_count for fragment in table.view.fragments()] == [8, 8, 8]
    assert [r["id"] for r in everything(table).to_pylist()] == [r["id"] for r in sorted(before, key=key)]  # type: ignore[arg-type]
    assert by_id(table) == before
    assert table.verify() == []


def test_large_fragments_are_split(table: vl.Table) -> None:
    table.compact()
    before = by_id(table)
    table.compact(target_rows=5)
    assert max(fragment.row_count for fragment in table.view.fragments()) <= 5
    assert by_id(table) == before


def test_columns_are_put_together_without_moving_rows(table: vl.Table) -> None:
    table.compact()
    for name in ("a", "b", "c"):
        table.add_column(name, "id + 1")
    (fragment,) = table.view.fragments()
    before = by_id(table)
    table.compact()
    (after,) = table.view.fragments()
    assert (after.id, after.first_row_id) == (fragment.id, fragment.first_row_id)
    assert len(after.files) < len(fragment.files)
    assert by_id(table) == before


def test_what_others_do_meanwhile_is_kept(table: vl.Table) -> None:
    from vectorlake.ids import random_id
    from vectorlake.plan.compaction import Target
    from vectorlake.table.compaction import Compaction, make_plan

    for sort in (False, True):
        table.compact(target_rows=6)
        plan = make_plan(table.view, Target(rows=1 << 20, nbytes=1 << 30))
        if sort:
            from vectorlake.plan.compaction import Ordering

            plan = make_plan(table.view, Target(1 << 20, 1 << 30, order=(Ordering("id", True),)))
        compaction = Compaction(table.view, plan, new_id=random_id)
        other = vl.connect(table.uri.removeprefix("file://").removesuffix("/main/t")).table("t")
        other.delete("id IN (1, 8, 15)")
        other.upsert({"id": [2, 100 + sort], "s": ["other", "new"]}, mode="rows")
        before = by_id(other)
        table.commit(compaction)
        assert by_id(table) == before
        assert table.snapshot.operation == ("cluster" if sort else "compact")
        assert table.verify() == []


@pytest.mark.parametrize(
    ("wishes", "match"),
    [
        ({"target_rows": 0}, "target_rows"),
        ({"memory_limit": -1}, "memory_limit"),
        ({"deleted_share": 2}, "deleted_share"),
        ({"foreign": "move"}, "foreign"),
        ({"sort_by": "nothing"}, "no column 'nothing'"),
        ({"sort_by": [("id", "up")]}, "'asc' or 'desc'"),
    ],
)
def test_bad_wishes_are_refused(wishes: dict[str, object], match: str) -> None:
    table = vl.connect(f"memory://compact-{next(NUMBERS)}").create_table("t", {"id": [1]})
    with pytest.raises(vl.VectorlakeError, match=match):
        table.compact(**wishes)  # type: ignore[arg-type]


def test_sort_columns_beyond_the_memory_limit_are_refused(table: vl.Table) -> None:
    with pytest.raises(vl.UnsupportedError, match="raise memory_limit"):
        table.compact(sort_by="s", memory_limit=100)
