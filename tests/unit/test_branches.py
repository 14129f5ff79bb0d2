"""Branches: lines of their own, what they share with the main one, and taking them over."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.metadata.fragment import DataFile, Fragment, Layout
from vectorlake.metadata.manifest import Manifest
from vectorlake.plan.commit import Delta
from vectorlake.plan.forward import with_sequences_at_most
from vectorlake.schema import Field, ScalarType
from vectorlake.table.fragment_reader import ROW_ID_FIELD, VERSION_FIELD
from vectorlake.table.writer import write_fragments
from vectorlake.testing.faults import Fault, FaultyStore

SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.int64())])
_names = itertools.count()

EVERY = dt.timedelta(days=-1)
"""An age that all files have reached."""


@pytest.fixture
def lake() -> vl.Lake:
    return vl.connect(f"memory://branches-{next(_names)}")


@pytest.fixture
def table(lake: vl.Lake) -> Iterator[vl.Table]:
    table = lake.create_table("t", pa.table({"id": [0, 1, 2], "x": [5, 6, 7]}, schema=SCHEMA))
    table.append({"id": [3], "x": [8]})
    yield table
    if table.find_commit(table.snapshot.commit_id):  # the test may have dropped it
        assert table.refresh().verify() == []


def rows(table: vl.Table) -> dict[int, int]:
    found = table.scan(columns=["id", "x"]).to_arrow()
    return dict(zip(found["id"].to_pylist(), found["x"].to_pylist(), strict=True))


def operations(table: vl.Table) -> list[tuple[int, str]]:
    return [(snapshot.version, snapshot.operation) for snapshot in table.history()]


def test_a_branch_is_written_beside_the_table(lake: vl.Lake, table: vl.Table) -> None:
    dev = table.branch("dev")
    assert (dev.version, rows(dev)) == (2, rows(table))
    dev.append({"id": [4], "x": [9]})
    dev.delete("id = 0")
    table.append({"id": [5], "x": [1]})
    assert rows(dev) == {1: 6, 2: 7, 3: 8, 4: 9}
    assert rows(table) == {0: 5, 1: 6, 2: 7, 3: 8, 5: 1}
    assert (
        rows(table.checkout("dev"))
        == rows(lake.table("t", branch="dev"))
        == rows(table.at("dev"))
        == rows(dev)
    )
    assert operations(dev) == [(4, "delete"), (3, "append"), (2, "append"), (1, "create")]
    assert operations(table) == [(3, "append"), (2, "append"), (1, "create")]
    assert [(b.name, b.version, b.fork_version) for b in table.branches()] == [("dev", 4, 2)]
    assert "branch='dev'" in repr(dev)
    assert dev.branch_name == "dev"
    assert "branch=" not in repr(table)
    assert table.branch_name is None
    assert dev.verify() == []
    assert lake.tables() == ["main.t"]


def test_versions_are_found_on_the_branch_and_before_it(table: vl.Table) -> None:
    table.tag("begin", 1)
    dev = table.branch("dev")
    table.append({"id": [4], "x": [9]})
    table.tag("later")
    dev.delete("id = 1")
    assert rows(dev.at(1)) == {0: 5, 1: 6, 2: 7}
    assert rows(dev.at("begin")) == rows(dev.at(1))
    assert rows(dev.at(3)) == {0: 5, 2: 7, 3: 8}, "its own third version, not the table's"
    assert rows(dev.at("later")) == {0: 5, 1: 6, 2: 7, 3: 8, 4: 9}, (
        "a tag means one version wherever it is named"
    )
    assert dev.find_commit(table.at(1).snapshot.commit_id) == table.at(1).snapshot
    dev.restore("begin")
    assert rows(dev) == {0: 5, 1: 6, 2: 7}
    with pytest.raises(vl.NotFoundError, match="has no version 9; it has versions 1 to 4"):
        dev.at(9)


def test_a_branch_begins_at_any_version_and_two_handles_share_it(table: vl.Table) -> None:
    dev = table.branch("dev", 1)
    other = table.checkout("dev")
    dev.append({"id": [7], "x": [7]})
    other.append({"id": [8], "x": [8]})
    assert other.version == 3
    assert rows(dev.refresh()) == {0: 5, 1: 6, 2: 7, 7: 7, 8: 8}
    with dev.transaction() as tx:
        tx.delete("id = 7")
        tx.add_column("y", "x + 1")
    assert operations(dev)[0] == (4, "transaction")


REFUSED = {
    "a taken name": (lambda t: t.branch("dev"), vl.AlreadyExistsError, "branch 'dev' exists already"),
    "a tag's name": (lambda t: t.branch("v1"), vl.AlreadyExistsError, "there is a tag 'v1' already"),
    "a tag like a branch": (lambda t: t.tag("dev"), vl.AlreadyExistsError, "there is a branch 'dev' already"),
    "a number": (lambda t: t.branch("12"), vl.InvalidInputError, "can't be a tag or branch"),
    "a path": (lambda t: t.branch("../dev"), vl.InvalidInputError, "can't be a tag or branch"),
    "an unknown version": (lambda t: t.branch("new", 9), vl.NotFoundError, "no version 9"),
    "unknown, checked out": (lambda t: t.checkout("dew"), vl.NotFoundError, "no branch 'dew'.*dev"),
    "unknown, deleted": (lambda t: t.delete_branch("dew"), vl.NotFoundError, "no branch 'dew'.*dev"),
    "unknown, read": (lambda t: t.at("dew"), vl.NotFoundError, "no tag or branch 'dew'.*dev"),
    "unknown, taken over": (lambda t: t.fast_forward("dew"), vl.NotFoundError, "no branch 'dew'.*dev"),
    "a branch of a branch": (lambda t: t.checkout("dev").branch("b"), vl.UnsupportedError, "main line"),
    "a tag on a branch": (lambda t: t.checkout("dev").tag("b"), vl.UnsupportedError, "main line"),
    "a tag of a branch's version": (lambda t: t.tag("b", "dev"), vl.UnsupportedError, "another line"),
    "forward on a branch": (lambda t: t.checkout("dev").fast_forward("dev"), vl.UnsupportedError, "main line"),
    "restore from a branch": (lambda t: t.restore("dev"), vl.UnsupportedError, "fast_forward"),
    "writing to a pinned branch": (lambda t: t.at("dev").delete("true"), vl.UnsupportedError, "pinned"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_calls_change_nothing(case: str, table: vl.Table) -> None:
    action, error, message = REFUSED[case]
    table.tag("v1")
    table.branch("dev").append({"id": [9], "x": [9]})
    before = sorted(info.path for info in table.store.list())
    with pytest.raises(error, match=message):
        action(table)
    assert sorted(info.path for info in table.store.list()) == before


def test_a_transaction_makes_no_refs_and_takes_none_over(table: vl.Table) -> None:
    table.branch("dev")
    with table.transaction() as tx:
        tx.append({"id": [4], "x": [9]})
        for action in (lambda: tx.branch("b"), lambda: tx.tag("b"), lambda: tx.fast_forward("dev")):
            with pytest.raises(vl.UnsupportedError, match="transaction"):
                action()


@pytest.mark.parametrize(
    ("faults", "told", "there"),
    [
        ({"put_new": Fault.FAIL_AFTER}, False, True),
        ({"put_new": Fault.FAIL_BEFORE}, True, False),
        ({"put_new": Fault.FAIL_AFTER, "get": Fault.FAIL_BEFORE}, True, True),
        ({"put_new": Fault.FAIL_BEFORE, "get": Fault.FAIL_BEFORE}, True, False),
    ],
)
def test_a_branch_of_which_the_reply_is_lost_is_whole_or_not_there(
    lake: vl.Lake, table: vl.Table, faults: dict[str, Fault], told: bool, there: bool
) -> None:
    begun = False

    def schedule(_: int, method: str, path: str) -> Fault | None:
        nonlocal begun
        if "refs/branches/b" not in path:
            return None
        begun |= method == "put_new"
        return faults.get(method) if begun else None

    faulty = vl.Lake(FaultyStore(lake.store, schedule))
    with pytest.raises(vl.StorageError) if told else nullcontext():
        faulty.table("t").branch("b")
    assert [branch.name for branch in table.branches()] == ["b"] * there
    table.collect_orphans(older_than=EVERY)
    assert there == any("metadata/branches/" in info.path for info in table.store.list("metadata"))
    if there:
        assert table.checkout("b").verify() == []
    else:
        table.branch("b")
    assert rows(table.checkout("b")) == rows(table)


def test_deleting_a_branch_leaves_no_trace_but_orphans(table: vl.Table) -> None:
    before = {info.path for info in table.store.list()}
    dev = table.branch("dev")
    dev.append({"id": [4], "x": [9]})
    dev.delete("id = 1")
    assert list(dev.collect_orphans(older_than=EVERY, dry_run=True)) == []
    table.delete_branch("dev")
    left = {info.path for info in table.store.list()} - before
    assert left
    assert set(table.collect_orphans(older_than=EVERY, dry_run=True)) == left
    assert table.branches() == []
    for action in (lambda: dev.append({"id": [5], "x": [1]}), dev.refresh):
        with pytest.raises(vl.NotFoundError, match=r"branch 'dev' .* was deleted"):
            action()


def test_a_handle_of_a_deleted_branch_does_not_write_to_its_successor(table: vl.Table) -> None:
    old = table.branch("dev")
    old.append({"id": [4], "x": [9]})
    table.delete_branch("dev")
    new = table.branch("dev", 1)
    with pytest.raises(vl.NotFoundError, match="another one has its name now"):
        old.append({"id": [5], "x": [1]})
    assert rows(new.refresh()) == {0: 5, 1: 6, 2: 7}
    assert new.version == 1


def test_a_handle_of_a_dropped_table_does_not_write_to_its_successor(lake: vl.Lake, table: vl.Table) -> None:
    old = lake.table("t")
    lake.drop_table("t")
    with pytest.raises(vl.NotFoundError, match="there is no table"):
        old.append({"id": [5], "x": [1]})
    for versions in (1, 2, 3):
        if lake.exists("t"):
            lake.drop_table("t")
        new = lake.create_table("t", pa.table({"id": [7], "x": [7]}, schema=SCHEMA))
        for _ in range(versions - 1):
            new.append({"id": [8], "x": [8]})
        with pytest.raises(vl.ConflictError, match="was dropped, and another one"):
            old.append({"id": [5], "x": [1]})
        assert lake.table("t").version == versions


def test_dropping_a_table_drops_its_branches(lake: vl.Lake, table: vl.Table) -> None:
    table.branch("dev").append({"id": [4], "x": [9]})
    lake.drop_table("t")
    assert lake.tables() == []
    assert list(lake.store.list()) == []
    lake.create_table("t", SCHEMA)


# --- taking a branch over ---


def test_fast_forward_makes_one_version_of_all(table: vl.Table) -> None:
    table.add_column("y", "x * 2")
    dev = table.branch("dev")
    dev.append({"id": [4], "x": [9], "y": [0]})
    dev.delete("id = 0")
    dev.backfill_column("y", "x * 3", rows="all")
    dev.backfill_column("y", "x * 4", rows="all")
    dev.rename_column("y", "z")
    dev.set_properties({"owner": "me"})
    snapshot = table.fast_forward("dev")
    assert (snapshot.version, snapshot.parent, snapshot.operation) == (4, 3, "fast-forward")
    assert snapshot.summary.pop("application").startswith("vectorlake/")
    assert snapshot.summary == {
        "branch": "dev", "branch_version": 9, "commits": 6, "added_rows": 1, "deleted_rows": 1,
    }  # fmt: skip
    wanted = dev.scan(with_row_id=True).to_arrow()
    assert table.scan(with_row_id=True).to_arrow().equals(wanted)
    assert table.properties == {"owner": "me"}
    versions = table.scan(columns=["_last_updated_version"]).to_arrow()["_last_updated_version"].to_pylist()
    assert set(versions) == {4}
    table.append({"id": [5], "x": [1], "z": [2]})
    table.backfill_column("z", "x * 5", rows="all")
    assert table.scan(columns=["z"]).to_arrow()["z"].to_pylist() == [30, 35, 40, 45, 5]
    ids = table.scan(columns=["_row_id"]).to_arrow()["_row_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    assert rows(dev.refresh()) == {1: 6, 2: 7, 3: 8, 4: 9}, "the branch is as it was"
    assert operations(table)[0][1] == "backfill-column"


def test_fast_forward_writes_manifests_that_changed_only(table: vl.Table) -> None:
    dev = table.branch("dev")
    dev.append({"id": [4], "x": [9]})
    before = {ref.path for ref in table.snapshot.manifests}
    files = {info.path for info in table.store.list("data")}
    snapshot = table.fast_forward("dev")
    assert before < {ref.path for ref in snapshot.manifests}
    assert len(snapshot.manifests) == len(before) + 1
    assert {info.path for info in table.store.list("data")} == files


def test_fast_forward_of_nothing_commits_nothing(table: vl.Table) -> None:
    table.branch("dev")
    assert table.fast_forward("dev").version == 2 == table.version


def test_fast_forward_is_refused_when_the_table_went_on(table: vl.Table) -> None:
    dev = table.branch("dev")
    dev.append({"id": [4], "x": [9]})
    table.append({"id": [5], "x": [1]})
    table.delete("id = 5")
    message = r"begins at version 2, and the main line has got 3 \(append\), 4 \(delete\) since; nothing was committed"
    with pytest.raises(vl.ConflictError, match=message):
        table.fast_forward("dev")
    assert table.refresh().version == 4


def test_a_branch_taken_over_is_begun_anew(table: vl.Table) -> None:
    dev = table.branch("dev")
    dev.append({"id": [4], "x": [9]})
    table.fast_forward("dev")
    with pytest.raises(vl.ConflictError, match="fast-forward"):
        table.fast_forward("dev")
    table.delete_branch("dev")
    dev = table.branch("dev")
    dev.append({"id": [5], "x": [1]})
    assert table.fast_forward("dev").version == 4
    assert rows(table) == {0: 5, 1: 6, 2: 7, 3: 8, 4: 9, 5: 1}


def test_versions_held_by_files_of_a_branch_are_those_of_the_main_line(table: vl.Table) -> None:
    """Rows that a branch moved (compaction) hold versions of the branch, which the main line never had."""
    dev = table.branch("dev")
    dev.append({"id": [4], "x": [9]})
    dev.append({"id": [5], "x": [1]})
    moved = dev.scan(columns=["id", "x", "_row_id", "_last_updated_version"]).to_arrow()
    assert moved["_last_updated_version"].to_pylist() == [1, 1, 1, 2, 3, 4]
    fields = [*dev.snapshot.schema.fields, ROW_ID_FIELD, VERSION_FIELD]
    batches = moved.cast(pa.schema([field.to_storage() for field in fields])).to_batches()
    fragments = write_fragments(
        dev.store, iter(batches), fields, properties={}, new_id=lambda: f"{next(_names):032x}"
    )
    dev.commit(lambda head: Delta("compact", added=tuple(fragments), removes_all=True))
    assert dev.scan(columns=["_last_updated_version"]).to_arrow()[0].to_pylist() == [1, 1, 1, 2, 3, 4]
    table.fast_forward("dev")
    found = table.scan(columns=["id", "_last_updated_version"]).to_arrow()
    assert found["_last_updated_version"].to_pylist() == [1, 1, 1, 2, 3, 3]
    table.append({"id": [6], "x": [1]})
    assert table.scan(columns=["id"], filter="_last_updated_version > 3").to_arrow()["id"].to_pylist() == [6]


def _file(path: str, ids: list[int], sequence: int) -> DataFile:
    layout = Layout(tuple(Field(number, f"c{number}", ScalarType("int64")) for number in ids))
    return DataFile(path, "arrow", layout, 0, 3, 10, sequence=sequence)


def test_lowered_sequences_leave_each_field_one_file() -> None:
    plain = Fragment(3, (_file("a", [1, 2], 3), _file("b", [3], 5)), id=0)
    shared = Fragment(3, (_file("c", [1, 2], 4), _file("d", [2, 3], 7), _file("e", [3], 9)), id=1)
    old = Fragment(3, (_file("f", [1, 2], 2), _file("g", [1], 8)), id=2)
    manifest = Manifest.of([plain, shared, old])
    lowered = with_sequences_at_most(manifest, 4)
    read = {
        fragment.id: {file.path: (file.sequence, sorted(file.field_ids)) for file in fragment.files}
        for fragment in lowered.fragments()
    }
    assert read == {
        0: {"a": (3, [1, 2]), "b": (4, [3])},
        1: {"c": (4, [1]), "d": (4, [2]), "e": (4, [3])},
        2: {"f": (2, [1, 2]), "g": (4, [1])},
    }
    assert with_sequences_at_most(manifest, 9) is manifest
    for fragment, before in zip(lowered.fragments(), (plain, shared, old), strict=True):
        for number in (1, 2, 3):
            known, kept = before.file_of(number), fragment.file_of(number)
            assert (known.path if known else None) == (kept.path if kept else None)
    assert np.array_equal(lowered.fragment_ids, [0, 1, 2])
