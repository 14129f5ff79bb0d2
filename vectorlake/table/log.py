"""A table's metadata in its store: snapshots by number, manifests, tags. Reads check, writes are put-if-absent."""

from __future__ import annotations

import re
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Final

from vectorlake.errors import (
    AlreadyExistsError,
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from vectorlake.ids import NewId
from vectorlake.metadata import codec
from vectorlake.metadata.manifest import Manifest, decode_manifest
from vectorlake.metadata.snapshot import ManifestRef, Snapshot, Tag, decode_snapshot, encode_snapshot
from vectorlake.schema import did_you_mean, listing
from vectorlake.store.protocol import Store

FOLDER: Final = "metadata"
LATEST: Final = f"{FOLDER}/latest"
TAGS: Final = f"{FOLDER}/refs/tags"
_SNAPSHOT: Final = re.compile(r"metadata/v(\d{20})\.json")
_TAG_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PROBES: Final = 16
"""How many versions past the hint are probed one by one before the folder is listed."""
_CACHED_BYTES: Final = 256 * 1024 * 1024


def snapshot_path(version: int) -> str:
    return f"{FOLDER}/v{version:020d}.json"


class TableLog:
    """The metadata of the table whose folder is the root of `store`. Safe to share between threads."""

    def __init__(self, store: Store, *, new_id: NewId) -> None:
        self.store = store
        self._new_id = new_id
        self._manifests: OrderedDict[str, Manifest] = OrderedDict()
        self._lock = Lock()

    # --- snapshots ---

    def exists(self) -> bool:
        """Whether there is a table here."""
        return self._hinted() is not None or next(iter(self.versions()), None) is not None

    def latest(self, *, after: Snapshot | None = None) -> Snapshot:
        """The newest snapshot; `after`, if given, is one known to exist, from which the search starts.

        Raises:
            NotFoundError: there is no table here.
        """
        current = after or self._hinted()
        if current is not None:
            for _ in range(_PROBES):
                following = self.find(current.version + 1)
                if following is None:
                    return current
                current = following
        versions = self.versions(after=current.version if current else 0)
        if versions:
            return self.load(versions[-1])
        if current is not None:
            return current
        raise NotFoundError(f"there is no table at {self.store.uri}: no snapshot under {FOLDER}/")

    def _hinted(self) -> Snapshot | None:
        """The snapshot that the hint names, if it is there: the hint itself is never trusted."""
        try:
            hint = self.store.get(LATEST).strip()
        except NotFoundError:
            return None
        return self.find(int(hint)) if hint.isdigit() else None

    def find(self, version: int) -> Snapshot | None:
        """One snapshot, or None if that version does not exist."""
        path = snapshot_path(version)
        try:
            data = self.store.get(path)
        except NotFoundError:
            return None
        snapshot = decode_snapshot(data, f"{self.store.uri}/{path}")
        if snapshot.version != version:
            raise CorruptDataError(f"{self.store.uri}/{path} says that it is version {snapshot.version}")
        return snapshot

    def load(self, version: int) -> Snapshot:
        """One snapshot; `NotFoundError` names the versions that exist."""
        snapshot = self.find(version) if version > 0 else None
        if snapshot is None:
            known = self.versions()
            span = f"it has versions {known[0]} to {known[-1]}" if known else "it has none"
            raise NotFoundError(f"the table at {self.store.uri} has no version {version}; {span}")
        return snapshot

    def versions(self, *, after: int = 0) -> list[int]:
        """The numbers of all snapshots, ascending."""
        listed = self.store.list(FOLDER, start_after=snapshot_path(after) if after else None)
        return sorted(int(match[1]) for info in listed if (match := _SNAPSHOT.fullmatch(info.path)))

    def all(self) -> list[Snapshot]:
        """All snapshots, ascending."""
        with ThreadPoolExecutor(8) as pool:
            return [snapshot for snapshot in pool.map(self.find, self.versions()) if snapshot is not None]

    def find_commit(self, commit_id: str) -> Snapshot | None:
        """The snapshot that a commit made, looked for from the newest one back; None if there is none."""
        for version in reversed(self.versions()):
            snapshot = self.find(version)
            if snapshot is not None and snapshot.commit_id == commit_id:
                return snapshot
        return None

    def at_time(self, timestamp_ms: int) -> Snapshot:
        """The newest snapshot that was committed at or before a time. Commit times ascend, so this is a binary search."""
        versions = self.versions()
        low, high, found = 0, len(versions) - 1, None
        while low <= high:
            middle = (low + high) // 2
            snapshot = self.load(versions[middle])
            if snapshot.timestamp_ms <= timestamp_ms:
                found, low = snapshot, middle + 1
            else:
                high = middle - 1
        if found is None:
            raise NotFoundError(
                f"the table at {self.store.uri} has no version from that time or before: it is younger"
            )
        return found

    def put_snapshot(self, snapshot: Snapshot) -> None:
        """Commit: put-if-absent of the snapshot's file. `AlreadyExistsError` if that version is taken."""
        self.store.put_new(snapshot_path(snapshot.version), encode_snapshot(snapshot))

    def hint(self, version: int) -> None:
        """Leave a hint at the newest version; losing it costs time only."""
        try:
            self.store.put(LATEST, str(version).encode())
        except StorageError:
            return

    # --- manifests ---

    def manifest(self, ref: ManifestRef) -> Manifest:
        """A manifest, checked against its checksum; recent ones are kept in memory."""
        with self._lock:
            if ref.path in self._manifests:
                self._manifests.move_to_end(ref.path)
                return self._manifests[ref.path]
        manifest = self.read_manifest(ref)
        self._keep(ref.path, manifest)
        return manifest

    def read_manifest(self, ref: ManifestRef) -> Manifest:
        """A manifest from the store, whatever is in memory; checked against its checksum.

        Raises:
            CorruptDataError: it is missing or damaged; names it.
        """
        where = f"{self.store.uri}/{ref.path}"
        try:
            data = self.store.get(ref.path)
        except NotFoundError as e:
            raise CorruptDataError(
                f"{where} is missing, though a snapshot names it; restore it or open another version"
            ) from e
        return decode_manifest(data, ref, where)

    def _keep(self, path: str, manifest: Manifest) -> None:
        with self._lock:
            self._manifests[path] = manifest
            while (
                len(self._manifests) > 1
                and sum(m.table.nbytes for m in self._manifests.values()) > _CACHED_BYTES
            ):
                self._manifests.popitem(last=False)

    def put_manifest(self, manifest: Manifest) -> ManifestRef:
        """Write a manifest under a new name."""
        path = f"{FOLDER}/m-{self._new_id()}.arrow"
        data = manifest.encode()
        self.store.put(
            path, data
        )  # not put-if-absent: the name is ours alone, and a retried put finds its own file
        self._keep(path, manifest)
        return manifest.ref(path, data)

    # --- tags ---

    def tags(self) -> list[Tag]:
        """All tags, by name."""
        return [
            codec.decode(Tag, self.store.get(info.path), f"{self.store.uri}/{info.path}")
            for info in self.store.list(TAGS)
        ]

    def tag(self, name: str) -> Tag:
        """One tag; `NotFoundError` with close names."""
        path = f"{TAGS}/{check_tag_name(name)}.json"
        try:
            return codec.decode(Tag, self.store.get(path), f"{self.store.uri}/{path}")
        except NotFoundError as e:
            known = [tag.name for tag in self.tags()]
            raise NotFoundError(
                f"no tag {name!r}{did_you_mean(name, known)}; the tags are {listing(known)}"
            ) from e

    def put_tag(self, tag: Tag) -> None:
        """Create a tag; `AlreadyExistsError` if the name is taken."""
        try:
            self.store.put_new(f"{TAGS}/{check_tag_name(tag.name)}.json", codec.encode(tag))
        except AlreadyExistsError as e:
            if self.tag(tag.name) == tag:  # our own write, of which the first reply was lost
                return
            raise AlreadyExistsError(
                f"tag {tag.name!r} exists already: delete it first, or choose another name"
            ) from e

    def delete_tag(self, name: str) -> None:
        """Remove a tag; the version it named stays until it expires."""
        self.tag(name)
        self.store.delete([f"{TAGS}/{name}.json"])


def check_tag_name(name: str) -> str:
    """The name, if it can be a tag's: letters, digits, `.`, `_`, `-`; not a number, which would read as a version."""
    if not _TAG_NAME.fullmatch(name) or name.isdigit():
        raise InvalidInputError(
            f"{name!r} can't be a tag: use letters, digits, '.', '_' and '-', beginning with a letter or digit, "
            "and not digits only"
        )
    return name
