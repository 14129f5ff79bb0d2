"""What came out: a table on the screen with ratios of ours to each peer, a JSON file, and plots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

from _ann.measure import TARGETS
from _ann.peers import OURS

Outcome = dict[str, Any]


def speed(outcome: Outcome, target: float) -> float | None:
    """The most queries a second at a recall of at least so much."""
    reached = [point["qps"] for point in outcome["points"] if point["recall"] >= target]
    return max(reached) if reached else None


def latency(outcome: Outcome, target: float) -> float | None:
    """Median milliseconds of a single query at such a recall."""
    return next((one["p50"] for one in outcome["single"] if one["target"] == target), None)


def show(outcomes: Sequence[Outcome], title: str) -> None:
    """Print all figures; beside a peer's, in brackets, how many times better our best is."""
    ran = [one for one in outcomes if not one["skipped"]]
    grid = Grid(title=title, caption=r"\[n×]: how many times better the best of ours is")
    grid.add_column("index")
    for column in (
        "build s",
        "disk MB",
        *(f"QPS ≥ {t}" for t in TARGETS),
        *(f"p50 ms ≥ {t}" for t in TARGETS),
    ):
        grid.add_column(column, justify="right")
    grid.add_column("p99 ms", justify="right")
    ours = [one for one in ran if one["name"] in OURS]
    for one in ran:
        peer = one["name"] not in OURS
        cells = [f"{one['build_s']:.1f}", "-" if one["disk_mb"] is None else f"{one['disk_mb']:.0f}"]
        for target in TARGETS:
            value, best = speed(one, target), _most(speed(our, target) for our in ours)
            ratio = best / value if peer and best and value else None
            cells.append(_cell(value, "{:,.0f}", ratio))
        for target in TARGETS:
            value, best = latency(one, target), _least(latency(our, target) for our in ours)
            ratio = value / best if peer and best and value else None
            cells.append(_cell(value, "{:.3f}", ratio))
        tail = [lat["p99"] for lat in one["single"]]
        grid.add_row(one["name"], *cells, f"{tail[0]:.3f}" if tail else "-", style="" if peer else "bold")
    console = Console(width=None if Console().is_terminal else 150)
    console.print(grid)
    joined = [one for one in ran if one.get("join")]
    for one in joined:
        join = one["join"]
        console.print(
            f"self-join of {join['rows']:,} rows, {one['name']}: {join['seconds']:.1f} s at recall {join['recall']:.4f}"
        )
    for one in outcomes:
        if one["skipped"]:
            console.print(f"skipped {one['name']}: {one['skipped']}")


def save(outcomes: Sequence[Outcome], facts: dict[str, Any], folder: Path, name: str) -> list[Path]:
    """Write everything as JSON and, where matplotlib is installed, as plots; the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"ann-{name}.json"
    path.write_text(json.dumps({**facts, "outcomes": list(outcomes)}, indent=1))
    try:
        from _ann.plots import plot
    except ImportError:
        return [path]
    measured = [one for one in outcomes if not one["skipped"] and one["points"]]
    if not measured:
        return [path]
    picture = folder / f"ann-{name}.png"
    plot(measured, picture, title=name, k=facts["k"])
    return [path, picture]


def _cell(value: float | None, pattern: str, ratio: float | None) -> str:
    if value is None:
        return "-"
    return pattern.format(value) + (f" [{ratio:.1f}×]".replace("[", r"\[") if ratio else "")


def _most(values: Any) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _least(values: Any) -> float | None:
    return min((value for value in values if value is not None), default=None)
