"""Which directions come first in product space, and how many of them are worth multiplying: a choice by estimated cost.

Any choice gives the same answer (see `quantize`): the directions are the principal components of a sample (Pearson,
1901), and the number of them that is likely to take the least time is found by trying the bound on a sample.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.kernels.metric import Metric
from vectorlake.kernels.quantize import UNIT, WILD
from vectorlake.kernels.rows import Rows

_LEAST_DIMENSION: Final = 64
_LEAST_ROWS: Final = 8192
_LEAST_QUERIES: Final = 1024
"""With fewer, rotating the rows costs more than it saves."""
_SAMPLE: Final = 8192
_TRIED_ROWS: Final = 4096
_TRIED_QUERIES: Final = 64
_STEP: Final = 12
_LEVELS: Final = 52

# What things cost, in multiplications of small integers, on a core with AVX2.
_SELECT: Final = 20.0
"""Testing a pair's bound."""
_ROTATE: Final = 4.0
"""A float32 multiplication."""
_MEASURE: Final = (8000.0, 30.0)
"""Measuring a pair in float64: to begin with, and for each dimension."""
LOST: Final = 2.8 / np.sqrt(12) / _LEVELS
"""What rounding takes of a vector, relative to its length: its largest element is some 2.8 times the others."""
_WORTH: Final = 0.85
"""A head must promise to take at most this much of the time without one."""


def head_for(
    rows: Rows,
    centre: npt.NDArray[np.float32],
    valid: npt.NDArray[np.bool_],
    queries: Rows,
    metric: Metric,
) -> npt.NDArray[np.float32]:
    """A head for a batch of queries, judged by the first block of rows.

    Args:
        rows: the first block.
        centre: of product space.
        valid: the block's mask, or empty.
        queries: all of them.
        metric: the distance.

    Returns:
        float32 [p, d], or [0, d] where all dimensions are to be kept.
    """
    none = np.zeros((0, rows.dimension), np.float32)
    if (
        rows.dimension < _LEAST_DIMENSION
        or rows.count < _LEAST_ROWS
        or queries.count < max(_LEAST_QUERIES, 2 * rows.dimension)
    ):
        return none
    step = max(1, rows.count // _SAMPLE)
    sample = rows.array[::step]
    if len(valid):
        sample = sample[valid[::step]]
    asked = queries.array[:: max(1, queries.count // _TRIED_QUERIES)]
    return choose_head(sample, asked, centre, metric, batch=queries.count)


def choose_head(
    sample: npt.NDArray[Any],
    queries: npt.NDArray[Any],
    centre: npt.NDArray[np.float32],
    metric: Metric,
    *,
    batch: int | None,
    kept: int | None = None,
) -> npt.NDArray[np.float32]:
    """The directions to put first.

    Args:
        sample: [s, d], rows as stored.
        queries: [n, d], some of those to expect.
        centre: float32 [d], of product space.
        metric: the distance.
        batch: how many queries share the rotation of a row; None where rotated rows are kept.
        kept: how many directions, instead of as many as seem best.

    Returns:
        float32 [p, d], orthonormal rows; [0, d] where it is likelier not to pay.
    """
    dimension = len(centre)
    none = np.zeros((0, dimension), np.float32)
    moved = in_product_space(sample, centre, metric, is_query=False)
    if kept is None and (len(moved) < max(256, 2 * dimension) or dimension < _LEAST_DIMENSION):
        return none
    rotation = principal_directions(moved)
    if rotation is None:
        return none
    tried = moved[:: max(1, len(moved) // _TRIED_ROWS)] @ rotation.T
    asked = in_product_space(queries, centre, metric, is_query=True)[:_TRIED_QUERIES] @ rotation.T
    if len(asked) == 0:
        return none
    if kept is None:
        kept = _cheapest(tried, asked, metric, batch)
    return mixed(rotation[:kept]) if kept < dimension else none


def principal_directions(moved: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
    """The principal components of rows in product space, float32 [d, d], most energy first; None where there are none."""
    # In double: energies of rows of very different lengths span more than float32 does.
    with np.errstate(over="ignore", invalid="ignore"):
        energy = (moved.T @ moved).astype(np.float64)
    if not (np.isfinite(energy).all() and energy.any()):
        return None
    try:
        _, directions = np.linalg.eigh(energy / np.abs(energy).max())
    except np.linalg.LinAlgError:
        return None
    rotation = np.ascontiguousarray(directions.T[::-1], np.float32)
    return rotation if np.isfinite(rotation).all() else None


def mixed(directions: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Other directions of the same subspace, along which rows spread alike: else the first would need all the levels."""
    kept = len(directions)
    mixing, _ = np.linalg.qr(np.random.default_rng(kept).standard_normal((kept, kept)))
    found: npt.NDArray[np.float32] = np.ascontiguousarray(mixing @ directions, np.float32)
    return found


def in_product_space(
    rows: npt.NDArray[Any], centre: npt.NDArray[np.float32], metric: Metric, *, is_query: bool
) -> npt.NDArray[np.float32]:
    """Rows or queries in product space; those that have no place there are left out."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        values = rows.astype(np.float32)
        values = values[np.abs(values).max(axis=1) < np.sqrt(WILD)]
        if metric is Metric.COSINE:
            lengths = np.sqrt(np.square(values).sum(axis=1, keepdims=True))
            values = (values / lengths)[(lengths > 0)[:, 0]]
        if metric is not Metric.DOT or not is_query:
            values = values - centre
    found: npt.NDArray[np.float32] = values[np.isfinite(values).all(axis=1)]
    return found


def _cheapest(
    rows: npt.NDArray[np.float32], queries: npt.NDArray[np.float32], metric: Metric, batch: int | None
) -> int:
    """How many leading dimensions to keep."""
    dimension = int(rows.shape[1])
    square = np.square(rows).sum(axis=1)
    half = np.zeros_like(square) if metric is Metric.DOT else square / 2
    nearness = queries @ rows.T - half
    # The nearest of a sample stands for the k-th of all: the sample's own twin is passed over.
    near = np.partition(nearness, -2, axis=1)[:, -2]
    best, least = dimension, float(np.inf)
    for kept in [*range(_STEP * 2, dimension * 3 // 4, _STEP), dimension]:
        x, w = rows[:, :kept], queries[:, :kept]
        high = w @ x.T - half
        lengths = np.sqrt(square)
        inside, asked = (np.sqrt(np.square(part).sum(axis=1)) for part in (x, w))
        high += LOST * asked[:, None] * (inside + lengths)
        if kept < dimension:
            blur = np.sqrt(kept) * dimension * UNIT
            beyond = np.sqrt(np.maximum(square - np.square(x).sum(axis=1), 0) + 2 * blur * square)
            high += np.sqrt(np.square(queries[:, kept:]).sum(axis=1))[:, None] * beyond
        share = float((high >= near[:, None]).mean())
        cost = kept + _SELECT + share * (_MEASURE[0] + _MEASURE[1] * dimension)
        if kept == dimension:
            cost *= _WORTH
        elif batch is not None:
            cost += _ROTATE * kept * dimension / batch
        if cost < least:
            best, least = kept, cost
    return best
