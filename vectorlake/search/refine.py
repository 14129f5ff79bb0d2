"""Refine what a segment nominates: measure it exactly from the stored values, mapped or fetched."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.kernels import Metric
from vectorlake.kernels.reference import METRIC_CODES
from vectorlake.kernels.refine import METRIC_HAMMING, refine
from vectorlake.kernels.rows import Rows as Matrix
from vectorlake.kernels.team import Team
from vectorlake.schema import Field
from vectorlake.search.heaps import Heaps
from vectorlake.search.ready import ReadySegment
from vectorlake.search.vectors import as_block
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.scan import ordered_map

_SHARED: Final = 64
"""Fewer queries than this are not worth a second thread."""
_READS: Final = 16
"""Fragments that are read at a time."""


def refine_mapped(
    queries: Matrix,
    metric: Metric,
    code: int,
    slots: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
    row_ids: npt.NDArray[np.int64],
    heaps: Heaps,
    threads: int,
    which: npt.NDArray[np.int64] | None = None,
) -> None:
    """Measure nominated slots [n, pool] where they stand, and offer them.

    Args:
        queries: [n, d], without gaps.
        metric: the distance.
        code: element type of the stored vectors.
        slots: int64 [n, pool], -1 where there is none.
        places: int64 [slots], addresses, 0 for none.
        row_ids: int64 [slots].
        which: int64 [m], for which of the queries; None for all.
    """
    which = np.arange(queries.count) if which is None else which
    count = len(which)
    address, base, names = queries.address, places.ctypes.data, row_ids.ctypes.data

    def part(first: int, end: int) -> None:
        refine(
            METRIC_CODES.get(metric, METRIC_HAMMING),
            queries.code,
            address,
            code,
            which[first:end],
            np.empty((1, queries.dimension)),
            slots,
            base,
            names,
            heaps.distances,
            heaps.row_ids,
        )

    if threads <= 1 or count < _SHARED:
        part(0, count)
        return
    Team(threads).share(part, count, -(-count // (threads * 4)))


def refine_read(
    queries: Matrix,
    metric: Metric,
    slots: npt.NDArray[np.int64],
    segment: ReadySegment,
    field: Field,
    heaps: Heaps,
    threads: int,
) -> int:
    """Measure nominated slots of a segment whose vectors are not mapped: each is read once; returns how many were."""
    opened = segment.opened
    distinct, inverse = np.unique(slots, return_inverse=True)
    fragment = np.where(distinct >= 0, opened.fragment[distinct], -1)
    position = opened.position[distinct]
    places = np.zeros(len(distinct), np.int64)
    kept: list[npt.NDArray[Any]] = []

    def read(index: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
        at = np.flatnonzero(fragment == index)
        order = at[np.argsort(position[at], kind="stable")]
        reader: FragmentReader = opened.readers[index]
        block = as_block(reader.take([field], position[order]).column(0), order)
        return order, np.ascontiguousarray(block.vectors), block.valid

    wanted = np.unique(fragment[fragment >= 0]).tolist()
    code = queries.code
    for order, vectors, valid in ordered_map(read, wanted, threads=min(_READS, max(len(wanted), 1))):
        rows = Matrix.of(vectors, what="vectors")
        code = rows.code
        where = rows.address + np.arange(rows.count, dtype=np.int64) * rows.stride
        places[order] = where if valid is None else np.where(valid, where, 0)
        kept.append(rows.array)
    compact = np.where(slots >= 0, inverse.reshape(slots.shape), -1).astype(np.int64)
    names = np.where(distinct >= 0, segment.row_ids[distinct], -1)
    refine_mapped(queries, metric, code, compact, places, names, heaps, threads)
    return int(np.count_nonzero(places))
