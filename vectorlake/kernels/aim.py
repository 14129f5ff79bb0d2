"""What a self-join that need not find all looks at first, and how far that is trusted: tried on rows with known neighbours.

The first look estimates the product of two rows' heads w1 and z1 by the signs of one of them (RaBitQ, Gao & Long 2024):

    w1.z1  is about  f w1.sign(z1),    f = |z1|**2 / |z1.sign(z1)|

which is unbiased, as heads are turned at random. With w2 and z2 what is beyond the heads it takes

    |w - z|**2 / 2  for  h_w + h_z - f w1.sign(z1),    h = (|w|**2 - trust |w2|**2) / 2

as if w2.z2 were trust (|w2|**2 + |z2|**2) / 2: all of it by Cauchy-Schwarz at most, none between rows that have nothing in
common, and something between neighbours. A pair is looked at again if that is within either row's reach and a *margin*. The
margin that a recall needs is a quantile over pairs of neighbours, and the cheapest head and trust are found by what passes
besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.kernels import glance
from vectorlake.kernels.head import in_product_space, mixed, principal_directions
from vectorlake.kernels.metric import Metric

_TRUSTS: Final = (0.0, 0.15, 0.3, 0.45, 0.6)
_LEAST_HEAD: Final = 2 * glance.STEP
_TRIED_ROWS: Final = 1024
_TRIED_ASKED: Final = 128
_LEAST_LENGTH: Final = 1e-15
_USUAL: Final = 1.25
"""The scale is for rows so many times as long as nearly all; longer ones are always looked at again."""

# In cycles of a core with AVX2.
_SIGNS: Final = 150.0
"""Signs that are looked up and added in a cycle."""
_TEST: Final = 0.4
"""Testing a pair."""
_AGAIN: Final = 200.0
"""Looking at a pair again."""
_EXACT: Final = 12.0
"""What a pair takes in an exact self-join, about."""
_LENIENCE: Final = 2.0
"""So many times what may be missed may lie beyond a row's own reach: most of it is within the other row's, or met while
reaches are still long."""


@dataclass(frozen=True)
class Aim:
    """What to multiply, and how far to trust it.

    Attributes:
        rotation: float32 [p, d], orthonormal rows: the directions of the head.
        scale: what rows in product space are multiplied by so that few are longer than `glance.LONGEST`.
        trust: which share of what is beyond heads neighbours are deemed to have in common, in 0..1.
        margin: how far beyond a row's reach to look, in half squares of product space.
    """

    rotation: npt.NDArray[np.float32]
    scale: float
    trust: float
    margin: float


def aim(
    rows: npt.NDArray[Any],
    asked: npt.NDArray[Any],
    neighbours: npt.NDArray[Any],
    *,
    centre: npt.NDArray[np.float32],
    metric: Metric,
    recall: float,
) -> Aim | None:
    """The first look that is likely to take the least time for a recall; None where an exact join serves better.

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
    lengths = np.sqrt(np.square(moved).sum(axis=1))
    longest = min(float(lengths.max()), _USUAL * float(np.quantile(lengths, 0.99)))
    if longest < _LEAST_LENGTH:
        return None
    scale = glance.LONGEST / longest
    x = moved[:: max(1, len(moved) // _TRIED_ROWS)] @ rotation.T
    w, z = w @ rotation.T, (z @ rotation.T).reshape(len(w), -1, dimension)
    half = 0.0 if metric is Metric.DOT else 0.5
    some = slice(0, _TRIED_ASKED)
    squares = [np.square(part).sum(axis=-1) for part in (w, z, x)]
    near = half * (squares[0][:, None] + squares[1])
    reach = (near - _products(w, z)).max(axis=1, keepdims=True)
    near -= reach
    far = half * (squares[0][some, None] + squares[2]) - reach[some]
    allowed = max(0.0, 1 - (1 - recall) * _LENIENCE)
    best: Aim | None = None
    least = _EXACT
    for kept in range(_LEAST_HEAD, dimension * 3 // 4 + 1, glance.STEP):
        if kept / _SIGNS + _TEST >= least:
            break
        mixing: npt.NDArray[np.float32] = mixed(np.eye(kept, dtype=np.float32)).T
        w1, z1, x1 = (np.asarray(part[..., :kept] @ mixing, np.float32) for part in (w, z, x))
        beyond = [np.square(part[..., kept:]).sum(axis=-1) / 2 for part in (w, z, x)]
        apart = near - _products(w1, _by_signs(z1)), far - w1[some] @ _by_signs(x1).T
        tails = beyond[0][:, None] + beyond[1], beyond[0][some, None] + beyond[2]
        for trust in _TRUSTS:
            margin = float(np.quantile(apart[0] - trust * tails[0], allowed))
            share = float((apart[1] - trust * tails[1] <= margin).mean())
            cost = kept / _SIGNS + _TEST + 2 * share * _AGAIN
            if cost < least:
                best, least = Aim(mixed(rotation[:kept]), scale, trust, margin), cost
    return best


def _products(rows: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each row [s, p] times its own others [s, k, p]."""
    found: npt.NDArray[np.float32] = (theirs @ rows[:, :, None])[:, :, 0]
    return found


def _by_signs(heads: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What codes of heads [..., p] stand for."""
    sums = np.maximum(np.abs(heads).sum(axis=-1, keepdims=True), np.float32(_LEAST_LENGTH))
    found: npt.NDArray[np.float32] = np.copysign(np.square(heads).sum(axis=-1, keepdims=True) / sums, heads)
    return found
