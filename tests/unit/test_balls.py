"""Balls are made where rows are sorted, stay as long as the values do, and let exact searches skip what is far."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.errors import DamagedIndexWarning
from vectorlake.metadata.fragment import BallSegment, Fragment
from vectorlake.table.balls import VERSION, BallCollector, known_balls
from vectorlake.table.verify import Part, check_balls

ROWS, CLUSTERS, DIMENSION = 6000, 12, 8


def data(rows: int = ROWS, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(CLUSTERS, DIMENSION)) * 20
    cluster = rng.integers(CLUSTERS, size=rows)
    vectors = (centres[cluster] + rng.normal(size=(rows, DIMENSION))).astype("f4")
    return {"id": np.arange(rows) + seed * ROWS, "cluster": cluster, "vec": vectors}


@pytest.fixture
def table(tmp_path: Path) -> vl.Table:
    lake = vl.connect(tmp_path / "lake")
    table = lake.create_table("t", data(), properties={"write.fragment-rows": "2000"})
    table.compact(sort_by="cluster")
    return table


def fragments(table: vl.Table) -> list[Fragment]:
    return list(table.view.fragments())


def query(table: vl.Table, row: int = 5) -> np.ndarray:
    return data()["vec"][row]


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
def test_a_search_looks_at_few_fragments(table: vl.Table, metric: str) -> None:
    told = table.explain_knn(query(table), column="vec", k=5, metric=metric)
    assert told.fragments == 3
    assert told.fragments_skipped >= 1
    assert told.runs_skipped > told.runs / 2
    assert told.scanned < ROWS / 2
    assert f"{told.runs_skipped:,} of {told.runs:,} runs" in str(told)
    assert told.found.equals(table.at(1).knn(query(table), "vec", 5, metric=metric))


def test_a_batch_skips_and_a_range_search_too(table: vl.Table) -> None:
    queries = data()["vec"][:30]
    told = table.explain_knn(queries, column="vec", k=5)
    assert told.runs > 0
    assert told.found.equals(table.at(1).knn(queries, "vec", 5))
    far = table.explain_knn(np.full(DIMENSION, 1e3, "f4"), column="vec", k=None, max_distance=1.0)
    assert (far.found.num_rows, far.fragments_skipped) == (0, 3)


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
def test_a_run_without_vectors_is_no_start(tmp_path: Path, metric: str) -> None:
    rows = data()
    vectors: list[np.ndarray | None] = list(rows["vec"])
    for row in np.flatnonzero(rows["cluster"] == 3).tolist():
        vectors[row] = None
    fields = pa.schema([("id", pa.int64()), ("cluster", pa.int64()), ("vec", vl.vector(DIMENSION))])
    table = vl.connect(tmp_path).create_table("t", fields)
    table.append({**rows, "vec": vectors})
    table.compact(sort_by="cluster")
    asked = {"column": "vec", "k": 5, "metric": metric, "max_distance": 1e3}
    told = table.explain_knn(query(table), **asked)
    assert told.runs > 0
    assert told.found.equals(table.at(2).knn(query(table), **asked))
    assert told.found.num_rows == 5


def test_what_is_not_sorted_has_none(tmp_path: Path) -> None:
    table = vl.connect(tmp_path).create_table("t", data())
    table.append(data(100, 1))
    table.compact()
    assert not any(fragment.balls for fragment in fragments(table))
    assert table.explain_knn(query(table), column="vec").runs == 0


def test_rows_that_came_later_are_looked_at(table: vl.Table) -> None:
    near = query(table) + np.float32(0.001)
    table.append({"id": [90_000], "cluster": [0], "vec": near.reshape(1, -1)})
    table.delete("id = 5")
    found = table.knn(near, "vec", 3, columns=["id"])
    assert found["id"].to_pylist()[0] == 90_000
    assert 5 not in found["id"].to_pylist()
    assert table.explain_knn(near, column="vec").runs_skipped > 0


def test_a_column_that_is_written_anew_loses_its_own(table: vl.Table) -> None:
    table.add_column("other", lambda batch: batch["vec"], type=vl.vector(DIMENSION), inputs=["vec"])
    table.compact(sort_by="cluster")
    numbers = {name: table.snapshot.schema.field(name).id for name in ("vec", "other")}
    held = fragments(table)[0]
    assert {segment.field_id for segment in held.balls} == set(numbers.values())
    table.update({"vec": "NULL"}, "id % 2 = 0", mode="columns")
    changed = fragments(table)[0]
    assert changed.balls_of(numbers["vec"]) is None
    assert changed.balls_of(numbers["other"]) is not None
    assert table.verify() == []


def test_compaction_makes_them_anew_where_they_were(table: vl.Table) -> None:
    table.delete("id % 3 = 0")
    table.compact()
    held = fragments(table)
    assert all(fragment.balls and fragment.deletes is None for fragment in held)
    assert table.verify() == []
    assert table.explain_knn(query(table), column="vec").runs_skipped > 0


def test_other_files_for_the_same_rows_keep_them(table: vl.Table) -> None:
    before = [fragment.balls[0].path for fragment in fragments(table)]
    table.set_properties({"write.vector-format": "parquet", "write.small-format": "parquet"})
    plan = table.compact()
    assert plan.operation == "compact"
    number = table.snapshot.schema.field("vec").id
    assert [f.balls_of(number).path for f in fragments(table) if f.balls_of(number)] == before
    assert table.verify() == []
    assert table.explain_knn(query(table), column="vec").runs_skipped > 0


def test_damaged_ones_are_named_and_not_used(table: vl.Table, tmp_path: Path) -> None:
    path = fragments(table)[1].balls[0].path
    wanted = table.knn(query(table), "vec", 5)
    file = tmp_path / "lake" / "main" / "t" / path
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    again = vl.open_table(table.uri)
    with pytest.warns(DamagedIndexWarning, match=path):
        assert again.knn(query(table), "vec", 5).equals(wanted)
    (finding,) = again.verify()
    assert (finding.path, finding.part) == (path, Part.BALLS)
    again.repair(dry_run=False)
    assert again.verify() == []
    assert again.knn(query(table), "vec", 5).equals(wanted)


def test_balls_that_lie_are_found_by_verify(table: vl.Table) -> None:
    first, second = fragments(table)[:2]
    number = table.snapshot.schema.field("vec").id
    file = first.file_of(number)
    assert file is not None
    lie = msgspec.structs.replace(second.balls[0], source=file.path)
    findings = list(check_balls(table.view, msgspec.structs.replace(first, balls=(lie,)), lie))
    assert findings
    assert {finding.part for finding in findings} == {Part.BALLS}
    assert not list(check_balls(table.view, first, first.balls[0]))


def test_collecting_orphans_leaves_them(table: vl.Table) -> None:
    table.expire_snapshots(keep_last=1, older_than=dt.timedelta(0))
    table.collect_orphans(older_than=dt.timedelta(0))
    assert table.verify() == []


def test_a_newer_layout_is_left_alone(table: vl.Table) -> None:
    field = table.snapshot.schema.field("vec")
    fragment = fragments(table)[0]
    (segment,) = fragment.balls
    newer: BallSegment = msgspec.structs.replace(segment, version=VERSION + 1)
    assert known_balls(msgspec.structs.replace(fragment, balls=(newer,)), field) is None
    assert known_balls(fragment, field) is segment


def test_runs_end_where_the_order_changes(tmp_path: Path) -> None:
    table = vl.connect(tmp_path).create_table("t", data(10))
    vec, cluster = (table.snapshot.schema.field(name) for name in ("vec", "cluster"))
    collector = BallCollector([vec], [cluster])
    lengths = [300, 30, 40, 2500, 130]
    key = np.repeat(np.arange(len(lengths)), lengths)
    rows = pa.array(np.zeros((len(key), DIMENSION), "f4").reshape(-1))
    batch = pa.record_batch(
        {"cluster": pa.array(key), "vec": pa.FixedSizeListArray.from_arrays(rows, DIMENSION)}
    )
    for start in range(0, len(key), 700):
        collector.add(batch.slice(start, 700))
    collector._cut(ended=True)
    # 70 rows of two clusters make one run; a long cluster is cut into even parts, or into 1,024 as it streams by.
    assert collector._stops[:2] == [300, 370]
    assert 2870 in collector._stops
    assert collector._stops[-1] == 3000
    assert np.diff([0, *collector._stops]).max() <= 1024
