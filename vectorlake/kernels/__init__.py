"""Arithmetic on arrays: distances and exact nearest neighbours. No input or output, no table.

Importing this package loads neither numba nor numkong; the first computation does.
"""

from vectorlake.kernels.knn import ExactKnn
from vectorlake.kernels.metric import Metric, Path
from vectorlake.kernels.reference import distances_at, pairwise_distances

__all__ = ["ExactKnn", "Metric", "Path", "distances_at", "pairwise_distances"]
