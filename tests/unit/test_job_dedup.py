"""Groups of duplicates beside a plain search for them, by vectors, texts and keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectorlake_jobs import dedup
from vectorlake_jobs._forest import components, thinned

import vectorlake as vl
from vectorlake.jobs import JobRun

QUICK: dict[str, Any] = {"engine": "threads", "workers": 2}
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "the",
    "lazy",
    "dog",
    "while",
    "seven",
    "wizards",
    "quietly",
    "mix",
    "a",
    "potion",
    "of",
    "moss",
    "and",
    "rain",
]


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    return vl.connect(tmp_path / "lake")


@pytest.fixture
def items(lake: vl.Lake) -> vl.Table:
    """60 rows: every third a copy of the one before with a little noise, some exact copies, nulls, deleted rows."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(60, 6)).astype(np.float32)
    for place in range(2, 60, 3):
        rows[place] = rows[place - 1] + rng.normal(size=6) * 1e-3
    rows[50] = rows[10]
    rows[40:45] = rows[40]
    texts: list[str | None] = [" ".join(rng.permutation(WORDS)) for _ in range(60)]
    for place in range(2, 60, 3):
        texts[place] = f"{texts[place - 1]} extra"
    texts[9], texts[30] = None, ""
    mask = pa.array(np.isin(np.arange(60), [7]))
    vectors = pa.FixedSizeListArray.from_arrays(rows.reshape(-1), 6, mask=mask)
    keys = [None if i == 3 else f"k{i % 40}" for i in range(60)]
    data = pa.table(
        {"id": np.arange(60), "vec": vectors, "text": texts, "key": keys, "day": np.arange(60) % 2}
    )
    table = lake.create_table("items", data.slice(0, 35))
    table.append(data.slice(35))
    table.delete("id IN (11, 42)")
    return table


def plain_groups(table: vl.Table, linked: Any) -> dict[int, int]:
    """Row id to lowest row id, by comparing all pairs and following links until nothing changes."""
    rows = table.scan(with_row_id=True).to_arrow().to_pylist()
    group = {row["_row_id"]: row["_row_id"] for row in rows}
    pairs = [(a["_row_id"], b["_row_id"]) for i, a in enumerate(rows) for b in rows[:i] if linked(a, b)]
    changed = True
    while changed:
        changed = False
        for a, b in pairs:
            low = min(group[a], group[b])
            changed |= group[a] != low or group[b] != low
            group[a] = group[b] = low
    inside = {end for pair in pairs for end in pair}
    return {row_id: low for row_id, low in group.items() if row_id in inside}


def near(limit: float) -> Any:
    def linked(a: dict[str, Any], b: dict[str, Any]) -> bool:
        if a["vec"] is None or b["vec"] is None:
            return False
        return float(((np.array(a["vec"], np.float64) - np.array(b["vec"], np.float64)) ** 2).sum()) <= limit

    return linked


def groups_in(table: vl.Table, column: str = "group") -> dict[int, int]:
    rows = table.refresh().scan([column], with_row_id=True).to_arrow().to_pylist()
    return {row["_row_id"]: row[column] for row in rows if row[column] is not None}


@pytest.mark.parametrize("limit", [0.0, 1e-4, 4.0, 1e6])
def test_near_vectors_are_groups(items: vl.Table, limit: float) -> None:
    expected = plain_groups(items, near(limit))
    version = items.version
    done = dedup(items, max_distance=limit, metric="l2", as_column="group", task_rows=16, **QUICK)
    assert isinstance(done, JobRun)
    assert groups_in(items) == expected
    assert items.version == version + 1
    sizes = sorted((list(expected.values()).count(low), -low) for low in set(expected.values()))[::-1]
    assert done.outcome["groups"] == len(set(expected.values()))
    assert done.outcome["duplicates"] == len(expected) - len(set(expected.values()))
    assert done.outcome["largest"] == [[-low, size] for size, low in sizes[:10]]
    assert done.outcome["rows"] == items.count()


def test_rows_with_more_near_ones_than_are_looked_for_at_first(lake: vl.Lake) -> None:
    rng = np.random.default_rng(4)
    rows = np.repeat(rng.normal(size=(3, 4)), [200, 70, 1], axis=0).astype(np.float32)
    rows[:200, 0] += np.arange(200) * 1e-3  # a chain: each is near some, and the first far from the last
    table = lake.create_table("many", {"vec": pa.FixedSizeListArray.from_arrays(rows.reshape(-1), 4)})
    done = dedup(table, max_distance=(70e-3) ** 2, metric="l2", as_column="group", **QUICK)
    assert isinstance(done, JobRun)
    assert done.outcome["largest"] == [[0, 200], [200, 70]]


