"""A table's metadata in its store: snapshots by number, manifests, tags, branches. Reads check, writes are put-if-absent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from vectorlake.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from vectorlake.ids import NewId
from vectorlake.metadata import codec
from vectorlake.metadata.manifest import Manifest, decode_manifest
from vectorlake.metadata.snapshot import Branch, ManifestRef, Snapshot, Tag, encode_snapshot
from vectorlake.metadata.tombstone import Tombstone, decode_version
from vectorlake.schema import Schema, did_you_mean, listing, type_to_arrow
from vectorlake.store.protocol import ObjectInfo, Store
from vectorlake.table.manifest_cache import ManifestCache

FOLDER: Final = "metadata"
LATEST: Final = f"{FOLDER}/latest"
TAGS: Final = f"{FOLDER}/refs/tags"
BRANCHES: Final = f"{FOLDER}/refs/branches"
LINES: Final = f"{FOLDER}/branches"
"""Where the snapshots of branches lie, each in a folder named by its branch's id."""
_SNAPSHOT: Final = re.compile(r"v(\d{20})\.json")
_TAG_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PROBES: Final = 16
"""How many versions past the hint are probed one by one before the folder is listed."""
_CACHED_BYTES: Final = 128 * 1024 * 1024


def snapshot_path(version: int, folder: str = FOLDER) -> str:
    """Where a snapshot lies: on the main line, or in a branch's folder."""
    return f"{folder}/v{version:020d}.json"


