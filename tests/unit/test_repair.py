"""What verify finds in damaged tables, and what repair does about it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.extend import Delta
from vectorlake.table import key_segments
from vectorlake.table.verify import Part

SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.int64()), ("vec", vl.vector(2))])


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> vl.Table:
    monkeypatch.setattr(key_segments, "SEGMENT_ROWS", 1)
    table = vl.connect(tmp_path).create_table("t", SCHEMA, primary_key=["id"])
    table.append({"id": [1, 2, 3], "x": [1, 2, 3], "vec": [[1.0, 2.0]] * 3})
    table.append({"id": [4, 5], "x": [4, 5], "vec": [[1.0, 2.0]] * 2})
    table.delete("id = 2")
    return table


def lose(table: vl.Table, column: str | None, fragment: int = 0) -> str:
    """Remove the file that holds a column, or the key segment."""
    chosen = list(table.view.fragments())[fragment]
    if column is None:
        assert chosen.keys is not None
        path = chosen.keys.path
    else:
        found = chosen.file_of(table.snapshot.schema.field(column).id)
        assert found is not None
        path = found.path
    local = table.store.local_path(path)
    assert local is not None
    local.unlink()
    return path


def reopened(table: vl.Table) -> vl.Table:
    return vl.connect(table.uri.removeprefix("file://").removesuffix("/main/t")).table("t")


def test_a_lost_key_segment_is_rebuilt(table: vl.Table) -> None:
    path = lose(table, None)
    opened = reopened(table)
    (plan,) = opened.repair()
    assert (plan.finding.path, plan.finding.part, str(plan.remedy)) == (path, Part.KEYS, "rebuild-keys")
    snapshot = opened.repair(dry_run=False)
    assert snapshot.operation == "repair"
    assert opened.verify() == []
    with pytest.raises(vl.AlreadyExistsError, match="id=1"):
        opened.append({"id": [1]})
    assert opened.count() == 4


def test_lost_values_are_given_up_only_if_allowed(table: vl.Table) -> None:
    lose(table, "vec")
    opened = reopened(table)
    (plan,) = opened.repair()
    assert str(plan).endswith("lose-values (vec of 2 rows)")
    before = opened.version
    assert opened.repair(dry_run=False).version == before, "nothing was allowed"
    opened.repair(dry_run=False, allow=["lose-values"])
    assert opened.verify() == []
    rows = {row["id"]: row for row in opened.to_arrow().to_pylist()}
    assert rows[1] == {"id": 1, "x": 1, "vec": None}
    assert rows[4]["vec"] == [1.0, 2.0]


def test_lost_rows_are_given_up_only_if_allowed(table: vl.Table) -> None:
    lose(table, "id", fragment=1)
    opened = reopened(table)
    remedies = {str(one.remedy) for one in opened.repair()}
    assert "lose-rows" in remedies
    opened.repair(dry_run=False, allow=["lose-rows", "lose-values"])
    assert opened.verify() == []
    assert sorted(opened.to_arrow()["id"].to_pylist()) == [1, 3]
    assert opened.snapshot.summary["deleted_rows"] == 2


def test_lost_deletes_and_manifests_can_only_be_restored(table: vl.Table) -> None:
    vector = next(table.view.fragments()).deletes
    assert vector is not None
    local = table.store.local_path(vector.path)
    assert local is not None
    local.unlink()
    plans = reopened(table).repair()
    assert [(one.finding.part, str(one.remedy)) for one in plans] == [(Part.DELETES, "none")]
    (ref, *_) = table.snapshot.manifests
    manifest = table.store.local_path(ref.path)
    assert manifest is not None
    manifest.unlink()
    plans = reopened(table).repair()
    assert (plans[0].finding.part, str(plans[0].remedy)) == (Part.MANIFEST, "none")


def test_rows_and_keys_that_are_there_twice_are_found(table: vl.Table) -> None:
    assert table.verify() == []
    again = list(table.view.fragments())[1]
    table.commit(lambda head: Delta("append", added=(again,)))  # as a careless writer might
    parts = [finding.part for finding in table.verify()]
    assert parts == [Part.PRIMARY_KEY]
    (finding,) = table.verify()
    assert "'id': 4" in finding.problem or "'id': 5" in finding.problem


def test_bad_wishes_are_refused(table: vl.Table) -> None:
    with pytest.raises(vl.InvalidInputError, match="lose-values and lose-rows"):
        table.repair(allow=["everything"])
