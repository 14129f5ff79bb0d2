"""The search that a KNN join repeats for batch after batch: a value that workers receive, and the answer in columns."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import vectorlake as vl
from vectorlake_jobs._arrays import plain_array, vector_size
from vectorlake_jobs._queries import QUERY

FOUND: Final = (QUERY, "rank", "row_id", "distance")
"""The columns of an answer, before those asked for."""
_LARGEST: Final = 1 << 17
_LEAST: Final = 256


@dataclass(frozen=True)
class Search:
    """What `Table.knn` is asked, but for the queries; each argument is told there."""

    k: int | None = 10
    column: str | None = None
    metric: str | None = None
    filter: str | None = None
    columns: tuple[str, ...] = ()
    mode: str | None = None
    index: str | None = None
    nprobe: int | None = None
    ef: int | None = None
    target_recall: float | None = None
    pool: int | None = None
    max_distance: float | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """As JSON, without what is left to `knn`."""
        return {name: value for name, value in asdict(self).items() if value not in (None, ())}

    def batch_rows(self, dimension: int, memory: int) -> int:
        """How many queries to ask at a time: an exact search reads the whole table for each batch of them."""
        # Queries are held as given, as float32 and rounded; answers with what is kept besides the k best.
        each = 12 * dimension + 64 * min(self.k or 1000, 10_000)
        return max(_LEAST, min(_LARGEST, memory // 3 // each))

    def of(
        self, table: vl.Table, vectors: pa.Array, *, own: npt.NDArray[np.int64] | None, threads: int
    ) -> pa.Table:
        """The neighbours of some vectors: `query` counts through them. Null vectors and those that hold NaN or infinity
        have none.

        Args:
            own: the row ids of the vectors, in a self-join: a row is no neighbour of itself.
            threads: to search with.
        """
        k = self.k if own is None or self.k is None else self.k + 1
        wishes = {**asdict(self), "k": k}
        found = table.knn(usable(vectors, table, self.column), **wishes, threads=threads)
        return found if own is None else _without_self(found, own, self.k)


def usable(vectors: pa.Array, table: vl.Table, column: str | None) -> pa.Array:
    """Query vectors that `knn` takes: of fixed size where they all have the column's, null where they are not finite."""
    vectors = plain_array(vectors)
    if pa.types.is_list(vectors.type) or pa.types.is_large_list(vectors.type):
        size = _dimension(table, column)
        lengths = np.diff(vectors.offsets.to_numpy())[vectors.is_valid().to_numpy(zero_copy_only=False)]
        if size and (lengths == size).all():
            vectors = vectors.cast(pa.list_(vectors.type.value_type, size))
    if not pa.types.is_fixed_size_list(vectors.type) or not pa.types.is_floating(vectors.type.value_type):
        return vectors
    size = vectors.type.list_size
    flat = vectors.values.slice(vectors.offset * size, len(vectors) * size)
    numbers = flat.to_numpy(zero_copy_only=False).reshape(-1, size)
    finite = np.isfinite(numbers).all(axis=1) & vectors.is_valid().to_numpy(zero_copy_only=False)
    if finite.all():
        return vectors
    return pa.FixedSizeListArray.from_arrays(flat, size, mask=pa.array(~finite))


def _dimension(table: vl.Table, column: str | None) -> int | None:
    kinds = [field.type for field in table.schema if column in (None, field.name)]
    sizes = {size for kind in kinds if (size := vector_size(kind)) is not None}
    return sizes.pop() if len(sizes) == 1 else None


def _without_self(found: pa.Table, own: npt.NDArray[np.int64], k: int | None) -> pa.Table:
    """Of k + 1 neighbours the k besides the row itself."""
    query = found.column(QUERY).to_numpy()
    rank = found.column("rank").to_numpy()
    itself = found.column("row_id").to_numpy() == own[query]
    # Where a row is not among its own nearest, as under dot, it gives up the farthest instead.
    place = np.full(len(own), np.iinfo(np.int32).max if k is None else k, np.int64)
    place[query[itself]] = rank[itself]
    kept = rank != place[query]
    moved = (rank - (rank > place[query]))[kept].astype(np.int32)
    left = found.filter(pa.array(kept))
    return left.set_column(left.schema.get_field_index("rank"), "rank", pa.array(moved))
