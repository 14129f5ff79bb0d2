"""A lake as a Daft catalog: names, versions and writes, in Python and in SQL."""

from __future__ import annotations

from pathlib import Path

import pytest

import vectorlake as vl
from vectorlake.errors import AlreadyExistsError, InvalidInputError, UnsupportedError

daft = pytest.importorskip("daft")

import vectorlake_daft  # noqa: E402
from daft.catalog import Identifier, NotFoundError  # noqa: E402


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    lake = vl.connect(tmp_path / "lake")
    lake.create_table("ns.items", {"id": [1, 2, 3], "vec": [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]})
    lake.create_table("other", {"id": [2]})
    return lake


@pytest.fixture
def session(lake: vl.Lake) -> daft.Session:
    session = daft.Session()
    vectorlake_daft.attach(lake, session=session)
    return session


def test_sql(session: daft.Session, lake: vl.Lake) -> None:
    found = session.sql("SELECT i.id FROM lake.ns.items AS i JOIN lake.main.other AS o ON i.id = o.id")
    assert found.to_pydict() == {"id": [2]}
    table = lake.table("ns.items")
    table.tag("v1")
    table.delete("id = 3")
    counts = [
        session.sql(f"SELECT count(*) AS c FROM {name}").to_pydict()["c"]
        for name in ("lake.ns.items", 'lake.ns."items@v1"', 'lake.ns."items@1"')
    ]
    assert counts == [[2], [3], [3]], "each statement reads the newest version"
    with pytest.raises(Exception, match=r"lake\.ns\.item"):
        session.sql("SELECT * FROM lake.ns.item")


def test_the_current_session(lake: vl.Lake) -> None:
    vectorlake_daft.attach(lake, "mine")
    try:
        assert daft.sql("SELECT max(id) AS m FROM mine.ns.items").to_pydict() == {"m": [3]}
        assert daft.read_table("mine.ns.items").count_rows() == 3
    finally:
        daft.detach_catalog("mine")


def test_names(lake: vl.Lake) -> None:
    catalog = vectorlake_daft.LakeCatalog(lake)
    assert catalog.list_tables() == [Identifier("main", "other"), Identifier("ns", "items")]
    assert catalog.list_tables("ns.%") == [Identifier("ns", "items")]
    assert catalog.list_namespaces() == [Identifier("main"), Identifier("ns")]
    assert [catalog.has_table(name) for name in ("ns.items", "ns.items@2", "ns.x", "other")] == [
        True,
        False,
        False,
        True,
    ]
    assert [catalog.has_namespace(name) for name in ("ns", "n")] == [True, False]
    with pytest.raises(NotFoundError, match=r"no table 'ns.item'.*did you mean 'ns.items'"):
        catalog.get_table("ns.item")
    with pytest.raises(NotFoundError, match="no functions"):
        catalog.get_function("f")


def test_tables_are_created_written_and_dropped(lake: vl.Lake) -> None:
    catalog = vectorlake_daft.LakeCatalog(lake)
    frame = daft.from_pydict({"id": [1, 2], "name": ["a", "b"]})
    created = catalog.create_table("new.t", frame)
    assert (created.name, created.schema().column_names(), created.read().count_rows()) == (
        "t",
        ["id", "name"],
        2,
    )
    catalog.write_table("new.t", frame)
    catalog.write_table("new.t", frame.limit(1), mode="overwrite")
    assert catalog.read_table("new.t", columns=["id"]).to_pydict() == {"id": [1]}
    assert [entry["operation"] for entry in lake.table("new.t").snapshots().to_pylist()] == [
        "overwrite", "append", "append", "create",
    ]  # fmt: skip
    with pytest.raises(AlreadyExistsError):
        catalog.create_table("new.t", frame)
    with pytest.raises(InvalidInputError, match="not empty"):
        catalog.drop_namespace("new")
    with pytest.raises(UnsupportedError, match="attach them to the session"):
        catalog.create_function("f", len)
    catalog.drop_table("new.t")
    assert not catalog.has_table("new.t")
