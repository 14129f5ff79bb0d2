"""Writers take turns where they can, and go ahead where they can't."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

import vectorlake as vl
from vectorlake.store.open import open_store
from vectorlake.table.turns import turn


def test_a_turn_ends_with_its_block_and_leaves_no_file(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    (tmp_path / "metadata").mkdir()
    handle = os.open(tmp_path / "metadata", os.O_RDONLY)
    with turn(store, "metadata"), pytest.raises(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with turn(store, "metadata"):
        pass  # somebody sleeps on the lock: it is not waited for longer than a moment
    os.close(handle)
    assert list((tmp_path / "metadata").iterdir()) == []


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
