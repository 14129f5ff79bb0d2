"""The k nearest so far, as a binary heap whose root is the farthest, ordered by (distance, row id)."""

from __future__ import annotations

from typing import Any

from vectorlake.kernels.jit import inner

NO_ROW = 2**63 - 1
"""Row id of an empty place: behind every row at an infinite distance."""


@inner
def offer(distances: Any, row_ids: Any, distance: float, row_id: int) -> bool:
    """Put a row into the heap, full of empty places at first, if it is nearer than the root, which leaves.

    Args:
        distances: float64 [k], the heap's keys.
        row_ids: int64 [k], beside them.
        distance: the row's distance; infinity is never taken.
        row_id: decides between equal distances; the smaller is nearer.
    """
    if not (distance < distances[0] or (distance == distances[0] and row_id < row_ids[0])):
        return False
    size = distances.shape[0]
    hole = 0
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            distances[other] > distances[child]
            or (distances[other] == distances[child] and row_ids[other] > row_ids[child])
        ):
            child = other
        if distances[child] < distance or (distances[child] == distance and row_ids[child] < row_id):
            break
        distances[hole] = distances[child]
        row_ids[hole] = row_ids[child]
        hole = child
    distances[hole] = distance
    row_ids[hole] = row_id
    return True
