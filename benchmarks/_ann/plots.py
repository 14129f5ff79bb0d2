"""Recall against speed, build time and size, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from _ann.peers import OURS

LOWEST = 0.6
"""Recall where the plot begins."""


def plot(outcomes: Sequence[dict[str, Any]], path: Path, *, title: str, k: int) -> None:
    """Draw three panels: queries a second over recall@k (the best at each recall), build seconds, megabytes on disk."""
    figure, (curves, build, size) = plt.subplots(1, 3, figsize=(17, 6), width_ratios=(2, 1, 1))
    for one in outcomes:
        front = frontier([(p["recall"], p["qps"]) for p in one["points"]])
        recalls, speeds = zip(*front, strict=True)
        ours = one["name"] in OURS
        curves.plot(
            recalls,
            speeds,
            marker="o",
            markersize=3,
            linewidth=2.4 if ours else 1.1,
            label=one["name"],
            linestyle="-" if ours else "--",
        )
    curves.set(
        xlabel=f"recall@{k}",
        ylabel="queries a second, batched",
        yscale="log",
        xlim=(LOWEST, 1.002),
        title=title,
    )
    curves.grid(alpha=0.3, which="both")
    curves.legend(fontsize=8)
    names = [one["name"] for one in outcomes]
    for axis, values, label in (
        (build, [one["build_s"] for one in outcomes], "build, seconds"),
        (size, [one["disk_mb"] or 0 for one in outcomes], "index on disk, MB"),
    ):
        axis.barh(names, values, color=["tab:red" if name in OURS else "tab:gray" for name in names])
        axis.invert_yaxis()
        axis.set(xlabel=label)
        axis.tick_params(axis="y", labelsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those points (recall, speed) that no other beats in both, by recall."""
    kept: list[tuple[float, float]] = []
    for recall, qps in sorted(points, reverse=True):
        if not kept or qps > kept[-1][1]:
            kept.append((recall, qps))
    return kept[::-1]
