"""Wrong arguments and hard ends: one clear line on standard error, an exit code, and never half an answer."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import vectorlake as vl
from vectorlake.cli.app import app
from vectorlake.cli.command import tell_error
from vectorlake.cli.failure import ExitCode, exit_code
from vectorlake.cli.session import Session
from vectorlake.errors import JobStoppedError, OutcomeUnknownError, VectorlakeError

COMMAND = [sys.executable, "-m", "vectorlake.cli"]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli_errors") / "lake"
    vectors = np.ones((3, 4), "f4")
    vl.connect(root).create_table("ns.items", {"id": [1, 2, 3], "name": ["a", "b", "c"], "vec": vectors})
    return root


WRONG: list[tuple[str, int, str]] = [
    # command (LAKE stands for the lake), exit code, what the message must say
    ("info LAKE ns.itms", 3, "did you mean 'ns.items'"),
    ("info LAKE no/such", 2, "namespace.table"),
    ("info ftp://x/y ns.items", 7, "ftp"),
    ("info LAKE ns.items --version 99", 3, "99"),
    ("info LAKE ns.items --version nightly", 3, "nightly"),
    ("scan LAKE ns.items --columns nme", 3, "did you mean 'name'"),
    ("scan LAKE ns.items --columns id,id", 2, "twice"),
    ("scan LAKE ns.items --filter id>", 2, "id>"),
    ("scan LAKE ns.items --filter idd>1", 2, "did you mean id"),
    ("scan LAKE ns.items --limit -1", 2, "--limit"),
    ("count LAKE ns.items --filter name>1", 2, "name"),
    ("knn LAKE ns.items", 2, "either --query"),
    ("knn LAKE ns.items --query [1,2,3,4] --like 1", 2, "either --query"),
    ("knn LAKE ns.items --query [1,2]", 2, "dimension 2"),
    ("knn LAKE ns.items --query [1,2", 2, "JSON"),
    ("knn LAKE ns.items --query words", 2, "--query takes"),
    ("knn LAKE ns.items --query none.npy", 3, "none.npy"),
    ("knn LAKE ns.items --query [1,2,3,4] -k 0", 2, "-k"),
    ("knn LAKE ns.items --query [1,2,3,4] --metric l3", 2, "l3"),
    ("knn LAKE ns.items --query [1,2,3,4] --column id", 2, "not a vector"),
    ("knn LAKE ns.items --like 77", 3, "77"),
    ("tag create LAKE ns.items a/b", 2, "a/b"),
    ("tag create LAKE ns.items v --version 99", 3, "99"),
    ("restore LAKE ns.items nightly", 3, "nightly"),
    ("create LAKE ns.new none.parquet", 3, "none.parquet"),
    ("create LAKE ns.new pyproject.toml", 2, ".parquet"),
    ("create LAKE ns.new README.md", 2, ".parquet"),
    ("append LAKE ns.none README.md", 3, "ns.none"),
    ("delete LAKE ns.items", 2, "--filter"),
    ("delete LAKE ns.items --filter idd=1", 2, "did you mean id"),
    ("add-column LAKE ns.items x", 2, "--type"),
    ("add-column LAKE ns.items x --type vectr(3)", 2, "did you mean 'vector'"),
    ("add-column LAKE ns.items x --type vector(0)", 2, "positive"),
    ("add-column LAKE ns.items x --type int32 --default {", 2, "JSON"),
    ("add-column LAKE ns.items x --sql id --function a:b", 2, "not by both"),
    ("add-column LAKE ns.items x --function ab --type int32", 2, "module:function"),
    ("add-column LAKE ns.items x --function no_such_module:f --type int32", 3, "no_such_module"),
    ("add-column LAKE ns.items x --function json:dupms --type int32", 3, "did you mean 'dumps'"),
    ("add-column LAKE ns.items x --function none.py:f --type int32", 3, "none.py"),
    ("add-column LAKE ns.items x --function json:__name__ --type int32", 2, "no function"),
    ("add-column LAKE ns.items x --function json:loads", 2, "type"),
    ("add-column LAKE ns.items id --sql id+1", 4, "id"),
    ("add-column LAKE ns.items x --sql nope+1", 2, "nope"),
    ("backfill LAKE ns.items vec", 2, "--sql or --function"),
    ("backfill LAKE ns.items vce --sql id", 3, "did you mean 'vec'"),
    ("drop-column LAKE ns.items nme", 3, "did you mean 'name'"),
    ("drop LAKE ns.none --yes", 3, "ns.none"),
    ("verify LAKE ns.none", 3, "ns.none"),
    ("sync LAKE ns.items --uri sqlite:// --source a.b", 2, "--catalog"),
    ("frobnicate LAKE", 2, "frobnicate"),
    ("scan LAKE", 2, "TABLE"),
    ("scan LAKE ns.items more", 2, "more"),
    ("scan LAKE ns.items --nonsense", 2, "--nonsense"),
]


@pytest.mark.parametrize(("command", "code", "says"), WRONG, ids=[command for command, _, _ in WRONG])
def test_wrong_arguments(
    lake: Path, monkeypatch: pytest.MonkeyPatch, command: str, code: int, says: str
) -> None:
    monkeypatch.delenv("VECTORLAKE_LAKE", raising=False)
    monkeypatch.chdir(Path(__file__).parents[2])
    before = sorted(lake.rglob("*"))
    result = CliRunner().invoke(app, [str(lake) if word == "LAKE" else word for word in command.split()])
    shown = _plain(result.stderr)
    assert (result.exit_code, result.stdout) == (code, ""), shown
    assert says in shown or says in re.sub(r"\s*[│|]\s*", " ", shown)
    assert "Traceback" not in shown
    assert sorted(lake.rglob("*")) == before


def test_an_error_as_json(lake: Path) -> None:
    result = CliRunner().invoke(app, ["info", str(lake), "ns.itms", "--json"])
    assert json.loads(result.stderr) == {
        "error": "NotFoundError",
        "message": json.loads(result.stderr)["message"],
        "exit_code": 3,
    }
    assert "ns.items" in json.loads(result.stderr)["message"]
    assert result.stdout == ""


def test_debug_shows_the_traceback(lake: Path) -> None:
    run = subprocess.run(
        [*COMMAND, "info", str(lake), "ns.itms", "--debug"],
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" in run.stderr
    assert "NotFoundError" in run.stderr


def test_every_kind_of_error_has_a_code_of_its_own() -> None:
    kinds = [kind for kind in _all_kinds(VectorlakeError) if kind.__module__ == "vectorlake.errors"]
    wanted = {OutcomeUnknownError: {"commit_id": "c"}, JobStoppedError: {"job_id": "j"}}
    errors = [kind("x", **wanted.get(kind, {})) for kind in kinds]
    codes = [exit_code(error) for error in errors]
    assert len(set(codes)) == len(kinds)
    assert ExitCode.INTERNAL not in codes
    assert ExitCode.OK not in codes


def test_an_unforeseen_error_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell_error(Session(), ZeroDivisionError("division\n  by zero")) == ExitCode.INTERNAL
    assert capsys.readouterr().err == (
        "error: unexpected ZeroDivisionError: division by zero (run again with --debug for the traceback, and please "
        "report it)\n"
    )


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_commits_nothing(lake: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    module = tmp_path / "slow_function.py"
    module.write_text(
        "import pathlib, time\n"
        "def slow(batch):\n"
        f"    pathlib.Path({str(ready)!r}).touch()\n"
        "    time.sleep(60)\n"
    )
    arguments = [
        "add-column",
        str(lake),
        "ns.items",
        "slow",
        "--function",
        f"{module}:slow",
        "--type",
        "int64",
    ]
    process = subprocess.Popen(
        [*COMMAND, *arguments], env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (130, "", "interrupted; nothing was committed\n")
    assert vl.connect(lake).table("ns.items").version == 1


@pytest.mark.skipif(os.name == "nt", reason="pipes")
@pytest.mark.parametrize("how", [["--json"], ["--limit", "4000"]], ids=["json", "people"])
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path, how: list[str]) -> None:
    vl.connect(tmp_path / "lake").create_table("t", {"id": np.arange(4_000), "text": ["wide " * 12] * 4_000})
    process = subprocess.Popen(
        [*COMMAND, "scan", str(tmp_path / "lake"), "t", *how],
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    # One large write that the reader cuts short may pass for a whole one.
    assert process.wait(timeout=60) in (ExitCode.OK, ExitCode.BROKEN_PIPE)
    process.stderr.close()


def test_version_and_help() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"vectorlake {vl.__version__}\n"
    shown = _plain(CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).stdout)
    for name in (
        "demo",
        "import",
        "sync",
        "ls",
        "info",
        "schema",
        "history",
        "files",
        "scan",
        "query",
        "add-column",
        "knn",
    ):
        assert re.search(rf"│ {name} +", shown), name


def _environment() -> dict[str, str]:
    found = {key: value for key, value in os.environ.items() if key not in ("VECTORLAKE_LAKE", "COLUMNS")}
    return {**found, "PYTHONPATH": os.pathsep.join(sys.path)}


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _all_kinds(kind: type[VectorlakeError]) -> list[type[VectorlakeError]]:
    return [found for child in kind.__subclasses__() for found in (child, *_all_kinds(child))]
