"""A snapshot: one version of a table, as a small value that names its manifests (format specification, "Snapshot")."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgspec

from vectorlake.errors import UnsupportedError
from vectorlake.metadata import codec
from vectorlake.metadata.index import Index
from vectorlake.schema import Schema

FORMAT_VERSION: Final = 1
PRIMARY_KEY: Final = "primary-key"
"""Required where keys are enforced: a writer that does not look for them would double them."""
APPLICATION: Final = "application"
PRINCIPAL: Final = "principal"
"""The members of a summary that say who committed."""
SUPPORTED_FEATURES: Final[frozenset[str]] = frozenset({PRIMARY_KEY})
"""Required features of later format versions that this release understands."""


class ManifestRef(msgspec.Struct, frozen=True):
    """Where a manifest lies, how to check it, and enough about it to plan without opening it."""

    path: str
    size: int
    checksum: str
    fragments: int
    rows: int
    """Physical rows, deleted ones included."""
    deleted: int = 0
    min_fragment_id: int = 0
    max_fragment_id: int = 0
    bounds: dict[str, tuple[Any, ...]] = {}
    """Field id → (least, greatest) as JSON literals; a column without known bounds is left out."""
    extra: dict[str, Any] = {}


class Snapshot(msgspec.Struct, frozen=True):
    """One immutable version of a table. Its size does not depend on how many files the table has."""

    table_id: str
    version: int
    commit_id: str
    """Chosen by the writer before it tries to commit: tells its own commit from another's after a lost reply."""
    timestamp_ms: int
    """Commit time in ms since the epoch, greater than the parent's."""
    operation: str
    schema: Schema
    format_version: int
    parent: int | None = None
    summary: dict[str, Any] = {}
    properties: dict[str, str] = {}
    primary_key: tuple[int, ...] = ()
    next_row_id: int = 0
    next_field_id: int = 1
    next_fragment_id: int = 0
    manifests: tuple[ManifestRef, ...] = ()
    indexes: tuple[Index, ...] = ()
    """Distinct by name; kinds that this release does not know are among them."""
    other_indexes: tuple[dict[str, Any], ...] = ()
    """Entries of a file's `indexes` that are of another shape than this release knows: kept as they are."""
    required_features: tuple[str, ...] = ()
    extra: dict[str, Any] = {}

    @property
    def num_rows(self) -> int:
        """Live rows."""
        return sum(manifest.rows - manifest.deleted for manifest in self.manifests)

    @property
    def num_fragments(self) -> int:
        return sum(manifest.fragments for manifest in self.manifests)

    @property
    def timestamp(self) -> dt.datetime:
        """Commit time, in UTC."""
        return dt.datetime.fromtimestamp(self.timestamp_ms / 1000, dt.UTC)

    @property
    def application(self) -> str | None:
        """What committed it, as it called itself; None in versions from before that was recorded."""
        return self.summary.get(APPLICATION)

    @property
    def principal(self) -> str | None:
        """On whose behalf it was committed, if that was said."""
        return self.summary.get(PRINCIPAL)


STAGED: Final = "staged-"
"""The commit ids of snapshots inside a transaction begin so: they are never stored."""


def is_staged(snapshot: Snapshot) -> bool:
    """Whether a snapshot is a transaction's own: its fragment and row ids may be given to others yet."""
    return snapshot.commit_id.startswith(STAGED)


class Tag(msgspec.Struct, frozen=True):
    """A name for a version, which keeps it from expiring."""

    name: str
    version: int
    timestamp_ms: int
    extra: dict[str, Any] = {}


class Branch(msgspec.Struct, frozen=True):
    """A name for a line of versions of its own, beside the main one."""

    name: str
    id: str
    """Names the folder of the branch's snapshots; unique, so that a later branch of the same name shares none."""
    version: int
    """The version of the main line at which the branch begins."""
    timestamp_ms: int
    """When it was created."""
    extra: dict[str, Any] = {}


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """A snapshot as the JSON file that commits it."""
    members = codec.to_builtins(snapshot)
    others = members.pop("other_indexes", [])
    if others:
        members["indexes"] = [*members.get("indexes", []), *others]
    return codec.as_json(members)


def decode_snapshot(data: bytes, where: str) -> Snapshot:
    """A snapshot from its file.

    Raises:
        UnsupportedError: a newer format version or a required feature that this release does not know.
        CorruptDataError: not a snapshot; `where` names the file.
    """
    try:
        head = msgspec.json.decode(data, type=_Head)
    except msgspec.DecodeError:
        head = _Head()
    if head.format_version > FORMAT_VERSION:
        raise UnsupportedError(
            f"{where} has format version {head.format_version}; this release reads up to "
            f"{FORMAT_VERSION}: upgrade vectorlake"
        )
    if missing := sorted(set(head.required_features) - SUPPORTED_FEATURES):
        raise UnsupportedError(
            f"{where} requires {', '.join(missing)}, unknown to this release: upgrade vectorlake"
        )
    return codec.decode(Snapshot, data, where, prepare=_with_indexes_sorted)


def _with_indexes_sorted(members: Any) -> Any:
    """The members of a snapshot with those of its indexes set apart that this release can't make anything of."""
    if not isinstance(members, dict) or not isinstance(members.get("indexes"), list):
        return members
    entries: list[Any] = members["indexes"]
    known = [entry for entry in entries if _is_index(entry)]
    others = [entry for entry in entries if not _is_index(entry)]
    return {**members, "indexes": known, "other_indexes": others}


def _is_index(entry: Any) -> bool:
    try:
        codec.from_builtins(Index, entry)
    except (msgspec.ValidationError, TypeError, AttributeError):
        return False
    return True


class _Head(msgspec.Struct):
    format_version: int = FORMAT_VERSION
    required_features: tuple[str, ...] = ()
