"""Manifests rewritten: fewer, ordered by a column, with the same contents, whoever commits meanwhile."""

from __future__ import annotations

import itertools

import pytest

import vectorlake as vl
from vectorlake.plan.scan import manifest_may_match
from vectorlake.table.manifest_rewrite import ManifestRewrite

NUMBERS = itertools.count()


@pytest.fixture
def table() -> vl.Table:
    lake = vl.connect(f"memory://manifests-{next(NUMBERS)}")
    table = lake.create_table("t", {"id": [0], "day": [0]}, properties={"write.scalar-format": "arrow"})
    for number in range(1, 12):
        table.append({"id": [number], "day": [number * 7 % 12]})
    return table


def test_small_manifests_become_one(table: vl.Table) -> None:
    before = table.scan(with_row_id=True).to_arrow()
    plan = table.rewrite_manifests(dry_run=True)
    assert (plan.manifests_before, plan.manifests_after, plan.fragments) == (
        len(table.snapshot.manifests),
        1,
        12,
    )
    assert "become 1: 12 fragments" in str(plan)
    snapshot = table.rewrite_manifests()
    assert (snapshot.operation, len(snapshot.manifests)) == ("rewrite-manifests", 1)
    assert table.scan(with_row_id=True).to_arrow().sort_by("id").equals(before.sort_by("id"))
    assert table.rewrite_manifests() == snapshot, "there was nothing left to do"
    assert "nothing to rewrite" in str(table.rewrite_manifests(dry_run=True))
    assert table.verify() == []


def test_manifests_by_a_column_are_pruned_by_it(table: vl.Table) -> None:
    rewrite = ManifestRewrite(table._log, "day", most=4)
    table.commit(rewrite)
    predicate = table.view.bind("day = 5")
    refs = table.snapshot.manifests
    assert len(refs) == 3
    assert sum(manifest_may_match(ref, predicate, table.snapshot.schema) for ref in refs) == 1
    assert rewrite(table.snapshot) is None
    assert table.count("day = 5") == 1
    table.delete("day = 5")
    table.append({"id": [50], "day": [5]})
    assert table.scan(columns=["id"], filter="day = 5").to_arrow()["id"].to_pylist() == [50]
    assert table.verify() == []


def test_it_is_done_again_on_a_newer_head(table: vl.Table) -> None:
    other = vl.connect(table.uri.removesuffix("/main/t")).table("t")
    other.append({"id": [99], "day": [1]})
    other.delete("id = 3")
    table.rewrite_manifests()
    assert table.count() == 12
    assert len(table.snapshot.manifests) == 1


def test_an_unknown_column_is_refused(table: vl.Table) -> None:
    with pytest.raises(vl.NotFoundError, match="day"):
        table.rewrite_manifests("dya")
