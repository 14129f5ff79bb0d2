"""When the records of a graph are copied to large pages, and that searches don't tell the difference."""

from __future__ import annotations

import numpy as np
import pytest

from vectorlake.index import graph_memory
from vectorlake.index.graph import GraphKind
from vectorlake.index.graph_memory import BATCH, REPAID, Copying
from vectorlake.index.protocol import Ask
from vectorlake.kernels import Metric
from vectorlake.kernels.codes import aligned_empty
from vectorlake.testing.index_kinds import Recipe

RECORDS = np.arange(100 * 64, dtype=np.uint8).reshape(100, 64)
DUE = REPAID * len(RECORDS)
"""So many visits make a copy due."""


@pytest.mark.parametrize(
    ("calls", "copied"),
    [
        pytest.param([(DUE, BATCH)], [True], id="at once"),
        pytest.param(
            [(DUE - 1, BATCH), (1, BATCH), (DUE, BATCH)], [False, True, False], id="in parts, and once only"
        ),
        pytest.param([(DUE, BATCH - 1), (DUE, 1), (0, BATCH)], [False, False, True], id="not while few ask"),
    ],
)
def test_a_copy_is_made_once_it_is_due(calls: list[tuple[int, int]], copied: list[bool]) -> None:
    copying = Copying(RECORDS)
    copies = [copying.after(visits, queries) for visits, queries in calls]
    assert [copy is not None for copy in copies] == copied
    for copy in copies:
        if copy is not None:
            np.testing.assert_array_equal(copy, RECORDS)
            assert not np.shares_memory(copy, RECORDS)


def test_much_is_never_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_memory, "LARGEST", RECORDS.nbytes - 1)
    assert Copying(RECORDS).after(DUE, BATCH) is None
    assert Copying(RECORDS[:0]).after(DUE, BATCH) is None


def test_memory_begins_where_a_cache_line_does() -> None:
    for rows in (1, 3, 100_000):
        made = aligned_empty(rows, 192)
        assert made.shape == (rows, 192)
        assert made.ctypes.data % 64 == 0
        made.fill(7)


def test_searches_of_a_copy_answer_as_before() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(3_000, 24)).astype(np.float32)
    searcher = Recipe(GraphKind(), Metric.L2).make(vectors).opened()
    ask = Ask(rng.normal(size=(BATCH, 24)).astype(np.float32), 12, 32)
    turns = 2 + REPAID * len(vectors) // (24 * BATCH)
    first, *others = [searcher.search(ask) for _ in range(turns)]
    assert searcher._near is not searcher._records, "the last ones searched a copy"  # type: ignore[attr-defined]
    for other in others:
        np.testing.assert_array_equal(other.slots, first.slots)
        np.testing.assert_array_equal(other.estimates, first.estimates)
