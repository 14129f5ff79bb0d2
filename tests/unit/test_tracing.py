"""Spans tell what was planned, read, written and committed, hang together, and are nothing where nobody listens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake import tracing
from vectorlake.table.scan import ordered_map

trace = pytest.importorskip("opentelemetry.trace")
sdk = pytest.importorskip("opentelemetry.sdk.trace")
export = pytest.importorskip("opentelemetry.sdk.trace.export")
memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

SECRET = "Rosebud"


class Spans:
    """What was recorded, in the order in which it ended."""

    def __init__(self) -> None:
        self.exporter = memory.InMemorySpanExporter()
        self.provider = sdk.TracerProvider()
        self.provider.add_span_processor(export.SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")

    def all(self) -> list[sdk.ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[sdk.ReadableSpan]:
        return [span for span in self.all() if span.name == f"vectorlake.{name}"]

    def attributes(self, name: str) -> dict[str, object]:
        """Those of the only span of a name, without the prefix."""
        (span,) = self.named(name)
        return {key.removeprefix("vectorlake."): value for key, value in span.attributes.items()}

    def path(self, span: sdk.ReadableSpan) -> list[str]:
        """Its name and those of the spans above it."""
        by_id = {other.context.span_id: other for other in self.all()}
        names = [span.name.removeprefix("vectorlake.")]
        while span.parent is not None and span.parent.span_id in by_id:
            span = by_id[span.parent.span_id]
            names.append(span.name.removeprefix("vectorlake."))
        return names


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    recorded = Spans()
    # The API lets a provider be set once in a process: other tests should not find it.
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: recorded.provider)
    monkeypatch.setattr(trace, "get_tracer", recorded.provider.get_tracer)
    return recorded


@pytest.fixture
def table(tmp_path: Path) -> vl.Table:
    schema = pa.schema([("id", pa.int64()), ("name", pa.string()), ("vec", vl.vector(2))])
    lake = vl.connect(tmp_path / "lake", principal=SECRET)
    found = lake.create_table("t", schema, primary_key=["id"], properties={"write.fragment-rows": "100"})
    found.append(rows(0, 300))
    return found


def rows(start: int, count: int) -> dict[str, object]:
    ids = np.arange(start, start + count)
    return {"id": ids, "name": [f"n{i}" for i in ids], "vec": np.stack([ids, ids + 1], 1).astype("f4")}


def test_a_scan_tells_what_it_planned_and_read(spans: Spans, table: vl.Table) -> None:
    spans.exporter.clear()
    found = table.scan(["id", "name"], "id >= 150").to_arrow()
    told = spans.attributes("scan")
    assert told == {
        "table": table.uri, "version": 2, "columns": ("id", "name"), "filtered": True,
        "rows": 150, "bytes": told["bytes"], "fragments": 2, "pruned": 1,
    }  # fmt: skip
    assert told["bytes"] == sum(batch.nbytes for batch in found.to_batches())
    plan = spans.attributes("plan")
    assert (plan["fragments"], plan["planned"]) == (3, 2)
    (span,) = spans.named("plan")
    assert spans.path(span) == ["plan", "scan"]


def test_a_scan_ends_when_it_is_abandoned(spans: Spans, table: vl.Table) -> None:
    spans.exporter.clear()
    batches = table.scan(batch_size=10).to_batches()
    next(batches)
    assert spans.named("scan") == []
    batches.close()  # type: ignore[attr-defined]
    assert spans.attributes("scan")["rows"] == 10
    (span,) = spans.named("scan")
    assert span.status.is_unset


def test_a_scan_that_stops_early_does_not_count_what_it_never_planned(spans: Spans, table: vl.Table) -> None:
    spans.exporter.clear()
    table.head(5)
    told = spans.attributes("scan")
    assert told["rows"] == 5
    assert not {"fragments", "pruned"} & told.keys()


def test_what_consumes_a_scan_is_not_part_of_it(spans: Spans, table: vl.Table) -> None:
    spans.exporter.clear()
    with spans.tracer.start_as_current_span("outside"):
        for _ in table.scan(batch_size=100).to_batches():
            with spans.tracer.start_as_current_span("consume"):
                pass
    consumed = [span for span in spans.all() if span.name == "consume"]
    assert len(consumed) == 3
    assert {tuple(spans.path(span)) for span in consumed} == {("consume", "outside")}
    (scan,) = spans.named("scan")
    assert spans.path(scan) == ["scan", "outside"]


@pytest.mark.parametrize("threads", [1, 3])
def test_spans_in_worker_threads_hang_below_the_one_that_asked(spans: Spans, threads: int) -> None:
    def work(item: int) -> int:
        with spans.tracer.start_as_current_span("work"):
            return item

    with spans.tracer.start_as_current_span("outside"):
        assert list(ordered_map(work, range(20), threads=threads)) == list(range(20))
    told = tracing.span("scan")
    assert list(ordered_map(told.carried(work), range(20), threads=threads)) == list(range(20))
    told.end()
    paths = [tuple(spans.path(span)) for span in spans.all() if span.name == "work"]
    assert paths == [("work", "outside")] * 20 + [("work", "scan")] * 20


def test_writes_and_commits_hang_below_the_operation(spans: Spans, table: vl.Table) -> None:
    spans.exporter.clear()
    table.append(rows(1000, 250))
    (commit,), (write,) = spans.named("commit"), spans.named("write")
    assert spans.path(commit) == ["commit", "append"]
    assert spans.path(write) == ["write", "append"]
    size = sum(file["size"] for file in table.files().to_pylist() if file["sequence"] == 3)
    told = spans.attributes("write")
    assert (told["rows"], told["fragments"], told["bytes"]) == (250, 3, size)
    told = spans.attributes("commit")
    assert (told["base"], told["version"], told["operation"], told["attempts"]) == (2, 3, "append", 1)
    assert (told["added_rows"], told["added_fragments"], told["added_bytes"]) == (250, 3, size)


def test_a_commit_counts_its_attempts(spans: Spans, table: vl.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    other = table.at(table.version)
    log, put = table._log, table._log.put_snapshot
    spans.exporter.clear()

    def beaten(snapshot: vl.Snapshot) -> None:
        monkeypatch.setattr(log, "put_snapshot", put)
        rival = vl.open_table(other.uri)
        rival.set_properties({"rival": "was here"})
        put(snapshot)

    monkeypatch.setattr(log, "put_snapshot", beaten)
    table.set_properties({"mine": "too"})
    commits = [dict(span.attributes) for span in spans.named("commit")]
    assert [told["vectorlake.attempts"] for told in commits] == [1, 2]


@pytest.mark.parametrize("operation", ["take", "knn", "delete", "merge", "upsert", "compact", "verify", "expire_snapshots",
    "collect_orphans", "add_column"])  # fmt: skip
def test_operations_have_spans_of_their_own(operation: str, spans: Spans, table: vl.Table) -> None:
    spans.exporter.clear()
    match operation:
        case "take":
            table.take([3, 4], ["id"])
        case "knn":
            table.knn([0.0, 1.0], k=2, filter="id > 5")
        case "delete":
            table.delete("id < 5")
        case "merge":
            table.merge({"id": [1], "name": ["x"]}).when_matched_update().execute()
        case "upsert":
            table.upsert({"id": [1], "name": ["x"]})
        case "add_column":
            table.add_column("twice", "id * 2")
        case _:
            getattr(table, operation)()
    told = spans.attributes(operation)
    assert (told["table"], told["version"]) == (table.uri, 2)
    if operation == "take":
        assert (told["rows"], told["columns"]) == (2, ("id",))
    if operation == "knn":
        assert (told["queries"], told["k"], told["metric"], told["column"]) == (1, 2, "l2", "vec")
    top = [span for span in spans.all() if span.parent is None]
    assert [span.name for span in top] == [f"vectorlake.{operation}"]


def test_no_value_is_ever_recorded(spans: Spans, table: vl.Table) -> None:
    table.append({"id": [5000], "name": [SECRET], "vec": [[0.0, 0.0]]})
    assert table.count(f"name = '{SECRET}'") == 1
    table.knn([0.0, 1.0], k=2, filter=f"name <> '{SECRET}'")
    table.update({"name": f"concat(name, '{SECRET}')"}, f"name = '{SECRET}'")
    with pytest.raises(vl.InvalidInputError):
        table.update({"name": f"'{SECRET}' +"}, "id = 1")
    with pytest.raises(vl.AlreadyExistsError):
        table.append({"id": [7], "name": [SECRET], "vec": [[0.0, 0.0]]})
    assert len(spans.all()) > 10
    for span in spans.all():
        assert SECRET not in span.to_json()
        assert "id=7" not in span.to_json()


def test_an_error_is_told_by_its_type(spans: Spans, table: vl.Table) -> None:
    spans.exporter.clear()
    with pytest.raises(vl.AlreadyExistsError):
        table.append(rows(7, 1))
    (failed,) = spans.named("append")
    assert failed.attributes["error.type"] == "AlreadyExistsError"
    assert (failed.status.status_code, failed.status.description) == (
        trace.StatusCode.ERROR,
        "AlreadyExistsError",
    )
    assert failed.events == ()


def test_a_scan_that_fails_says_so(spans: Spans, table: vl.Table, tmp_path: Path) -> None:
    for file in tmp_path.glob("lake/main/t/data/*"):
        file.unlink()
    spans.exporter.clear()
    with pytest.raises(vl.CorruptDataError):
        table.to_arrow()
    assert spans.attributes("scan")["error.type"] == "CorruptDataError"


def test_a_span_is_one_shared_object_where_nobody_listens() -> None:
    first, second = tracing.span("scan", rows=1), tracing.span("commit")
    assert first is second
    with first as told:
        told.set(rows=3)

    def items() -> Iterator[int]:
        yield 1

    iterator = items()
    assert told.over(iterator) is iterator
    assert told.carried(items) is tracing.carried(items) is items


def test_the_api_is_neither_needed_nor_loaded() -> None:
    code = (
        "import sys, vectorlake as vl\n"
        "assert vl.connect('memory://x').create_table('t', {'id': [1]}).count() == 1\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_provider_that_a_program_sets_is_found() -> None:
    code = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import vectorlake as vl
lake = vl.connect("memory://traced")
table = lake.create_table("t", {"id": [1]})
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
table.scan().to_arrow()
names = [span.name for span in exporter.get_finished_spans()]
assert names == ["vectorlake.plan", "vectorlake.scan"], names
(scope,) = {span.instrumentation_scope.name for span in exporter.get_finished_spans()}
assert scope == "vectorlake"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
