"""Old versions expire, tags and branches keep theirs, and nobody commits on top of what is gone."""

from __future__ import annotations

import datetime as dt
import itertools
import time

import pytest

import vectorlake as vl
from vectorlake.metadata.snapshot import decode_snapshot
from vectorlake.store.open import open_store
from vectorlake.table.log import snapshot_path

NUMBERS = itertools.count()


@pytest.fixture
def table() -> vl.Table:
    lake = vl.connect(f"memory://expiry-{next(NUMBERS)}")
    table = lake.create_table("t", {"id": [0]}, primary_key=["id"])
    for n in range(1, 8):
        table.append({"id": [n]})
    return table


def left(table: vl.Table) -> list[int]:
    return sorted(snapshot.version for snapshot in table.history())


def test_versions_expire_and_tags_keep_theirs(table: vl.Table) -> None:
    table.tag("kept", 3)
    plan = table.expire_snapshots(older_than=None, keep_last=2, dry_run=True)
    assert (plan.versions, left(table)) == ((1, 2, 4, 5, 6), list(range(1, 9)))
    assert table.expire_snapshots(older_than=None, keep_last=2).versions == plan.versions
    assert left(table) == [3, 7, 8]
    assert table.at("kept").count() == 3
    with pytest.raises(vl.NotFoundError, match=r"version 5 .*expired"):
        table.at(5)
    assert table.expire_snapshots(older_than=dt.timedelta(days=1)).versions == ()
    assert table.verify() == table.at("kept").verify() == []


def test_expiry_that_would_cut_a_tag_is_refused(table: vl.Table) -> None:
    table.tag("kept", 3)
    for versions, match in (([2, 3], "kept"), ([8], "newest"), ([99], "99")):
        with pytest.raises((vl.InvalidInputError, vl.NotFoundError), match=match):
            table.expire_snapshots(versions=versions)
    assert left(table) == list(range(1, 9))


def test_stale_writers_land_on_the_true_head(table: vl.Table) -> None:
    stale = vl.connect(table.uri.removesuffix("/main/t")).table("t").at(3)
    writer = vl.connect(table.uri.removesuffix("/main/t")).table("t")
    writer._view = stale.view  # a process that has slept since version 3
    table.expire_snapshots(older_than=None)
    assert writer.append({"id": [100]}).version == 9
    assert table.refresh().count() == 9


def test_expired_versions_are_plain_to_older_clients(table: vl.Table) -> None:
    table.expire_snapshots(versions=[2])
    data = table.store.get(snapshot_path(2))
    with pytest.raises(vl.UnsupportedError, match="expired"):
        decode_snapshot(data, "v2.json")


def test_branches_keep_what_they_need(table: vl.Table) -> None:
    dev = table.branch("dev", 2)
    dev.append({"id": [50]})
    table.overwrite({"id": [1]})
    table.expire_snapshots(older_than=None)
    table.collect_orphans(older_than=dt.timedelta(seconds=-1))
    assert sorted(table.checkout("dev").to_arrow()["id"].to_pylist()) == [0, 1, 50]
    assert table.checkout("dev").verify() == []


def test_files_go_once_nothing_refers_to_them(table: vl.Table) -> None:
    table.tag("kept", 2)
    table.overwrite({"id": [1]})
    before = {info.path for info in table.store.list("data")}
    assert table.collect_orphans(older_than=dt.timedelta(seconds=-1)) == []
    table.expire_snapshots(older_than=None)
    gone = table.collect_orphans(older_than=dt.timedelta(seconds=-1))
    assert gone.size > 0
    assert len({path for path in gone if path.startswith("data/")}) == 6
    assert {info.path for info in table.store.list("data")} == before - set(gone)
    assert table.at("kept").to_arrow()["id"].to_pylist() == [0, 1]
    assert table.collect_orphans() == []


def test_two_clocks_that_disagree_are_refused_before_anything_goes() -> None:
    store = open_store(f"memory://expiry-{next(NUMBERS)}")
    ahead = vl.Lake(store, clock=lambda: int(time.time() * 1000) + 10 * 86_400_000)
    table = ahead.create_table("t", {"id": [0]})
    table.append({"id": [1]})
    with pytest.raises(vl.InvalidInputError, match="clock"):
        table.expire_snapshots(older_than=dt.timedelta(days=5))
    assert left(table) == [1, 2]
    table.append({"id": [2]})
    assert table.collect_orphans(older_than=dt.timedelta(days=3)) == [], "ages are the store's"


@pytest.mark.parametrize(
    "wishes", [{"keep_last": 0}, {"older_than": 3}, {"versions": ["1"]}, {"keep_last": True}]
)
def test_bad_wishes_are_refused(table: vl.Table, wishes: dict[str, object]) -> None:
    with pytest.raises(vl.InvalidInputError):
        table.expire_snapshots(**wishes)  # type: ignore[arg-type]
