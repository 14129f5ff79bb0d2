"""Sets of slots as bits: what a filter lets pass, as kernels look at it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def slot_words(allowed: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    """Bits of a mask over slots: bit i of word w is slot 32 w + i; bits beyond the last slot are 0."""
    padded = np.zeros(-(-len(allowed) // 32) * 32, np.bool_)
    padded[: len(allowed)] = allowed
    return np.packbits(padded, bitorder="little").view("<u4")


def allowed_slots(words: npt.NDArray[np.uint32] | None, slots: int) -> npt.NDArray[np.bool_]:
    """The mask over slots that words stand for; None is all of them."""
    if words is None:
        return np.ones(slots, np.bool_)
    return np.unpackbits(words.view(np.uint8), count=slots, bitorder="little").astype(np.bool_)
