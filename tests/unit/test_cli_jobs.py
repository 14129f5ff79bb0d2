"""The commands on jobs: each kind is started as its function is, and jobs are listed, told, cancelled and dropped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import vectorlake as vl
from vectorlake.cli.app import app

RNG = np.random.default_rng(3)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    lake = vl.connect(tmp_path / "lake")
    vectors = RNG.normal(size=(40, 4)).astype(np.float32)
    lake.create_table("items", {"id": np.arange(40), "vec": vectors})
    lake.create_table("asked", {"name": list("abc"), "vec": vectors[:3]})
    return tmp_path / "lake"


def run(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.stdout


QUICK = ("--engine", "threads", "--workers", 1)


def test_a_knn_join_from_the_command(lake: Path) -> None:
    start = ("job", "knn-join", lake, "items", "--queries", "asked", "--query-columns", "name", "-k", 2)
    assert "1 tasks (join), 3 rows" in run(*start, "--into", "pairs", "--dry-run")
    assert "table main.pairs" in run(*start, "--into", "pairs", "--job-id", "j", *QUICK)
    assert vl.connect(lake).table("pairs").to_arrow().column("name").to_pylist() == list("aabbcc")
    again = json.loads(run(*start, "--into", "pairs", "--job-id", "j", *QUICK, "--json"))
    assert (again["job"], again["executed"], again["reused"]) == ("j", 0, 1)
    assert again["outcome"] == {"table": "main.pairs", "version": 1, "rows": 6}
    run(*start, "--into", "pairs", "--job-id", "j", "-k", 3, *QUICK, code=2)


def test_jobs_are_looked_at_and_dropped(lake: Path) -> None:
    start = ("job", "knn-join", lake, "items", "--as-column", "near", "-k", 2, *QUICK)
    run(*start, "--job-id", "j")
    assert "near" in vl.connect(lake).table("items").schema.names
    (listed,) = (json.loads(line) for line in run("job", "list", lake, "items", "--json").splitlines())
    assert (listed["job"], listed["kind"], listed["state"], listed["tasks"]) == (
        "j",
        "knn-join",
        "finished",
        1,
    )
    told = json.loads(run("job", "status", lake, "items", "j", "--json"))
    assert told["parameters"]["as_column"] == "near"
    assert told["outcome"]["version"] == 2
    assert "finished" in run("job", "status", lake, "items", "j")
    assert "stop" in run("job", "cancel", lake, "items", "j")
    assert "dropped job j" in run("job", "drop", lake, "items", "j")
    assert run("job", "list", lake, "items") == ""
    run("job", "status", lake, "items", "j", code=3)


def test_the_script_is_the_command(lake: Path) -> None:
    words = ["-m", "vectorlake_jobs", "list", str(lake), "items", "--json"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_clusters_projections_and_duplicates_from_the_command(lake: Path) -> None:
    run("job", "cluster", lake, "items", "-k", 3, "--model", "models.three", *QUICK)
    done = json.loads(
        run("job", "reduce", lake, "items", "--dimensions", 2, "--column", "vec", *QUICK, "--json")
    )
    assert 0 < done["outcome"]["explained_variance"] < 1
    run(
        "job", "apply-model", lake, "items", "models.three", "--as-column", "again", "--column", "vec", *QUICK
    )
    made = vl.connect(lake).table("items").scan(["cluster", "again", "reduced"]).to_arrow()
    assert made["cluster"].equals(made["again"])
    start = ("job", "dedup", lake, "items", "--column", "vec", *QUICK)
    found = json.loads(run(*start, "--max-distance", 0.05, "--as-column", "group", "--json"))
    assert found["outcome"]["rows"] == 40
    assert "kept 40" in run(*start, "--by", "key", "--keys", "id", "--into", "clean")
    run(*start, "--as-column", "g", code=2)
