"""Where product space lies in a self-join, and how its pairs are looked at first: what a sample of the rows tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.kernels.aim import Aim, aim
from vectorlake.kernels.head import choose_head
from vectorlake.kernels.metric import Metric
from vectorlake.kernels.quantize import Frame, centre_of
from vectorlake.kernels.rows import Rows

_SAMPLE: Final = 16_384
_LEAST_TO_AIM: Final = 20_000
"""Fewer rows are joined exactly as soon."""
_NEIGHBOURS_TRIED: Final = 4000
_LEAST_ASKED: Final = 100
_TRIED: Final = 2048


def frame_for(
    rows: list[Rows], k: int, metric: Metric, recall: float, threads: int
) -> tuple[Frame, Aim | None]:
    """Where product space lies, and how to look at pairs first unless all neighbours are to be found.

    Args:
        rows: of the table, in parts.
        k, metric, recall, threads: see `self_knn.nearest_others`.
    """
    total = sum(part.count for part in rows)
    dimension = rows[0].dimension if rows else 1
    sample = _strided(rows, dimension)
    centre = np.zeros(dimension, np.float32)
    if metric is not Metric.DOT:
        # Under dot the two sides would need different centres.
        centre = centre_of(Rows.of(sample, what="vectors"), metric, np.empty(0, np.bool_))
    if recall < 1 and total >= _LEAST_TO_AIM:
        found = _aimed(rows, sample, k, metric, centre, recall, threads)
        if found is not None:
            return Frame.of(centre, found.rotation), found
    return Frame.of(centre, choose_head(sample, sample, centre, metric, batch=total)), None


def _aimed(
    rows: list[Rows],
    sample: npt.NDArray[Any],
    k: int,
    metric: Metric,
    centre: npt.NDArray[np.float32],
    recall: float,
    threads: int,
) -> Aim | None:
    from vectorlake.kernels.knn import ExactKnn

    usable = np.flatnonzero(np.isfinite(sample).all(axis=1) & (sample != 0).any(axis=1))
    count = min(max(_LEAST_ASKED, _NEIGHBOURS_TRIED // k), len(usable))
    picked = np.sort(np.random.default_rng(len(usable)).choice(usable, count, replace=False))
    asked = sample[picked]
    search = ExactKnn(asked, k=k + 1, metric=metric, threads=threads)
    starts = np.cumsum([0, *(part.count for part in rows)])
    for part, start in zip(rows, starts, strict=False):
        search.add(part.array, np.arange(start, start + part.count))
    found, _, counts = search.result()
    # The nearest of all is the row itself, or its like.
    if (counts <= k).any():
        return None
    others = found[:, 1:].reshape(-1)
    part_of = np.searchsorted(starts, others, side="right") - 1
    neighbours = np.empty((len(others), len(centre)), asked.dtype)
    for index, part in enumerate(rows):
        here = part_of == index
        neighbours[here] = part.array[others[here] - starts[index]]
    apart = sample[:: max(1, len(sample) // _TRIED)]
    return aim(apart, asked, neighbours, centre=centre, metric=metric, recall=recall)


def _strided(rows: Sequence[Rows], dimension: int) -> npt.NDArray[Any]:
    total = sum(part.count for part in rows)
    step = max(1, total // _SAMPLE)
    if not rows:
        return np.zeros((0, dimension), np.float32)
    return np.concatenate([part.array[::step] for part in rows])