def test_a_new_table_keeps_one_row_of_each_group(items: vl.Table, lake: vl.Lake) -> None:
    groups = plain_groups(items, near(1e-4))
    done = dedup(items, max_distance=1e-4, metric="l2", into="clean", lake=lake, task_rows=16, **QUICK)
    assert isinstance(done, JobRun)
    dropped = [row_id for row_id, low in groups.items() if row_id != low]
    rows = items.scan(with_row_id=True).to_arrow()
    kept = rows.filter(pa.array(~np.isin(rows["_row_id"].to_numpy(), dropped))).drop_columns("_row_id")
    assert lake.table("clean").to_arrow().equals(kept)
    assert done.outcome["kept"] == kept.num_rows
    assert items.refresh().schema.names == ["id", "vec", "text", "key", "day"]
    again = dedup(lake.table("clean"), column="vec", max_distance=1e-4, metric="l2", as_column="g", **QUICK)
    assert isinstance(again, JobRun)
    assert again.outcome["duplicates"] == 0


def jaccard(a: str, b: str) -> float:
    def shingles(text: str) -> set[str]:
        words = text.split()
        return {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))} if words else set()

    left, right = shingles(a), shingles(b)
    return len(left & right) / len(left | right) if left and right else 0.0


def test_similar_texts_are_groups(items: vl.Table) -> None:
    dedup(items, by="text", column="text", threshold=0.7, as_column="group", task_rows=20, **QUICK)

    def linked(a: dict[str, Any], b: dict[str, Any]) -> bool:
        return bool(a["text"] and b["text"]) and jaccard(a["text"], b["text"]) >= 0.7

    expected = plain_groups(items, linked)
    assert len(expected) > 20
    assert groups_in(items) == expected  # at 0.95 and 0.0 the signatures leave no doubt


@pytest.mark.parametrize("keys", [["key"], ["key", "day"]])
def test_equal_keys_are_groups(items: vl.Table, keys: list[str]) -> None:
    dedup(items, by="key", keys=keys, as_column="group", task_rows=16, **QUICK)

    def linked(a: dict[str, Any], b: dict[str, Any]) -> bool:
        return all(a[key] is not None and a[key] == b[key] for key in keys)

    expected = plain_groups(items, linked)
    assert expected
    assert groups_in(items) == expected


def test_keys_whose_hashes_meet_are_told_apart(items: vl.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "vectorlake_jobs._duplicates.hash_keys", lambda columns: np.zeros(len(columns[0]), np.uint64)
    )
    dedup(items, by="key", keys=["key"], as_column="group", **QUICK)
    assert groups_in(items) == plain_groups(items, lambda a, b: a["key"] is not None and a["key"] == b["key"])


def test_no_duplicates_is_a_column_of_nulls(items: vl.Table) -> None:
    done = dedup(items, by="key", keys=["id"], as_column="group", **QUICK)
    assert isinstance(done, JobRun)
    assert (done.outcome["groups"], done.outcome["largest"], groups_in(items)) == (0, [], {})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60))
def test_thinned_pairs_have_the_same_components(pairs: list[tuple[int, int]]) -> None:
    left = np.array([a for a, b in pairs if a != b], np.int64)
    right = np.array([b for a, b in pairs if a != b], np.int64)
    ids, groups = components(left, right)
    thin = thinned(left, right)
    assert [found.tolist() for found in components(*thin)] == [ids.tolist(), groups.tolist()]
    assert len(thin[0]) < max(len(ids), 1)
    assert all(groups <= ids)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nowhere": ({"max_distance": 1}, "say where the result goes"),
    "no distance": ({"as_column": "g"}, "max_distance="),
    "by what": ({"as_column": "g", "by": "magic"}, "by must be"),
    "no keys": ({"as_column": "g", "by": "key"}, "needs keys="),
    "key of vectors": ({"as_column": "g", "by": "key", "keys": ["vec"]}, "which is no key"),
    "unknown key": ({"as_column": "g", "by": "key", "keys": ["kee"]}, "no column 'kee'"),
    "not text": ({"as_column": "g", "by": "text", "column": "id"}, "not text"),
    "threshold": (
        {"as_column": "g", "by": "text", "column": "text", "threshold": 0},
        "threshold must be above 0",
    ),
    "two texts": ({"as_column": "g", "by": "text"}, "say which column holds the texts"),
    "no lake": ({"max_distance": 1, "into": "x"}, "lake="),
}


@pytest.mark.parametrize("case", BAD)
def test_what_can_not_be_is_refused(items: vl.Table, case: str) -> None:
    options, message = BAD[case]
    version = items.version
    with pytest.raises(vl.VectorlakeError, match=message):
        dedup(items, **options, **QUICK)
    assert items.refresh().version == version
