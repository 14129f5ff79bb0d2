"""What all tests share: a real S3 server, started when a test first asks for it, file systems that refuse, and which
process runs what."""

from __future__ import annotations

import gc
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from filelock import FileLock

from vectorlake.testing.s3 import S3Server, s3_server

if TYPE_CHECKING:
    from job_kills import Kills

# Some hundred processes of one run import what the first has compiled, and pytest rewrites each test file once, and not
# in every process and every run: worth a minute and more where the environment forbids to keep bytecode, as in images.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

ENGINES: Final = ("spark", "ray")
"""Engines that take long to start: all tests of one run in one process, which starts it once."""
FIRST: Final = (
    "spark",
    "test_commit_faults.py",
    "test_conflict_matrix.py",
    "ray",
    "test_jobs_killed.py",
    "test_world.py",
)
"""What takes longest, so that no process is left with it at the end. What needs no kernels goes before Ray: Spark's process
compiles them meanwhile, for both."""
APART: Final = ("test_world.py", "test_commit_faults.py")
"""Long files whose tests share nothing: any process may take any of them."""


LAST: Final = "test_the_example_loads_and_updates_a_table"
"""Stops Spark's session: the next test of its group would wait for another one, and for new workers of each kind."""


def group_of(test: str) -> str:
    """Tests of one group run in one process, one after another: those of an engine, else those of a file."""
    words = re.split(r"[^a-z0-9]+", test.lower())
    file = test.partition("::")[0].rpartition("/")[2]
    return next((engine for engine in ENGINES if engine in words), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: (places.get(group_of(item.nodeid), len(FIRST)), LAST in item.nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Search what is collected for garbage once, and never again: it is half a million objects, which stay to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Deal out tests by group, in the order of the list."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            group = group_of(nodeid)
            return nodeid if group in APART else group

        def remove_node(self, node: Any) -> str | None:
            """Deal out again what a process left that died, but for the test it died of: xdist would run that again."""
            left = self.assigned_work.pop(node)
            died_of = next((test for unit in left.values() for test, done in unit.items() if not done), None)
            if died_of is not None:
                left[self._split_scope(died_of)][died_of] = True
                self.workqueue.update((scope, unit) for scope, unit in left.items() if not all(unit.values()))
                for other in self.assigned_work:
                    self._reschedule(other)
            return died_of

        def _reschedule(self, node: Any) -> None:
            """Give a process work until it has two tests: with one, it would wait for word whether more are to come."""
            super()._reschedule(node)
            if self.workqueue and not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
                self._reschedule(node)

    config.option.loadscopereorder = False
    return ByGroup(config, log)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """One server per test process; tests that ask for it are marked `s3` and work under `fresh_uri()`."""
    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def kills(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Kills:
    """What jobs leave that nobody disturbs, for tests that kill their workers and drivers: made once in a run."""
    from job_kills import Kills

    if worker_id == "master":
        return Kills.prepare(tmp_path_factory.mktemp("kills"))
    folder = tmp_path_factory.getbasetemp().parent / "kills"
    made = folder / "kills.pickle"
    with FileLock(folder.with_suffix(".lock")):
        if not made.exists():
            folder.mkdir()
            made.write_bytes(pickle.dumps(Kills.prepare(folder)))
    found: Kills = pickle.loads(made.read_bytes())
    return found


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a tmpfs with options; skips where this user may not."""
    mounted: list[Path] = []

    def mounting(*options: str) -> Path:
        folder = tmp_path / f"mount{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
        if shutil.which("mount") is None:
            pytest.skip("there is no mount command to make a file system that refuses")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"mounting a tmpfs is not permitted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mounting
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)
