"""Bounds for an exact search from a quick look at an inverted file: what is surely farther is never looked at closely."""

from __future__ import annotations

import warnings
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.errors import DamagedIndexWarning
from vectorlake.kernels import Metric
from vectorlake.schema import Field
from vectorlake.search.indexed import IndexEngine, largest_effort
from vectorlake.search.plan import Wish
from vectorlake.search.ready import ready
from vectorlake.search.selection import Selection
from vectorlake.table.view import View

_LEAST_ROWS: Final = 20_000
_LEAST_QUERIES: Final = 16
_MOST_K: Final = 100
_PROBED: Final = 40
"""One in so many partitions is looked at: the k-th of what is found there is about the 2 k-th of all."""
_POOL: Final = 3
"""Rows measured for each neighbour wanted."""
_UNCOVERED: Final = 20
"""An index that leaves more than one row in so many to be scanned is not asked."""


def bounds_by_index(
    view: View, field: Field, metric: Metric, queries: npt.NDArray[Any], k: int, *, threads: int | None
) -> npt.NDArray[np.float64] | None:
    """How far the k-th nearest of all live rows is at most, for each query.

    Any k live rows bound the k-th nearest, so the answer of the exact search stays what it is, whatever the index found.

    Args:
        queries: [n, d], as for `ExactKnn`.
        threads: as many as the process may run on when None.

    Returns:
        float64 [n], infinity where fewer than k rows were found; None where asking an index would not pay: without an IVF
        index of this metric that covers nearly all rows and whose files are local, for few queries, rows, or a large k.
    """
    rows = view.snapshot.num_rows
    if len(queries) < _LEAST_QUERIES or rows < _LEAST_ROWS or k > _MOST_K or metric is Metric.HAMMING:
        return None
    for index in reversed(view.snapshot.indexes):
        if index.kind != "ivf" or index.field_id != field.id or index.metric != metric:
            continue
        prepared = ready(view, index)
        mapped = all(segment.vectors is not None for segment in prepared.segments)
        if not prepared.segments or not mapped or prepared.coverage.uncovered_rows * _UNCOVERED > rows:
            continue
        wish = Wish(effort=max(1, largest_effort(prepared) // _PROBED), pool=_POOL * k)
        engine = IndexEngine(prepared, queries, Selection(), wish, threads=threads)
        with warnings.catch_warnings():
            # The answer does not depend on the index, so its faults are not this search's to tell.
            warnings.simplefilter("ignore", DamagedIndexWarning)
            found = engine.nearest(k, None)
        return np.ascontiguousarray(found.distances[:, k - 1])
    return None
