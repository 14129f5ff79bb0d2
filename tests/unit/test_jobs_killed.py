"""A worker or the driver of each job is killed in the middle of a task: what is done stays done, the result is that of an
undisturbed run, and no file is left over for good."""

from __future__ import annotations

from pathlib import Path

import pytest
from job_kills import KILLED, UNHARMED, Kills, collect_after_a_week, files_of

import vectorlake as vl

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_worker(kills: Kills, tmp_path: Path, name: str) -> None:
    kills.kill_worker("local", name, tmp_path)


@pytest.fixture(scope="module")
def killed(kills: Kills, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    kills.start_driver("local", folder).kill()
    return folder


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_driver(kills: Kills, killed: Path, name: str) -> None:
    kills.resume("local", name, killed)


@pytest.mark.parametrize("name", UNHARMED)
def test_a_killed_driver_and_then_a_worker(kills: Kills, killed: Path, name: str) -> None:
    """Both in one run, of the jobs that other engines do not kill: half of what this takes is that processes begin."""
    kills.resume("local", name, killed, worker_dies=True)


def test_a_job_that_nobody_resumes_leaves_nothing(kills: Kills, tmp_path: Path) -> None:
    kills.only("build-index").start_driver("local", tmp_path).kill()
    table = vl.connect(tmp_path / "build-index" / "lake").table("items")
    referenced = {path for path in files_of(table) if path.startswith("index/")}
    assert {info.path for info in table.store.list("index")} > referenced
    collect_after_a_week(table)
    assert {info.path for info in table.store.list("index")} == referenced
    assert list(table.store.list("jobs")) == []
