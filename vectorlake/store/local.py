"""Objects as files on local disk, made durable: what a name shows was fsynced before the name appeared."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path

from vectorlake.errors import AlreadyExistsError, NotFoundError, StorageError
from vectorlake.store.location import check_path
from vectorlake.store.protocol import ObjectInfo

TEMPORARY_PREFIX = ".tmp-"
"""Files whose names begin so are being written, or were when their writer died; `list` leaves them out."""

# Linux caps one read at 0x7ffff000 bytes; staying below keeps a short read meaning the end of the file.
_LARGEST_READ = 1 << 30


class LocalStore:
    """A folder of the local file system as a `Store`.

    Durability: `put` and `put_new` return after the file, its folder and every folder that had to be created
    are fsynced. `staged` fsyncs the file and renames it; its name is durable after `sync_folders`. A process
    that is killed leaves at most a file that `leftovers` lists. Atomicity of `put_new` is that of `link(2)`.
    """

    def __init__(self, root: str | Path, *, storage_options: Mapping[str, str] | None = None) -> None:
        self._root = os.path.abspath(root)
        self._options = dict(storage_options or {})
        self._durable: set[str] = set()

    def __repr__(self) -> str:
        return f"LocalStore({self._root!r})"

    def __getstate__(self) -> dict[str, object]:
        return {"_root": self._root, "_options": self._options, "_durable": set()}

    @property
    def uri(self) -> str:
        return "file://" + self._root.replace(os.sep, "/").rstrip("/")

    @property
    def storage_options(self) -> dict[str, str]:
        return dict(self._options)

    def child(self, path: str) -> LocalStore:
        store = LocalStore(self._file(path), storage_options=self._options)
        store._durable = self._durable
        return store

    def local_path(self, path: str) -> Path | None:
        return Path(self._file(path) if path else self._root)

    # --- reading

    def get(self, path: str) -> bytes:
        try:
            with open(self._file(path), "rb", buffering=0) as file:
                return file.readall()
        except OSError as error:
            raise self._failed("read", path, error) from error

    def get_range(self, path: str, start: int, length: int) -> bytes:
        return self.get_ranges(path, [(start, length)])[0]

    def get_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        try:
            descriptor = os.open(self._file(path), os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                return [_read_at(descriptor, start, length) for start, length in ranges]
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._failed("read", path, error) from error

    def head(self, path: str) -> ObjectInfo:
        try:
            status = os.stat(self._file(path))
        except OSError as error:
            raise self._failed("look at", path, error) from error
        if not stat.S_ISREG(status.st_mode):
            raise self._missing(path)
        return _info(path, status)

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        for path, status in self._walk(prefix, start_after or ""):
            if not _is_temporary(path):
                yield _info(path, status)

    def leftovers(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for path, status in self._walk(prefix, ""):
            if _is_temporary(path):
                yield _info(path, status)

    def _walk(self, folder: str, start_after: str) -> Iterator[tuple[str, os.stat_result]]:
        # A folder sorts as its name plus "/", which makes depth-first order the lexicographic order of whole
        # paths.
        def wanted(path: str) -> bool:
            return path > start_after or start_after.startswith(path)

        below = f"{folder}/" if folder else ""
        try:
            with os.scandir(self._file(folder) if folder else self._root) as entries:
                named = ((entry.name + "/" if entry.is_dir() else entry.name, entry) for entry in entries)
                found = sorted(((n, e) for n, e in named if wanted(below + n)), key=itemgetter(0))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise self._failed("list", folder, error) from error
        for name, entry in found:
            path = below + name
            if name.endswith("/"):
                yield from self._walk(path[:-1], start_after)
            elif path > start_after:
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield path, status

    # --- writing

    def put(self, path: str, data: bytes) -> None:
        with self._written(path, data) as temporary:
            os.replace(temporary, self._file(path))

    def put_new(self, path: str, data: bytes) -> None:
        with self._written(path, data) as temporary:
            os.link(temporary, self._file(path))

    @contextlib.contextmanager
    def _written(self, path: str, data: bytes) -> Iterator[str]:
        """A durable temporary file with `data`; the body gives it its name, which is durable on exit."""
        target = self._file(path)
        temporary = ""
        try:
            temporary = self._temporary(target)
            with open(temporary, "xb", buffering=0) as file:
                view = memoryview(data).cast("B")
                while view:
                    view = view[file.write(view) :]
                os.fsync(file.fileno())
            yield temporary
            # A link leaves the temporary name, a rename does not.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            _sync_folder(os.path.dirname(target))
        except OSError as error:
            raise self._failed("write", path, error, size=len(data)) from error
        finally:
            if temporary:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)

    @contextlib.contextmanager
    def staged(self, path: str) -> Iterator[Path]:
        target = self._file(path)
        try:
            # A folder of its own, because some writers make temporary files of theirs beside the one they write.
            folder = self._temporary(target)
            os.mkdir(folder)
        except OSError as error:
            raise self._failed("write", path, error) from error
        temporary = os.path.join(folder, os.path.basename(target))
        try:
            try:
                yield Path(temporary)
            except Exception as error:
                own = isinstance(error, OSError) and error.filename in (temporary, Path(temporary))
                known = disk_full(error) or (error if own else None)
                if known is None:
                    raise
                raise self._failed("write", path, known, size=_size(temporary)) from error
            try:
                _sync_file(temporary)
                os.replace(temporary, target)
            except OSError as error:
                raise self._failed("write", path, error, size=_size(temporary)) from error
        finally:
            _discard(folder)

    def sync_folders(self, paths: Iterable[str]) -> None:
        for folder in sorted({os.path.dirname(self._file(path)) for path in paths}):
            try:
                _sync_folder(folder)
            except OSError as error:
                raise StorageError(
                    f"could not make the file names in {folder} durable: "
                    f"{error.strerror}; check the disk and retry"
                ) from error

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            try:
                os.unlink(self._file(path))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise self._failed("delete", path, error) from error
            if _is_temporary(path.rpartition("/")[0]):
                with contextlib.suppress(OSError):  # other leftovers are still in the folder
                    os.rmdir(os.path.dirname(self._file(path)))

    # --- inside

    def _file(self, path: str) -> str:
        return os.path.join(self._root, check_path(path))

    def _temporary(self, target: str) -> str:
        folder, name = os.path.split(target)
        if folder not in self._durable or not os.path.isdir(folder):
            _make_folder(folder, self._root)
            self._durable.add(folder)
        # Asked here, so that a writer of another language need not be understood when it fails.
        if not os.access(folder, os.W_OK):
            read_only = os.name != "nt" and os.statvfs(folder).f_flag & os.ST_RDONLY
            code = errno.EROFS if read_only else errno.EACCES
            raise OSError(code, os.strerror(code), folder)
        # The name's end stays, so that a writer which looks at extensions sees the right one.
        return os.path.join(folder, f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{name[-60:]}")

    def _missing(self, path: str) -> NotFoundError:
        return NotFoundError(f"no object at {self.uri}/{path}: check the path, or whether it was removed")

    def _failed(self, verb: str, path: str, error: BaseException, *, size: int | None = None) -> Exception:
        where = f"{self.uri}/{path}" if path else self.uri
        code = error.errno if isinstance(error, OSError) else None
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if code in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR) and verb in ("read", "look at"):
            return self._missing(path)
        if code == errno.EEXIST:
            return AlreadyExistsError(f"{where} exists already: read it, or write to another path")
        hint = "look at the file system's health, then retry"
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = _free_bytes(self._root)
            wanted = "" if size is None else f" after or while writing {size:,} bytes"
            left = "" if free is None else f", {free:,} bytes are free"
            reason = f"the disk is full{wanted}{left} ({reason})"
            hint = "free space or raise the quota, then retry; nothing of the file was kept"
        elif code == errno.EROFS:
            hint = "the file system is mounted read-only: mount it writable, or choose another folder"
        elif code in (errno.EACCES, errno.EPERM):
            hint = f"give this user the right to {verb} there, or choose another folder"
            if verb == "write":
                hint += " (put-if-absent also needs a file system with hard links)"
        elif code in (errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK):
            hint = "put-if-absent needs a file system with hard links: choose another one"
        elif code in (errno.ENOTDIR, errno.EISDIR):
            hint = "a file stands where a folder is needed, or the reverse: choose another path"
        elif code == errno.ENAMETOOLONG:
            hint = "choose a shorter name"
        return StorageError(f"could not {verb} {where}: {reason}; {hint}")


def _discard(folder: str) -> None:
    """Remove a temporary folder. Its files are emptied first, which frees their space even while a writer that failed
    still holds them open (some do until they are garbage-collected)."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                os.truncate(entry.path, 0)
    shutil.rmtree(folder, ignore_errors=True)


