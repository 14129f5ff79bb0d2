"""The commands that tidy up, on a real lake: what they say first, what they do, what they say when nothing is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import vectorlake as vl
from vectorlake.cli.app import app


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    table = vl.connect(tmp_path / "lake").create_table("t", {"id": [0], "day": [9]}, primary_key=["id"])
    for n in range(1, 4):
        table.append({"id": [n], "day": [9 - n]})
    table.delete("id = 1")
    return tmp_path / "lake"


def run(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.output


def test_each_command_tells_and_does(lake: Path) -> None:
    assert "fragments of version 5 become 1: 3 rows" in run("compact", lake, "t", "--dry-run")
    assert "compacted main.t: version 6, 3 rows" in run("compact", lake, "t")
    assert "nothing to do for main.t" in run("compact", lake, "t")
    run("compact", lake, "t", "--sort-by", "day")
    assert vl.connect(lake).table("t").to_arrow()["day"].to_pylist() == [6, 7, 9]
    assert "nothing to rewrite" in run("rewrite-manifests", lake, "t", "--dry-run")
    assert json.loads(run("expire", lake, "t", "--older-than-days", 0, "--json"))["versions"] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    assert "0 files" in run("collect-orphans", lake, "t")
    removed = json.loads(run("collect-orphans", lake, "t", "--older-than-days", 0, "--json"))
    assert removed["bytes"] > 0
    assert "nothing to repair" in run("repair", lake, "t", "--dry-run")
    assert "nothing to do" in run("repair", lake, "t")
    assert vl.connect(lake).table("t").verify() == []


def test_branches(lake: Path) -> None:
    assert "begins at version 5" in run("branch", "create", lake, "t", "dev")
    vl.connect(lake).table("t", branch="dev").append({"id": [9]})
    (listed,) = (json.loads(line) for line in run("branch", "list", lake, "t", "--json").splitlines())
    assert (listed["branch"], listed["version"], listed["fork_version"]) == ("dev", 6, 5)
    assert "holds what dev does: version 6, 4 rows" in run("branch", "fast-forward", lake, "t", "dev")
    run("branch", "delete", lake, "t", "dev")
    assert "no branches" in run("branch", "list", lake, "t")
    run("branch", "delete", lake, "t", "dev", code=3)


@pytest.mark.parametrize(
    "words",
    [
        ("compact", "--sort-by", "nothing"),
        ("compact", "--target-rows", "0"),
        ("expire", "--older-than-days", "-1"),
        ("expire", "--keep-last", "0"),
        ("repair", "--allow", "everything"),
        ("rewrite-manifests", "--by", "nothing"),
    ],
)
def test_wrong_arguments_are_told_in_a_line(lake: Path, words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [words[0], str(lake), "t", *words[1:]])
    assert done.exit_code in (2, 3), done.output
    assert done.output.startswith("error: ")
    assert vl.connect(lake).table("t").version == 5
