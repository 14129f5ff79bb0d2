"""Imports point one way, connectors use the public face only, and importing vectorlake loads no engine."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONNECTORS = sorted(
    path.parent for part in ("connectors", "jobs") for path in ROOT.glob(f"{part}/vectorlake_*/__init__.py")
)

# What connectors and jobs may import of vectorlake. A new entry is a promise to plug-ins: think, then add it here.
PUBLIC_MODULES = frozenset(
    {"vectorlake", "vectorlake.cli", "vectorlake.errors", "vectorlake.extend", "vectorlake.jobs"}
)

ENGINES = frozenset(
    {
        "daft",
        "datafusion",
        "duckdb",
        "faiss",
        "pandas",
        "polars",
        "pyiceberg",
        "pyspark",
        "ray",
        "scipy",
        "sklearn",
    }
    | {"torch"}
    # No engines, but slow to load: they are imported at first use.
    | {"llvmlite", "numba"}
)

# An audit hook sees what monkeypatching misses: calls from C, and names bound before the test.
GUARDED_IMPORT = """
import sys
def refuse(event, args):
    if event.startswith("socket.") and event != "socket.__new__":
        raise SystemExit(f"network: {event} {args!r}")
sys.addaudithook(refuse)
import vectorlake
print(*sorted(name for name in sys.modules if "." not in name))
"""


def _python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], cwd=ROOT, capture_output=True, text=True, check=False)


def test_layers_and_forbidden_imports() -> None:
    pytest.importorskip("importlinter", reason="import-linter is in the extra dev")
    command = (
        "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache', '--no-logo'])"
    )
    run = _python("-c", command)
    assert run.returncode == 0, run.stdout + run.stderr


def test_importing_vectorlake_loads_no_engine_and_takes_no_network() -> None:
    run = _python("-c", GUARDED_IMPORT)
    assert run.returncode == 0, run.stdout + run.stderr
    loaded = set(run.stdout.split())
    assert "vectorlake" in loaded
    assert loaded & ENGINES == set()


@pytest.mark.parametrize("connector", CONNECTORS, ids=lambda path: path.name)
def test_connectors_import_only_the_public_face(connector: Path) -> None:
    inner = {
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for path in sorted(connector.rglob("*.py"))
        for module, line in _imports_of_vectorlake(path)
        if module not in PUBLIC_MODULES
    }
    assert not inner, "not public: " + ", ".join(sorted(inner))


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("import vectorlake as vl", ["vectorlake"]),
        ("from vectorlake import Table, errors", ["vectorlake", "vectorlake.errors"]),
        ("def f():\n    from vectorlake.table.scan import Scan", ["vectorlake.table.scan"]),
        ("import vectorlake.store.local, duckdb", ["vectorlake.store.local"]),
        ("from vectorlake_iceberg import sync", []),
    ],
)
def test_every_way_to_import_is_seen(tmp_path: Path, statement: str, expected: list[str]) -> None:
    file = tmp_path / "module.py"
    file.write_text(statement)
    assert [module for module, _ in _imports_of_vectorlake(file)] == expected


def _imports_of_vectorlake(path: Path) -> Iterator[tuple[str, int]]:
    """The vectorlake modules that a file imports, anywhere in it, each with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [_submodule(node.module, alias.name) for alias in node.names]
        else:
            continue
        for module in modules:
            if module.partition(".")[0] == "vectorlake":
                yield module, node.lineno


def _submodule(package: str, name: str) -> str:
    """`package.name` where that is a module, else `package`, which then defines the name."""
    inside = ROOT.joinpath(*package.split("."), name)
    return f"{package}.{name}" if inside.is_dir() or inside.with_suffix(".py").is_file() else package
