"""Exact search over the codes of a flat index equals a scan, while the table changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.kernels import Metric
from vectorlake.search import certified


def data(first: int, count: int, element: str) -> pa.Table:
    rng = np.random.default_rng(first)
    vectors = rng.standard_normal((count, 24)).astype(element) * 0.8 ** np.arange(24)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(element).reshape(-1)), 24)
    return pa.table({"id": np.arange(first, first + count), "vec": column})


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize(("element", "head"), [("f4", 12), ("f2", 0), ("f8", "auto")])
def test_equals_a_scan(
    tmp_path: Path, metric: str, element: str, head: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = vl.connect(str(tmp_path))
    table = lake.create_table("t", data(0, 900, element), properties={"write.fragment-rows": "400"})
    table.create_index("vec", "flat", metric=metric, head=head)
    table.append(data(900, 150, element))
    table.delete("id % 7 = 3")
    asked = np.random.default_rng(5).standard_normal((9, 24)) * 0.8 ** np.arange(24)
    field = next(f for f in table.snapshot.schema.fields if f.name == "vec")
    for queries in (asked, asked[:1]):
        by_codes = table.knn(queries, k=13, metric=metric)
        assert certified.coded(table.view, field, Metric(metric)) is not None
        with monkeypatch.context() as patch:
            patch.setattr("vectorlake.search.exact.coded", lambda *_: None)
            assert by_codes.equals(table.knn(queries, k=13, metric=metric))
        far = float(np.median(by_codes["distance"].to_numpy()))
        near = table.knn(queries, k=13, metric=metric, max_distance=far)
        assert max(near["distance"].to_pylist()) <= far