def _is_temporary(path: str) -> bool:
    return any(part.startswith(TEMPORARY_PREFIX) for part in path.split("/"))


def _info(path: str, status: os.stat_result) -> ObjectInfo:
    # Inode, time and size: what changes when a file is replaced or rewritten.
    tag = f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
    return ObjectInfo(path, status.st_size, tag, datetime.fromtimestamp(status.st_mtime, UTC))


def _read_at(descriptor: int, start: int, length: int) -> bytes:
    parts: list[bytes] = []
    while length > 0:
        part = os.pread(descriptor, min(length, _LARGEST_READ), start)
        if not part:
            break
        parts.append(part)
        start, length = start + len(part), length - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _sync_file(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: str) -> None:
    if os.name == "nt":  # pragma: no cover - Windows cannot open folders, and journals names itself
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and overlay file systems have no fsync of folders, and nothing better to offer.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _make_folder(folder: str, root: str) -> None:
    """Create `folder` durably: every created folder's parent is fsynced, and those inside `root` even if they
    were there, because the process that created them a moment ago may not have come to it yet."""
    to_sync: list[str] = []
    current = folder
    while True:
        exists = os.path.isdir(current)
        inside = len(current) > len(root)
        if exists and not inside:
            break
        parent = os.path.dirname(current)
        if parent == current:
            break
        to_sync.append(parent)
        current = parent
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder) from error
    for parent in reversed(to_sync):
        _sync_folder(parent)


def disk_full(error: BaseException) -> OSError | None:
    """The disk-full error inside an exception of a file writer, which may have been turned into text on its
    way."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return error
    text = str(error)
    for code, words in (
        (errno.ENOSPC, ("No space left on device", "os error 28", "StorageFull")),
        (errno.EDQUOT, ("Disk quota exceeded",)),
        (errno.EFBIG, ("File too large",)),
    ):
        if any(word in text for word in words):
            return OSError(code, os.strerror(code))
    return None


def _size(path: str) -> int | None:
    try:
        return os.path.getsize(path)
    except OSError:
        return None


def _free_bytes(folder: str) -> int | None:
    import shutil

    while not os.path.isdir(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
