"""What every store promises, on each of them."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from vectorlake.errors import AlreadyExistsError, InvalidInputError, NotFoundError, StorageError
from vectorlake.store import Store, open_store, resolve
from vectorlake.testing.faults import FaultyStore

KINDS = ["local", "memory", pytest.param("s3", marks=pytest.mark.s3), "faulty"]


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    match request.param:
        case "local":
            return open_store(tmp_path / "root of the store")
        case "memory":
            return open_store("memory://")
        case "s3":
            server = request.getfixturevalue("s3")
            return open_store(server.fresh_uri(), server.storage_options)
        case _:
            return FaultyStore(open_store(tmp_path / "faulty"))


def test_every_store_is_a_store(store: Store) -> None:
    assert isinstance(store, Store)


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 5_000], ids=["empty", "one byte", "1.28 MB"])
def test_reads_back_what_was_put(store: Store, data: bytes) -> None:
    store.put("folder/object", data)
    assert store.get("folder/object") == data
    assert store.head("folder/object").size == len(data)


def test_put_takes_any_buffer(store: Store) -> None:
    store.put("a", memoryview(bytearray(b"abc")))  # type: ignore[arg-type]
    assert store.get("a") == b"abc"


def test_put_replaces(store: Store) -> None:
    store.put("a", b"a longer first version")
    before = store.head("a")
    store.put("a", b"second")
    assert store.get("a") == b"second"
    assert store.head("a").e_tag != before.e_tag


def test_put_new_keeps_what_is_there(store: Store) -> None:
    store.put_new("a/b", b"first")
    with pytest.raises(AlreadyExistsError) as raised:
        store.put_new("a/b", b"second")
    assert f"{store.uri}/a/b" in str(raised.value)
    assert store.get("a/b") == b"first"
    assert [info.path for info in store.list()] == ["a/b"]


def test_put_new_after_delete(store: Store) -> None:
    store.put_new("a", b"1")
    store.delete(["a"])
    store.put_new("a", b"2")
    assert store.get("a") == b"2"


@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.get("absent/object"),
        lambda store: store.get_range("absent/object", 0, 10),
        lambda store: store.get_range("absent/object", 5, 10),
        lambda store: store.get_ranges("absent/object", [(0, 1), (9_000_000, 3)]),
        lambda store: store.head("absent/object"),
    ],
    ids=["get", "get_range", "get_range inside", "get_ranges", "head"],
)
def test_missing_object_is_not_found(store: Store, read: Callable[[Store], object]) -> None:
    with pytest.raises(NotFoundError) as raised:
        read(store)
    assert f"{store.uri}/absent/object" in str(raised.value)


def test_a_folder_is_no_object(store: Store) -> None:
    store.put("folder/object", b"1")
    for read in (store.get, store.head, lambda path: store.get_range(path, 0, 1)):
        with pytest.raises(NotFoundError):
            read("folder")


def test_an_object_is_no_folder(store: Store) -> None:
    store.put("object", b"1")
    with pytest.raises(NotFoundError):
        store.get("object/inside")
    assert list(store.list("object")) == []
    store.delete(["object/inside"])


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, 10, b"0123456789"),
        (3, 4, b"3456"),
        (9, 1, b"9"),
        (0, 11, b"0123456789"),
        (7, 100, b"789"),
        (10, 1, b""),
        (11, 1, b""),
        (1_000_000, 5, b""),
        (4, 0, b""),
    ],
)
def test_range(store: Store, start: int, length: int, expected: bytes) -> None:
    store.put("digits", b"0123456789")
    assert store.get_range("digits", start, length) == expected
    assert store.get_ranges("digits", [(start, length)]) == [expected]


def test_ranges_keep_their_order_and_may_overlap(store: Store) -> None:
    data = os.urandom(3_000_000)
    store.put("o", data)
    ranges = [
        (2_900_000, 200_000),
        (0, 10),
        (5, 10),
        (1_500_000, 0),
        (0, 10),
        (1_499_999, 3),
        (5_000_000, 1),
        (0, 3_000_000),
    ]
    assert store.get_ranges("o", ranges) == [data[start : start + length] for start, length in ranges]
    assert store.get_ranges("o", []) == []


def test_range_of_an_empty_object(store: Store) -> None:
    store.put("empty", b"")
    assert store.get("empty") == b""
    assert store.get_range("empty", 0, 10) == b""
    assert store.get_ranges("empty", [(0, 10), (5, 5)]) == [b"", b""]


def test_head(store: Store) -> None:
    store.put("o", b"12345")
    info = store.head("o")
    assert (info.path, info.size) == ("o", 5)
    assert info.e_tag
    # Servers round to whole seconds; an hour also forgives a clock that is a little off.
    assert abs(datetime.now(UTC) - info.last_modified) < timedelta(hours=1)
    assert next(store.list()) == info or next(store.list()).e_tag == info.e_tag


NAMES = [
    "a b/ü %20.txt",
    "a b/ü.txt",
    "a!",
    "a-b/c",
    "a.txt",
    "a/b/c",
    "a/x",
    "a/y",
    "a/y.json",
    "a0",
    "ab/z",
    "Z",
    "100%/t",
    "q#?+&=~@$,;'()[]{}/e",
    "日本語/データ",
    "zz/.hidden",
]


def test_names_come_back_as_they_were(store: Store) -> None:
    for name in NAMES:
        store.put(name, name.encode())
    for name in NAMES:
        assert store.get(name) == name.encode()
        assert store.head(name).path == name
    store.delete(NAMES)
    assert list(store.list()) == []


def test_list_is_lexicographic_over_whole_paths(store: Store) -> None:
    for name in NAMES:
        store.put(name, name.encode())
    listed = list(store.list())
    assert [info.path for info in listed] == sorted(NAMES)
    assert [info.size for info in listed] == [len(name.encode()) for name in sorted(NAMES)]


@pytest.mark.parametrize("after", [*NAMES, "a", "a b", "a/", "a/x0", "b", "zzzz", "A", "a.tx", "a/b"])
@pytest.mark.parametrize("prefix", ["", "a"])
def test_list_starts_after(store: Store, prefix: str, after: str) -> None:
    for name in NAMES:
        store.put(name, b"1")
    inside = [name for name in sorted(NAMES) if name.startswith(f"{prefix}/" if prefix else "")]
    listed = [info.path for info in store.list(prefix, start_after=after)]
    assert listed == [name for name in inside if name > after]


def test_prefixes_are_whole_path_segments(store: Store) -> None:
    for name in (
        ["a", "ab/1", "abc", "ab", "abc/2", "ab/c/3"]
        if store.local_path("") is None
        else [
            "a",
            "ab/1",
            "abc/2",
            "ab/c/3",
        ]
    ):
        store.put(name, b"1")
    assert [info.path for info in store.list("ab")] == ["ab/1", "ab/c/3"]
    assert [info.path for info in store.list("ab/c")] == ["ab/c/3"]
    assert list(store.list("a")) == []
    assert list(store.list("absent")) == []


def test_list_from_near_the_end_of_many(store: Store) -> None:
    names = [f"metadata/v{number:020d}.json" for number in range(1_005)]
    for name in names:
        store.put(name, b"1")
    assert [info.path for info in store.list("metadata")] == names
    assert [info.path for info in store.list("metadata", start_after=names[-3])] == names[-2:]
    store.delete(names)
    assert list(store.list("metadata")) == []


def test_delete_is_content_with_what_is_gone(store: Store) -> None:
    store.put("a", b"1")
    store.delete(["absent", "a", "absent/too"])
    store.delete([])
    assert list(store.list()) == []


def test_staged_object_appears_whole(store: Store) -> None:
    with store.staged("data/file.lance") as local:
        assert local.suffix == ".lance"
        local.write_bytes(b"123")
        assert list(store.list()) == []
    store.sync_folders(["data/file.lance"])
    assert store.get("data/file.lance") == b"123"
    assert not local.exists()
    assert list(store.leftovers()) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_staged_object_of_a_failed_writer_never_appears(store: Store, error: type[BaseException]) -> None:
    seen: list[Path] = []

    def write_and_fail() -> None:
        with store.staged("data/file") as local:
            local.write_bytes(b"123")
            seen.append(local)
            raise error("stop")

    with pytest.raises(error):
        write_and_fail()
    assert not seen[0].exists()
    assert list(store.list()) == []
    assert list(store.leftovers()) == []


def test_staged_object_that_nobody_wrote(store: Store) -> None:
    with pytest.raises(StorageError, match="data/file"), store.staged("data/file"):
        pass
    assert list(store.list()) == []


def test_disk_full_under_a_staged_object(store: Store) -> None:
    with pytest.raises(StorageError, match="disk is full") as raised, store.staged("data/file") as local:
        raise RuntimeError(f"some writer: {local}: No space left on device (os error 28)")
    assert f"{store.uri}/data/file" in str(raised.value)


def test_staged_50_mb(store: Store) -> None:
    # Random, for the test server reads compressible objects slowly by range.
    block = os.urandom(1 << 20)
    whole = hashlib.sha256()
    with store.staged("big") as local, open(local, "wb") as file:
        for number in range(50):
            part = number.to_bytes(4) + block[4:]
            file.write(part)
            whole.update(part)
    assert store.head("big").size == 50 << 20
    assert hashlib.sha256(store.get("big")).digest() == whole.digest()
    assert store.get_range("big", 37 << 20, 4) == (37).to_bytes(4)


def test_child_is_the_same_store_deeper(store: Store) -> None:
    child = store.child("ns.one/table")
    assert child.uri == f"{store.uri}/ns.one/table"
    assert child.storage_options == store.storage_options
    child.put("data/o", b"1")
    assert store.get("ns.one/table/data/o") == b"1"
    assert [info.path for info in child.list()] == ["data/o"]
    assert [info.path for info in child.list("data", start_after="data/n")] == ["data/o"]
    assert child.child("data").get("o") == b"1"
    assert (child.local_path("data/o") is None) == (store.local_path("o") is None)


def test_local_path_holds_the_object(store: Store) -> None:
    store.put("a/b", b"1")
    path = store.local_path("a/b")
    if path is not None:
        assert path.read_bytes() == b"1"


def test_uri_opens_the_same_objects(store: Store) -> None:
    store.put("a b/c", b"1")
    assert open_store(store.uri, store.storage_options).get("a b/c") == b"1"
    root, path = resolve(f"{store.uri}/a b/c", store.storage_options)
    assert root.get(path) == b"1"
    assert f"{root.uri}/{path}" == f"{store.uri}/a b/c"


@pytest.mark.parametrize(
    "path", ["", "/a", "a/", "a//b", "..", "../a", "a/../b", "./a", "a/.", "a\\b", "a\0b"]
)
def test_paths_that_leave_the_store_are_refused(store: Store, path: str) -> None:
    for call in (store.get, store.head, lambda p: store.put(p, b"1"), lambda p: store.delete([p])):
        with pytest.raises(InvalidInputError):
            call(path)


def test_threads_racing_for_a_name(store: Store) -> None:
    rounds, racers = (3 if store.uri.startswith("s3:") else 30), 8
    for number in range(rounds):
        barrier = threading.Barrier(racers)
        won: list[int] = []

        def race(racer: int, path: str, barrier: threading.Barrier, won: list[int]) -> None:
            barrier.wait()
            with contextlib.suppress(AlreadyExistsError):
                store.put_new(path, b"%d" % racer * 100)
                won.append(racer)

        path = f"race/{number}"
        threads = [threading.Thread(target=race, args=(n, path, barrier, won)) for n in range(racers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.get(path) == b"%d" % won[0] * 100


def _race(
    uri: str,
    options: Mapping[str, str],
    racer: int,
    rounds: int,
    barrier: Barrier,
    won: Queue[tuple[int, int]],
) -> None:
    store = open_store(uri, options)
    for number in range(rounds):
        barrier.wait()
        try:
            store.put_new(f"race/{number}", b"%d" % racer * 100)
        except AlreadyExistsError:
            continue
        won.put((number, racer))
    won.put((-1, racer))


@pytest.mark.slow
@pytest.mark.parametrize("store", ["local", pytest.param("s3", marks=pytest.mark.s3)], indirect=True)
def test_processes_racing_for_a_name(store: Store) -> None:
    rounds, racers = (3 if store.uri.startswith("s3:") else 50), 8
    context = multiprocessing.get_context("spawn")
    barrier, won = context.Barrier(racers), context.Queue()
    processes = [
        context.Process(target=_race, args=(store.uri, store.storage_options, racer, rounds, barrier, won))
        for racer in range(racers)
    ]
    for process in processes:
        process.start()
    winners: list[tuple[int, int]] = []
    finished = 0
    try:
        while finished < racers:
            number, racer = won.get(timeout=120)
            finished += number < 0
            if number >= 0:
                winners.append((number, racer))
    finally:
        for process in processes:
            process.join(timeout=10)
            if process.is_alive():
                process.kill()
    assert [process.exitcode for process in processes] == [0] * racers
    assert sorted(number for number, _ in winners) == list(range(rounds))
    for number, racer in winners:
        assert store.get(f"race/{number}") == b"%d" % racer * 100
