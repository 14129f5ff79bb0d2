"""Random histories of a source, synced now and then: the table always reads as pyiceberg does, and keeps its own column."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import vectorlake_iceberg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from iceberg_support import digest, new_catalog, rows_of
from pyiceberg import types as ice
from pyiceberg.schema import Schema
from pyiceberg.table import Table as IcebergTable
from vectorlake_iceberg._match import distinct, fingerprints, pair

import vectorlake as vl

_names = (f"c{number}" for number in itertools.count())


def _rows(source: IcebergTable, keys: list[int], salt: int) -> pa.Table:
    """Rows with these keys under the source's present schema."""
    schema = source.schema().as_arrow()
    columns = []
    for field in schema:
        if field.name == "id":
            columns.append(pa.array(keys, pa.int64()))
            continue
        values = [None if (key + salt) % 5 == 0 else (key * 7 + salt) % 100 for key in keys]
        text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        columns.append(
            pa.array([None if v is None else f"v{v}" for v in values] if text else values, field.type)
        )
    return pa.table(columns, schema=schema)


class History:
    """Operations on a real source, numbered so that each draws different rows."""

    def __init__(self, source: IcebergTable) -> None:
        self.source = source
        self.next_key = 0

    def _optional(self, kind: type[ice.IcebergType] | None = None) -> list[ice.NestedField]:
        fields = [field for field in self.source.schema().fields if field.name != "id"]
        return [field for field in fields if kind is None or isinstance(field.field_type, kind)]

    def append(self, size: int) -> None:
        keys = list(range(self.next_key, self.next_key + 1 + size))
        self.next_key += len(keys)
        self.source.append(_rows(self.source, keys, size))

    def delete(self, size: int) -> None:
        self.source.delete(f"id >= {self.next_key // 2} and id < {self.next_key // 2 + size}")

    def overwrite(self, size: int) -> None:
        present = self.source.scan().to_arrow()
        keep = np.arange(present.num_rows) % 3 != size % 3
        self.source.overwrite(present.filter(pa.array(keep)).cast(self.source.schema().as_arrow()))

    def upsert(self, size: int) -> None:
        if self.source.current_snapshot().schema_id != self.source.schema().schema_id:
            self.append(size)  # pyiceberg compares with rows under the schema of the last snapshot
        keys = sorted({*range(0, self.next_key, 4), self.next_key})
        self.next_key += 1
        self.source.upsert(_rows(self.source, keys, size + 1), join_cols=["id"])

    def add_column(self, size: int) -> None:
        with self.source.update_schema() as update:
            update.add_column(next(_names), (ice.IntegerType(), ice.StringType(), ice.FloatType())[size % 3])

    def rename_column(self, size: int) -> None:
        if fields := self._optional():
            with self.source.update_schema() as update:
                update.rename_column(fields[size % len(fields)].name, next(_names))

    def drop_column(self, size: int) -> None:
        if fields := self._optional():
            with self.source.update_schema() as update:
                update.delete_column(fields[size % len(fields)].name)

    def promote_column(self, size: int) -> None:
        for kind, wider in ((ice.IntegerType, ice.LongType), (ice.FloatType, ice.DoubleType)):
            if fields := self._optional(kind):
                with self.source.update_schema() as update:
                    update.update_column(fields[0].name, wider())

    def move_column(self, size: int) -> None:
        if fields := self._optional():
            with self.source.update_schema() as update:
                update.move_first(fields[-1].name)


OPERATIONS = [name for name in vars(History) if not name.startswith("_")]
steps = st.lists(
    st.tuples(st.sampled_from([*OPERATIONS, "append", "delete", "sync", "sync", "sync"]), st.integers(0, 6)),
    min_size=3,
    max_size=10,
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp())
    yield path
    shutil.rmtree(path)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=steps, partitioned=st.booleans(), keyed=st.booleans())
def test_any_history(folder: Path, steps: list[tuple[str, int]], partitioned: bool, keyed: bool) -> None:
    root = Path(tempfile.mkdtemp(dir=folder))
    schema = Schema(
        ice.NestedField(1, "id", ice.LongType(), required=keyed),
        ice.NestedField(2, "a", ice.IntegerType(), required=False),
        ice.NestedField(3, "b", ice.StringType(), required=False),
        identifier_field_ids=[1] if keyed else [],
    )
    source = new_catalog(root / "source").create_table("ns.t", schema)
    if partitioned:
        with source.update_spec() as update:
            update.add_field("id", "bucket[3]", "p")
    history = History(source)
    history.append(6)
    table = vectorlake_iceberg.import_table(source, vl.connect(root / "lake"), "t")
    table.add_column("own", "concat('own ', cast(_row_id AS varchar))")
    owned = _own(table)
    shown = rows_of(source.scan().to_arrow())
    for operation, size in [*steps, ("sync", 0)]:
        if operation != "sync":
            getattr(history, operation)(size)
            continue
        before = digest(root / "source")
        columns = table.schema.names[:-1]
        vectorlake_iceberg.sync(table, source)
        assert digest(root / "source") == before
        expected = source.scan().to_arrow()
        found = table.to_arrow()
        assert found.column_names == [*expected.column_names, "own"]
        assert rows_of(found.select(expected.column_names)) == rows_of(expected)
        now = _own(table)
        for row_id, (values, own) in now.items():
            # Row ids are never reused: a row that was there still has its own value, if its source's values are unchanged.
            if row_id not in owned:
                assert own is None
            elif columns != table.schema.names[:-1]:
                assert own == owned[row_id][1] or (keyed and own is None)
            elif values == owned[row_id][0]:
                assert own == owned[row_id][1]
            else:
                assert keyed
                assert own is None
        if columns == table.schema.names[:-1]:
            # Every row that both versions have was found again, as often as both have it.
            gone = [values for row_id, (values, _) in owned.items() if row_id not in now]
            fresh = [values for row_id, (values, _) in now.items() if row_id not in owned]
            assert not set(gone) & set(fresh)
        assert table.take(list(now), columns=["own"])["own"].to_pylist() == [own for _, own in now.values()]
        owned, shown = now, rows_of(expected)
    assert shown == rows_of(table.to_arrow().drop_columns(["own"]))
    assert table.verify() == []


