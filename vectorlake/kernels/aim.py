"""How far heads are to be trusted in a self-join that need not find all: tried on rows whose neighbours are known.

The bound of `symmetric` holds for the worst case. What rounding and directions beyond the head really add to a product is
nearly always less: a share of it, the *confidence*, lets nearly all neighbours pass and far fewer others. The share that a
recall needs is a quantile over pairs of neighbours, and the cheapest head is found by what then passes besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.kernels.head import LOST, in_product_space, mixed, principal_directions
from vectorlake.kernels.metric import Metric

_STEP: Final = 12
_SELECT: Final = 40.0
"""Testing a pair, in multiplications of small integers."""
_JUDGE: Final = 8000.0
"""Judging a pair that passes by its finer integers, likewise."""
_LEAST_BLUR: Final = np.float32(1e-30)
_LENIENCE: Final = 2.0
"""So many times what may be missed may lie beyond a row's own reach: most of it is within the other row's, or met while
reaches are still long."""


@dataclass(frozen=True)
class Aim:
    """What to multiply, and how far to trust it.

    Attributes:
        rotation: float32 [p, d], orthonormal rows: the directions of the head.
        confidence: what rounding and what is beyond the head are multiplied by in the bound, in 0..1.
    """

    rotation: npt.NDArray[np.float32]
    confidence: float


def aim(
    rows: npt.NDArray[Any],
    asked: npt.NDArray[Any],
    neighbours: npt.NDArray[Any],
    *,
    centre: npt.NDArray[np.float32],
    metric: Metric,
    recall: float,
) -> Aim | None:
    """The head and the confidence that are likely to take the least time for a recall; None where bounds serve better.

    Args:
        rows: [m, d], a sample as stored.
        asked: [s, d], other rows.
        neighbours: [s * k, d], the k nearest others of each.
        centre: float32 [d], of product space.
        metric: the distance.
        recall: the share of neighbours to find, below 1.
    """
    moved, w, z = (
        in_product_space(part, centre, metric, is_query=False) for part in (rows, asked, neighbours)
    )
    dimension = len(centre)
    if len(w) != len(asked) or len(z) != len(neighbours) or len(moved) < 2 * dimension:
        return None
    rotation = principal_directions(moved)
    if rotation is None:
        return None
    w, x = w @ rotation.T, moved @ rotation.T
    z = (z @ rotation.T).reshape(len(w), -1, dimension)
    half = 0.0 if metric is Metric.DOT else 0.5
    squares = [np.square(part).sum(axis=-1) for part in (w, z, x)]
    sums = [half * (squares[0][:, None] + other) for other in (squares[1], squares[2])]
    reach = (sums[0] - np.einsum("sd,skd->sk", w, z)).max(axis=1, keepdims=True)
    allowed = max(0.0, 1 - (1 - recall) * _LENIENCE)
    best, confidence, least = 0, 0.0, float(np.inf)
    for kept in range(2 * _STEP, dimension * 3 // 4, _STEP):
        one, *others = (
            _Lengths.of(part[..., :kept], square) for part, square in zip((w, z, x), squares, strict=True)
        )
        products = np.einsum("sd,skd->sk", w[:, :kept], z[..., :kept]), w[:, :kept] @ x[:, :kept].T
        needed = [
            (total - product - reach) / np.maximum(one.blur(other), _LEAST_BLUR)
            for total, product, other in zip(sums, products, others, strict=True)
        ]
        wanted = float(np.clip(np.quantile(needed[0], allowed), 0, 1))
        cost = kept + _SELECT + 2 * float((needed[1] <= wanted).mean()) * _JUDGE
        if cost < least:
            best, confidence, least = kept, wanted, cost
    return Aim(mixed(rotation[:best]), confidence) if best else None


@dataclass(frozen=True)
class _Lengths:
    """Of rows, of their heads, and of what is beyond those; float32 [...] each."""

    whole: npt.NDArray[np.float32]
    head: npt.NDArray[np.float32]
    beyond: npt.NDArray[np.float32]

    @classmethod
    def of(cls, heads: npt.NDArray[np.float32], squares: npt.NDArray[np.float32]) -> _Lengths:
        inside = np.square(heads).sum(axis=-1)
        return cls(np.sqrt(squares), np.sqrt(inside), np.sqrt(np.maximum(squares - inside, 0)))

    def blur(self, other: _Lengths) -> npt.NDArray[np.float32]:
        """What the bound adds to the product of each of these rows with each of others [m], or with its own ones [s, k]."""
        whole, head, beyond = (part[:, None] for part in (self.whole, self.head, self.beyond))
        blur: npt.NDArray[np.float32] = (
            np.float32(LOST) * (whole * other.head + head * other.whole) + beyond * other.beyond
        )
        return blur
