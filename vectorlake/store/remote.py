"""Objects behind obstore (S3, Google Cloud Storage, Azure, memory): one meaning of ranges, order, errors."""

from __future__ import annotations

import bisect
import contextlib
import functools
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError as ObstoreAlreadyExistsError
from obstore.exceptions import BaseError

from vectorlake.errors import AlreadyExistsError, NotFoundError, StorageError, UnsupportedError
from vectorlake.store.local import disk_full
from vectorlake.store.location import Kind, check_path, join
from vectorlake.store.options import redacted
from vectorlake.store.protocol import ObjectInfo

T = TypeVar("T")

# One more request, among those that go side by side, costs about as much as reading this much in vain.
_GAP_BYTES = 128 << 10
_BLOCK_BYTES = 8 << 20
_REQUESTS_AT_ONCE = 16
_PART_BYTES = 8 << 20
_MOST_PARTS = 9_000
_PARTS_AT_ONCE = 8


@dataclass
class Client:
    """One obstore client and what was learnt about it, shared by all stores of a bucket."""

    kind: Kind
    root: str
    native: Any
    options: Mapping[str, str]
    bucket_seen: bool = False


@dataclass
class _Runtime:
    """The process in which obstore's network threads were started: a forked child has none and would wait for
    ever."""

    pid: int | None = None


_runtime = _Runtime()


