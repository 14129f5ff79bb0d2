"""What a vertex's record holds and where: all that one visit reads, in one run of cache lines.

A record belongs to a slot and has, in this order (D is the padded dimension):

- codes, 4 D bytes: one bit for each dimension of each of 32 neighbours, in groups of four dimensions: byte 16 g + j has the
  four bits of group g of neighbour j below those of neighbour j + 16;
- neighbours, int32 [32]: their slots, -1 where there is none;
- constants, float32 [32], and slopes, float32 [32]: they turn the query's sum under a code's signs into a distance;
- the vector, int8 [D], rotated, and float32 scale, square (of its length) and height, and int32 where its guests begin.

The height of a vector is what a further dimension would have to add for all vectors to be equally long: edges are chosen
by distances that include it where the metric is the inner product, as nearest is then largest product. Guests are slots that
no edge leads to: duplicates of the vertex, and what pruning cut off. They are measured when their host is visited.

Roots are records' first parts (up to the slopes) around the centre: they hold where searches begin.
"""

from __future__ import annotations

import dataclasses
from typing import Final

DEGREE: Final = 32
"""Neighbours of a vertex: as many as one pass over a record's codes compares."""
STEP: Final = 64
"""Dimensions are padded to a multiple of this: as many as bytes of a look-up add up before they must be widened."""
LEVELS: Final = 31
"""Entries of the query's look-up table are integers up to this: eight of them stay below 256."""
LARGEST_DIMENSION: Final = 8192
"""Padded: sums of that many dimensions' entries stay below 2**16."""
ROOT_BLOCKS: Final = 8
"""Of DEGREE roots each."""
UNUSABLE: Final = -1.0
"""The square of a vector that has no distance: not finite, or zero under cosine."""

_TERMS: Final = 3 * 4 * DEGREE
_TAIL: Final = 16
_LINE: Final = 64


@dataclasses.dataclass(frozen=True)
class Layout:
    """Sizes that follow from the dimension."""

    dimension: int
    """As stored."""

    @property
    def padded(self) -> int:
        return -(-self.dimension // STEP) * STEP

    @property
    def record(self) -> int:
        """Bytes of a record."""
        return -(-(5 * self.padded + _TERMS + _TAIL) // _LINE) * _LINE

    @property
    def stored(self) -> int:
        """Bytes of a vector with its facts."""
        return self.padded + _TAIL

    @property
    def vector(self) -> int:
        """Where in a record its vector begins; bytes of a block of roots."""
        return self.root

    @property
    def root(self) -> int:
        """Bytes of a block of roots."""
        return 4 * self.padded + _TERMS
