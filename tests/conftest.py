"""What all tests share: a real S3 server, started when a test first asks for it, and file systems that refuse."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vectorlake.testing.s3 import S3Server, s3_server

if TYPE_CHECKING:
    from job_kills import Kills


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """One server per test process; tests that ask for it are marked `s3` and work under `fresh_uri()`."""
    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def kills(tmp_path_factory: pytest.TempPathFactory) -> Kills:
    """What jobs leave that nobody disturbs, for tests that kill their workers and drivers."""
    from job_kills import Kills

    return Kills.prepare(tmp_path_factory.mktemp("kills"))


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
