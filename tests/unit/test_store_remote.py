"""Remote stores: failures on the way to a server, said clearly and in bounded time; requests and offsets."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectorlake.errors import StorageError
from vectorlake.store import Store, open_store
from vectorlake.store.remote import _BLOCK_BYTES, _offset, merged
from vectorlake.testing.s3 import S3Server

CALLS: dict[str, Callable[[Store], object]] = {
    "get": lambda store: store.get("a"),
    "get_range": lambda store: store.get_range("a", 0, 1),
    "get_ranges": lambda store: store.get_ranges("a", [(0, 1), (1 << 30, 1)]),
    "head": lambda store: store.head("a"),
    "put": lambda store: store.put("a", b"1"),
    "put_new": lambda store: store.put_new("a", b"1"),
    "list": lambda store: list(store.list("a")),
    "delete": lambda store: store.delete(["a"]),
    "staged": lambda store: stage(store),
}


def stage(store: Store) -> None:
    with store.staged("a") as local:
        local.write_bytes(b"1")


each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.mark.s3
@each_call
def test_missing_bucket(s3: S3Server, call: Callable[[Store], object]) -> None:
    store = open_store("s3://no-such-bucket/lake", {**s3.storage_options, "user_agent": os.urandom(4).hex()})
    with pytest.raises(StorageError, match="there is no bucket s3://no-such-bucket") as raised:
        call(store)
    assert "s3://no-such-bucket/lake" in str(raised.value)


@pytest.mark.s3
@each_call
@pytest.mark.parametrize("wrong", ["aws_access_key_id", "aws_secret_access_key"])
def test_refused_key(s3: S3Server, wrong: str, call: Callable[[Store], object]) -> None:
    store = open_store(s3.fresh_uri(), {**s3.storage_options, wrong: "not-the-key"})
    with pytest.raises(StorageError, match="refused the key") as raised:
        call(store)
    assert store.uri in str(raised.value)
    assert "not-the-key" not in str(raised.value)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@each_call
def test_nothing_listens(closed_port: int, call: Callable[[Store], object]) -> None:
    options = {
        "endpoint": f"http://127.0.0.1:{closed_port}",
        "allow_http": "true",
        "aws_access_key_id": "k",
        "aws_secret_access_key": "s",
        "client_max_retries": "1",
    }
    with pytest.raises(StorageError, match="did not answer") as raised:
        call(open_store("s3://bucket/lake", options))
    assert "s3://bucket/lake" in str(raised.value)
    assert "check the endpoint" in str(raised.value)


def test_a_server_that_never_answers() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        options = {
            "endpoint": f"http://127.0.0.1:{server.getsockname()[1]}",
            "allow_http": "true",
            "aws_access_key_id": "k",
            "aws_secret_access_key": "s",
            "read_timeout": "300ms",
            "client_max_retries": "1",
        }
        with pytest.raises(StorageError, match="did not answer"):
            open_store("s3://bucket", options).get("a")


def test_http_must_be_allowed(closed_port: int) -> None:
    options = {"endpoint": f"http://127.0.0.1:{closed_port}", "client_max_retries": "0"}
    options |= {"aws_access_key_id": "k", "aws_secret_access_key": "s"}
    with pytest.raises(StorageError, match="allow_http"):
        open_store("s3://bucket", options).get("a")


def test_no_credentials(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    options = {
        "endpoint": f"http://127.0.0.1:{closed_port}",
        "metadata_endpoint": f"http://127.0.0.1:{closed_port}",
        "allow_http": "true",
        "client_max_retries": "0",
    }
    with pytest.raises(StorageError, match="no credentials for S3 were found"):
        open_store("s3://bucket", options).get("a")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_is_told_to_spawn(closed_port: int) -> None:
    options = {"endpoint": f"http://127.0.0.1:{closed_port}", "allow_http": "true", "client_max_retries": "0"}
    store = open_store("s3://bucket", {**options, "aws_access_key_id": "k", "aws_secret_access_key": "s"})
    with pytest.raises(StorageError):
        store.get("a")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store.get("a")
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent judges
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        said = file.read().decode()
    os.waitpid(child, 0)
    assert said.startswith("UnsupportedError")
    assert "spawn" in said


@given(st.lists(st.tuples(st.integers(0, 40 << 20), st.integers(0, 4 << 20)), max_size=20))
def test_merged_requests_cover_each_range(ranges: list[tuple[int, int]]) -> None:
    blocks = merged(ranges)
    for start, length in ranges:
        if length:
            holding = [b for b in blocks if b[0] <= start and start + length <= sum(b)]
            assert len(holding) == 1
    ends = [sum(block) for block in blocks]
    assert all(end <= start for end, (start, _) in zip(ends, blocks[1:], strict=False))


def test_large_neighbours_are_not_joined() -> None:
    wanted = [(0, _BLOCK_BYTES), (_BLOCK_BYTES, _BLOCK_BYTES)]
    assert merged(wanted) == wanted
    assert merged([(0, 10), (1_000, 10)]) == [(0, 1_010)]


# Few letters, on both sides of "/", so that names often begin with one another.
paths = st.lists(st.text("a!.0~", min_size=1, max_size=3), min_size=1, max_size=3).map("/".join)


@given(st.lists(paths, max_size=12), paths, st.sampled_from(["", "a", "a/a"]))
def test_offsets_lose_nothing_on_either_kind_of_server(keys: list[str], after: str, folder: str) -> None:
    inside = [key for key in keys if key.startswith(f"{folder}/" if folder else "")]
    floor = f"{folder}/{after}" if folder else after
    offset = _offset(folder, floor)
    wanted = {key for key in inside if key > floor}
    if offset is not None:
        by_whole_key = {key for key in inside if key > offset}
        # A server that walks folders passes over a folder that the offset names.
        by_folder = {
            key for key in inside if key.split("/") > offset.split("/") and not key.startswith(offset + "/")
        }
        assert wanted <= by_whole_key
        assert wanted <= by_folder


@pytest.mark.s3
def test_many_threads_share_a_store(s3: S3Server) -> None:
    store = open_store(s3.fresh_uri(), s3.storage_options)
    data = os.urandom(4 << 20)
    store.put("o", data)
    wrong: list[int] = []

    def read(seed: int) -> None:
        ranges = [((seed * 7919 + n * 104_729) % len(data), 5_000) for n in range(50)]
        if store.get_ranges("o", ranges) != [data[s : s + n] for s, n in ranges]:
            wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.s3
def test_lance_opens_the_same_root_with_the_options(s3: S3Server) -> None:
    lance_file = pytest.importorskip("lance.file")
    pa = pytest.importorskip("pyarrow")
    store = open_store(s3.fresh_uri(), s3.storage_options)
    with store.staged("x.lance") as local, lance_file.LanceFileWriter(str(local)) as writer:
        writer.write_batch(pa.table({"a": [1, 2, 3]}))
    reader = lance_file.LanceFileReader(f"{store.uri}/x.lance", storage_options=store.storage_options)
    assert reader.read_all().to_table()["a"].to_pylist() == [1, 2, 3]
