"""A table joined with itself equals a scan in which no row matches itself."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.kernels import Metric, pairwise_distances
from vectorlake.search import self_join


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("k", [1, 6, 500])
def test_equals_a_scan(metric: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_join, "BATCH", 100)
    vectors = np.random.default_rng(1).standard_normal((300, 12)).astype("f4")
    vectors[50] = vectors[7]
    vectors[60:75] = vectors[8]
    valid = np.arange(300) % 11 != 0
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 12, mask=pa.array(~valid))
    table = vl.connect("memory://").create_table(
        "t", pa.table({"vec": column}), properties={"write.fragment-rows": "70"}
    )
    found = table.knn_self(k=k, metric=metric).read_all()
    distances = pairwise_distances(vectors, vectors, Metric(metric))
    np.fill_diagonal(distances, np.inf)
    distances[:, ~valid] = np.inf
    wanted = []
    for row in np.flatnonzero(valid):
        order = np.lexsort((np.arange(300), distances[row]))[:k]
        order = order[distances[row][order] < np.inf]
        wanted += [(row, rank, other, distances[row, other]) for rank, other in enumerate(order)]
    columns = [found[name].to_pylist() for name in ("row_id", "rank", "neighbor", "distance")]
    assert list(zip(*columns, strict=True)) == wanted


def test_nothing_to_join() -> None:
    table = vl.connect("memory://").create_table("t", pa.schema([pa.field("vec", vl.vector(4))]))
    assert table.knn_self().read_all().num_rows == 0
    with pytest.raises(vl.InvalidInputError, match="k must be an integer"):
        table.knn_self(k=0)
