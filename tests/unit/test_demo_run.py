"""The demo from end to end on a small corpus, and the folder that it works in."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import vectorlake as vl
from vectorlake.cli.app import app
from vectorlake.demo import folder as folders
from vectorlake.demo.run import TABLE, TAG, run_demo
from vectorlake.demo.story import Story
from vectorlake.errors import AlreadyExistsError, InvalidInputError

LIMIT = 1500


def test_the_whole_demo(tmp_path: Path) -> None:
    for engine in ("pyiceberg", "duckdb", "sklearn", "vectorlake_iceberg", "vectorlake_duckdb"):
        pytest.importorskip(engine, reason="the demo needs the extra demo")
    told = io.StringIO()
    root = tmp_path / "demo"
    summary = run_demo(root, limit=LIMIT, console=Console(file=told, width=80))

    assert summary["bytes_copied"] == 0
    assert summary["same_answer"] is True
    assert summary["findings"] == 0
    assert summary["rows_imported"] + summary["source_appended"] == LIMIT
    assert summary["rows"] == LIMIT - summary["source_deleted"]
    assert summary["embedded_after_sync"] <= summary["source_appended"]
    assert summary["joined_rows"] > 0
    assert summary["versions"] == 6
    json.dumps(summary)

    table = vl.connect(root / "lake").table(TABLE)
    assert table.count("embedding IS NULL") == 0
    assert table.at(TAG).count() == summary["rows_imported"]
    assert all(len(line) <= 80 for line in told.getvalue().splitlines() if "vectorlake " not in line)
    assert "same answer" in told.getvalue()
    _try_next(told.getvalue())

    # A second run starts afresh in the same place, and --no-keep leaves nothing.
    run = CliRunner().invoke(app, ["demo", "--folder", str(root), "--limit", "1000", "--no-keep", "--json"])
    assert run.exit_code == 0, run.stderr
    assert json.loads(run.stdout)["rows_imported"] == 980
    assert set(json.loads(run.stdout)["seconds"]) >= {
        "source",
        "import",
        "embed",
        "search",
        "index",
        "sql",
        "sync",
        "travel",
        "verify",
    }
    assert not root.exists()


def _try_next(told: str) -> None:
    """Every command that the demo tells the reader to try works as it is printed."""
    import shlex

    commands = [
        line.split(": ")[-1].strip() for line in told.splitlines() if line.strip().startswith("vectorlake ")
    ]
    assert len(commands) == 5
    for command in commands:
        run = CliRunner().invoke(app, [*shlex.split(command)[1:], "--json"])
        assert run.exit_code == 0, (command, run.stderr)
        assert run.stdout


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "precious").write_text("mine")
    run = CliRunner().invoke(app, ["demo", "--folder", str(tmp_path)])
    assert run.exit_code == 4
    assert "holds files that no demo made" in run.stderr
    assert (tmp_path / "lake" / "precious").read_text() == "mine"


def test_only_what_the_demo_made_is_removed(tmp_path: Path) -> None:
    folder = folders.prepare(tmp_path / "demo")
    folder.lake.mkdir()
    (folder.lake / "old").touch()
    (folder.root / "notes.txt").write_text("mine")
    again = folders.prepare(tmp_path / "demo")
    assert not (again.lake / "old").exists()
    folders.remove(again)
    assert os.listdir(tmp_path / "demo") == ["notes.txt"]
    with pytest.raises(AlreadyExistsError):
        folders.prepare(tmp_path / "demo")
    folders.remove(again)
    assert os.listdir(tmp_path / "demo") == ["notes.txt"]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InvalidInputError, match="no folder"):
            folders.prepare(root)


def test_a_failed_demo_without_keep_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyiceberg")
    monkeypatch.setattr("vectorlake.demo.run.harvest", lambda **_: iter(()))
    with pytest.raises(InvalidInputError, match="No rows"):
        run_demo(tmp_path / "demo", keep=False)
    with pytest.raises(InvalidInputError, match="at least 1,000"):
        run_demo(tmp_path / "demo", limit=3)
    assert not (tmp_path / "demo").exists()


def test_a_story_times_its_steps() -> None:
    ticks = iter([1.0, 3.5, 10.0, 10.25])
    told = io.StringIO()
    story = Story(Console(file=told, width=60), clock=lambda: next(ticks))
    with story.step("first", "The first", "Why."):
        story.fact("a label", "a value that is so long that it has to go on in the next line of the story")
        story.rows(("number", "text"), [(12345, "long " * 20), (2, "short")])
    with story.step("second", "The second", "Why not."):
        pass
    assert story.seconds == {"first": 2.5, "second": 0.25}
    lines = told.getvalue().splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert any("12,345" in line and line.rstrip().endswith("…") for line in lines)
    assert any(line.strip() == "250 ms" for line in lines)


def test_a_silent_story_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    story = Story(None)
    with story.step("one", "One", "Why."), story.progress("working") as advance:
        advance(1, 2)
        story.say("something")
        story.commands([("command", "what")])
    assert capsys.readouterr() == ("", "")
