"""Balls never claim more than holds, and an exact search that skips by them finds what one without them finds, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_matrices import matrices

import vectorlake as vl
from vectorlake.kernels import Metric, pairwise_distances
from vectorlake.kernels.balls import ball_of, joined, reach
from vectorlake.search.exact import ExactEngine
from vectorlake.search.pruned import Ask, nearest_pruned
from vectorlake.search.selection import Selection

METRICS = [Metric.L2, Metric.COSINE, Metric.DOT]
ELEMENTS = {"f32": "f4", "f16": "f2", "f64": "f8", "int8": "i1", "uint8": "u1"}


@pytest.mark.parametrize("metric", METRICS, ids=str)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_no_vector_is_nearer_than_its_ball_says(metric: Metric, data: st.DataObject) -> None:
    dimension = data.draw(st.integers(1, 40))
    rows = data.draw(matrices(dimension, 60))
    queries = data.draw(matrices(dimension, 8))
    if len(rows) and data.draw(st.booleans()):
        queries = rows[:8]
    queries = queries[np.isfinite(queries).all(axis=1)]
    if not len(queries):
        return
    cut = data.draw(st.integers(0, len(rows)))
    parts = [rows[:cut], rows[cut:]]
    balls = joined(np.array([cut, len(rows)]), [ball_of(part) for part in parts])
    least = reach(queries, balls, metric).least
    assert not np.isnan(least).any()
    for run, part in enumerate(parts):
        if len(part):
            nearest = pairwise_distances(queries, part, metric).min(axis=1)
            assert (least[:, run] <= nearest).all()


def test_a_query_of_denormal_numbers_rules_nothing_out() -> None:
    rows, query = np.array([[8.900395e12]], np.float32), np.array([[1e-320]])
    least = reach(query, joined(np.array([1]), [ball_of(rows)]), Metric.DOT).least
    assert least[0, 0] <= pairwise_distances(query, rows, Metric.DOT)[0, 0]


def table_of(element: str, rng: np.random.Generator, rows: int) -> vl.Table:
    """Clustered vectors in the order of their clusters, some null, some twice, some deleted, changed or added since."""
    dtype = np.dtype(ELEMENTS[element])
    centres = rng.normal(size=(12, 6)) * 30 + (60 if element == "uint8" else 0)
    cluster = rng.integers(12, size=rows)
    values = centres[cluster] + rng.normal(size=(rows, 6)) * rng.choice([0.5, 4.0])
    values[rng.integers(rows, size=rows // 4)] = values[0]
    if dtype.kind in "iu":
        values = np.clip(np.rint(values), *(np.iinfo(dtype).min, np.iinfo(dtype).max))
    vectors: list[Any] = list(values.astype(dtype))
    for at in rng.integers(rows, size=20).tolist():
        vectors[at] = None
    schema = {"id": np.arange(rows), "cluster": cluster, "vec": vectors}
    import pyarrow as pa

    fields = pa.schema([("id", pa.int64()), ("cluster", pa.int64()), ("vec", vl.vector(6, element))])
    lake = vl.connect("memory://")
    table = lake.create_table(
        "t", fields, properties={"write.fragment-rows": str(int(rng.choice([1250, 5000])))}
    )
    table.append(schema)
    table.compact(sort_by="cluster")
    return table


@pytest.mark.parametrize("element", ELEMENTS)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_a_search_that_skips_finds_the_same(element: str, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    table = table_of(element, rng, 2500)
    assert any(fragment.balls for fragment in table.view.fragments())
    for step in data.draw(
        st.lists(st.sampled_from(["delete", "rows", "columns", "append", "compact"]), max_size=3)
    ):
        low = int(rng.integers(2000))
        if step == "delete":
            table.delete(f"id BETWEEN {low} AND {low + 300}")
        elif step == "append":
            table.append(table.scan(filter=f"id < {low % 100}").to_arrow())
        elif step == "compact":
            table.compact(deleted_share=0.0)
        else:
            table.update({"vec": "NULL"}, f"id BETWEEN {low} AND {low + 50}", mode=step)
    field = table.snapshot.schema.field("vec")
    stored = table.scan(["vec"], "vec IS NOT NULL").to_arrow()["vec"].combine_chunks()
    plain = getattr(stored, "storage", stored)
    vectors = plain.flatten().to_numpy(zero_copy_only=False).reshape(-1, 6)
    queries = vectors[rng.integers(len(vectors), size=int(rng.choice([1, 3, 40])))].astype(np.float32)
    queries = queries + rng.normal(size=queries.shape).astype(np.float32)
    predicate = data.draw(st.sampled_from([None, "cluster < 4", "id % 7 = 0"]))
    for metric in METRICS:
        selection = Selection(None if predicate is None else table.view.bind(predicate))
        k = data.draw(st.sampled_from([1, 10, 3000]))
        limit = data.draw(st.sampled_from([np.inf, 5.0, 0.5]))
        ask = Ask(table.view, field, metric, queries, selection, k, 2)
        limits = np.full(len(queries), limit)
        found = nearest_pruned(ask, limits, worth=1.0)
        if found is None:
            assert not any(
                fragment.balls_of(field.id) for fragment in table.view.fragments(selection.predicate)
            )
            return
        engine = ExactEngine(table.view, field, metric, queries, selection, 2)
        search = ask.search(limits)
        ask.offer(search, engine_parts(table, selection))
        wanted = search.result()
        assert np.array_equal(found[0].row_ids, wanted[0])
        assert np.array_equal(found[0].distances, wanted[1])
        assert np.array_equal(engine.nearest(k, None if np.isinf(limit) else limit).row_ids, wanted[0])


def engine_parts(table: vl.Table, selection: Selection) -> Any:
    """Everything that is selected, whatever balls say."""
    from vectorlake.search.blocks import whole_parts

    return whole_parts(table.view, selection)
