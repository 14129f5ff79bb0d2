"""One door to every store: from a URI or a path to a `Store`, with clients shared per bucket."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Mapping

from obstore.store import MemoryStore

from vectorlake.errors import InvalidInputError, NotFoundError
from vectorlake.store.local import LocalStore
from vectorlake.store.location import Kind, Location, parse_location
from vectorlake.store.options import check_options, environment_of, options_for, remote_client
from vectorlake.store.protocol import Store
from vectorlake.store.remote import Client, RemoteStore

_lock = threading.Lock()
_clients: dict[object, Client] = {}
_named_memories: dict[str, Client] = {}
_nameless_memories: weakref.WeakValueDictionary[str, Client] = weakref.WeakValueDictionary()
_counter = itertools.count(1)
_roots: dict[object, Store] = {}


def open_store(
    uri_or_path: str | os.PathLike[str], storage_options: Mapping[str, str] | None = None
) -> Store:
    """A store rooted at a folder or URI; nothing is read or created yet.

    `uri_or_path`: a local folder (`lake/`, a `Path`, `file:///…`), `s3://bucket/folder` (also `s3a`, `s3n`),
    `gs://…`, `az://container/folder`, `abfss://container@account…`, `memory://name` (shared inside the
    process for as long as it lives) or `memory://` (a new one each time, named `memory://~1` and so on, gone
    with its last user). `storage_options`: names as object_store and Lance have them (`aws_access_key_id`,
    `region`, `endpoint`, `allow_http`, …), plus `client_max_retries` and `client_retry_timeout` (seconds). A
    local or memory store keeps options for files that lie elsewhere.

    Raises `InvalidInputError` on an unknown option or a malformed URI, `UnsupportedError` on an unknown
    scheme.
    """
    return _open(parse_location(uri_or_path), dict(storage_options or {}))


def resolve(uri_or_path: str, storage_options: Mapping[str, str] | None = None) -> tuple[Store, str]:
    """Store and path of one foreign file, given its absolute URI or local path.

    Files of one bucket, and all local files, share one store. Options that belong to another kind of store
    are left out, so a lake may hand over what it has. Raises as `open_store` does.
    """
    location = parse_location(uri_or_path)
    if not location.path:
        raise InvalidInputError(f"{uri_or_path} names a whole store, not a file in it: add the file's path")
    given = tuple(sorted((storage_options or {}).items()))
    key = (location.root, location.account, given, environment_of(location.kind))
    with _lock:
        store = _roots.get(key)
    if store is None:
        root = Location(location.kind, location.root, location.name, "", location.account)
        store = _open(root, options_for(location.kind, dict(given)))
        if location.kind is not Kind.MEMORY:
            with _lock:
                store = _roots.setdefault(key, store)
    return store, location.path


def _open(location: Location, options: dict[str, str]) -> Store:
    if location.kind is Kind.LOCAL:
        check_options(location.kind, options)
        return LocalStore("/" + location.path if os.name != "nt" else location.path, storage_options=options)
    if location.kind is Kind.MEMORY:
        check_options(location.kind, options)
        return RemoteStore(_memory(location, options), location.path)
    key = (location.root, location.account, tuple(sorted(options.items())), environment_of(location.kind))
    with _lock:
        client = _clients.get(key)
    if client is None:
        native = remote_client(location.kind, location.name, options, account=location.account)
        client = Client(location.kind, location.root, native, options)
        with _lock:
            _clients[key] = client
    return RemoteStore(client, location.path)


def _memory(location: Location, options: Mapping[str, str]) -> Client:
    name = location.name
    with _lock:
        if not name:
            name = f"~{next(_counter)}"
            client = Client(Kind.MEMORY, f"memory://{name}", MemoryStore(), options)
            _nameless_memories[name] = client
            return client
        if name.startswith("~"):
            found = _nameless_memories.get(name)
            if found is None:
                raise NotFoundError(
                    f"memory://{name} is gone with its last user: name a memory that should stay"
                )
            return found
        if name not in _named_memories:
            _named_memories[name] = Client(Kind.MEMORY, f"memory://{name}", MemoryStore(), options)
        return _named_memories[name]
