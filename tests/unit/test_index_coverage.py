"""What an index covers of a snapshot, by the rule alone and on tables, through every way in which rows change."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from vectorlake.plan.index_coverage import Extent, Held, RowMap, place, uncovered

NONE = np.empty(0, np.int64)


def ids(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


def extent(rows: int, first: int = 0, *, version: int | None = 1, **others: object) -> Extent:
    members = {"row_ids": None, "deleted": NONE, **others}
    return Extent(rows=rows, first_row_id=first, version=version, **members)  # type: ignore[arg-type]


CASES = {
    "one fragment": ([extent(3)], [Held(ids(2, 0, 1), NONE, 1)], [[2, 0, 1]], []),
    "empty slots": ([extent(3)], [Held(ids(2, -1, 1), NONE, 1)], [[2, None, 1]], [(0, [0])]),
    "nulls count as covered": ([extent(3)], [Held(ids(2), ids(0), 1)], [[2]], [(0, [1])]),
    "deleted rows": ([extent(3, deleted=ids(1))], [Held(ids(0, 1), NONE, 1)], [[0, None]], [(0, [2])]),
    "rows appended since": (
        [extent(2), extent(2, 2, version=2)],
        [Held(ids(0, 1), NONE, 1)],
        [[0, 1]],
        [(1, [0, 1])],
    ),
    "a newer file": ([extent(2, version=3)], [Held(ids(0, 1), NONE, 2)], [[None, None]], [(0, [0, 1])]),
    "moved rows": (
        [extent(3, 9, version=4, row_ids=ids(5, 0, 7), versions=ids(1, 4, 2))],
        [Held(ids(7, 0, 5), NONE, 2)],
        [[2, None, 0]],
        [(0, [1])],
    ),
    "a new image under the old id": (
        [extent(2, deleted=ids(1)), extent(1, 2, version=3, row_ids=ids(1))],
        [Held(ids(0, 1), NONE, 2)],
        [[0, None]],
        [(1, [0])],
    ),
    "the newest of two segments": (
        [extent(2), extent(1, 2, version=2)],
        [Held(ids(0, 1), NONE, 1), Held(ids(1, 2), NONE, 2)],
        [[0, None], [1, 2]],
        [],
    ),
    "several slots of a row": ([extent(2)], [Held(ids(1, 1, 0), NONE, 1)], [[1, 1, 0]], []),
    "a column that was never written": ([extent(2, version=None, empty=True)], [], [], []),
    "a column of defaults": ([extent(2, version=None)], [Held(ids(0), NONE, 9)], [[None]], [(0, [0, 1])]),
    "no rows": ([], [Held(ids(0), ids(1), 1)], [[None]], []),
    "no segments": ([extent(2, deleted=ids(0))], [], [], [(0, [1])]),
}


@pytest.mark.parametrize("case", CASES)
def test_rule(case: str) -> None:
    extents, segments, wanted, left = CASES[case]
    rows = RowMap(extents)
    placed, covered = place(rows, segments)
    found = [
        [
            int(rows.offsets[f] + p) if live else None
            for live, f, p in zip(s.live, s.fragment, s.position, strict=True)
        ]
        for s in placed
    ]
    assert found == wanted
    assert [(at, positions.tolist()) for at, positions in uncovered(rows, extents, covered)] == left
