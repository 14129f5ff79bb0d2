"""The local store: durability in order, crashes, and file systems that refuse."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vectorlake.errors import AlreadyExistsError, NotFoundError, StorageError
from vectorlake.store.local import LocalStore

Event = tuple[str, str]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """The calls that matter for durability, in order, each with the path that it acts on."""
    seen: list[Event] = []
    fsync, link, replace, mkdir = os.fsync, os.link, os.replace, os.mkdir

    def traced_fsync(descriptor: int) -> None:
        fsync(descriptor)
        seen.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))

    def traced_link(source: str, target: str) -> None:
        # Only what an earlier fsync covered may get a name: the size then must be the size now.
        assert ("fsync", source) in seen
        link(source, target)
        seen.append(("name", target))

    def traced_replace(source: str, target: str) -> None:
        assert ("fsync", source) in seen
        replace(source, target)
        seen.append(("name", target))

    def traced_mkdir(path: str, mode: int = 0o777) -> None:
        mkdir(path, mode)
        seen.append(("mkdir", os.fspath(path)))

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "link", traced_link)
    monkeypatch.setattr(os, "replace", traced_replace)
    monkeypatch.setattr(os, "mkdir", traced_mkdir)
    return seen


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc/self/fd")


def assert_durable(events: list[Event], name: Path) -> None:
    """Every folder made and the name itself were followed by an fsync of the folder that holds them."""
    for kind, path in events:
        if kind in ("mkdir", "name"):
            after = events[events.index((kind, path)) :]
            assert ("fsync", os.path.dirname(path)) in after, f"{kind} {path} is not durable"
    assert ("name", str(name)) in events


@needs_proc
@pytest.mark.parametrize("write", [LocalStore.put, LocalStore.put_new])
def test_a_write_is_durable_when_it_returns(
    tmp_path: Path, events: list[Event], write: Callable[[LocalStore, str, bytes], None]
) -> None:
    store = LocalStore(tmp_path / "new" / "lake")
    write(store, "ns/table/metadata/v1.json", b"{}")
    made = [path for kind, path in events if kind == "mkdir"]
    assert str(tmp_path / "new") in made
    assert_durable(events, tmp_path / "new/lake/ns/table/metadata/v1.json")


@needs_proc
def test_a_second_write_costs_two_fsyncs(tmp_path: Path, events: list[Event]) -> None:
    store = LocalStore(tmp_path)
    store.put_new("metadata/v1.json", b"{}")
    events.clear()
    store.put_new("metadata/v2.json", b"{}")
    assert [kind for kind, _ in events] == ["fsync", "name", "fsync"]
    assert_durable(events, tmp_path / "metadata/v2.json")


@needs_proc
def test_staged_files_are_durable_after_sync_folders(tmp_path: Path, events: list[Event]) -> None:
    store = LocalStore(tmp_path / "lake")
    names = [f"data/{number}.lance" for number in range(5)]
    for name in names:
        with store.staged(name) as local:
            local.write_bytes(b"rows")
    before = len(events)
    store.sync_folders(names)
    assert events[before:] == [("fsync", str(tmp_path / "lake/data"))]
    for name in names:
        assert_durable(events, tmp_path / "lake" / name)


def test_sync_folders_of_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="gone"):
        LocalStore(tmp_path).sync_folders(["gone/file"])


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put_new("table/metadata/v1.json", b"1")
    shutil.rmtree(tmp_path / "table")
    store.put_new("table/metadata/v1.json", b"2")
    with store.staged("table/data/x") as local:
        local.write_bytes(b"3")
    assert store.get("table/metadata/v1.json") == b"2"


KILLED_WRITER = """
import os, signal, sys
from vectorlake.store.local import LocalStore
store = LocalStore(sys.argv[1])
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
match sys.argv[2]:
    case "staged":
        with store.staged("data/file") as local:
            local.write_bytes(b"half")
            die()
    case "before the name":
        os.link = die
        store.put_new("data/file", b"whole")
    case "after the name":
        os.unlink = die
        store.put_new("data/file", b"whole")
