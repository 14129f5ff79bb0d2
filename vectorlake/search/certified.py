"""The exact search over the codes of a flat index: the same answer, from rows that were encoded once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vectorlake.index.flat import FlatSearcher
from vectorlake.kernels import ExactKnn, Metric
from vectorlake.schema import Field, FixedListType, ScalarType
from vectorlake.search.found import Found
from vectorlake.search.ready import Ready, ready
from vectorlake.table.view import View


def coded(view: View, field: Field, metric: Metric) -> Ready | None:
    """A flat index whose codes cover rows of a column under a metric, and whose vectors are mapped; None without one."""
    for index in reversed(view.snapshot.indexes):
        if index.kind == "flat" and index.field_id == field.id and index.metric == metric:
            prepared = ready(view, index)
            if prepared.segments and all(
                isinstance(segment.searcher, FlatSearcher)
                and segment.searcher.codes is not None
                and segment.vectors is not None
                for segment in prepared.segments
            ):
                return prepared
    return None


def nearest_by_codes(
    prepared: Ready,
    queries: npt.NDArray[Any],
    *,
    k: int,
    metric: Metric,
    threads: int | None,
    bounds: npt.NDArray[np.float64] | None = None,
) -> tuple[Found, int]:
    """The k nearest of all live rows within bounds, as a float64 scan finds them, and how many rows there were."""
    search = ExactKnn(queries, k=k, metric=metric, threads=threads, bounds=bounds)
    kind = prepared.field.type
    assert isinstance(kind, FixedListType)
    assert isinstance(kind.element.type, ScalarType)
    element = np.dtype(kind.element.type.name)
    for segment in prepared.segments:
        searcher = segment.searcher
        assert isinstance(searcher, FlatSearcher)
        assert searcher.codes is not None
        assert segment.vectors is not None
        places = np.where(segment.opened.live, segment.vectors.places, 0)
        search.add_encoded(searcher.codes, places, element, segment.row_ids)
    rows = prepared.live
    for block in prepared.uncovered():
        rows += len(block.vectors)
        search.add(block.vectors, block.row_ids, block.valid)
    return Found(*search.result()), rows
