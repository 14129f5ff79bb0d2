"""A tombstone: what lies under an expired version's name until no writer can take that name for a free one."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from vectorlake.metadata import codec
from vectorlake.metadata.snapshot import FORMAT_VERSION, Snapshot, decode_snapshot

EXPIRED: Final = "expired-snapshot"
"""The required feature that keeps releases which know no tombstones from taking one for a snapshot."""


class Tombstone(msgspec.Struct, frozen=True):
    """Stands for a version that has expired. A name that is taken can't be committed to again."""

    version: int
    commit_id: str
    timestamp_ms: int
    """The commit's, not the expiry's."""
    snapshot: dict[str, Any]
    """The expired snapshot as it was: a tag that came at the same moment brings it back."""
    required_features: tuple[str, ...]
    format_version: int
    expired: bool = True
    extra: dict[str, Any] = {}

    def original(self, where: str) -> Snapshot:
        """The snapshot that expired; `where` names the file in errors."""
        return decode_snapshot(msgspec.json.encode(self.snapshot), where)


def bury(data: bytes, where: str) -> bytes:
    """The file of a snapshot's tombstone, from the snapshot's own.

    Raises:
        CorruptDataError: it is no snapshot.
        UnsupportedError: it is one of a newer release.
    """
    snapshot = decode_snapshot(data, where)
    return codec.encode(
        Tombstone(
            version=snapshot.version,
            commit_id=snapshot.commit_id,
            timestamp_ms=snapshot.timestamp_ms,
            snapshot=msgspec.json.decode(data),
            required_features=(EXPIRED,),
            format_version=FORMAT_VERSION,
        )
    )


def unbury(tombstone: Tombstone) -> bytes:
    """The file of the snapshot for which a tombstone stands."""
    return msgspec.json.format(msgspec.json.encode(tombstone.snapshot), indent=1)


def decode_version(data: bytes, where: str) -> Snapshot | Tombstone:
    """What a version's file holds; errors as for `decode_snapshot`."""
    if EXPIRED.encode() in data and _is_tombstone(data):
        return codec.decode(Tombstone, data, where)
    return decode_snapshot(data, where)


def _is_tombstone(data: bytes) -> bool:
    try:
        return msgspec.json.decode(data, type=_Marks).required_features == (EXPIRED,)
    except msgspec.DecodeError:
        return False


class _Marks(msgspec.Struct):
    required_features: tuple[str, ...] = ()