class RemoteStore:
    """A prefix of a bucket (or of a named memory) as a `Store`.

    `put_new` is an atomic put-if-absent. A retried request may find its own first attempt applied and end as
    `AlreadyExistsError`: the caller reads the object back and compares.
    """

    def __init__(self, client: Client, prefix: str = "") -> None:
        self._client = client
        self._prefix = prefix

    def __repr__(self) -> str:
        return f"RemoteStore({self.uri!r}, {redacted(self._client.options)})"

    def __reduce__(self) -> tuple[Callable[..., RemoteStore], tuple[object, ...]]:
        if self._client.kind is Kind.MEMORY:
            raise UnsupportedError(
                f"{self.uri} lives in this process only and cannot be sent to another: "
                "use a local folder or an object store for work on several processes"
            )
        return _reopen, (self.uri, dict(self._client.options))

    @property
    def uri(self) -> str:
        return join(self._client.root, self._prefix)

    @property
    def storage_options(self) -> dict[str, str]:
        return dict(self._client.options)

    def child(self, path: str) -> RemoteStore:
        return RemoteStore(self._client, self._key(path))

    def local_path(self, path: str) -> Path | None:
        return None

    # --- reading

    def get(self, path: str) -> bytes:
        key = self._key(path)
        return self._call("read", path, lambda: bytes(obstore.get(self._native(), key).bytes()))

    def get_range(self, path: str, start: int, length: int) -> bytes:
        if length <= 0:
            return b""
        key = self._key(path)

        def read() -> bytes:
            try:
                return bytes(obstore.get_range(self._native(), key, start=start, length=length))
            except BaseError:
                # A range that starts at the end or beyond is refused in a different way by each store.
                if obstore.head(self._native(), key)["size"] <= start:
                    return b""
                raise

        return self._call("read", path, read)

    def get_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        # obstore.get_ranges panics where joined ranges begin beyond the object's end.
        blocks = merged(ranges)
        if len(blocks) > 1 and self._client.kind is not Kind.MEMORY:
            found = list(_threads().map(lambda block: self.get_range(path, *block), blocks))
        else:
            found = [self.get_range(path, *block) for block in blocks]
        firsts = [start for start, _ in blocks]
        cut = []
        for start, length in ranges:
            if length <= 0:
                cut.append(b"")
                continue
            index = bisect.bisect_right(firsts, start) - 1
            first, block = firsts[index], found[index]
            whole = start == first and length >= len(block)
            cut.append(block if whole else block[start - first : start - first + length])
        return cut

    def head(self, path: str) -> ObjectInfo:
        key = self._key(path)
        return self._info(self._call("look at", path, lambda: obstore.head(self._native(), key)))

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        folder = join(self._prefix, check_path(prefix) if prefix else "")
        floor = join(self._prefix, start_after) if start_after else ""

        def pages() -> Iterator[Any]:
            stream = obstore.list(
                self._native(), folder or None, offset=_offset(folder, floor), chunk_size=1_000
            )
            while (page := self._call("list", prefix, lambda: next(stream, None))) is not None:
                yield page

        found = (self._info(meta) for page in pages() for meta in page if meta["path"] > floor)
        if self._ordered():
            yield from found
        else:
            yield from sorted(found, key=lambda info: info.path)

    def leftovers(self, prefix: str = "") -> Iterator[ObjectInfo]:
        # Uploads that were not completed are invisible here; a lifecycle rule of the bucket removes them.
        yield from ()

    # --- writing

    def put(self, path: str, data: bytes) -> None:
        key = self._key(path)
        self._call("write", path, lambda: obstore.put(self._native(), key, data, mode="overwrite"))

    def put_new(self, path: str, data: bytes) -> None:
        key = self._key(path)
        self._call("write", path, lambda: obstore.put(self._native(), key, data, mode="create"))

    @contextlib.contextmanager
    def staged(self, path: str) -> Iterator[Path]:
        key = self._key(path)
        with tempfile.TemporaryDirectory(prefix="vectorlake-staged-") as folder:
            local = Path(folder) / key.rpartition("/")[2][-100:]
            try:
                yield local
                size = local.stat().st_size
            except Exception as error:
                missing = isinstance(error, FileNotFoundError) and not local.exists()
                if disk_full(error) is None and not missing:
                    raise
                reason = "nothing was written to it" if missing else f"the disk is full ({disk_full(error)})"
                raise StorageError(
                    f"could not write {self._at(path)} by way of {local}: {reason}; "
                    "free space there, or set TMPDIR to a larger disk, then retry"
                ) from error
            part = max(_PART_BYTES, -(-size // _MOST_PARTS))
            upload = functools.partial(obstore.put, chunk_size=part, max_concurrency=_PARTS_AT_ONCE)
            self._call("write", path, lambda: upload(self._native(), key, local))

    def sync_folders(self, paths: Iterable[str]) -> None:
        # An object store has acknowledged what it holds.
        for path in paths:
            check_path(path)

    def delete(self, paths: Iterable[str]) -> None:
        keys = [self._key(path) for path in paths]
        if not keys:
            return

        def remove() -> None:
            try:
                obstore.delete(self._native(), keys)
            except FileNotFoundError:
                if self._bucket_missing():
                    raise
                for key in keys:
                    with contextlib.suppress(FileNotFoundError):
                        obstore.delete(self._native(), key)

        self._call("delete", "", remove)

    # --- inside

    def _key(self, path: str) -> str:
        return join(self._prefix, check_path(path))

    def _native(self) -> Any:
        client = self._client
        if _runtime.pid is None:
            _runtime.pid = os.getpid()
        elif client.kind is not Kind.MEMORY and _runtime.pid != os.getpid():
            raise UnsupportedError(
                f"{self.uri} cannot be reached from a process forked after a store was used, for its network "
                "threads do not follow: start processes with the 'spawn' method"
            )
        return client.native

    def _ordered(self) -> bool:
        # Some servers that speak S3 walk their folders, which orders "a/x" before "a b".
        options = self._client.options
        if self._client.kind is not Kind.S3:
            return self._client.kind is not Kind.AZURE
        custom = any("endpoint" in name.lower() or "express" in name.lower() for name in options)
        return not custom and not any(name.startswith("AWS_ENDPOINT") for name in os.environ)

    def _info(self, meta: Any) -> ObjectInfo:
        path = meta["path"]
        if self._prefix:
            path = path[len(self._prefix) + 1 :]
        return ObjectInfo(path, meta["size"], meta.get("e_tag"), meta["last_modified"])

    def _call(self, verb: str, path: str, action: Callable[[], T]) -> T:
        try:
            result = action()
        except ObstoreAlreadyExistsError as error:
            raise AlreadyExistsError(
                f"{self._at(path)} exists already: read it, or write to another path"
            ) from error
        except FileNotFoundError as error:
            if verb in ("read", "look at") and not self._bucket_missing():
                raise NotFoundError(
                    f"no object at {self._at(path)}: check the path, or whether it was removed"
                ) from error
            raise self._failed(verb, path, error) from error
        except (BaseError, OSError, ValueError) as error:
            raise self._failed(verb, path, error) from error
        self._client.bucket_seen = True
        return result

    def _at(self, path: str) -> str:
        return join(self.uri, path)

    def _bucket_missing(self) -> bool:
        """Whether a "not found" means the bucket. Asks once, and never again once the bucket has answered."""
        if self._client.bucket_seen or self._client.kind is Kind.MEMORY:
            return False
        try:
            next(obstore.list(self._native(), "vectorlake-probe", chunk_size=1), None)
        except (BaseError, OSError) as error:
            if _status(error) == 404:
                return True
        self._client.bucket_seen = True
        return False

    def _failed(self, verb: str, path: str, error: Exception) -> StorageError:
        text = str(error).partition("\nDebug source")[0]
        code = match[1] if (match := re.search(r"<Code>(\w+)</Code>", text)) else ""
        kind, root, status = self._client.kind.value, self._client.root, _status(error)
        if status in (401, 403) or type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError"):
            reason = f"{kind} refused the key{f' ({code})' if code else ''}"
            hint = (
                "check key, secret, token and region in storage_options or the environment, and their rights"
            )
        elif isinstance(error, FileNotFoundError) or status == 404:
            reason, hint = (
                f"there is no bucket {root}",
                "create it first, or correct its name, endpoint or region",
            )
        elif any(part in text for part in _CREDENTIAL_SERVICES):
            reason = f"no credentials for {kind} were found"
            hint = "pass them in storage_options or the environment, or skip_signature='true' for public data"
        elif "builder error" in text:
            reason, hint = (
                f"the endpoint cannot be used ({_first_line(text)})",
                ("an http:// endpoint needs the option allow_http='true', others https://host:port"),
            )
        elif "error sending request" in text or "onnect" in text or "timed out" in text or "dns" in text:
            reason = f"{kind} did not answer ({_first_line(text)})"
            hint = (
                "check the endpoint and the network, and allow_http='true' for an http:// endpoint; "
                "timeouts are the options connect_timeout, read_timeout and client_retry_timeout"
            )
        else:
            reason, hint = _first_line(text), "if it looks passing, retry"
        return StorageError(f"could not {verb} {self._at(path)}: {reason}; {hint}")


def _reopen(uri: str, options: Mapping[str, str]) -> RemoteStore:
    from vectorlake.store.open import open_store

    store = open_store(uri, options)
    assert isinstance(store, RemoteStore)
    return store


def _status(error: BaseException) -> int | None:
    match = re.search(r"status code: (\d{3})", str(error))
    return int(match[1]) if match else None


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:500]


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The `(start, length)` requests that cover `ranges`, ascending, each range inside one of them.

    Joins ranges that overlap, and neighbours at most `_GAP_BYTES` apart while the request stays below
    `_BLOCK_BYTES`.
    """
    blocks: list[tuple[int, int]] = []
    for start, length in sorted(ranges):
        if length <= 0:
            continue
        if blocks:
            first, end = blocks[-1][0], sum(blocks[-1])
            near = start - end <= _GAP_BYTES and start + length - first <= _BLOCK_BYTES
            if start < end or near:
                blocks[-1] = (first, max(end, start + length) - first)
                continue
        blocks.append((start, length))
    return blocks


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_REQUESTS_AT_ONCE, thread_name_prefix="vectorlake-store")


# Asked for a key when none was given: on a machine outside of a cloud nobody answers there.
_CREDENTIAL_SERVICES = (
    "169.254.169.254",
    "/latest/api/token",
    "/latest/meta-data",
    "metadata.google",
    "/metadata/identity",
    "CredentialProvider",
)

_ABOVE_SLASH = re.compile(r"[0-9A-Za-z_]*")


def _offset(folder: str, floor: str) -> str | None:
    """An offset below `floor` for stores that order whole keys and for those that order folder by folder.

    The two orders differ only where a name goes on with a character below `/`, so the offset is cut before
    one. It is then lowered a little, for a server that walks folders leaves out the whole folder that the
    offset names. The caller drops what is at or below `floor`.
    """
    if not floor.startswith(folder + "/" if folder else ""):
        # Below or above the whole folder: the caller's comparison decides.
        return None
    match = _ABOVE_SLASH.match(floor, len(folder) + 1 if folder else 0)
    name = match[0] if match else ""
    if not name:
        return None
    last = chr(ord(name[-1]) - 1)
    return join(folder, f"{name[:-1]}{'.' if last == '/' else last}~")
