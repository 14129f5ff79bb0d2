"""Opening stores: URIs and paths, memories, storage options, and the resolver of foreign files."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path

import pytest

from vectorlake.errors import InvalidInputError, NotFoundError, UnsupportedError
from vectorlake.store import open_store, resolve
from vectorlake.store.location import Kind, parse_location


@pytest.mark.parametrize(
    ("text", "kind", "root", "path"),
    [
        ("s3://bucket/a/b", Kind.S3, "s3://bucket", "a/b"),
        ("s3a://bucket/a/b/", Kind.S3, "s3://bucket", "a/b"),
        ("S3N://bucket", Kind.S3, "s3://bucket", ""),
        ("s3://bucket/a b/ü%20", Kind.S3, "s3://bucket", "a b/ü%20"),
        ("gs://bucket/x", Kind.GCS, "gs://bucket", "x"),
        ("az://container/x", Kind.AZURE, "az://container", "x"),
        ("abfss://container@account.dfs.core.windows.net/x/y", Kind.AZURE, "az://container", "x/y"),
        ("memory://name/x", Kind.MEMORY, "memory://name", "x"),
        ("file:///data/lake/", Kind.LOCAL, "file://", "data/lake"),
        ("file:/data/lake", Kind.LOCAL, "file://", "data/lake"),
        ("file://localhost/data", Kind.LOCAL, "file://", "data"),
        ("/data//lake/../x", Kind.LOCAL, "file://", "data/x"),
    ],
)
def test_location(text: str, kind: Kind, root: str, path: str) -> None:
    location = parse_location(text)
    assert (location.kind, location.root, location.path) == (kind, root, path)


def test_account_of_an_azure_uri() -> None:
    assert parse_location("abfss://c@acc.dfs.core.windows.net/x").account == "acc"


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", InvalidInputError, "empty path"),
        ("s3:///key", InvalidInputError, "names no bucket"),
        ("s3://bucket/../other", InvalidInputError, "inside a store"),
        ("hdfs://host/x", UnsupportedError, "hdfs"),
        ("https://host/x", UnsupportedError, "https"),
        ("file://host/x", InvalidInputError, "file:///"),
    ],
)
def test_location_that_is_none(text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        open_store(text)


def test_local_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cases: list[tuple[str | Path, Path]] = [
        ("lake/", tmp_path / "lake"),
        (Path("lake"), tmp_path / "lake"),
        ("~/lake", tmp_path / "home/lake"),
        (f"file://{tmp_path}/a b", tmp_path / "a b"),
    ]
    for given, found in cases:
        assert open_store(given).uri == f"file://{found}"


def test_a_colon_in_a_folder_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run:1").mkdir()
    assert open_store("run:1").uri == f"file://{tmp_path}/run:1"
    assert open_store(Path("odd:2")).uri == f"file://{tmp_path}/odd:2"


def test_percent_in_file_uris(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "c%20d").mkdir()
    assert open_store(f"file://{tmp_path}/a%20b").uri == f"file://{tmp_path}/a b"
    assert open_store(f"file://{tmp_path}/c%20d").uri == f"file://{tmp_path}/c%20d"
    assert open_store(f"file://{tmp_path}/new%20").uri == f"file://{tmp_path}/new%20"


def test_opening_creates_nothing(tmp_path: Path) -> None:
    assert list(open_store(tmp_path / "absent").list()) == []
    assert list(tmp_path.iterdir()) == []


def test_named_memory_is_shared_and_stays() -> None:
    open_store("memory://shared/in").put("a", b"1")
    gc.collect()
    assert open_store("memory://shared").get("in/a") == b"1"
    assert list(open_store("memory://other").list()) == []


def test_nameless_memory_is_fresh_and_goes_with_its_last_user() -> None:
    store = open_store("memory://")
    store.put("a", b"1")
    uri = store.uri
    assert list(open_store("memory://").list()) == []
    assert open_store(uri).get("a") == b"1"
    assert resolve(f"{uri}/a")[0].get("a") == b"1"
    del store
    gc.collect()
    with pytest.raises(NotFoundError, match="last user"):
        open_store(uri)


def test_memory_stays_in_its_process() -> None:
    with pytest.raises(UnsupportedError, match="this process only"):
        pickle.dumps(open_store("memory://"))


@pytest.mark.parametrize(
    ("uri", "option", "close"),
    [
        ("s3://b", "aws_acces_key_id", "aws_access_key_id"),
        ("s3://b", "endpiont", "endpoint"),
        ("s3://b", "alow_http", "allow_http"),
        ("s3://b", "account_kye", "known are"),
        ("gs://b", "service_acount", "service_account"),
        ("az://b", "acount_name", "account_name"),
        ("memory://", "regoin", "region"),
        ("lake/", "aws_secret_key", "aws_secret_access_key"),
    ],
)
def test_unknown_option(uri: str, option: str, close: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        open_store(uri, {option: "secret value"})
    assert repr(option) in str(raised.value)
    assert close in str(raised.value)
    assert "secret value" not in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region": "eu-west-1"},
        {
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            "allow_http": "true",
        },
        {"endpoint": "http://127.0.0.1:1", "access_key_id": "k", "secret_access_key": "s"},
        {"client_max_retries": "2", "client_retry_timeout": "5", "connect_timeout": "1s"},
    ],
)
def test_aliases_of_options(options: dict[str, str]) -> None:
    store = open_store("s3://bucket/x", options)
    assert store.storage_options == options
    assert store.uri == "s3://bucket/x"


@pytest.mark.parametrize(
    "options", [{"client_max_retries": "many"}, {"timeout": "soon"}, {"allow_http": "perhaps"}]
)
def test_option_with_a_value_that_cannot_be_read(options: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(options.values()))):
        open_store("s3://bucket", options)


def test_option_that_is_no_string() -> None:
    with pytest.raises(InvalidInputError, match="allow_http"):
        open_store("s3://bucket", {"allow_http": True})  # type: ignore[dict-item]


def test_secrets_stay_out_of_reprs() -> None:
    options = {
        "aws_access_key_id": "shown",
        "aws_secret_access_key": "hidden1",
        "aws_session_token": "hidden2",
    }
    text = repr(open_store("s3://bucket", options))
    assert "hidden" not in text
    assert "shown" in text


def test_a_remote_store_travels_with_its_options() -> None:
    store = open_store("s3://bucket/x", {"aws_region": "eu-west-1"})
    copy = pickle.loads(pickle.dumps(store))
    assert (copy.uri, copy.storage_options) == (store.uri, store.storage_options)


def test_files_of_one_place_share_a_store(tmp_path: Path) -> None:
    options = {"aws_region": "eu-west-1"}
    stores = {id(resolve(f"s3://bucket/warehouse/t/{n}.parquet", options)[0]) for n in range(1_000)}
    assert len(stores) == 1
    assert resolve("s3a://bucket/x/y", options)[0] is resolve("s3://bucket/z", options)[0]
    assert resolve("s3://bucket/x", options)[0] is not resolve("s3://other/x", options)[0]
    assert resolve("s3://bucket/x", options)[0] is not resolve("s3://bucket/x", {})[0]
    first, path = resolve(f"{tmp_path}/a b.parquet")
    assert first is resolve(f"file://{tmp_path}/c.parquet")[0]
    assert first.local_path(path) == tmp_path / "a b.parquet"


def test_resolver_leaves_out_options_of_other_stores() -> None:
    options = {"aws_region": "eu-west-1", "google_service_account": "x.json"}
    assert resolve("s3://bucket/x", options)[0].storage_options == {"aws_region": "eu-west-1"}
    assert open_store("memory://", options).storage_options == options


def test_resolver_wants_a_file() -> None:
    with pytest.raises(InvalidInputError, match="whole store"):
        resolve("s3://bucket")


def test_changed_environment_makes_a_new_client(monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = resolve("s3://bucket-of-env/x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    assert resolve("s3://bucket-of-env/x")[0] is not first