class TableLog:
    """The metadata of the table whose folder is the root of `store`. Safe to share between threads.

    A log follows one line of versions: the main one, or with `branch` that of a branch, which has snapshots and a hint of
    its own, and of the main line's versions those up to the one at which it begins. All lines of a table share its
    manifests, data files and tags.
    """

    def __init__(self, store: Store, *, new_id: NewId, branch: Branch | None = None) -> None:
        self.store = store
        self.branch = branch
        self.folder = FOLDER if branch is None else branch_folder(branch)
        self.main = self
        """The log of the main line."""
        self._new_id = new_id
        self._manifests = ManifestCache(_CACHED_BYTES)

    # --- snapshots ---

    def exists(self) -> bool:
        """Whether there is a table here."""
        return self._hinted() is not None or next(iter(self.versions()), None) is not None

    def latest(self, *, after: Snapshot | None = None) -> Snapshot:
        """The newest snapshot; `after`, if given, is an earlier one, from which the search starts.

        Raises:
            NotFoundError: there is no table here (any more), or the branch was deleted.
            ConflictError: the table that `after` is of was dropped, and there is another one in its place.
        """
        if self.branch is not None:
            self._check_branch(self.branch)
        current, known = after or self._hinted(), after is None
        if current is not None:
            for _ in range(_PROBES):
                following = self.entry(current.version + 1)
                if isinstance(following, Snapshot):
                    current, known = self._of_same_table(following, after), True
                elif following is None and (known or self._still_there(current)):
                    return current
                else:  # versions have expired here, and numbers may be missing
                    break
        versions = self.versions(after=current.version if current else 0)
        while versions:
            newest = self.find(versions[-1])
            if newest is not None:
                return self._of_same_table(newest, after)
            versions = self.versions(
                after=versions[-1]
            )  # it expired since it was listed: there are newer ones
        if current is not None and known:
            return current
        if after is not None and (others := self.versions()):
            self._of_same_table(self.load(others[-1]), after)
        raise NotFoundError(f"there is no table at {self.store.uri}: no snapshot under {self.folder}/")

    def _still_there(self, snapshot: Snapshot) -> bool:
        """Whether a snapshot read earlier is the one under its number yet: it may have expired."""
        there = self.find(snapshot.version)
        if there is None:
            return False
        if there.commit_id != snapshot.commit_id:
            raise self._replaced(snapshot)
        return True

    def _of_same_table(self, found: Snapshot, earlier: Snapshot | None) -> Snapshot:
        if earlier is not None and found.table_id != earlier.table_id:
            raise self._replaced(earlier)
        return found

    def _replaced(self, snapshot: Snapshot) -> ConflictError:
        return ConflictError(
            f"the table at {self.store.uri} of which version {snapshot.version} was read was dropped, and another one "
            "created in its place; nothing was written: open the table again"
        )

    def _hinted(self) -> Snapshot | None:
        """The snapshot that the hint names, if it is there: the hint itself is never trusted."""
        try:
            hint = self.store.get(f"{self.folder}/latest").strip()
        except NotFoundError:
            return None
        return self.find(int(hint)) if hint.isdigit() else None

    def find(self, version: int) -> Snapshot | None:
        """One snapshot, or None if that version does not exist or has expired."""
        found = self.entry(version)
        return found if isinstance(found, Snapshot) else None

    def entry(self, version: int) -> Snapshot | Tombstone | None:
        """What lies under a version's name: its snapshot, or the tombstone of an expired one."""
        path = snapshot_path(version, self.folder)
        try:
            data = self.store.get(path)
        except NotFoundError:
            older = self.branch is not None and version <= self.branch.version
            return self.main.entry(version) if older else None
        found = decode_version(data, f"{self.store.uri}/{path}")
        if found.version != version:
            raise CorruptDataError(f"{self.store.uri}/{path} says that it is version {found.version}")
        return found

    def load(self, version: int) -> Snapshot:
        """One snapshot; `NotFoundError` names the versions that exist."""
        found = self.entry(version) if version > 0 else None
        if isinstance(found, Snapshot):
            return found
        known = self.line()
        if not known:
            raise NotFoundError(f"the table at {self.store.uri} has no version {version}; it has none")
        span = f"{self._oldest(known)} to {known[-1]}"
        if found is not None or 0 < version < known[-1]:
            raise NotFoundError(
                f"version {version} of the table at {self.store.uri} has expired; versions {span} are there, and those "
                "that tags name"
            )
        raise NotFoundError(f"the table at {self.store.uri} has no version {version}; it has versions {span}")

    def tagged(self, tag: Tag) -> Snapshot:
        """The snapshot that a tag names, also where an expiry that met the tag's creation was cut short."""
        found = self.entry(tag.version)
        if isinstance(found, Tombstone):
            return found.original(f"{self.store.uri}/{snapshot_path(tag.version, self.folder)}")
        return found or self.load(tag.version)

    def _oldest(self, known: list[int]) -> int:
        """The first of the versions from which on, tagged ones before it aside, none has expired."""
        low, high = 0, len(known) - 1
        while low < high:
            middle = (low + high) // 2
            if self.find(known[middle]) is None:
                low = middle + 1
            else:
                high = middle
        return known[low]

    def versions(self, *, after: int = 0) -> list[int]:
        """The numbers in this log's folder, expired ones too, ascending; a branch's first is that at which it begins."""
        return sorted(version for version, _ in self.version_files(after=after))

    def version_files(self, *, after: int = 0) -> Iterator[tuple[int, ObjectInfo]]:
        """The files of snapshots and tombstones in this log's folder, with their versions."""
        start = len(self.folder) + 1
        listed = self.store.list(
            self.folder, start_after=snapshot_path(after, self.folder) if after else None
        )
        for info in listed:
            if match := _SNAPSHOT.fullmatch(info.path, start):
                yield int(match[1]), info

    def line(self) -> list[int]:
        """The numbers of all versions that led to the newest one, ascending: for a branch, those of the main line too."""
        own = self.versions()
        if self.branch is None:
            return own
        first = self.branch.version
        before = [version for version in self.main.versions() if version <= first and version not in own]
        return before + own

    def all(self) -> list[Snapshot]:
        """All snapshots in this log's folder, ascending."""
        return self._load_all(self.versions())

    def history(self) -> list[Snapshot]:
        """All snapshots that led to the newest one, ascending: for a branch, those of the main line too."""
        return self._load_all(self.line())

    def _load_all(self, versions: list[int]) -> list[Snapshot]:
        with ThreadPoolExecutor(8) as pool:
            return [snapshot for snapshot in pool.map(self.find, versions) if snapshot is not None]

    def find_commit(self, commit_id: str) -> Snapshot | None:
        """The snapshot that a commit made, looked for from the newest one back; None if there is none."""
        for version in reversed(self.line()):
            found = self.entry(version)
            if found is not None and found.commit_id == commit_id:
                where = f"{self.store.uri}/{snapshot_path(version, self.folder)}"
                return found.original(where) if isinstance(found, Tombstone) else found
        return None

    def at_time(self, timestamp_ms: int) -> Snapshot:
        """The newest snapshot that was committed at or before a time. Commit times ascend, so this is a binary search."""
        versions = self.line()
        low, high = 0, len(versions) - 1
        found: Snapshot | Tombstone | None = None
        while low <= high:
            middle = (low + high) // 2
            entry = self.entry(versions[middle])
            if entry is None:  # its tombstone was removed since it was listed: begin without it
                del versions[middle]
                low, high, found = 0, len(versions) - 1, None
            elif entry.timestamp_ms <= timestamp_ms:
                found, low = entry, middle + 1
            else:
                high = middle - 1
        if isinstance(found, Snapshot):
            return found
        if found is not None:
            raise NotFoundError(
                f"the version of the table at {self.store.uri} at that time, {found.version}, has expired; history() "
                "lists those that are there"
            )
        raise NotFoundError(
            f"the table at {self.store.uri} has no version from that time or before: it is younger"
            + (", or they have expired" if versions and versions[0] > 1 else "")
        )

    def put_snapshot(self, snapshot: Snapshot) -> None:
        """Commit: put-if-absent of the snapshot's file. `AlreadyExistsError` if that version is taken."""
        self.store.put_new(snapshot_path(snapshot.version, self.folder), encode_snapshot(snapshot))

    def hint(self, version: int) -> None:
        """Leave a hint at the newest version; losing it costs time only."""
        try:
            self.store.put(f"{self.folder}/latest", str(version).encode())
        except StorageError:
            return

    # --- manifests ---

    def manifest(self, ref: ManifestRef) -> Manifest:
        """A manifest, checked against its checksum; recent ones are kept in memory."""
        manifest = self._manifests.get(ref.path)
        if manifest is None:
            manifest = self.read_manifest(ref)
            self._manifests.put(ref.path, manifest)
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
                f"{where} is missing, though a snapshot names it; refresh the table, since the version may have expired, "
                "or restore the file, or open another version"
            ) from e
        return decode_manifest(data, ref, where)

    def put_manifest(self, manifest: Manifest, schema: Schema) -> ManifestRef:
        """Write a manifest under a new name, to be referred to by snapshots of that schema."""
        path = f"{FOLDER}/m-{self._new_id()}.arrow"
        data = manifest.encode()
        self.store.put(
            path, data
        )  # not put-if-absent: the name is ours alone, and a retried put finds its own file
        self._manifests.put(path, manifest)
        types = {field.id: type_to_arrow(field.type, storage=True) for field in schema.fields}
        return manifest.ref(path, data, types)

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
        self._check_free(f"{BRANCHES}/{check_tag_name(tag.name)}.json", f"a branch {tag.name!r}")
        try:
            self.store.put_new(f"{TAGS}/{check_tag_name(tag.name)}.json", codec.encode(tag))
        except AlreadyExistsError as e:
            if self.tag(tag.name) != tag:  # else it is our own write, of which the first reply was lost
                raise AlreadyExistsError(
                    f"tag {tag.name!r} exists already: delete it first, or choose another name"
                ) from e
        # An expiry looks for tags again after it has left its tombstones: one of the two sees the other.
        if self.find(tag.version) is None:
            self.store.delete([f"{TAGS}/{tag.name}.json"])
            raise NotFoundError(
                f"version {tag.version} expired while tag {tag.name!r} was made; it names nothing"
            )

    def delete_tag(self, name: str) -> None:
        """Remove a tag; the version it named stays until it expires."""
        self.tag(name)
        self.store.delete([f"{TAGS}/{name}.json"])

    # --- branches ---

    def branches(self) -> list[Branch]:
        """All branches, by name."""
        return [
            codec.decode(Branch, self.store.get(info.path), f"{self.store.uri}/{info.path}")
            for info in self.store.list(BRANCHES)
        ]

    def find_branch(self, name: str) -> Branch | None:
        """One branch, or None if there is none of that name."""
        path = f"{BRANCHES}/{check_tag_name(name)}.json"
        try:
            return codec.decode(Branch, self.store.get(path), f"{self.store.uri}/{path}")
        except NotFoundError:
            return None

    def get_branch(self, name: str) -> Branch:
        """One branch; `NotFoundError` with close names."""
        found = self.find_branch(name)
        if found is None:
            known = [branch.name for branch in self.branches()]
            raise NotFoundError(
                f"no branch {name!r}{did_you_mean(name, known)}; the branches are {listing(known)}"
            )
        return found

    def on(self, branch: Branch) -> TableLog:
        """The log of a branch's line; shares what this log remembers of manifests."""
        log = TableLog(self.store, new_id=self._new_id, branch=branch)
        log.main, log._manifests = self.main, self._manifests
        return log

    def put_branch(self, branch: Branch) -> None:
        """Create a branch whose first snapshot has been put; `AlreadyExistsError` if the name is taken."""
        self._check_free(f"{TAGS}/{check_tag_name(branch.name)}.json", f"a tag {branch.name!r}")
        try:
            self.store.put_new(f"{BRANCHES}/{branch.name}.json", codec.encode(branch))
        except (AlreadyExistsError, StorageError) as e:
            if self.find_branch(branch.name) == branch:  # our own write, of which the reply was lost
                return
            if isinstance(e, StorageError):
                raise
            raise AlreadyExistsError(
                f"branch {branch.name!r} exists already: open it with checkout(), delete it first, or choose another name"
            ) from e

    def delete_branch(self, branch: Branch) -> None:
        """Remove a branch: at once for readers, and then its snapshots; what they refer to is left to collection."""
        folder = branch_folder(branch)
        self.store.delete([f"{BRANCHES}/{branch.name}.json"])
        self.store.delete([info.path for info in self.store.list(folder)])

    def lines(self) -> Iterator[TableLog]:
        """The logs of all lines, the main one first: what no snapshot of any (`all()`) refers to is unused."""
        yield self.main
        for branch in self.branches():
            yield self.main.on(branch)

    def _check_branch(self, branch: Branch) -> None:
        found = self.find_branch(branch.name)
        if found is None or found.id != branch.id:
            again = "; another one has its name now: check it out" if found else ""
            raise NotFoundError(f"branch {branch.name!r} of {self.store.uri} was deleted{again}")

    def _check_free(self, path: str, what: str) -> None:
        """A name is either a tag's or a branch's, so that it means one version wherever it is written."""
        try:
            self.store.head(path)
        except NotFoundError:
            return
        raise AlreadyExistsError(f"there is {what} already: delete it first, or choose another name")


def branch_folder(branch: Branch) -> str:
    """Where a branch's snapshots lie: a folder that no other branch ever has, not even a later one of that name."""
    return f"{LINES}/{branch.id}"


def check_tag_name(name: str) -> str:
    """The name, if it can be a tag's or branch's: letters, digits, `.`, `_`, `-`; not a number: that would be a version."""
    if not _TAG_NAME.fullmatch(name) or name.isdigit():
        raise InvalidInputError(
            f"{name!r} can't be a tag or branch: use letters, digits, '.', '_' and '-', beginning with a letter or digit, "
            "and not digits only"
        )
    return name