"""


@pytest.mark.parametrize(
    ("moment", "visible"), [("staged", []), ("before the name", []), ("after the name", ["data/file"])]
)
def test_a_killed_writer_leaves_all_or_nothing(tmp_path: Path, moment: str, visible: list[str]) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(tmp_path), moment], check=False)
    assert ended.returncode == -signal.SIGKILL
    store = LocalStore(tmp_path)
    assert [info.path for info in store.list()] == visible
    assert all(store.get(path) == b"whole" for path in visible)
    leftovers = [info.path for info in store.leftovers("data")]
    assert len(leftovers) == 1
    store.delete(leftovers)
    assert list(store.leftovers()) == []
    assert [info.path for info in store.list()] == visible


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)

    def broken(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    for write in (store.put, store.put_new):
        with pytest.raises(StorageError, match=r"file://.*/a: Input/output error"):
            write("a", b"1")
    with pytest.raises(StorageError), store.staged("b") as local:
        local.write_bytes(b"1")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"1")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        store.put_new("a/b", b"1")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder"):
        store.put("folder", b"1")


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="shorter name"):
        LocalStore(tmp_path).put_new("x" * 300, b"1")


def test_a_store_travels_to_another_process(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, storage_options={"aws_region": "x"})
    store.put("a", b"1")
    copy = pickle.loads(pickle.dumps(store))
    assert copy.get("a") == b"1"
    assert copy.storage_options == {"aws_region": "x"}


def test_listing_follows_the_files_of_the_moment(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for name in ("a", "b", "c/d"):
        store.put(name, b"1")
    listing = store.list()
    assert next(listing).path == "a"
    store.delete(["b", "c/d"])
    assert list(listing) == []
    with pytest.raises(NotFoundError):
        store.head("b")


# --- file systems that refuse


@pytest.fixture
def read_only(tmp_path: Path, mount: Callable[..., Path]) -> Iterator[Path]:
    if os.geteuid() == 0:
        # Permissions do not bind root: it needs a file system that is read-only.
        folder = mount("size=1m")
        (folder / "old").write_bytes(b"1")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder
    else:
        folder = tmp_path / "read-only"
        folder.mkdir()
        (folder / "old").write_bytes(b"1")
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def test_read_only_folder(read_only: Path) -> None:
    store = LocalStore(read_only)

    def stage(path: str, data: bytes) -> None:
        with store.staged(path) as local:
            local.write_bytes(data)

    for write in (store.put, store.put_new, stage):
        for path in ("new", "folder/new"):
            with pytest.raises(StorageError) as raised:
                write(path, b"1")
            message = str(raised.value)
            assert f"could not write file://{read_only}/{path}" in message
            assert "choose another folder" in message
    with pytest.raises(StorageError, match="could not delete"):
        store.delete(["old"])
    assert store.get("old") == b"1"
    assert [info.path for info in store.list()] == ["old"]


def test_full_disk(mount: Callable[..., Path]) -> None:
    folder = mount("size=256k")
    store = LocalStore(folder)
    store.put("old", b"1")
    big = bytes(1 << 20)

    def stage(path: str, data: bytes) -> None:
        with store.staged(path) as local:
            local.write_bytes(data)

    def stage_by_a_writer_of_its_own(path: str, data: bytes) -> None:
        with store.staged(path):
            raise RuntimeError("LanceError(IO): No space left on device (os error 28), somewhere in Rust")

    for write in (store.put, store.put_new, stage, stage_by_a_writer_of_its_own):
        with pytest.raises(StorageError) as raised:
            write("big", big)
        message = str(raised.value)
        assert f"file://{folder}/big" in message
        assert "the disk is full" in message
        assert "bytes" in message
        assert sorted(path.name for path in folder.iterdir()) == ["old"]
    store.put_new("small", b"still works")


def test_file_size_limit(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StorageError, match="the disk is full"):
            store.put_new("big", bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_put_new_without_hard_links_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_source: str, _target: str) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(StorageError, match="hard links"):
        LocalStore(tmp_path).put_new("a", b"1")
    assert list(tmp_path.iterdir()) == []


def test_already_exists_leaves_no_temporary_file(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put_new("a", b"1")
    with pytest.raises(AlreadyExistsError):
        store.put_new("a", b"2")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
