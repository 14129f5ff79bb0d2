"""Local copies of remote objects: bounded, shared, never removed while in use."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vectorlake.errors import CorruptDataError, NotFoundError
from vectorlake.store import open_store
from vectorlake.store.spool import Spool, local_copy
from vectorlake.testing.faults import Fault, FaultyStore, fault_at


@pytest.fixture
def store() -> FaultyStore:
    """A memory with five objects of 100 bytes, which counts calls."""
    inner = open_store("memory://")
    for number in range(5):
        inner.put(f"o{number}.lance", b"%d" % number * 100)
    return FaultyStore(inner)


def fetches(store: FaultyStore) -> list[str]:
    return [call.path for call in store.trace if call.method == "get_ranges"]


def test_a_copy_is_fetched_once_and_used_again(tmp_path: Path, store: FaultyStore) -> None:
    spool = Spool(tmp_path, 1_000)
    for _ in range(3):
        with spool.copy(store, "o1.lance", 100) as path:
            assert path.read_bytes() == b"1" * 100
            assert path.suffix == ".lance"
    assert fetches(store) == ["o1.lance"]


def test_the_least_recently_used_goes_first(tmp_path: Path, store: FaultyStore) -> None:
    spool = Spool(tmp_path, 250)
    for name in ("o0.lance", "o1.lance", "o0.lance", "o2.lance", "o0.lance", "o1.lance"):
        with spool.copy(store, name, 100):
            pass
    assert fetches(store) == ["o0.lance", "o1.lance", "o2.lance", "o1.lance"]
    assert spool.held_bytes == 200
    assert len(list(tmp_path.iterdir())) == 2


def test_a_copy_in_use_stays(tmp_path: Path, store: FaultyStore) -> None:
    spool = Spool(tmp_path, 0)
    with spool.copy(store, "o0.lance", 100) as first:
        with spool.copy(store, "o1.lance", 100) as second, spool.copy(store, "o0.lance", 100) as again:
            assert again == first
        assert first.read_bytes() == b"0" * 100
        assert not second.exists()
    assert list(tmp_path.iterdir()) == []


def test_the_garbage_collector_may_end_a_use_while_the_lock_is_held(
    tmp_path: Path, store: FaultyStore
) -> None:
    spool = Spool(tmp_path, 0)
    use = spool.copy(store, "o0.lance", 100)
    path = use.__enter__()
    with (
        spool._lock
    ):  # a reader that is collected in the middle of anything, by the thread that holds the lock
        use.__exit__(None, None, None)
    assert path.exists()
    assert spool.held_bytes == 0
    assert not path.exists()


def test_versions_of_one_path_are_kept_apart(tmp_path: Path, store: FaultyStore) -> None:
    spool = Spool(tmp_path, 1_000)
    with spool.copy(store, "o0.lance", 100, e_tag="1"):
        pass
    store.put("o0.lance", b"x" * 100)
    with spool.copy(store, "o0.lance", 100, e_tag="2") as path:
        assert path.read_bytes() == b"x" * 100


@pytest.mark.parametrize("size", [99, 101])
def test_another_length_than_promised(tmp_path: Path, store: FaultyStore, size: int) -> None:
    spool = Spool(tmp_path, 1_000)
    with pytest.raises(CorruptDataError, match="100 bytes where"), spool.copy(store, "o0.lance", size):
        pass
    assert list(tmp_path.iterdir()) == []
    assert spool.held_bytes == 0


def test_a_failed_fetch_leaves_nothing_and_may_be_repeated(tmp_path: Path, store: FaultyStore) -> None:
    spool = Spool(tmp_path, 1_000)
    failing = FaultyStore(store.inner, fault_at(0, Fault.FAIL_BEFORE))
    with pytest.raises(Exception, match="injected"), spool.copy(failing, "o0.lance", 100):
        pass
    assert list(tmp_path.iterdir()) == []
    with spool.copy(failing, "o0.lance", 100) as path:
        assert path.read_bytes() == b"0" * 100
    with pytest.raises(NotFoundError), spool.copy(store, "absent", 5):
        pass


def test_threads_share_one_fetch(tmp_path: Path, store: FaultyStore) -> None:
    spool = Spool(tmp_path, 100)
    wrong: list[str] = []

    def read(number: int) -> None:
        for step in range(20):
            name = (number + step) % 5
            with spool.copy(store, f"o{name}.lance", 100) as path:
                if path.read_bytes() != b"%d" % name * 100:
                    wrong.append(path.name)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert spool.held_bytes <= 100
    assert len(list(tmp_path.iterdir())) <= 1


def test_a_local_object_is_not_copied(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.put("a", b"1")
    with local_copy(store, "a", 1) as path:
        assert path == tmp_path / "a"


PROCESS = """
import os, sys
from vectorlake.store import open_store
from vectorlake.store.spool import local_copy
store = open_store("memory://")
store.put("a", b"1")
with local_copy(store, "a", 1) as path:
    print(path.parent)
    assert path.read_bytes() == b"1"
    if sys.argv[1] == "die":
        sys.stdout.flush()
        os._exit(1)
"""


def test_the_folder_goes_at_exit_and_after_a_crash(tmp_path: Path) -> None:
    def run(how: str) -> Path:
        done = subprocess.run(
            [sys.executable, "-c", PROCESS, how],
            env={"TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.stderr
        return Path(done.stdout.strip())

    assert not run("end").exists()
    crashed = run("die")
    assert crashed.exists()
    run("end")
    assert not crashed.exists()
    assert list(tmp_path.iterdir()) == []
