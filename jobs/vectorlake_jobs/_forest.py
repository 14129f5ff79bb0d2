"""Groups of rows from pairs of them: connected components, and as few pairs as keep the same components."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ids: TypeAlias = npt.NDArray[np.int64]


def components(left: Ids, right: Ids) -> tuple[Ids, Ids]:
    """The connected components of a graph of row ids.

    Args:
        left, right: the ends of each pair.

    Returns:
        The ids that are in a pair, ascending, and the lowest id of the component of each.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ids, places = np.unique(np.concatenate([left, right]), return_inverse=True)
    if not len(ids):
        return ids, ids
    ends = places.reshape(2, -1)
    graph = coo_array((np.ones(ends.shape[1], bool), (ends[0], ends[1])), shape=(len(ids), len(ids)))
    _, labels = connected_components(graph, directed=False)
    lowest = np.full(labels.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(lowest, labels, ids)
    return ids, lowest[labels]


def thinned(left: Ids, right: Ids) -> tuple[Ids, Ids]:
    """Pairs with the same components, fewer than there are ids: each id with the lowest of its component."""
    ids, lowest = components(left, right)
    others = ids != lowest
    return lowest[others], ids[others]
