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
_ENOUGH: Final = 1.1
"""Fewer directions are not tried once they cost so many times what the best do."""
_FIND: Final = (5e8, 100.0)
"""Finding one: to begin with, and for the cube of the dimension; hardly less with more threads."""
_PAYS: Final = 6.0
"""One is looked for once the search took so many times as long: seldom does it save more than a share like that."""


def head_for(
    rows: Rows,
    centre: npt.NDArray[np.float32],
    valid: npt.NDArray[np.bool_],
    queries: Rows,
    metric: Metric,
    offered: int,
    threads: int,
) -> npt.NDArray[np.float32] | None:
    """A head for a batch of queries, judged by a block of rows.

    Args:
        rows: the block.
        centre: of product space.
        valid: the block's mask, or empty.
        queries: all of them.
        metric: the distance.
        offered: how many rows there were so far, with the block's.
        threads: how many search.

    Returns:
        float32 [p, d], or [0, d] where all dimensions are to be kept; None while too little is asked for to tell, and
        for blocks of few rows.
    """
    dimension = rows.dimension
    if dimension < _LEAST_DIMENSION or queries.count < max(_LEAST_QUERIES, 2 * dimension):
        return np.zeros((0, dimension), np.float32)
    search = float(offered) * queries.count * (dimension + _SELECT) / threads
    if rows.count < _LEAST_ROWS or search < _PAYS * (_FIND[0] + _FIND[1] * float(dimension) ** 3):
        return None
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
    asked = in_product_space(queries, centre, metric, is_query=True)[:_TRIED_QUERIES]
    if len(asked) == 0:
        return none
    if kept is None:
        kept = _cheapest(moved[:: max(1, len(moved) // _TRIED_ROWS)], asked, rotation, metric, batch)
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
        largest = np.maximum(values.max(axis=1), -values.min(axis=1))
        values = _only(values, largest < np.sqrt(WILD))
        if metric is Metric.COSINE:
            lengths = np.sqrt(np.einsum("ij,ij->i", values, values))
            values = _only(values, lengths > 0)
            values /= lengths[lengths > 0, None]
        if metric is not Metric.DOT or not is_query:
            values -= centre
    return _only(values, np.asarray(np.isfinite(values).all(axis=1)))


def _only(values: npt.NDArray[np.float32], chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """The rows chosen; no copy where these are all."""
    return values if chosen.all() else values[chosen]


def _cheapest(
    rows: npt.NDArray[np.float32],
    queries: npt.NDArray[np.float32],
    rotation: npt.NDArray[np.float32],
    metric: Metric,
    batch: int | None,
) -> int:
    """How many leading directions to keep of a rotation [d, d], for rows and queries in product space."""
    dimension = int(rows.shape[1])
    square = np.square(rows).sum(axis=1)
    half = np.zeros_like(square) if metric is Metric.DOT else square / 2
    lengths = np.sqrt(square)
    high = queries @ rows.T
    high -= half
    # The nearest of a sample stands for the k-th of all: the sample's own twin is passed over.
    near = np.partition(high, -2, axis=1)[:, -2]
    high += LOST * np.sqrt(np.square(queries).sum(axis=1))[:, None] * (2 * lengths)
    measure = _MEASURE[0] + _MEASURE[1] * dimension
    best, least = dimension, _WORTH * (dimension + _SELECT + float((high >= near[:, None]).mean()) * measure)
    rotate = 0.0 if batch is None else _ROTATE * dimension / batch
    # Those that would win if they let nothing pass.
    lengths_to_try = [
        kept for kept in range(_STEP * 2, dimension * 3 // 4, _STEP) if kept * (1 + rotate) + _SELECT < least
    ]
    if not lengths_to_try:
        return dimension
    longest = rotation[: lengths_to_try[-1]]
    x, w = rows @ longest.T, queries @ longest.T
    for kept in reversed(lengths_to_try):
        passed = measure * _share(x[:, :kept], w[:, :kept], square, half, queries, near)
        cost = kept * (1 + rotate) + _SELECT + passed
        if cost < least:
            best, least = kept, cost
        # Fewer directions let ever more pairs pass.
        if cost > _ENOUGH * least:
            break
    return best


def _share(
    x: npt.NDArray[np.float32],
    w: npt.NDArray[np.float32],
    square: npt.NDArray[np.float32],
    half: npt.NDArray[np.float32],
    queries: npt.NDArray[np.float32],
    near: npt.NDArray[np.float32],
) -> float:
    """The share of pairs that the bound of a head lets pass.

    Args:
        x: float32 [m, p], heads of rows.
        w: float32 [n, p], heads of queries.
        square: float32 [m], of the rows' lengths.
        half: float32 [m], half of that, or zero under dot.
        queries: float32 [n, d], in product space.
        near: float32 [n], the nearness that a pair must reach.
    """
    kept, dimension = w.shape[1], queries.shape[1]
    inside, asked = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", w, w)
    blur = np.sqrt(kept) * dimension * UNIT
    beyond = np.sqrt(np.maximum(square - inside, 0) + 2 * blur * square)
    tails = np.sqrt(np.maximum(np.einsum("ij,ij->i", queries, queries) - asked, 0))
    bounds = np.stack([LOST * np.sqrt(asked), tails, np.full_like(near, -1), -near], axis=1)
    terms = np.stack([np.sqrt(inside) + np.sqrt(square), beyond, half, np.ones_like(half)])
    # As one more product: passes over all pairs would take longer.
    high = w @ x.T
    high += bounds.astype(np.float32) @ terms.astype(np.float32)
    return float(np.count_nonzero(high >= 0)) / high.size
