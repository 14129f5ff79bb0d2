"""Small integers that stand for vectors, with a proven bound on what rounding can do to an inner product.

Rows and queries are first moved into *product space*, where nearness is an affine function of one inner
product: under L2 both are taken relative to a centre, under cosine both are first scaled to length one, and
under dot only rows are taken relative to it (the query's product with the centre is a constant). With z a
moved row, z' = scale * integers its rounding and likewise w, w' for a query, Cauchy-Schwarz gives

    |w.z - w'.z'| <= |w'| |z - z'| + |w - w'| |z|

Where few directions hold most of the rows' energy, product space is turned so that these come first, and only
this *head* is rounded and multiplied. Let Q have the head's directions as orthonormal rows and let z2 = z - Q'Qz be
what is beyond them, the *tail*. With z' and w' now the rounded heads, again by Cauchy-Schwarz

    |w.z - w'.z'| <= |w'| |Qz - z'| + |Qw - w'| |z| + |w2| |z2|

What is computed is not Qz but fl(Rz), R being float32. Let |RR' - I| <= drift (a norm, measured in float64). Then
Q = (RR')**-0.5 R has orthonormal rows and |Q - R| <= drift, and for sums of d products in any order
|fl(Rz) - Rz| <= sqrt(p) d 2**-24 (1 + drift) |z| to first order. Both are added to |Qz - z'|, and they widen the
tail, |z2|**2 = |z|**2 - |Qz|**2, before its root is taken.

The five terms of a row are: its scale; |Qz - z'|; |z|; -|z|**2 / 2 (under dot 0); and |z2|, zero without a head. A
sum of them, weighted by the query, bounds from above how near the row can be (see `select`).
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


TERMS: Final = 5
"""How many numbers tell the bound of a row."""


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """How product space lies in the space of the vectors.

    Attributes:
        centre: float32 [d].
        rotation: float32 [p, d], directions of the head with nearly orthonormal rows; [0, d] where all dimensions are
            kept as they are.
        drift: at least |RR' - I| for R the rotation.
    """

    centre: npt.NDArray[np.float32]
    rotation: npt.NDArray[np.float32]
    drift: float

    @classmethod
    def of(cls, centre: npt.NDArray[np.float32], rotation: npt.NDArray[np.float32] | None = None) -> Frame:
        """A frame; the rotation's drift is measured.

        Raises:
            ValueError: the rows of the rotation are far from orthonormal.
        """
        if rotation is None or len(rotation) == 0:
            return cls(centre, np.zeros((0, len(centre)), np.float32), 0.0)
        wide = rotation.astype(np.float64)
        lost = np.linalg.norm(wide @ wide.T - np.eye(len(wide)))
        drift = float(lost) + rotation.size * 2.0**-50
        if not drift < 0.1:
            raise ValueError(f"the directions of a head are off orthonormal by {drift}")
        return cls(centre, np.ascontiguousarray(rotation), drift)

    @property
    def kept(self) -> int:
        """How many dimensions are rounded and multiplied."""
        return len(self.rotation) or len(self.centre)

    @property
    def blur(self) -> float:
        """At most |Qz - fl(Rz)| / |z| for a float32 row z that is not moved any more."""
        p, d = self.rotation.shape
        return (self.drift + np.sqrt(p) * (d + 2) * UNIT) * (1 + self.drift) * 1.01 if p else 0.0


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
SLACK: Final = 5
KIND: Final = 6
TAIL: Final = 7
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
