"""Local copies of remote objects for readers that need a file: bounded, the least recently used go first."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vectorlake.errors import CorruptDataError, InvalidInputError, StorageError
from vectorlake.store.protocol import Store

CAPACITY_VARIABLE = "VECTORLAKE_CACHE_BYTES"
_DEFAULT_CAPACITY = 2 << 30
# What is held in memory, and what one connection fetches of it.
_CHUNK_BYTES = 64 << 20
_PART_BYTES = 8 << 20
_FOLDER_PREFIX = "vectorlake-spool-"


@dataclass
class _Copy:
    path: Path
    size: int
    users: int = 0
    ready: threading.Lock = field(default_factory=threading.Lock)
    complete: bool = False


class Spool:
    """A folder of whole-file copies, at most `capacity` bytes beyond those in use. Safe for threads.

    A copy that is in use is never removed; one larger than the capacity is removed when its last user leaves.
    """

    def __init__(self, folder: Path, capacity: int) -> None:
        self._folder = folder
        self._capacity = capacity
        self._copies: OrderedDict[tuple[str, int, str | None], _Copy] = OrderedDict()
        self._left: deque[tuple[tuple[str, int, str | None], _Copy]] = deque()
        self._lock = threading.Lock()
        self._next = 0

    @contextlib.contextmanager
    def copy(self, store: Store, path: str, size: int, *, e_tag: str | None = None) -> Iterator[Path]:
        """The object's bytes as a local file for the time of the `with` block. See `local_copy`."""
        uri = f"{store.uri}/{path}"
        key = (uri, size, e_tag)
        with self._lock:
            copy = self._copies.get(key)
            if copy is None:
                # The name's end stays, for readers that look at extensions.
                name = f"{self._next}-{path.rpartition('/')[2][-80:]}"
                self._next += 1
                copy = self._copies[key] = _Copy(self._folder / name, size)
            self._copies.move_to_end(key)
            copy.users += 1
        self._settle()
        try:
            with copy.ready:
                if not copy.complete:
                    _fetch(store, path, size, copy.path)
                    copy.complete = True
            yield copy.path
        finally:
            self._left.append((key, copy))
            self._settle()

    def _settle(self) -> None:
        """Take note of the users that have left, and evict.

        Never waits for the lock: the garbage collector may end a reader, and with it the use of its copy, in the middle of
        anything, also while this very thread holds the lock. Who holds it settles when it is free again.
        """
        while self._left and self._lock.acquire(blocking=False):
            try:
                while self._left:
                    key, copy = self._left.popleft()
                    copy.users -= 1
                    if not copy.complete and copy.users == 0 and self._copies.get(key) is copy:
                        del self._copies[key]
                self._evict()
            finally:
                self._lock.release()

    def _evict(self) -> None:
        held = sum(copy.size for copy in self._copies.values() if copy.complete)
        for key, copy in list(self._copies.items()):
            if held <= self._capacity:
                break
            if copy.users == 0 and copy.complete:
                del self._copies[key]
                held -= copy.size
                copy.path.unlink(missing_ok=True)

    @property
    def held_bytes(self) -> int:
        """Bytes of the complete copies held now."""
        self._settle()
        with self._lock:
            held = sum(copy.size for copy in self._copies.values() if copy.complete)
        self._settle()
        return held


@contextlib.contextmanager
def local_copy(store: Store, path: str, size: int, *, e_tag: str | None = None) -> Iterator[Path]:
    """A local file with the object's bytes, for readers that cannot read the store themselves.

    `size` is the length in bytes that the caller was promised; `e_tag`, if given, tells apart versions of an
    object that may be replaced (one of ours never is). A local store's file is given as it is. Otherwise the
    object is fetched once and kept among at most `VECTORLAKE_CACHE_BYTES` bytes (2 GiB unless set) of copies
    in a temporary folder, which is removed at exit. The file must only be read, and only within the `with`
    block.

    Raises `CorruptDataError` when the object's length is not `size`, `NotFoundError`, `StorageError`.
    """
    local = store.local_path(path)
    if local is not None:
        yield local
        return
    with _process_spool().copy(store, path, size, e_tag=e_tag) as copy:
        yield copy


def _fetch(store: Store, path: str, size: int, target: Path) -> None:
    try:
        with open(target, "wb") as file:
            for start in range(0, size, _CHUNK_BYTES):
                end = min(start + _CHUNK_BYTES, size)
                ranges = [(first, min(_PART_BYTES, end - first)) for first in range(start, end, _PART_BYTES)]
                file.writelines(store.get_ranges(path, ranges))
            found = file.tell()
            if found == size:
                found = store.head(path).size
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StorageError(
                f"could not keep a local copy of {store.uri}/{path} ({size:,} bytes) in {target.parent}: "
                f"{error.strerror or error}; free space there, or set TMPDIR to a larger disk"
            ) from error
        raise
    if found != size:
        target.unlink(missing_ok=True)
        raise CorruptDataError(
            f"{store.uri}/{path} has {found:,} bytes where {size:,} were registered: it was replaced or cut; "
            "restore it, or sync from the source"
        )


_lock = threading.Lock()
_spools: dict[int, Spool] = {}


def _process_spool() -> Spool:
    pid = os.getpid()
    with _lock:
        if pid not in _spools:
            text = os.environ.get(CAPACITY_VARIABLE, str(_DEFAULT_CAPACITY))
            if not text.isdecimal():
                raise InvalidInputError(f"{CAPACITY_VARIABLE}={text!r} must be a whole number of bytes")
            _remove_abandoned()
            folder = _held_folder()
            atexit.register(_remove_own, folder, pid)
            _spools[pid] = Spool(folder, int(text))
        return _spools[pid]


def _remove_own(folder: Path, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


# A lock that the process holds as long as it lives marks its folder; one without is of a process that was
# killed.
_LOCK_NAME = "lock"
_held: list[int] = []


def _held_folder() -> Path:
    if os.name == "nt":  # pragma: no cover
        return Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))
    import fcntl

    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER_PREFIX}{os.getuid()}-"))
        descriptor = os.open(folder / _LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Another process may have taken the folder for abandoned before the lock was held.
        if (folder / _LOCK_NAME).exists():
            _held.append(descriptor)
            return folder
        os.close(descriptor)


def _remove_abandoned() -> None:
    if os.name == "nt":  # pragma: no cover
        return
    import fcntl

    for lock in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}{os.getuid()}-*/{_LOCK_NAME}"):
        try:
            descriptor = os.open(lock, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            shutil.rmtree(lock.parent, ignore_errors=True)
        finally:
            os.close(descriptor)
