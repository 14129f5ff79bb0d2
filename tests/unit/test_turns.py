"""Processes take turns where they can, and go ahead where they can't: writers at a table, workers at what they compile."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import vectorlake as vl
from vectorlake.turns import turn


def test_a_turn_ends_with_its_block_and_leaves_no_file(tmp_path: Path) -> None:
    place = tmp_path / "metadata"
    place.mkdir()
    handle = os.open(place, os.O_RDONLY)
    with turn(place, wait_s=5, poll_s=0.001), pytest.raises(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with turn(place, wait_s=0.05, poll_s=0.001):
        pass  # somebody sleeps on the lock: it is not waited for longer than a moment
    os.close(handle)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("place", [None, Path("nowhere")])
def test_where_there_is_no_place_everybody_goes_ahead(place: Path | None) -> None:
    with turn(place, wait_s=5, poll_s=0.001), turn(place, wait_s=5, poll_s=0.001):
        pass


def test_a_file_system_without_locks_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(handle: int, how: int) -> None:
        asked.append(how)
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    table = vl.connect(tmp_path).create_table("t", {"id": [1]})
    table.append({"id": [2]})
    assert len(asked) == 1
    assert table.count() == 2


KERNEL = """
from vectorlake.kernels.jit import entry

@entry("int64(int64)")
def double(value):
    return 2 * value
"""

WORKER = """
import pathlib, sys, time
from numba.core import event
import kernel

pathlib.Path(f"ready-{sys.argv[1]}").touch()
while not pathlib.Path("go").exists():
    time.sleep(0.001)
with event.install_recorder("numba:compile") as recorder:
    assert kernel.double(21) == 42
print(sum(what.is_start for _, what in recorder.buffer))
"""


def test_one_of_several_workers_compiles(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(KERNEL)
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)]),
    }
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(number)],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    while len(list(tmp_path.glob("ready-*"))) < 3 and all(worker.poll() is None for worker in workers):
        time.sleep(0.01)
    (tmp_path / "go").touch()
    compiled = [worker.communicate()[0].strip() for worker in workers]
    assert sorted(compiled) == ["0", "0", "1"]
