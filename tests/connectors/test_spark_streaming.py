"""Streams from and into tables: micro-batches by version, rate limits, exactly once across restarts and failures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from spark_support import session

import vectorlake as vl

vectorlake_spark = pytest.importorskip("vectorlake_spark")
pytestmark = pytest.mark.slow


@pytest.fixture
def spark() -> Any:
    return session()


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    return vl.connect(tmp_path / "lake")


def rows(start: int, stop: int) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(range(start, stop), pa.int64()),
            "vec": pa.array([[i, 1] for i in range(start, stop)], vl.vector(2)),
        }
    )


def run(
    frame: Any, sink: str, checkpoint: Path, *, mode: str = "append", options: dict[str, str] | None = None
) -> list[int]:
    """Stream what is there into a table; the rows of each micro-batch."""
    query = (
        frame.writeStream.format("vectorlake")
        .outputMode(mode)
        .options(**(options or {}))
        .option("checkpointLocation", str(checkpoint))
        .trigger(availableNow=True)
        .start(sink)
    )
    query.awaitTermination(120)
    if query.exception() is not None:
        raise query.exception()
    return [progress["numInputRows"] for progress in query.recentProgress if progress["numInputRows"]]


def stream(spark: Any, table: vl.Table, **options: str) -> Any:
    return spark.readStream.format("vectorlake").options(**options).load(table.uri)


def test_a_stream_goes_on_where_it_stopped_and_commits_each_batch_once(
    spark: Any, lake: vl.Lake, tmp_path: Path
) -> None:
    source = lake.create_table("ns.source", rows(0, 10))
    sink, checkpoint = f"{lake.uri}/ns/sink", tmp_path / "checkpoint"
    assert run(stream(spark, source), sink, checkpoint) == [10]
    copied = lake.table("ns.sink")
    assert copied.version == 1
    assert copied.schema.field("vec").type == vl.vector(2)
    source.append(rows(10, 15))
    source.compact()
    source.append(rows(15, 17))
    assert run(stream(spark, source), sink, checkpoint) == [7]
    assert run(stream(spark, source), sink, checkpoint) == []
    assert sorted(copied.refresh().to_arrow()["id"].to_pylist()) == list(range(17))
    version = copied.version

    # The query died after the commit, before Spark noted it: the batch is run again, and passed over.
    newest = max(int(path.name) for path in (checkpoint / "commits").iterdir() if path.name.isdecimal())
    for path in (checkpoint / "commits").glob(f"*{newest}*"):
        path.unlink()
    run(stream(spark, source), sink, checkpoint)
    assert copied.refresh().version == version
    assert copied.count() == 17

    # A query with a new checkpoint is a new stream, and not passed over.
    shutil.rmtree(checkpoint)
    run(stream(spark, source), sink, checkpoint)
    assert copied.refresh().count() == 34


def test_rates_are_limited_by_versions_and_by_rows(spark: Any, lake: vl.Lake, tmp_path: Path) -> None:
    source = lake.create_table("ns.source", rows(0, 100))
    for start in range(100, 150, 10):
        source.append(rows(start, start + 10))
    options = {"fromVersion": "1", "maxVersionsPerTrigger": "2"}
    assert run(stream(spark, source, **options), f"{lake.uri}/ns/a", tmp_path / "a") == [20, 20, 10]
    options = {"fromVersion": "1", "maxRowsPerTrigger": "25"}
    assert run(stream(spark, source, **options), f"{lake.uri}/ns/b", tmp_path / "b") == [20, 20, 10]
    # The rows that are there when the stream begins come in parts.
    batches = run(stream(spark, source, maxRowsPerTrigger="40"), f"{lake.uri}/ns/c", tmp_path / "c")
    assert sum(batches) == 150
    assert max(batches) <= 40
    assert sorted(lake.table("ns.c").to_arrow()["id"].to_pylist()) == list(range(150))
    offsets = [
        json.loads(line) for line in (tmp_path / "c/offsets/0").read_text().splitlines() if "parts" in line
    ]
    assert offsets == [{"version": 6, "parts": 1}]


def test_changes_are_told_or_refused(spark: Any, lake: vl.Lake, tmp_path: Path) -> None:
    source = lake.create_table("ns.source", rows(0, 5), primary_key=["id"])
    source.delete("id = 1")
    source.upsert({"id": [2, 7], "vec": [[9.0, 9.0], [7.0, 7.0]]})
    # One version a batch: tasks of several would fail in any order.
    refused = stream(spark, source, fromVersion="1", maxVersionsPerTrigger="1")
    with pytest.raises(Exception, match=r"version 2 of the table at .* deletes or updates rows"):
        run(refused, f"{lake.uri}/ns/a", tmp_path / "a")
    inserts = stream(spark, source, fromVersion="1", changes="inserts", columns="id")
    run(inserts, f"{lake.uri}/ns/b", tmp_path / "b")
    assert lake.table("ns.b").to_arrow()["id"].to_pylist() == [7]
    told = stream(spark, source, fromVersion="1", changes="all", filter="id <> 7")
    run(told.withColumnsRenamed({"_row_id": "row"}), f"{lake.uri}/ns/c", tmp_path / "c")
    found = lake.table("ns.c").scan(["_change_type", "_commit_version", "row", "id"]).to_arrow()
    assert sorted(tuple(row.values()) for row in found.to_pylist()) == [
        ("delete", 2, 1, 1),
        ("update_postimage", 3, 2, 2),
        ("update_preimage", 3, 2, 2),
    ]
    everything = stream(spark, source, changes="all")
    run(everything.withColumnsRenamed({"_row_id": "row"}), f"{lake.uri}/ns/d", tmp_path / "d")
    assert set(lake.table("ns.d").to_arrow()["_change_type"].to_pylist()) == {"insert"}


def test_aggregates_replace_the_rows_of_their_sink(spark: Any, lake: vl.Lake, tmp_path: Path) -> None:
    source = lake.create_table("ns.source", rows(0, 10))
    counted = stream(spark, source).groupBy().count()
    sink = f"{lake.uri}/ns/sink"
    run(counted, sink, tmp_path / "checkpoint", mode="complete")
    source.append(rows(10, 30))
    run(counted, sink, tmp_path / "checkpoint", mode="complete")
    assert lake.table("ns.sink").to_arrow().to_pylist() == [{"count": 30}]


def test_batches_can_be_upserted(spark: Any, lake: vl.Lake, tmp_path: Path) -> None:
    source = lake.create_table("ns.source", rows(0, 4))
    lake.create_table("ns.sink", rows(2, 6), primary_key=["id"])
    run(stream(spark, source), f"{lake.uri}/ns/sink", tmp_path / "checkpoint", options={"mode": "upsert"})
    assert sorted(lake.table("ns.sink").to_arrow()["id"].to_pylist()) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"changes": "some"}, "option 'changes' must be 'append-only', 'inserts' or 'all', not 'some'"),
        ({"maxRowsPerTrigger": "5", "maxVersionsPerTrigger": "5"}, "exclude each other"),
        ({"fromVersion": "99"}, "version 99"),
    ],
)
def test_streams_that_mean_nothing_are_refused(
    spark: Any, lake: vl.Lake, tmp_path: Path, options: dict[str, str], message: str
) -> None:
    source = lake.create_table("ns.source", rows(0, 5))
    with pytest.raises(Exception, match=message):
        run(stream(spark, source, **options), f"{lake.uri}/ns/a", tmp_path / "a")
