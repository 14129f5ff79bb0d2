"""With everything looked at, a search by an index equals the exact scan: after any history, at every version of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

import vectorlake as vl
from vectorlake.index.registry import kind_named

DIMENSION = 8
EVERYTHING = 1_000_000
NAME = "ix"

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "flat": ("flat", {}),
    "ivf": ("ivf", {}),
    "ivf-rabitq-4": ("ivf", {"codes": "rabitq", "bits": 4}),
    "ivf-pq": ("ivf", {"codes": "pq"}),
    "ivf-int8": ("ivf", {"codes": "int8"}),
    "ivf-flat": ("ivf", {"codes": "flat"}),
    "graph": ("graph", {}),
}
ELEMENTS = {"float32": "f32", "float16": "f16", "float64": "f64", "int8": "int8", "uint8": "uint8"}
THERE = [
    label
    for label, (kind, _) in KINDS.items()
    if importlib.util.find_spec(f"vectorlake.index.{kind}") is not None
]


class History:
    """A table with an index, and what can happen to both; every step is drawn from a seed."""

    def __init__(self, label: str, metric: str, element: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.kind, self.options = KINDS[label]
        self.metric, self.element = metric, element
        self.column = "vec"
        self.next_key = 0
        lake = vl.connect("memory://")
        schema = pa.schema(
            [
                pa.field("id", pa.int64(), nullable=False),
                ("vec", vl.vector(DIMENSION, ELEMENTS[element])),
                ("x", pa.int64()),
            ]
        )
        properties = {"write.fragment-rows": str(int(self.rng.integers(7, 60)))}
        self.table = lake.create_table("t", schema, primary_key=["id"], properties=properties)
        self.append(40)
        self.create()

    def vectors(self, count: int, *, nulls: bool = True) -> list[list[float] | None]:
        """Few distinct values, so that ties and duplicates are common; some rows null, some zero."""
        low, high = (0, 4) if self.element == "uint8" else (-2, 3)
        found: list[list[float] | None] = self.rng.integers(low, high, (count, DIMENSION)).tolist()
        for i in range(count):
            chance = self.rng.random()
            if nulls and chance < 0.1:
                found[i] = None
            elif chance < 0.15:
                found[i] = [0] * DIMENSION
        return found

    def rows(self, keys: list[int]) -> pa.Table:
        vector = pa.array(self.vectors(len(keys)), self.table.schema.field(self.column).type)
        marks = self.rng.integers(0, 10, len(keys))
        return pa.table({"id": keys, self.column: vector, "x": marks})

    def keys(self, share: float) -> list[int]:
        ids: list[int] = self.table.scan(columns=["id"]).to_arrow()["id"].to_pylist()
        return [key for key in ids if self.rng.random() < share]

    # --- what can happen ---

    def append(self, count: int | None = None) -> None:
        size = int(self.rng.integers(1, 30)) if count is None else count
        self.table.append(self.rows(list(range(self.next_key, self.next_key + size))))
        self.next_key += size

    def delete(self) -> None:
        if keys := self.keys(self.rng.choice([0.05, 0.5])):
            self.table.delete(f"id IN ({', '.join(map(str, keys))})")

    def upsert(self) -> None:
        new = list(range(self.next_key, self.next_key + 3))
        self.next_key += 3
        self.table.upsert(self.rows(self.keys(0.2) + new))

    def update_vectors(self) -> None:
        """New values in new files of the column, the rows where they were."""
        mode = str(self.rng.choice(["rows", "columns"]))
        found = self.table.scan(columns=["id"], filter="x < 3").to_arrow()["id"].to_pylist()
        if found:
            self.table.merge(self.rows(found), mode=mode).when_matched_update().execute()

    def replace_vectors(self) -> None:
        def fresh(batch: pa.RecordBatch) -> pa.Array:
            return pa.array(self.vectors(batch.num_rows), self.table.schema.field(self.column).type)

        self.table.backfill_column(
            self.column, fresh, inputs=["id"], rows=str(self.rng.choice(["all", "missing"]))
        )

    def update_others(self) -> None:
        self.table.update({"x": "x + 1"}, "x > 4", mode=str(self.rng.choice(["rows", "columns"])))

    def compact(self) -> None:
        if self.rng.random() < 0.5:
            self.table.compact(deleted_share=0)
        else:
            self.table.compact(sort_by="x")

    def optimize(self) -> None:
        """Incremental builds; small segments are merged, those with many dead rows written anew."""
        self.table.optimize_indexes(
            dead_share=float(self.rng.choice([0.0, 0.3, 1.0])),
            growth=float(self.rng.choice([0.0, 2.0])),
            segment_rows=int(self.rng.choice([20, 1 << 20])),
        )

    def rebuild(self) -> None:
        if not any(one.name == NAME for one in self.table.snapshot.indexes):
            self.create()
        elif self.vectors_there():
            rows = int(self.rng.choice([15, 1 << 20]))
            self.table.rebuild_index(NAME, calibrate=False, segment_rows=rows)

    def create(self) -> None:
        if self.vectors_there():
            self.table.create_index(
                self.column,
                self.kind,
                name=NAME,
                metric=self.metric,
                calibrate=False,
                segment_rows=int(self.rng.choice([16, 1 << 20])),
                **self.options,
            )

    def restore(self) -> None:
        versions = [one.version for one in self.table.history() if one.version > 1]
        self.table.restore(int(self.rng.choice(versions)))
        self.column = next(name for name in self.table.schema.names if name.startswith("vec"))

    def branch(self) -> None:
        """Go on upon a branch: its snapshots have versions, and indexes, of their own."""
        if self.table.branch_name is None:
            self.table = self.table.branch("dev")

    def rename(self) -> None:
        new = "vec" if self.column != "vec" else "vectors"
        self.table.rename_column(self.column, new)
        self.column = new

    def vectors_there(self) -> bool:
        return self.table.count(f"{self.column} IS NOT NULL") > 0

    # --- what holds ---

    def check(self, table: vl.Table) -> None:
        """Rows, order and distances are those of the scan; without and with a filter; the k nearest and all."""
        if not any(one.name == NAME for one in table.snapshot.indexes):
            return
        exhaustive = kind_named(self.kind).exhaustive
        everything = {"ef": EVERYTHING} if self.kind == "graph" else {"nprobe": EVERYTHING}
        asked = np.array(self.vectors(3, nulls=False), np.float32)
        asked[0] += 1 if self.metric == "cosine" and not asked[0].any() else 0
        asked = asked[asked.any(axis=1)] if self.metric == "cosine" else asked
        for k, where in ((4, None), (3, "x > 5"), (EVERYTHING, None)):
            found = table.knn(
                asked,
                k=k,
                metric=self.metric,
                filter=where,
                columns=["id"],
                index=NAME,
                pool=EVERYTHING,
                **everything,
            )
            exact = table.knn(asked, k=k, metric=self.metric, filter=where, columns=["id"], mode="exact")
            if exhaustive or k < EVERYTHING:
                assert found.to_pylist() == exact.to_pylist(), (k, where, table.version)
            else:
                # A graph may hold nodes that no path reaches; few.
                assert len(found) >= 0.98 * len(exact)


STEPS: list[Callable[[History], None]] = [
    History.append,
    History.append,
    History.delete,
    History.upsert,
    History.update_vectors,
    History.replace_vectors,
    History.update_others,
    History.compact,
    History.optimize,
    History.optimize,
    History.rebuild,
    History.restore,
    History.branch,
    History.rename,
]


@pytest.mark.parametrize("label", THERE)
@settings(
    max_examples=5,
    phases=[Phase.explicit, Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    print_blob=True,
)
@given(data=st.data())
def test_index_equals_scan_after_any_history(label: str, data: st.DataObject) -> None:
    kind = kind_named(KINDS[label][0])
    # All pairs of metric and element type that it has, but for hamming, which is tested below.
    metric = data.draw(st.sampled_from(sorted(m.value for m in kind.metrics if m.value != "hamming")))
    element = data.draw(st.sampled_from(sorted(kind.elements)))
    history = History(label, metric, element, data.draw(st.integers(0, 1 << 30)))
    history.check(history.table)
    for step in data.draw(st.lists(st.sampled_from(STEPS), min_size=4, max_size=8)):
        note(step.__name__)
        step(history)
        history.check(history.table)
    for snapshot in history.table.history():
        history.check(history.table.at(snapshot.version))
