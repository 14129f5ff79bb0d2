"""What the documentation shows must run: every Python block of README.md and docs/*.md, page by page, from top to bottom.

The blocks of a page share one namespace and one empty working folder, as a reader at a prompt would have. A block that
can't run everywhere begins with `# not run: <reason>`. Of bash blocks in README.md, the lines that call `vectorlake` are
run too, after the page's Python, in the same folder.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.store.open import open_store
from vectorlake.testing.clocks import ManualClock, SequentialIds

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [
    *PAGES,
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs" / "spec").glob("*.md")),
    *sorted((ROOT / "docs" / "rfcs").glob("*.md")),
]
RUN_ELSEWHERE = {
    "ray": "tests/connectors/test_ray.py, in the cluster that it has",
    "README": "test_readme_commands_run, which needs what its Python blocks have made",
}
"""Pages that another test runs, since what they need takes long to start or to make."""
NOT_RUN = "# not run: "
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and the page's line on which the text begins."""

    language: str
    text: str
    line: int

    @property
    def reason(self) -> str | None:
        """Why the block isn't run, if it says so."""
        first = self.text.partition("\n")[0]
        return first.removeprefix(NOT_RUN).strip() if first.startswith(NOT_RUN) else None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(m[1], m[2], text.count("\n", 0, m.start(2)) + 1) for m in _FENCE.finditer(text)]


def run_python(page: Path, found: list[Block]) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in found:
        if block.language == "python" and block.reason is None:
            # Line numbers in a traceback are those of the page.
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            exec(code, namespace)


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.stem) for page in PAGES if page.stem not in RUN_ELSEWHERE]
)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    run_python(page, blocks(page))


def test_readme_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "README.md"
    found = blocks(page)
    run_python(page, found)
    lines = [
        line
        for block in found
        if block.language == "bash" and block.reason is None
        for line in block.text.splitlines()
        if line.startswith("vectorlake ")
    ]
    assert lines, "README.md shows no command"
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        done = subprocess.run(
            [sys.executable, "-m", "vectorlake.cli", *words], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_blocks_that_are_not_run_say_why(page: Path) -> None:
    assert all(block.reason != "" for block in blocks(page))


@pytest.mark.parametrize("page", LINKED, ids=[str(page.relative_to(ROOT)) for page in LINKED])
def test_links_lead_somewhere(page: Path) -> None:
    prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        path, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(there), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """The anchors that a Markdown page's headings make."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)
    return set(plain)


def test_the_specification_shows_what_is_written(tmp_path: Path) -> None:
    """The worked example of the specification is what its code writes, but for bytes that depend on library versions."""
    page = ROOT / "docs" / "spec" / "format-v1.md"
    _, _, example = page.read_text(encoding="utf-8").partition("## Worked example")
    found: dict[str, str] = {}
    for language, text in _FENCE.findall(example):
        found.setdefault(language, text)
    lake = vl.Lake(
        open_store(tmp_path), clock=ManualClock(1_750_000_000_000, step_ms=1000), new_id=SequentialIds()
    )
    exec(found["python"], {"lake": lake, "vl": vl, "pa": pa})
    written = (tmp_path / "demo/items/metadata/v00000000000000000004.json").read_bytes()
    assert _masked(json.loads(written)) == _masked(json.loads(found["json"]))
    assert [info.path for info in lake.store.child("demo/items").list()] == found["text"].split()


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "…" if key in ("size", "checksum", "application") else _masked(item)
            for key, item in value.items()
        }
    return [_masked(item) for item in value] if isinstance(value, list) else value
