"""A random orthogonal map that costs O(d log d): rounds of permutation, signs, Hadamard transform and a small rotation.

Elements are taken as m rows of 2**k, m odd. Each round permutes them, flips some signs, applies the Hadamard transform
along the rows (without its first three steps, which permutations make up for) and a random rotation across the m rows.
Compare "Fast Johnson-Lindenstrauss" (Ailon & Chazelle 2006).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.kernels.jit import inner

ROUNDS: Final = 4
MULTIPLE: Final = 32
"""Rotated dimensions are padded to a multiple of this."""
_SKIPPED: Final = 8


def padded(dimension: int) -> int:
    """The dimension of rotated vectors."""
    return -(-dimension // MULTIPLE) * MULTIPLE


def random_rotation(
    dimension: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Draw a rotation of a padded dimension.

    Returns:
        permutations int32 [rounds, d], factors float32 [rounds, d] (signs, scaled to keep lengths), and rotations
        across rows float32 [rounds, m, m].
    """
    width = dimension & -dimension
    rows = dimension // width
    order = np.stack([rng.permutation(dimension) for _ in range(ROUNDS)]).astype(np.int32)
    scale = (width // _SKIPPED) ** -0.5
    factors = (rng.integers(0, 2, (ROUNDS, dimension)) * 2 - 1) * np.float32(scale)
    across = np.stack([np.linalg.qr(rng.standard_normal((rows, rows)))[0] for _ in range(ROUNDS)])
    return order, factors.astype(np.float32), across.astype(np.float32)


@inner
def rotate(order: Any, factors: Any, across: Any, vector: Any, buffer: Any) -> None:
    """Rotate `vector` in place; `buffer` is as long. No rounds leave it as it is."""
    dimension = vector.shape[0]
    rows = across.shape[1]
    width = dimension // rows
    for round_ in range(order.shape[0]):
        for i in range(dimension):
            buffer[i] = vector[order[round_, i]] * factors[round_, i]
        step = _SKIPPED
        while step < width:
            for start in range(0, dimension, 2 * step):
                for first in range(start, start + step, _SKIPPED):
                    for i in range(first, first + _SKIPPED):
                        total = buffer[i] + buffer[i + step]
                        buffer[i + step] = buffer[i] - buffer[i + step]
                        buffer[i] = total
            step *= 2
        for r in range(rows):
            for i in range(width):
                vector[r * width + i] = across[round_, r, 0] * buffer[i]
            for s in range(1, rows):
                for i in range(width):
                    vector[r * width + i] += across[round_, r, s] * buffer[s * width + i]
