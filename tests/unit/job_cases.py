"""One job of each kind over a small lake, for tests that kill workers and drivers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import vectorlake_jobs
from plain_functions import Embedder

import vectorlake as vl

ROWS = 240
DIMENSION = 8


def make_lake(folder: Path) -> None:
    """Tables `items`, of several fragments and with an index that lacks rows, and `asked`."""
    lake, rng = vl.connect(folder), np.random.default_rng(11)

    def rows(first: int, count: int) -> dict[str, Any]:
        return {
            "id": np.arange(first, first + count),
            "vec": rng.normal(size=(count, DIMENSION)).astype("f4"),
        }

    items = lake.create_table("items", rows(0, ROWS // 2))
    items.create_index("vec", kind="flat", name="old", calibrate=False)
    for first in range(ROWS // 2, ROWS, ROWS // 12):
        items.append(rows(first, ROWS // 12))
    items.delete("id % 9 = 2")
    lake.create_table("asked", rows(0, 90))


@dataclass(frozen=True)
class Case:
    """A job: how it's started, in which table its records are, and what it leaves."""

    start: Callable[..., Any]
    table: str
    contents: Callable[[vl.Lake], Any]


def _pairs(lake: vl.Lake, **how: Any) -> Any:
    return vectorlake_jobs.knn_join(
        lake.table("asked"), lake.table("items"), into="pairs", lake=lake, k=3, task_rows=15, **how
    )


def _near(lake: vl.Lake, **how: Any) -> Any:
    return vectorlake_jobs.knn_join(
        None, lake.table("items").at(_first(lake)), as_column="near", k=3, task_rows=40, **how
    )


def _backfill(lake: vl.Lake, **how: Any) -> Any:
    table = lake.table("items").at(_first(lake))
    return vectorlake_jobs.backfill(
        table, "made", Embedder, arguments={"size": 3}, type=vl.vector(3), inputs=["id"], task_rows=40, **how
    )


def _build(lake: vl.Lake, **how: Any) -> Any:
    table = lake.table("items").at(_first(lake))
    return vectorlake_jobs.build_index(
        table, name="fresh", task_rows=40, segment_rows=100, calibrate=False, **how
    )


def _update(lake: vl.Lake, **how: Any) -> Any:
    return vectorlake_jobs.update_index(
        lake.table("items").at(_first(lake)), "old", growth=0, task_rows=20, **how
    )


def _compact(lake: vl.Lake, **how: Any) -> Any:
    return vectorlake_jobs.compact(lake.table("items").at(_first(lake)), target_rows=45, **how)


def _cluster(lake: vl.Lake, **how: Any) -> Any:
    table = lake.table("items").at(_first(lake))
    return vectorlake_jobs.cluster(
        table, k=4, iterations=2, tolerance=0, model="four", lake=lake, task_rows=80, **how
    )


def _reduce(lake: vl.Lake, **how: Any) -> Any:
    return vectorlake_jobs.reduce(lake.table("items").at(_first(lake)), dimensions=3, task_rows=80, **how)


def _dedup(lake: vl.Lake, **how: Any) -> Any:
    table = lake.table("items").at(_first(lake))
    return vectorlake_jobs.dedup(table, max_distance=0.2, into="distinct", lake=lake, task_rows=60, **how)


def _first(lake: vl.Lake) -> int:
    """The version that `make_lake` has left: a job may have committed since."""
    operations = [snapshot for snapshot in lake.table("items").history() if "job" not in snapshot.summary]
    return operations[0].version


def _rows(lake: vl.Lake) -> Any:
    return lake.table("items").scan(with_row_id=True).to_arrow().sort_by("_row_id").to_pydict()


def _index(name: str) -> Callable[[vl.Lake], Any]:
    def found(lake: vl.Lake) -> Any:
        table = lake.table("items")
        (info,) = [one for one in table.indexes() if one.name == name]
        queries = lake.table("asked").scan(columns=["vec"]).to_arrow().column("vec").combine_chunks()
        answer = table.knn(queries, k=4, index=name)
        return answer.to_pydict(), info.covered_rows, info.uncovered_rows, len(info.segments)

    return found


CASES = {
    "knn-join": Case(_pairs, "pairs", lambda lake: lake.table("pairs").to_arrow().to_pydict()),
    "knn-column": Case(_near, "items", _rows),
    "backfill": Case(_backfill, "items", _rows),
    "build-index": Case(_build, "items", _index("fresh")),
    "update-index": Case(_update, "items", _index("old")),
    "cluster": Case(_cluster, "items", lambda lake: (_rows(lake), lake.table("four").to_arrow().to_pydict())),
    "reduce": Case(_reduce, "items", _rows),
    "dedup": Case(_dedup, "distinct", lambda lake: lake.table("distinct").to_arrow().to_pydict()),
    "compact": Case(_compact, "items", lambda lake: (_rows(lake), len(lake.table("items").fragments()))),
}
