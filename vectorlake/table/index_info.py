"""What is to be known of an index: how it was made, how much of the table it covers, how large it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vectorlake.metadata.index import Index
from vectorlake.table.coverage import coverage
from vectorlake.table.view import View


@dataclass(frozen=True)
class SegmentInfo:
    """One segment of an index, as it stands in a snapshot.

    Attributes:
        version: of the table, whose values it holds.
        rows: that it holds.
        live_rows: of these, those that the snapshot needs.
        fault: why it can't be read, if so; its rows are scanned then.
    """

    id: str
    path: str
    version: int
    rows: int
    live_rows: int
    bytes: int
    fault: str | None = None


@dataclass(frozen=True)
class IndexInfo:
    """An index as it stands in a snapshot. Prints as a summary.

    Attributes:
        column: the column's present name.
        options: all options of the kind.
        chosen: for options that were chosen from the data: why.
        covered_rows: live rows that a search need not scan.
        uncovered_rows: live rows that are scanned: appended or updated since; `optimize_indexes` takes them in.
        dead_rows: rows that segments hold for nothing: deleted or updated since.
        bytes: on disk, the model included.
        recall: (effort, recall@10) as measured when the model was trained; empty if it was not.
        faults: what can't be read, and what to do about it.
    """

    name: str
    column: str
    kind: str
    metric: str
    dimension: int
    element: str
    options: Mapping[str, Any]
    chosen: Mapping[str, str]
    rows: int
    covered_rows: int
    uncovered_rows: int
    dead_rows: int
    segments: tuple[SegmentInfo, ...]
    bytes: int
    model_bytes: int
    trained_rows: int
    recall: tuple[tuple[int, float], ...]
    faults: tuple[str, ...]

    def __str__(self) -> str:
        share = self.covered_rows / self.rows if self.rows else 1.0
        lines = [
            f"{self.name}: {self.kind} on {self.column} ({self.element} × {self.dimension}), {self.metric}",
            f"  rows: {self.covered_rows:,} of {self.rows:,} covered ({share:.1%}), {self.uncovered_rows:,} scanned",
            f"  segments: {len(self.segments)}, {self.bytes:,} bytes, {self.dead_rows:,} dead rows",
            f"  trained for {self.trained_rows:,} rows",
        ]
        lines += [
            f"  {key} = {value}" + (f": {self.chosen[key]}" if key in self.chosen else "")
            for key, value in self.options.items()
        ]
        if self.recall:
            lines.append(
                "  recall@10: " + ", ".join(f"{recall:.3f} at {effort}" for effort, recall in self.recall)
            )
        lines += [f"  fault: {fault}" for fault in self.faults]
        return "\n".join(lines)


def describe(view: View, index: Index) -> IndexInfo:
    """An index as it stands in a snapshot."""
    covered = coverage(view, index)
    known = {field.id: field.name for field in view.snapshot.schema.fields}
    segments = tuple(
        SegmentInfo(
            id=state.segment.id,
            path=state.segment.file.path,
            version=state.segment.version,
            rows=state.segment.rows,
            live_rows=0 if state.fault else state.live_rows,
            bytes=state.segment.file.size,
            fault=state.fault,
        )
        for state in covered.states
    )
    return IndexInfo(
        name=index.name,
        column=known.get(index.field_id, f"(dropped field {index.field_id})"),
        kind=index.kind,
        metric=index.metric,
        dimension=index.dimension,
        element=index.element,
        options=index.options,
        chosen=index.chosen,
        rows=view.snapshot.num_rows,
        covered_rows=covered.covered_rows,
        uncovered_rows=covered.uncovered_rows,
        dead_rows=sum(state.dead for state in covered.states),
        segments=segments,
        bytes=index.model.size + sum(segment.bytes for segment in segments),
        model_bytes=index.model.size,
        trained_rows=index.trained_rows,
        recall=tuple((effort, recall) for effort, _, recall in index.calibration),
        faults=covered.faults,
    )
