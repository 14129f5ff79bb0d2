"""Matrices that properties of the kernels are tried on: few distinct rows, any element type, extreme values among them."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import strategies as st

ELEMENTS = {
    "f4": st.one_of(
        st.floats(-4, 4, width=16),
        st.floats(width=32, allow_nan=False),
        st.sampled_from([0.0, -0.0, 1e-45, 1e38, np.nan, np.inf]),
    ),
    "f8": st.one_of(st.floats(-4, 4, width=16), st.floats(), st.sampled_from([1e-320, 1e155, 1e300])),
    "f2": st.floats(width=16),
    "i1": st.integers(-128, 127),
    "u1": st.integers(0, 255),
}


@st.composite
def matrices(draw: st.DrawFn, dimension: int, most: int) -> np.ndarray:
    kind = draw(st.sampled_from(sorted(ELEMENTS)))
    count = draw(st.integers(0, most))
    distinct = draw(hnp.arrays(np.dtype(kind), (draw(st.integers(1, 6)), dimension), elements=ELEMENTS[kind]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = distinct[rng.integers(0, len(distinct), count)]
    if kind in ("f4", "f8") and draw(st.booleans()):
        with np.errstate(over="ignore", invalid="ignore"):
            rows = rows + (rng.standard_normal(rows.shape) * draw(st.sampled_from([1e-6, 1.0]))).astype(kind)
    return rows
