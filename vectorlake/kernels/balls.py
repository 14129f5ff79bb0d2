"""Bounding balls of runs of vectors: how near a vector of a run can be to a query at least, proven with its rounding.

A ball knows its centre, the greatest distance and angle of a vector from it, and the least and greatest norm. By the
triangle inequality, of distances (Omohundro 1989, ball trees) or of angles, a query that is far from the centre is far
from every vector of the run. What is told here never exceeds the distance that `ExactKnn` reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.kernels.metric import Metric

_TINY: Final = 2.0**-500
"""Added to lengths, so that squares that underflow don't matter; no length of interest is near it."""
_SMALLEST: Final = 2.0**-1020
"""Taken from squares and products for the same reason."""
_LEAST_NORM: Final = 1e-140
_GREATEST_NORM: Final = 1e140
"""Beyond these, squares lose digits or overflow: nothing is said of angles."""


@dataclass(frozen=True)
class Balls:
    """The balls of consecutive runs of rows.

    Attributes:
        stops: int64 [m], the row after the last of each run; the first run begins at row 0.
        centres: float32 [m, d].
        radii: float64 [m], no vector of the run is farther from the centre (Euclidean); infinity where nothing is known,
            minus infinity where no row of the run can match.
        angles: float64 [m], nor by a greater angle in radians, vectors of length 0 aside; likewise.
        least: float64 [m], no vector is shorter.
        greatest: float64 [m], nor longer.
    """

    stops: npt.NDArray[np.int64]
    centres: npt.NDArray[np.float32]
    radii: npt.NDArray[np.float64]
    angles: npt.NDArray[np.float64]
    least: npt.NDArray[np.float64]
    greatest: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.stops)

    def part(self, first: int, end: int) -> Balls:
        """The balls [first, end), their stops as they are."""
        return Balls(*(getattr(self, name)[first:end] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Reach:
    """How near the vectors of runs are to queries.

    Attributes:
        least: float64 [n, m], at most the distance of every vector of the run, as the kernels compute it.
        centre: float64 [n, m], how far the centre is, in an order only: to visit runs by.
    """

    least: npt.NDArray[np.float64]
    centre: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ball:
    """The ball of one run; see `Balls`."""

    centre: npt.NDArray[np.float32]
    radius: float
    angle: float
    least: float
    greatest: float


def ball_of(vectors: npt.NDArray[Any]) -> Ball:
    """The ball around the mean of some vectors.

    Args:
        vectors: [n, d] of any numeric type; those with an element that is not finite never match, and don't count.
    """
    dimension = vectors.shape[1]
    rows = vectors.astype(np.float64)
    if vectors.dtype.kind == "f":
        rows = rows[np.isfinite(rows).all(axis=1)]
    if not len(rows):
        return Ball(np.zeros(dimension, np.float32), -np.inf, -np.inf, 0.0, 0.0)
    slack = _slack(dimension)
    with np.errstate(over="ignore", invalid="ignore"):
        centre = rows.mean(axis=0).astype(np.float32)
        if not np.isfinite(centre).all():
            centre = np.zeros(dimension, np.float32)
        exact = centre.astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        length = float(np.sqrt(exact @ exact))
        cosines = _ratio(rows @ exact, norms * length)
        rows -= exact
        radius = float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max())) * (1 + 2 * slack) + _TINY
    there = norms > 0
    angle = -np.inf
    if there.any():
        told = norms[there].min() >= _LEAST_NORM and norms.max() <= _GREATEST_NORM and length >= _LEAST_NORM
        angle = float(np.arccos(cosines[there].min())) + _angle_slack(dimension) if told else np.inf
    return Ball(
        centre,
        radius if np.isfinite(radius) else np.inf,
        angle,
        max(float(norms.min()) * (1 - 2 * slack) - _TINY, 0.0),
        float(norms.max()) * (1 + 2 * slack) + _TINY,
    )


def together(parts: Sequence[Balls]) -> Balls:
    """The balls of several fragments as one, each with its own fragment's stops."""
    return Balls(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in Balls.__dataclass_fields__)
    )


