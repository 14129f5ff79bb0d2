"""Small integers that stand for vectors, with a proven bound on what rounding can do to an inner product.

Rows and queries are first moved into *product space*, where nearness is an affine function of one inner
product: under L2 both are taken relative to a centre, under cosine both are first scaled to length one, and
under dot only rows are taken relative to it (the query's product with the centre is a constant). With z a
moved row, z' = scale * integers its rounding and likewise w, w' for a query, Cauchy-Schwarz gives

    |w.z - w'.z'| <= |w'| |z - z'| + |w - w'| |z|

The four terms of a row are: its scale; |z - z'|; |z|; and -|z|**2 / 2 (under dot 0). A sum of them, weighted
by the query, bounds from above how near the row can be (see `select`).
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.kernels.metric import Metric
from vectorlake.kernels.rows import Rows

UNIT: Final = 2.0**-24
"""Half a unit in the last place of float32, relative."""

WILD: Final = 1e30
"""Rows with a larger element have no useful bound: they are always measured."""

WILD_QUERY: Final = 1e140
"""A query longer than this is measured against every row."""


@dataclasses.dataclass(frozen=True, slots=True)
class QueryCode:
    """Queries in product space.

    Attributes:
        integers: [n, padded dimension] int8, or float32 with elements in -1..1 when levels is 0.
        facts: float64 [n, FACTS], by the constants of this module.
    """

    integers: npt.NDArray[Any]
    facts: npt.NDArray[np.float64]


SCALE: Final = 0
NORM: Final = 1
ERROR: Final = 2
SQUARE: Final = 3
OFFSET: Final = 4
BIAS: Final = 5
SLACK: Final = 6
KIND: Final = 7
FACTS: Final = 8

KIND_BOUNDED: Final = 0.0
KIND_WILD: Final = 1.0
KIND_DEAD: Final = 2.0


def centre_of(rows: Rows, metric: Metric, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """A centre for product space: about the mean of a block. Any is correct; a good one rounds less.

    Args:
        rows: the first block.
        metric: the distance.
        valid: its mask, or empty.
    """
    step = max(1, rows.count // 512)
    sample = rows.array[::step].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        usable = np.abs(sample).max(axis=1) < WILD
        if len(valid):
            usable &= valid[::step]
        sample = sample[usable]
        if metric is Metric.COSINE:
            norms = np.sqrt((sample**2).sum(axis=1, keepdims=True))
            sample = np.divide(sample, norms, where=norms > 0, out=np.zeros_like(sample))
    if len(sample) == 0:
        return np.zeros(rows.dimension, np.float32)
    centre: npt.NDArray[np.float32] = sample.mean(axis=0).astype(np.float32)
    return centre


def encode_queries(
    queries: npt.NDArray[np.float64],
    centre: npt.NDArray[np.float32],
    metric: Metric,
    *,
    levels: int,
    offset: int,
    padded: int,
) -> QueryCode:
    """Round queries to integers.

    Args:
        queries: float64 [n, d], finite.
        centre: float32 [d].
        metric: the distance.
        levels: elements become integers in -levels..levels; 0 keeps them as float32.
        offset: what the rows' integers are offset by, to tell the bias of a product.
        padded: the dimension of the result, at least d.
    """
    count, dimension = queries.shape
    facts = np.zeros((count, FACTS))
    middle = centre.astype(np.float64)
    tiny = (dimension + 64) * 2.0**-51
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        lengths = np.sqrt((queries**2).sum(axis=1))
        kind = np.where(lengths < WILD_QUERY, KIND_BOUNDED, KIND_WILD)
        if metric is Metric.COSINE:
            kind[lengths == 0] = KIND_DEAD
            kind[(lengths > 0) & (lengths < 1 / WILD_QUERY)] = KIND_WILD
            moved = queries / lengths[:, None] - middle
        elif metric is Metric.L2:
            moved = queries - middle
        else:
            moved = queries.copy()
        moved[kind != KIND_BOUNDED] = 0
        largest = np.abs(moved).max(axis=1)
        # Too small to divide by: leave nothing to the integers, and everything to the error.
        usable = largest > 1 / WILD_QUERY
        scale = np.where(usable, largest / (levels or 1), 0.0)
        ratio = np.divide(moved, scale[:, None], where=usable[:, None], out=np.zeros_like(moved))
        rounded = np.rint(ratio) if levels else ratio.astype(np.float32).astype(np.float64)
        norms = np.sqrt((moved**2).sum(axis=1))
        errors = np.sqrt(((moved - scale[:, None] * rounded) ** 2).sum(axis=1))
    facts[:, SCALE] = scale
    facts[:, NORM] = scale * np.sqrt((rounded**2).sum(axis=1)) * (1 + tiny)
    facts[:, ERROR] = errors * (1 + tiny) + tiny * norms + np.sqrt(dimension) * 1e-139
    if metric is Metric.COSINE:
        facts[:, ERROR] += tiny
    facts[:, SQUARE] = norms**2
    facts[:, BIAS] = offset * rounded.sum(axis=1)
    if metric is Metric.DOT:
        facts[:, OFFSET] = moved @ middle
        facts[:, SLACK] = np.sqrt((middle**2).sum())
    facts[:, KIND] = kind
    integers = np.zeros((count, padded), np.int8 if levels else np.float32)
    integers[:, :dimension] = rounded
    return QueryCode(integers, facts)
