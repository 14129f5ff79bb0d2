"""A table joined with itself equals a scan in which no row matches itself."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.kernels import Metric, pairwise_distances
from vectorlake.search import self_join


@pytest.mark.parametrize("most_bytes", [0, self_join.MOST_BYTES], ids=["in passes", "at once"])
@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("k", [1, 6, 500])
def test_equals_a_scan(metric: str, k: int, most_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_join, "BATCH", 100)
    monkeypatch.setattr(self_join, "MOST_BYTES", most_bytes)
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


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_deleted_and_updated_rows_are_seen_as_they_are(metric: str) -> None:
    vectors = np.random.default_rng(2).standard_normal((200, 8)).astype("f4")
    table = vl.connect("memory://").create_table("t", {"id": range(200), "vec": vectors}, primary_key=["id"])
    table.delete("id % 3 = 0")
    table.upsert({"id": [1, 2], "vec": vectors[[4, 4]]})
    rows = table.scan(["id", "vec"], with_row_id=True).to_arrow()
    found = table.knn_self("vec", k=3, metric=metric).read_all()
    current = np.asarray(rows["vec"].combine_chunks().flatten()).reshape(len(rows), 8)
    distances = pairwise_distances(current, current, Metric(metric))
    np.fill_diagonal(distances, np.inf)
    ids = rows["_row_id"].to_numpy()
    wanted = {int(ids[row]): ids[np.lexsort((ids, distances[row]))[:3]].tolist() for row in range(len(rows))}
    assert {
        int(row): found["neighbor"].to_numpy()[found["row_id"].to_numpy() == row].tolist()
        for row in np.unique(found["row_id"].to_numpy())
    } == wanted


def test_a_recall_out_of_range_is_refused() -> None:
    table = vl.connect("memory://").create_table("t", {"vec": np.ones((3, 4), "f4")})
    with pytest.raises(vl.InvalidInputError, match="target_recall must lie above 0"):
        table.knn_self(target_recall=1.5)


def test_nothing_to_join() -> None:
    table = vl.connect("memory://").create_table("t", pa.schema([pa.field("vec", vl.vector(4))]))
    assert table.knn_self().read_all().num_rows == 0
    with pytest.raises(vl.InvalidInputError, match="k must be an integer"):
        table.knn_self(k=0)
