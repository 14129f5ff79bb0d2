"""Spans tell what was planned, read, written and committed, and cost nothing where nobody listens."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from vectorlake import tracing

TRACED = textwrap.dedent(
    """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    import vectorlake as vl

    table = vl.connect("memory://traced").create_table("t", {"id": [1, 2, 3], "vec": [[1.0, 2.0]] * 3}, primary_key=["id"])
    with trace.get_tracer("test").start_as_current_span("outside"):
        table.append({"id": [4], "vec": [[0.0, 1.0]]})
        assert table.scan(filter="id > 2").to_arrow().num_rows == 2
    try:
        list(table.scan(filter="id / (id - 3) > 0").to_batches())
    except vl.VectorlakeError:
        pass
    found = {}
    for span in exporter.get_finished_spans():
        found.setdefault(span.name, []).append(span)
    outside = found["outside"][0].context.trace_id
    commit, scan = found["vectorlake.commit"][-1], found["vectorlake.scan"][-2]
    assert commit.context.trace_id == outside, "not part of the caller's trace"
    assert commit.attributes["vectorlake.version"] == 2 and commit.attributes["vectorlake.added_rows"] == 1
    assert commit.attributes["vectorlake.attempts"] == 1
    scans = [s.attributes for s in found["vectorlake.scan"]]
    assert any(a["vectorlake.rows"] == 2 and a["vectorlake.bytes"] > 0 for a in scans), scans
    plan = found["vectorlake.plan"][-1].attributes
    assert plan["vectorlake.fragments"] >= plan["vectorlake.survivors"] >= 1
    write = found["vectorlake.write"][-1].attributes
    assert (write["vectorlake.rows"], write["vectorlake.fragments"]) == (1, 1) and write["vectorlake.bytes"] > 0
    assert not any("id > 2" in str(value) for s in exporter.get_finished_spans() for value in s.attributes.values())
    print("traced")
    """
)


def test_spans_are_recorded_for_those_who_listen() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRACED], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "traced", done.stderr[-3000:]


def test_a_span_without_a_provider_is_one_and_the_same_object() -> None:
    first, second = tracing.span("scan", rows=1), tracing.span("commit")
    assert first is second
    with first as told:
        told.set(rows=3)


def test_without_the_api_nothing_is_traced() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import vectorlake as vl; from vectorlake import tracing\n"
        "assert tracing.span('scan') is tracing.span('plan')\n"
        "assert vl.connect('memory://x').create_table('t', {'id': [1]}).count() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
