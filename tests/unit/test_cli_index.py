"""`vectorlake index …` on a real lake: what the commands do and say, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import vectorlake as vl
from vectorlake.cli.app import app

VECTORS = np.random.default_rng(3).standard_normal((300, 4)).astype(np.float32)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    vl.connect(tmp_path / "lake").create_table("t", {"id": range(300), "vec": VECTORS})
    return tmp_path / "lake"


def run(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.output


def test_from_creation_to_drop(lake: Path) -> None:
    assert "no indexes" in run("index", "list", lake, "t")
    assert "indexed main.t: vec_flat: version 2" in run("index", "create", lake, "t", "--kind", "flat")
    (listed,) = map(json.loads, run("index", "list", lake, "t", "--json").splitlines())
    assert (listed["index"], listed["covered_rows"], listed["uncovered_rows"]) == ("vec_flat", 300, 0)
    vl.connect(lake).table("t").append({"id": [300], "vec": VECTORS[:1]})
    assert "add 1 rows" in run("index", "optimize", lake, "t", "--dry-run")
    assert "optimized the indexes of main.t: version 4" in run("index", "optimize", lake, "t")
    assert "nothing to do for main.t" in run("index", "optimize", lake, "t")
    told = json.loads(run("index", "evaluate", lake, "t", "vec_flat", "--sample", 10, "--json"))
    assert told["index"] == "vec_flat"
    assert told["recall"] > 0.9
    assert "rebuilt index vec_flat" in run("index", "rebuild", lake, "t", "vec_flat", "--memory-mib", 64)
    told = json.loads(run("index", "describe", lake, "t", "vec_flat", "--json"))
    assert (told["dimension"], told["faults"], len(told["parts"])) == (4, [], 1)
    assert "301 of 301 covered" in run("index", "describe", lake, "t", "vec_flat")
    assert "dropped index vec_flat" in run("index", "drop", lake, "t", "vec_flat")
    assert "300 of 300 covered" in run("index", "describe", lake, "t", "vec_flat", "--version", 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("create", "t", "--kind", "flta"), "did you mean 'flat'"),
        (("create", "t", "--kind", "flat", "--option", "x=1"), "has no option 'x'"),
        (("create", "t", "--kind", "flat", "--option", "x"), "--option takes key=value"),
        (("create", "t", "--kind", "flat", "--metric", "cosin"), "did you mean 'cosine'"),
        (("create", "t", "--kind", "flat", "--memory-mib", "1"), "--memory-mib"),
        (("create", "t", "--kind", "flat", "--threads", "0"), "--threads"),
        (("evaluate", "t", "vec", "--k", "0"), "--k"),
        (("describe", "t", "vec"), "no index 'vec'"),
        (("drop", "t", "vec"), "no index 'vec'"),
    ],
)
def test_mistakes(lake: Path, words: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(app, ["--lake", str(lake), "index", *words])
    assert done.exit_code != 0
    assert message in done.output
