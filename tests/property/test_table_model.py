"""A table under random operations equals a naive model of its rows, at every version, by scan, filter, take and KNN."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import vectorlake as vl

DIMENSION = 4
NAMES = st.text("abcxyz_é", min_size=0, max_size=5)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(-5, 20),
            "x": st.one_of(st.none(), st.floats(-3, 3, width=32), st.just(math.nan)),
            "name": st.one_of(st.none(), NAMES),
            "vec": st.one_of(st.none(), st.lists(st.integers(-3, 3), min_size=DIMENSION, max_size=DIMENSION)),
        }
    ),
    min_size=0,
    max_size=12,
)
SCHEMA = pa.schema(
    [("id", pa.int32()), ("x", pa.float32()), ("name", pa.string()), ("vec", vl.vector(DIMENSION))]
)

Row = dict[str, Any]

FILTERS: list[tuple[str, Any]] = [
    ("id > 5", lambda r: r["id"] is not None and r["id"] > 5),
    ("id BETWEEN 0 AND 3", lambda r: r["id"] is not None and 0 <= r["id"] <= 3),
    ("id IN (1, 7, 19)", lambda r: r["id"] in (1, 7, 19)),
    ("x < 0", lambda r: r["x"] is not None and r["x"] < 0),
    ("NOT x >= 0", lambda r: r["x"] is not None and not r["x"] >= 0),
    ("x IS NULL OR id = 2", lambda r: r["x"] is None or r["id"] == 2),
    ("name LIKE 'a%'", lambda r: r["name"] is not None and r["name"].startswith("a")),
    ("name IS NOT NULL AND id <> 4", lambda r: r["name"] is not None and r["id"] != 4),
    ("vec IS NULL", lambda r: r["vec"] is None),
]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


class TableModel(RuleBasedStateMachine):
    """`rows` maps row id to row, in table order; `versions` keeps what each version held."""

    scalar_format = "parquet"
    vector_format = "lance"

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[int, Row] = {}
        self.versions: dict[int, dict[int, Row]] = {}
        self.tags: dict[str, int] = {}
        self.names: dict[str, str] = {}
        self.extra: list[str] = []
        self.next_id = 0

    @initialize(rows=ROWS)
    def create(self, rows: list[Row]) -> None:
        self.lake = vl.connect("memory://")
        properties = {
            "write.scalar-format": self.scalar_format,
            "write.vector-format": self.vector_format,
            "write.fragment-rows": "5",
        }
        self.table = self.lake.create_table("t", self.arrow(rows), properties=properties)
        self.added(rows)
        self.remember()

    def arrow(self, rows: list[Row]) -> pa.Table:
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def added(self, rows: list[Row]) -> None:
        for row in rows:
            self.rows[self.next_id] = {**dict.fromkeys(self.extra), **row}
            self.next_id += 1

    def remember(self) -> None:
        self.versions[self.table.version] = dict(self.rows)

    @rule(rows=ROWS)
    def append(self, rows: list[Row]) -> None:
        self.table.append(self.arrow(rows))
        self.added(rows)
        self.remember()

    @rule(rows=ROWS)
    def overwrite(self, rows: list[Row]) -> None:
        self.table.overwrite(self.arrow(rows))
        self.rows = {}
        self.added(rows)
        self.remember()

    @rule(which=st.sampled_from(FILTERS))
    def delete(self, which: tuple[str, Any]) -> None:
        sql, matches = which
        before = self.table.version
        self.table.delete(sql)
        self.rows = {row_id: row for row_id, row in self.rows.items() if not matches(row)}
        if self.table.version != before:
            self.remember()

    @precondition(lambda self: len(self.extra) < 3)
    @rule(computed=st.booleans())
    def add_column(self, computed: bool) -> None:
        name = f"c{self.table.snapshot.next_field_id}"
        if computed:
            self.table.add_column(name, "id * 2", type=pa.int64())
            values = {row_id: row["id"] * 2 for row_id, row in self.rows.items()}
        else:
            self.table.add_column(name, type=pa.string())
            values = dict.fromkeys(self.rows)  # type: ignore[assignment]
        self.extra.append(name)
        self.rows = {row_id: {**row, name: values[row_id]} for row_id, row in self.rows.items()}
        self.remember()

    @precondition(lambda self: self.extra)
    @rule()
    def backfill(self) -> None:
        name = self.extra[-1]
        if self.table.schema.field(name).type != pa.int64():
            return
        before = self.table.version
        self.table.backfill_column(name, "id + 100")
        self.rows = {
            row_id: {**row, name: row["id"] + 100 if row[name] is None else row[name]}
            for row_id, row in self.rows.items()
        }
        if self.table.version != before:
            self.remember()

    @precondition(lambda self: self.extra)
    @rule()
    def drop_column(self) -> None:
        name = self.extra.pop()
        self.table.drop_column(name)
        self.rows = {row_id: {k: v for k, v in row.items() if k != name} for row_id, row in self.rows.items()}
        self.remember()

    @precondition(lambda self: self.extra)
    @rule()
    def rename_column(self) -> None:
        old = self.extra.pop(0)
        new = f"r{self.table.version}"
        self.table.rename_column(old, new)
        self.extra.insert(0, new)
        self.rows = {
            row_id: {new if k == old else k: v for k, v in row.items()} for row_id, row in self.rows.items()
        }
        self.remember()

    @rule()
    def reopen(self) -> None:
        self.table = self.lake.table("t")

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(sorted(self.versions)))
        self.table.restore(version)
        self.rows = dict(self.versions[version])
        self.extra = [name for name in self.table.schema.names if name not in SCHEMA.names]
        self.remember()

    @invariant()
    def scan_equals_model(self) -> None:
        self.check(self.table, self.rows)

    @rule(data=st.data())
    def earlier_version_equals_model(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(sorted(self.versions)))
        self.check(self.table.at(version), self.versions[version])

    def check(self, table: vl.Table, rows: dict[int, Row]) -> None:
        found = table.scan(with_row_id=True).to_arrow().to_pylist()
        assert table.count() == len(found) == len(rows)
        assert sorted(row["_row_id"] for row in found) == sorted(rows)
        for row in found:
            expected = rows[row.pop("_row_id")]
            assert set(row) == set(expected)
            assert all(same(row[name], expected[name]) for name in row), (row, expected)

    @rule(which=st.sampled_from(FILTERS), limit=st.one_of(st.none(), st.integers(0, 5)))
    def filtered_scan_equals_model(self, which: tuple[str, Any], limit: int | None) -> None:
        sql, matches = which
        expected = {row_id for row_id, row in self.rows.items() if matches(row)}
        scan = self.table.scan(columns=["_row_id", "vec"], filter=sql)
        found = set(scan.to_arrow()["_row_id"].to_pylist())
        assert found == expected
        assert self.table.count(sql) == len(expected)
        limited = (
            self.table.scan(columns=["_row_id"], filter=sql, limit=limit).to_arrow()["_row_id"].to_pylist()
        )
        assert set(limited) <= expected
        assert len(limited) == (len(expected) if limit is None else min(limit, len(expected)))

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def take_equals_model(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(sorted(self.rows)), min_size=1, max_size=6))
        taken = self.table.take(ids, columns=["id", "name", "vec"]).to_pylist()
        assert [(row["id"], row["name"], row["vec"]) for row in taken] == [
            (self.rows[i]["id"], self.rows[i]["name"], self.rows[i]["vec"]) for i in ids
        ]

    @rule(which=st.sampled_from([None, *FILTERS]), k=st.integers(1, 4))
    def knn_equals_model(self, which: tuple[str, Any] | None, k: int) -> None:
        query = np.array([1, 0, -1, 2], np.float32)
        candidates = [
            (float(((query.astype(float) - row["vec"]) ** 2).sum()), row_id)
            for row_id, row in self.rows.items()
            if row["vec"] is not None and (which is None or which[1](row))
        ]
        found = self.table.knn(query, "vec", k, filter=None if which is None else which[0])
        assert (
            list(zip(found["distance"].to_pylist(), found["row_id"].to_pylist(), strict=True))
            == sorted(candidates)[:k]
        )


@pytest.mark.parametrize(
    ("scalar_format", "vector_format"),
    [
        ("parquet", "lance"),
        ("vortex", "lance"),
        ("lance", "parquet"),
        ("arrow", "arrow"),
        ("parquet", "vortex"),
    ],
)
def test_table_equals_model(scalar_format: str, vector_format: str) -> None:
    machine = type("Machine", (TableModel,), {"scalar_format": scalar_format, "vector_format": vector_format})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
