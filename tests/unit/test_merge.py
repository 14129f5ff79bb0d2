"""Update, upsert, insert and merge against a naive model, clause by clause; bad input; writers that meet."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl

NUMBERS = itertools.count()
SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("name", pa.string()),
        pa.field("price", pa.float64()),
        pa.field("vec", vl.vector(2)),
    ]
)
ROWS = [
    {"id": i, "name": f"n{i}", "price": float(i), "vec": [float(i), 0.0] if i % 3 else None} for i in range(6)
]
Row = dict[str, Any]


@pytest.fixture
def table() -> vl.Table:
    lake = vl.connect(f"memory://merge-{next(NUMBERS)}")
    properties = {"write.scalar-format": "arrow", "write.vector-format": "arrow"}
    table = lake.create_table("t", SCHEMA, primary_key=["id"], properties=properties)
    table.append(ROWS[:3])
    table.append(ROWS[3:])
    table.delete("id = 4")
    return table


def again(table: vl.Table) -> vl.Table:
    """Another handle of the table at the version of this one."""
    other = vl.connect(table.uri.rpartition("/main/t")[0]).table("t")
    assert other.version == table.version
    return other


def contents(table: vl.Table) -> dict[int, Row]:
    return {row["id"]: row for row in table.to_arrow().to_pylist()}


def ids(table: vl.Table) -> dict[int, int]:
    found = table.scan(columns=["id", "_row_id"]).to_arrow()
    return dict(zip(found["id"].to_pylist(), found["_row_id"].to_pylist(), strict=True))


BASE = {row["id"]: row for row in ROWS if row["id"] != 4}
MODES = ["rows", "columns", "auto"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("assignments", "where", "model"),
    [
        ({"price": "price * 2"}, "id > 1", lambda r: {**r, "price": r["price"] * 2}),
        (
            {"price": 7, "name": "'x'"},
            "price >= 2 AND name <> 'n3'",
            lambda r: {**r, "price": 7.0, "name": "x"},
        ),
        ({"name": "upper(name)"}, None, lambda r: {**r, "name": r["name"].upper()}),
        ({"name": None}, "id = 0", lambda r: {**r, "name": None}),
        ({"vec": [1.0, 2.0]}, "vec IS NULL", lambda r: {**r, "vec": [1.0, 2.0]}),
        ({"price": "id + _row_id"}, "id = 3", lambda r: {**r, "price": float(r["id"] + 3)}),
    ],
)
def test_update(
    table: vl.Table, mode: str, assignments: Row, where: str | None, model: Callable[[Row], Row]
) -> None:
    hit = set(table.scan(columns=["id"], filter=where).to_arrow()["id"].to_pylist())
    before, versions = ids(table), table.version
    snapshot = table.update(assignments, where, mode=mode)
    assert contents(table) == {key: model(row) if key in hit else row for key, row in BASE.items()}
    assert (snapshot.operation, snapshot.summary["updated_rows"]) == ("update", len(hit))
    assert ids(table) == before, "rows keep their ids"
    changed = table.scan(columns=["id"], filter=f"_last_updated_version > {versions}").to_arrow()
    assert hit <= set(changed["id"].to_pylist())
    assert table.verify() == []


def test_an_update_in_place_writes_that_column_alone(table: vl.Table) -> None:
    before = {file.path for fragment in table.view.fragments() for file in fragment.files}
    table.update({"vec": [9.0, 9.0]}, "id = 1", mode="columns")
    new = [file for fragment in table.view.fragments() for file in fragment.files if file.path not in before]
    assert [[field.name for field in file.layout.fields] for file in new] == [["vec"]]
    assert contents(table) == {**BASE, 1: {**BASE[1], "vec": [9.0, 9.0]}}


def test_upsert_replaces_and_inserts(table: vl.Table) -> None:
    before = ids(table)
    rows = [
        {"id": 1, "name": "one", "price": None, "vec": [5.0, 5.0]},
        {"id": 9, "name": "nine", "price": 9.0, "vec": None},
    ]
    snapshot = table.upsert(rows)
    assert contents(table) == {**BASE, **{row["id"]: row for row in rows}}
    assert {key: ids(table)[key] for key in before} == before
    assert snapshot.summary["updated_rows"] == snapshot.summary["added_rows"] == 1
    assert table.upsert(SCHEMA.empty_table()).version == table.version == snapshot.version


@pytest.mark.parametrize("mode", MODES)
def test_a_partial_upsert_keeps_the_other_columns(table: vl.Table, mode: str) -> None:
    table.upsert({"price": [100.0, 200.0, 300.0], "id": [5, 8, 0]}, mode=mode)
    new = {"id": 8, "name": None, "price": 200.0, "vec": None}
    assert contents(table) == {
        **BASE, 5: {**BASE[5], "price": 100.0}, 0: {**BASE[0], "price": 300.0}, 8: new,
    }  # fmt: skip


def test_insert_leaves_what_is_there(table: vl.Table) -> None:
    snapshot = table.insert({"id": [4, 5, 6], "name": ["a", "b", "c"]})
    assert contents(table)[5] == BASE[5]
    assert {key: contents(table)[key]["name"] for key in (4, 6)} == {4: "a", 6: "c"}
    assert (snapshot.operation, snapshot.summary["added_rows"]) == ("insert", 2)
    assert table.insert({"id": [5]}) == snapshot


SOURCE = {"id": [0, 2, 4, 7], "price": [10.0, 20.0, 40.0, 70.0]}
PRICES = dict(zip(SOURCE["id"], SOURCE["price"], strict=True))


def model(
    *, update: str | None, delete: str | None, insert: str | None, by_source: str | None
) -> dict[int, tuple[str | None, float | None]]:
    rows = {key: (row["name"], row["price"]) for key, row in BASE.items()}
    result = dict(rows)
    for key, (name, price) in rows.items():
        if key in PRICES:
            if update == "always" or (update == "big" and PRICES[key] > 15):
                result[key] = (name, PRICES[key] + price)
            elif delete == "always" or (delete == "small" and price < 1):
                del result[key]
        elif by_source == "always" or (by_source == "cheap" and price < 4):
            del result[key]
    for key, price in PRICES.items():
        if key not in rows and (insert == "always" or (insert == "big" and price > 50)):
            result[key] = (None, price)
    return result


@pytest.mark.parametrize("mode", ["rows", "columns"])
@pytest.mark.parametrize(
    ("update", "delete", "insert", "by_source"),
    [
        case
        for case in itertools.product(
            [None, "always", "big"],
            [None, "always", "small"],
            [None, "always", "big"],
            [None, "always", "cheap"],
        )
        if any(case)
    ],
)
def test_every_combination_of_clauses(
    table: vl.Table,
    mode: str,
    update: str | None,
    delete: str | None,
    insert: str | None,
    by_source: str | None,
) -> None:
    merge = table.merge(SOURCE, mode=mode)
    if update:
        condition = "source.price > 15" if update == "big" else None
        merge = merge.when_matched_update({"price": "source.price + target.price"}, condition=condition)
    if delete:
        merge = merge.when_matched_delete(condition="target.price < 1" if delete == "small" else None)
    if insert:
        merge = merge.when_not_matched_insert(condition="source.price > 50" if insert == "big" else None)
    if by_source:
        merge = merge.when_not_matched_by_source_delete(
            condition="price < 4" if by_source == "cheap" else None
        )
    snapshot = merge.execute()
    expected = model(update=update, delete=delete, insert=insert, by_source=by_source)
    assert {key: (row["name"], row["price"]) for key, row in contents(table).items()} == expected
    assert snapshot.num_rows == len(expected)
    assert table.verify() == []


def test_other_columns_to_match_by(table: vl.Table) -> None:
    table.merge({"name": ["n1", "n5"], "price": [-1.0, -5.0]}, on=["name"]).when_matched_update().execute()
    assert {key: row["price"] for key, row in contents(table).items()} == {0: 0, 1: -1, 2: 2, 3: 3, 5: -5}
    merge = table.merge({"name": ["x"], "id": [5]}, on=["name"]).when_not_matched_insert()
    with pytest.raises(vl.AlreadyExistsError, match="id=5"):
        merge.execute()
    table.merge({"name": ["x"], "id": [6]}, on=["name"]).when_not_matched_insert().execute()
    assert contents(table)[6]["name"] == "x"


@pytest.mark.parametrize(
    ("work", "match"),
    [
        (lambda t: t.upsert({"id": [1, 1]}), "more than once"),
        (lambda t: t.upsert({"id": [1, None]}), "null"),
        (lambda t: t.upsert({"name": ["a"]}), "'id'"),
        (lambda t: t.upsert({"id": [1], "nam": ["a"]}), "did you mean 'name'"),
        (lambda t: t.upsert({"id": [1], "vec": [[1.0, 2.0, 3.0]]}), "vec"),
        (lambda t: t.merge({"id": [1]}).execute(), "without clauses"),
        (lambda t: t.merge({"id": [1]}).when_matched_update({"id": "3"}).execute(), "identifies rows"),
        (
            lambda t: t.merge({"name": ["a"], "id": [9]}, on="name").when_matched_update().execute(),
            "identifies rows",
        ),
        (
            lambda t: t.merge({"name": ["a", "a"]}, on=["name"]).when_matched_delete().execute(),
            "more than once",
        ),
        (lambda t: t.merge({"id": [1]}).when_matched_update(["price"]).execute(), "has no column 'price'"),
        (lambda t: t.merge({"id": [1]}).when_matched_update({"price": "source.x"}).execute(), "source"),
        (lambda t: t.merge({"id": [1]}).when_matched_delete(condition="target.pric > 1").execute(), "pric"),
        (
            lambda t: t.merge({"id": [1]}).when_not_matched_insert(condition="target.id > 1").execute(),
            "target",
        ),
        (lambda t: t.update({}), "what to set"),
        (lambda t: t.update({"id": "id + 1"}), "identifies rows"),
        (lambda t: t.update({"price": "prize"}), "did you mean price"),
        (lambda t: t.update({"price": "name"}, "id = 1"), "price"),
        (lambda t: t.update({"price": 1}, mode="colums"), "mode must be"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    table: vl.Table, work: Callable[[vl.Table], object], match: str
) -> None:
    before = {info.path for info in table.store.list()}
    with pytest.raises(vl.InvalidInputError, match=match):
        work(table)
    assert {info.path for info in table.store.list()} == before


def test_a_null_where_none_may_be_is_refused(table: vl.Table) -> None:
    lake = vl.connect(f"memory://merge-{next(NUMBERS)}")
    schema = pa.schema([("id", pa.int64()), pa.field("x", pa.int64(), nullable=False)])
    strict = lake.create_table("t", schema, primary_key=["id"])
    strict.append({"id": [1, 2], "x": [1, 2]})
    for mode in ("rows", "columns"):
        with pytest.raises(vl.InvalidInputError, match="'x' must not be null"):
            strict.update({"x": "nullif(x, 1)"}, mode=mode)
    with pytest.raises(vl.InvalidInputError, match="'x' must not be null and has no default"):
        strict.upsert({"id": [3]})
    strict.merge({"id": [1]}).when_matched_delete().execute()
    assert strict.count() == 1
    assert strict.version == 3


def test_no_primary_key_needs_on(table: vl.Table) -> None:
    plain = vl.connect(f"memory://merge-{next(NUMBERS)}").create_table("t", SCHEMA)
    with pytest.raises(vl.InvalidInputError, match="no primary key: say by which columns"):
        plain.upsert({"id": [1]})
    plain.merge({"id": [1]}, on="id").when_not_matched_insert().execute()
    plain.merge({"id": [1], "name": ["a"]}, on="id").when_matched_update().execute()
    assert plain.to_arrow()["name"].to_pylist() == ["a"]


# --- writers that meet ---


def test_concurrent_upserts_never_leave_two_rows(table: vl.Table) -> None:
    first, second = again(table), again(table)
    first.upsert({"id": [1, 10], "name": ["first", "first"]})
    second.upsert({"id": [1, 10, 11], "name": ["second"] * 3})
    assert {key: contents(second)[key]["name"] for key in (1, 10, 11)} == dict.fromkeys((1, 10, 11), "second")
    assert second.count() == len(BASE) + 2
    assert len(set(ids(second).values())) == second.count()


@pytest.mark.parametrize("mode", MODES)
def test_updates_that_meet_are_evaluated_again(table: vl.Table, mode: str) -> None:
    first, second = again(table), again(table)
    tx = second.transaction()
    first.update({"price": "price + 1"}, "id = 1", mode=mode)
    change = prepared_update(second, mode)
    again(first).update({"price": "price + 10"}, "id <= 2", mode=mode)
    second.commit(change)
    assert contents(second)[1]["price"] == 112.0
    tx.rollback()


def prepared_update(table: vl.Table, mode: str) -> Any:
    from vectorlake.ids import random_id
    from vectorlake.plan.merge import Mode
    from vectorlake.table.row_change import RowChange
    from vectorlake.table.update import Update

    table.refresh()
    update = Update({"price": "price + 100"}, "id = 1", mode=Mode(mode), new_id=random_id)
    return RowChange(update, table.view, new_id=random_id, prepared=update.prepare(table.view))


def test_an_update_copies_no_value_that_others_replaced(table: vl.Table) -> None:
    change = prepared_update(table, "rows")
    again(table).update({"name": "'new'"}, mode="columns")
    table.commit(change)
    assert (contents(table)[1]["name"], contents(table)[1]["price"]) == ("new", 101.0)


def test_an_update_of_rows_that_others_deleted_does_nothing_more(table: vl.Table) -> None:
    change = prepared_update(table, "rows")
    again(table).delete("id = 1")
    version = table.commit(change).version
    assert 1 not in contents(table)
    assert version == table.version


def test_an_append_of_a_key_that_an_upsert_brought_is_refused(table: vl.Table) -> None:
    stale = again(table)
    table.upsert({"id": [20]})
    with pytest.raises(vl.AlreadyExistsError, match="id=20"):
        stale.append({"id": [20]})
    stale.upsert({"id": [20], "name": ["kept"]})
    assert contents(stale)[20]["name"] == "kept"


def test_columns_that_are_gone_make_a_conflict(table: vl.Table) -> None:
    change = prepared_update(table, "rows")
    again(table).rename_column("price", "cost")
    with pytest.raises(vl.ConflictError, match="no longer fits"):
        table.commit(change)


def test_upserts_work_in_transactions(table: vl.Table) -> None:
    with table.transaction() as tx:
        tx.upsert({"id": [1, 30], "name": ["a", "b"]})
        tx.upsert({"id": [30], "name": ["c"]})
        tx.update({"price": 0}, "id = 30")
        again(table).append({"id": [31]})
    found = contents(table)
    assert (found[30]["name"], found[30]["price"], found[1]["name"], 31 in found) == ("c", 0.0, "a", True)


def test_many_rows(table: vl.Table) -> None:
    count = 40_000
    table.append({"id": np.arange(100, 100 + count), "name": ["old"] * count, "price": np.zeros(count)})
    new = {"id": np.arange(100 + count // 2, 100 + count * 3 // 2), "price": np.ones(count)}
    snapshot = table.upsert(new)
    assert snapshot.summary["updated_rows"] == snapshot.summary["added_rows"] == count // 2
    assert table.count("price = 1 AND name = 'old'") == count // 2
    assert table.count() == len(BASE) + count * 3 // 2


def test_an_insert_whose_row_was_deleted_meanwhile_is_evaluated_again(table: vl.Table) -> None:
    from vectorlake.ids import random_id
    from vectorlake.table.merge import _Merging, _Source
    from vectorlake.table.row_change import RowChange

    merge = table.merge({"id": [1, 40], "name": ["again", "new"]}).when_not_matched_insert()
    operation = _Merging(merge, _Source(merge.data, merge._on(), table.snapshot.schema, False))
    change = RowChange(operation, table.view, new_id=random_id, prepared=operation.prepare(table.view))
    again(table).delete("id = 1")
    table.commit(change)
    assert {key: contents(table)[key]["name"] for key in (1, 40)} == {1: "again", 40: "new"}
