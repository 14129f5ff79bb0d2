"""The order of answers: by distance, then by row id."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def sorted_rows(
    distances: npt.NDArray[np.float64], row_ids: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Sort each row by distance, then by row id; the second key is looked at only where it decides."""
    order = np.argsort(distances, axis=1)
    distances = np.take_along_axis(distances, order, axis=1)
    row_ids = np.take_along_axis(row_ids, order, axis=1)
    for row in np.flatnonzero((distances[:, 1:] == distances[:, :-1]).any(axis=1)):
        row_ids[row] = row_ids[row, np.lexsort((row_ids[row], distances[row]))]
    return distances, row_ids