def _own(table: vl.Table) -> dict[int, tuple[str, str | None]]:
    """By row id: the source's values, and the own column's."""
    rows = table.scan(with_row_id=True).to_arrow().to_pylist()
    found = {row.pop("_row_id"): row for row in rows}
    assert len(found) == len(rows)
    return {
        row_id: (repr({k: v for k, v in row.items() if k != "own"}), row["own"])
        for row_id, row in found.items()
    }


# --- matching rows -------------------------------------------------------------------------------------------------


@given(old=st.lists(st.integers(0, 5), max_size=12), new=st.lists(st.integers(0, 5), max_size=12))
def test_pairs_are_multiset_intersections(old: list[int], new: list[int]) -> None:
    def keys(values: list[int]) -> np.ndarray:
        return np.array([[value, 1] for value in values], np.uint64).reshape(-1, 2)

    found = pair(keys(old), keys(new))
    used = [index for index in found.tolist() if index >= 0]
    assert len(used) == len(set(used)) == sum(min(old.count(value), new.count(value)) for value in set(old))
    assert all(index < 0 or old[index] == new[at] for at, index in enumerate(found.tolist()))
    for value in set(old) & set(new):
        mine = [index for at, index in enumerate(found.tolist()) if new[at] == value and index >= 0]
        assert mine == [index for index, other in enumerate(old) if other == value][: len(mine)]
    assert distinct(keys(old)) == (len(set(old)) == len(old))


VALUES = {
    "ints": pa.array([1, 2, None, 1], pa.int32()),
    "bools": pa.array([True, False, None, True]),
    "floats": pa.array([0.5, float("nan"), None, 0.5], pa.float32()),
    "texts": pa.array(["a", "", None, "a"]),
    "binaries": pa.array([b"a", b"\0", None, b"a"], pa.large_binary()),
    "decimals": pa.array([1, 2, None, 1]).cast(pa.decimal128(25, 2)),
    "fixed": pa.array([b"ab", b"cd", None, b"ab"], pa.binary(2)),
    "times": pa.array([1, 2, None, 1]).cast(pa.timestamp("us", "UTC")),
    "lists": pa.array([[1, None], [], None, [1, None]], pa.list_(pa.int64())),
    "vectors": pa.array([[1, 2], [3, 4], None, [1, 2]], pa.list_(pa.float32(), 2)),
    "structs": pa.array([{"a": 1, "b": "x"}, {"a": None, "b": None}, None, {"a": 1, "b": "x"}]),
    "maps": pa.array([[("k", 1)], [], None, [("k", 1)]], pa.map_(pa.string(), pa.int64())),
    "nested": pa.array([[{"a": ["x"]}], [{"a": None}], None, [{"a": ["x"]}]]),
}


@pytest.mark.parametrize("name", VALUES)
def test_fingerprints_tell_values_apart_and_know_equal_ones(name: str) -> None:
    array = VALUES[name]
    hashes = fingerprints(pa.record_batch({"x": array}))
    assert [tuple(h) for h in hashes[[0]]] == [tuple(h) for h in hashes[[3]]]
    assert distinct(hashes[:3])
    padded = pa.concat_arrays([array[3:], array, array[:1]])
    assert (fingerprints(pa.record_batch({"x": padded.slice(1, 4)})) == hashes).all()
    assert (fingerprints(pa.record_batch({"x": padded.slice(3, 2)})) == hashes[2:]).all()


def test_fingerprints_keep_columns_apart() -> None:
    hashes = [
        fingerprints(pa.record_batch({"a": [a], "b": [b]}))
        for a, b in (("x", "yz"), ("xy", "z"), ("xyz", ""), ("", "xyz"), (None, "xyz"), ("xyz", None))
    ]
    assert distinct(np.concatenate(hashes))
    lists = pa.array([[["a"], ["b"]], [["a", "b"]], [["a", "b"], []], [[], ["a", "b"]]])
    assert distinct(fingerprints(pa.record_batch({"x": lists})))
    assert len(fingerprints(pa.record_batch({"x": lists.slice(0, 0)}))) == 0
