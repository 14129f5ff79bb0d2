"""The command line on a table's history: who did what, and its metadata as rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import vectorlake as vl
from vectorlake.cli.app import app

Run = Callable[..., Result]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    root = tmp_path / "lake"
    table = vl.connect(root, application="etl/2", principal="ann").create_table("ns.t", {"id": [1, 2, 3]})
    vl.open_table(table.uri, principal="bob").append({"id": [4]})
    table.tag("v1", 2)
    return root


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command; fails unless it exits with `code`."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("VECTORLAKE_PRINCIPAL", raising=False)

    def invoke(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result

    return invoke


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_history_says_who(run: Run, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECTORLAKE_PRINCIPAL", "eve")
    run("delete", lake, "ns.t", "--filter", "id = 1")
    monkeypatch.delenv("VECTORLAKE_PRINCIPAL")
    run("delete", lake, "ns.t", "--filter", "id = 2")
    cli = f"vectorlake-cli/{vl.__version__}"
    told = [(row["application"], row["principal"]) for row in lines(run("history", lake, "ns.t", "--json"))]
    assert told == [(cli, None), (cli, "eve"), (f"vectorlake/{vl.__version__}", "bob"), ("etl/2", "ann")]
    shown = run("history", lake, "ns.t").stdout
    assert "ann with etl/2" in shown
    assert "eve" in shown
    assert "vectorlake-cli" not in shown


def test_history_of_nobody_has_no_such_column(run: Run, tmp_path: Path) -> None:
    vl.connect(tmp_path).create_table("t", {"id": [1]})
    assert "by" not in run("history", tmp_path, "t").stdout.splitlines()[0].split()


@pytest.mark.parametrize("what", ["snapshots", "files", "fragments", "refs"])
def test_inspect_shows_what_the_table_tells(what: str, run: Run, lake: Path) -> None:
    table = vl.connect(lake).table("ns.t")
    wanted = getattr(table, what)()
    found = lines(run("inspect", lake, "ns.t", what, "--json"))
    assert [list(row) for row in found] == [wanted.schema.names] * len(wanted)
    plain = [
        name
        for name in wanted.schema.names
        if name not in ("timestamp", "created", "summary", "constants", "bounds")
    ]
    assert [[row[name] for name in plain] for row in found] == [
        list(row.values()) for row in wanted.select(plain).to_pylist()
    ]
    maps = {"snapshots": "summary", "fragments": "bounds"}.get(what)
    if maps:
        assert [row[maps] for row in found] == [dict(pairs) for pairs in wanted[maps].to_pylist()]
    assert plain[0] in run("inspect", lake, "ns.t", what).stdout


def test_inspect_takes_versions_columns_and_limits(run: Run, lake: Path) -> None:
    assert len(lines(run("inspect", lake, "ns.t", "fragments", "--version", 1, "--json"))) == 1
    assert len(lines(run("inspect", lake, "ns.t", "snapshots", "--limit", 1, "--json"))) == 1
    found = lines(run("inspect", "--lake", lake, "ns.t", "files", "--columns", "size, path", "--json"))
    assert [list(row) for row in found] == [["size", "path"]] * 2


def test_inspect_names_what_is_not_there(run: Run, lake: Path) -> None:
    assert "did you mean 'files'" in run("inspect", lake, "ns.t", "file", code=3).stderr
    assert "did you mean 'size'" in run("inspect", lake, "ns.t", "files", "--columns", "sise", code=3).stderr
