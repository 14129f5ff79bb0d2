"""Whatever the data, path, threads and cuts: exact nearest neighbours equal a scan, bit for bit."""

from __future__ import annotations

import kernel_reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_matrices import matrices

from vectorlake.kernels import ExactKnn, Metric, Path
from vectorlake.kernels.capability import has_avx2
from vectorlake.kernels.self_knn import nearest_others


@pytest.mark.parametrize("path", [Path.DIRECT, Path.AVX2, Path.NUMKONG, Path.FLOAT])
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_equals_a_scan(path: Path, data: st.DataObject) -> None:
    import llvmlite.binding

    if path is Path.AVX2 and not llvmlite.binding.get_host_cpu_features().get("avx2"):
        pytest.skip("this CPU has no AVX2")
    dimension = data.draw(st.integers(1, 40))
    vectors = data.draw(matrices(dimension, 700))
    queries = data.draw(matrices(dimension, 8))
    if len(vectors) and data.draw(st.booleans()):
        queries = vectors[:5]
    queries = queries[np.isfinite(queries).all(axis=1)]
    metric = data.draw(st.sampled_from([Metric.L2, Metric.COSINE, Metric.DOT]))
    k = data.draw(st.integers(1, 40))
    valid = np.random.default_rng(data.draw(st.integers(0, 99))).uniform(size=len(vectors)) < 0.8
    knn = ExactKnn(queries, k=k, metric=metric, path=path, threads=data.draw(st.integers(1, 3)))
    cut = data.draw(st.integers(0, len(vectors)))
    ids = np.arange(len(vectors))[::-1].copy()
    for part in (slice(0, cut), slice(cut, None)):
        knn.add(vectors[part], ids[part], valid[part])
    kernel_reference.assert_equal_to_scan(knn.result(), queries, vectors, k, metric, ids=ids, valid=valid)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_self_join_equals_a_scan_without_the_row_itself(data: st.DataObject) -> None:
    if not has_avx2():
        pytest.skip("this CPU has no AVX2")
    dimension = data.draw(st.integers(1, 40))
    vectors = data.draw(matrices(dimension, 500))
    metric = data.draw(st.sampled_from([Metric.L2, Metric.COSINE, Metric.DOT]))
    k = data.draw(st.integers(1, 40))
    cut = data.draw(st.integers(0, len(vectors)))
    ids = np.arange(len(vectors))[::-1].copy()
    found = nearest_others(
        [(vectors[:cut], ids[:cut]), (vectors[cut:], ids[cut:])],
        k=k,
        metric=metric,
        threads=data.draw(st.integers(1, 3)),
        block_rows=data.draw(st.sampled_from([48, 96, 768])),
    )
    kernel_reference.assert_equal_to_self_scan(found, vectors, k, metric, ids=ids)
