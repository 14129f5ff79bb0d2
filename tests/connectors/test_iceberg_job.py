"""The import of an Iceberg table as a job: what the connector does, once, whoever starts it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from iceberg_support import new_catalog
from vectorlake_jobs import import_iceberg

import vectorlake as vl
from vectorlake.errors import AlreadyExistsError
from vectorlake.jobs import JobRun, Plan


@pytest.fixture
def source(tmp_path: Path) -> Any:
    catalog = new_catalog(tmp_path / "warehouse")
    rows = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "name": ["a", "b", None]})
    catalog.create_namespace_if_not_exists("ns")
    table = catalog.create_table("ns.items", rows.schema)
    table.append(rows)
    return table


def test_an_import_as_a_job(tmp_path: Path, source: Any) -> None:
    lake = vl.connect(tmp_path / "lake")
    plan = import_iceberg(source, lake, "ns.items", dry_run=True)
    assert isinstance(plan, Plan)
    assert not lake.exists("ns.items")
    done = import_iceberg(source, lake, "ns.items", job_id="j", engine="threads")
    assert isinstance(done, JobRun)
    assert done.outcome == {"table": "ns.items", "version": 1, "rows": 3}
    table = lake.table("ns.items")
    assert table.scan(columns=["id"]).to_arrow().column("id").to_pylist() == [1, 2, 3]
    assert table.snapshot.summary["job"] == "j"
    assert list(table.store.list("data")) == [], "nothing was copied"
    again = import_iceberg(source, lake, "ns.items", job_id="j", engine="threads")
    assert isinstance(again, JobRun)
    assert again.outcome == done.outcome


def test_an_outcome_that_was_not_written_down_is_found(tmp_path: Path, source: Any) -> None:
    lake = vl.connect(tmp_path / "lake")
    import_iceberg(source, lake, "ns.items", job_id="j", engine="threads")
    home = lake.folder("ns.items")
    home.delete(["jobs/j/outcome.json"])  # as if the driver had died between its commit and this record
    done = import_iceberg(source, lake, "ns.items", job_id="j", engine="threads")
    assert isinstance(done, JobRun)
    assert done.outcome["rows"] == 3
    assert lake.table("ns.items").version == 1
    with pytest.raises(AlreadyExistsError, match="exists already"):
        import_iceberg(source, lake, "ns.items", job_id="another", engine="threads")