def joined(stops: npt.NDArray[np.int64], balls: Sequence[Ball]) -> Balls:
    """The balls of runs that end at `stops`."""
    return Balls(
        stops,
        np.array([ball.centre for ball in balls], np.float32),
        *(
            np.array([getattr(ball, name) for ball in balls], np.float64)
            for name in ("radius", "angle", "least", "greatest")
        ),
    )


def reach(queries: npt.NDArray[Any], balls: Balls, metric: Metric) -> Reach:
    """How near the vectors of each run can be to each query.

    Args:
        queries: [n, d] of any numeric type, finite.
        balls: m of them.
        metric: l2, cosine or dot; hamming has no balls.
    """
    asked, centres = queries.astype(np.float64), balls.centres.astype(np.float64)
    slack = _slack(asked.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", asked, asked))[:, None]
        norms = np.sqrt(np.einsum("ij,ij->i", centres, centres))[None, :]
        products = asked @ centres.T
        if metric is Metric.L2:
            least, order = _l2(products, lengths, norms, balls, slack)
        else:
            angles = np.arccos(_ratio(products, lengths * norms))
            told = (lengths >= _LEAST_NORM) & (lengths <= _GREATEST_NORM) & (norms >= _LEAST_NORM)
            apart = angles - _angle_slack(asked.shape[1]) - balls.angles
            apart = np.clip(np.where(told, apart, 0.0), 0.0, np.pi)
            if metric is Metric.COSINE:
                least, order = 2 * np.sin(apart / 2) ** 2 - 8 * slack, angles
                least = np.where(np.isneginf(balls.angles), np.inf, least)
            else:
                least, order = _dot(products, lengths, norms, apart, balls, slack), -products
    least = np.where(np.isnan(least), -np.inf, least)
    empty = np.isneginf(balls.radii)
    return Reach(np.where(empty, np.inf, least), np.where(empty | np.isnan(order), np.inf, order))


def _l2(products: Any, lengths: Any, norms: Any, balls: Balls, slack: float) -> tuple[Any, Any]:
    squares = lengths**2 + norms**2 - 2 * products
    certain = np.maximum(squares - 4 * slack * (lengths + norms) ** 2 - _SMALLEST, 0.0)
    # A root that is surely not too long, since what is left of it after the radius may be small.
    gaps = np.maximum(np.sqrt(certain) * (1 - slack) - balls.radii, 0.0)
    return gaps**2 * (1 - 4 * slack) - _SMALLEST, squares


def _dot(products: Any, lengths: Any, norms: Any, apart: Any, balls: Balls, slack: float) -> Any:
    """By the distance from the centre, and by angle and length: whichever says more."""
    by_distance = products + lengths * balls.radii
    cosines = np.cos(apart)
    by_angle = lengths * np.where(cosines >= 0, balls.greatest, balls.least) * cosines
    rounding = 4 * slack * lengths * (norms + balls.radii) + 8 * slack * lengths * balls.greatest + _SMALLEST
    # Where a radius is infinite, lengths and angles may still tell something.
    known = np.isfinite(balls.radii)
    most = np.where(known, np.minimum(by_distance, by_angle), by_angle)
    least = -most - np.where(known, rounding, 8 * slack * lengths * balls.greatest + _SMALLEST)
    # The length of a query of denormal numbers may be rounded to 0, and says nothing.
    return np.where(lengths >= _LEAST_NORM, least, -np.inf)


def _slack(dimension: int) -> float:
    """More than the relative error of a float64 sum of so many products, in any order, and of what is made of it."""
    return (dimension + 16) * 2.0**-52


def _angle_slack(dimension: int) -> float:
    """More than the error of an angle whose cosine is off by two such errors: it is largest beside 0 and π."""
    return float(3 * np.sqrt(_slack(dimension)))


def _ratio(products: Any, lengths: Any) -> Any:
    """Cosines, between -1 and 1; 1 where a length is 0 or there is none."""
    cosines = np.divide(products, lengths, out=np.ones_like(products), where=lengths > 0)
    return np.clip(np.where(np.isnan(cosines), 1.0, cosines), -1.0, 1.0)
