"""Parts of a batch: all queries once, work for every thread, and few parts where there are few threads."""

from __future__ import annotations

import pytest

from vectorlake.index.parts import parts_of


@pytest.mark.parametrize("threads", [1, 2, 16])
@pytest.mark.parametrize("count", [0, 1, 33, 500, 1_000, 16_384])
def test_every_query_is_in_one_part(count: int, threads: int) -> None:
    parts = parts_of(count, threads)
    assert [query for first, end in parts for query in range(first, end)] == list(range(count))
    assert all(end - first <= 256 for first, end in parts)
    sizes = [end - first for first, end in parts]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(("count", "threads", "most"), [(500, 2, 4), (1_000, 2, 6), (1_000, 16, 32)])
def test_there_are_few_parts_and_some_for_each_thread(count: int, threads: int, most: int) -> None:
    assert 1.5 * threads <= len(parts_of(count, threads)) <= most
