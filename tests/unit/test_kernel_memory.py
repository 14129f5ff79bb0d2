"""Compiled code uses no memory that it gave back, and none beyond what it asked for: it works on bare addresses."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vectorlake

HERE = Path(__file__).parent
KERNELS = Path(vectorlake.__file__).parent / "kernels"
COMPILED = {"entry", "inner", "pasted", "relaxed", "finite"}
ALLOCATE = {"empty", "zeros", "full", "ones", "arange", "copy"}
TELL_ADDRESS = {"address_of", "as_floats"}
"""The second says where a row was widened to: into the buffer that it was given."""


def test_no_search_touches_memory_that_is_not_its_own(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("the allocator that finds stray accesses wants Linux and a C compiler")
    guard = tmp_path / "guard.so"
    built = [compiler, "-O2", "-shared", "-fPIC", "-o", str(guard), str(HERE / "guard.c")]
    subprocess.run(built, check=True)
    command = [sys.executable, "-X", "faulthandler", str(HERE / "guarded_searches.py"), str(tmp_path)]
    variables = {"LD_PRELOAD": str(guard), "ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_arrays_outlive_their_addresses() -> None:
    wrong = [
        f"{path.relative_to(KERNELS)}:{line} {name}"
        for path in sorted(KERNELS.rglob("*.py"))
        for line, name in let_go(ast.parse(path.read_text("utf-8")))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a = np.empty(3)\nat = address_of(a)\nuse(at)", ["a"]),
        ("a = np.empty(3)\nuse(address_of(a))", ["a"]),
        ("a = np.empty(3)\nuse(address_of(a))\nhold(a)", []),
        ("a = np.empty(3)\nfor i in range(3):\n    use(address_of(a))", []),
        ("a = np.empty(3)\nat = address_of(a)\nfor i in range(3):\n    use(at)", ["a"]),
        ("a = np.empty(3)\nview = carray(pointer_to(address_of(a), x), 3)\nfor i in a:\n    view[0] = 1", []),
        ("a = np.empty(3)\nview = carray(address_of(a), 3)\nlater = view\na[0] = 1\nuse(later)", ["a"]),
        ("for i in range(3):\n    a, n = np.empty(3), 1\n    at = address_of(a)\n    use(at)", ["a"]),
        ("at = address_of(argument)\nuse(at)", []),
    ],
)
def test_the_rule_finds_what_is_let_go(body: str, expected: list[str]) -> None:
    lines = "".join(f"    {line}\n" for line in body.split("\n"))
    source = f"@inner\ndef kernel(argument):\n{lines}"
    assert [name for _, name in let_go(ast.parse(source))] == expected


def let_go(module: ast.AST) -> Iterator[tuple[int, str]]:
    """Arrays of compiled functions that are freed before their address is used for the last time: line and name.

    An array lives until the last statement that names it has begun; a loop that names it keeps it until the loop's end.
    """
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef) and _decorators(function) & COMPILED:
            for block in _blocks(function):
                yield from _let_go_in(block)


def _decorators(function: ast.FunctionDef) -> set[str]:
    return {name for decorator in function.decorator_list for name in _names(decorator)}


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """Every list of statements in a function."""
    for inside in ast.walk(node):
        for field in ("body", "orelse"):
            block = getattr(inside, field, None)
            if isinstance(block, list):
                yield block


def _let_go_in(block: list[ast.stmt]) -> Iterator[tuple[int, str]]:
    for place, made in enumerate(block):
        if not isinstance(made, ast.Assign) or not _calls(made.value) & ALLOCATE:
            continue
        for name in sorted(_stored(made)):
            last = max(i for i, statement in enumerate(block) if name in _names(statement))
            told: set[str] = set()
            for i, statement in enumerate(block[place + 1 :], place + 1):
                tells = _tells(statement, name)
                if tells and not isinstance(statement, ast.For | ast.While) and i == last:
                    yield made.lineno, name
                    break
                if told & _names(statement) and i > last:
                    yield made.lineno, name
                    break
                for inside in ast.walk(statement):
                    if isinstance(inside, ast.Assign) and (
                        _tells(inside.value, name) or told & _names(inside.value)
                    ):
                        told |= _stored(inside)


def _tells(node: ast.AST, name: str) -> bool:
    """Whether an array's address is taken."""
    return any(
        isinstance(call, ast.Call) and _calls(call.func) & TELL_ADDRESS and name in _names(call)
        for call in ast.walk(node)
    )


def _calls(node: ast.AST) -> set[str]:
    """Names of what is called, or of the callee itself."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)
    }


def _names(node: ast.AST) -> set[str]:
    return {inside.id for inside in ast.walk(node) if isinstance(inside, ast.Name)}


def _stored(statement: ast.Assign) -> set[str]:
    return {
        inside.id
        for target in statement.targets
        for inside in ast.walk(target)
        if isinstance(inside, ast.Name) and isinstance(inside.ctx, ast.Store)
    }
