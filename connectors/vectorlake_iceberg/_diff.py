"""What changed between two versions of a source: files added and removed, rows deleted and restored.

Manifests never change, so those that both versions list are not opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyiceberg.manifest as ice
from pyroaring import BitMap64

from vectorlake.errors import CorruptDataError
from vectorlake_iceberg._deletes import Deletes, applied, check_supported, concerning, read_deletes
from vectorlake_iceberg._read import Entry, Source, entries, manifests
from vectorlake_iceberg._state import SourceState


@dataclass(frozen=True)
class Change:
    """How a source's files went from one version to another; files are named by URI."""

    added: tuple[Entry, ...] = ()
    removed: frozenset[str] = frozenset()
    lineage: Mapping[str, int] = field(default_factory=dict)
    """Iceberg's id of the first row of removed files, where known (v3)."""
    deleted: Mapping[str, BitMap64] = field(default_factory=dict)
    """All positions that the source deletes now, of added files and of those whose deletes changed."""
    restored: Mapping[str, BitMap64] = field(default_factory=dict)
    """Positions in files that stay that the source deleted before and may not delete any more."""
    before: Mapping[str, BitMap64] = field(default_factory=dict)
    """Positions of removed files that the source had deleted."""
    manifests_read: int = 0


def changes(
    source: Source, old: SourceState, new: SourceState, *, registered: Callable[[], frozenset[str]]
) -> Change:
    """The change from `old` to `new`.

    Args:
        registered: tells the URIs of the data files that the table has, which stand in for the old version's manifests
            once the source has expired them.

    Raises:
        UnsupportedError: the new version has files that can't be read; names one.
        CorruptDataError: metadata of the new version is missing or damaged.
    """
    if old.snapshot_id == new.snapshot_id:
        return Change()
    now = _by_path(manifests(source, source.snapshot(new.snapshot_id)))
    known = _known(source, old, now)
    if known is None:
        return _against_table(source, now, registered())
    was, gone = known
    fresh = [manifest for path, manifest in now.items() if path not in was]
    listed = entries(source, fresh)
    check_supported(listed)
    added, removed = _difference(_data(listed), _data(gone))
    added_deletes, removed_deletes = _difference(_deletes(listed), _deletes(gone))

    fresh_deletes, lost = read_deletes(added_deletes, source.read), _readable(source, removed_deletes)
    moved = {entry.uri for entry in (*added, *removed)}
    touched = {uri for _, by_file in (*fresh_deletes, *lost) for uri in by_file} - moved
    unchanged, opened = _unchanged_deletes(source, now, fresh, listed, added, touched, fresh_deletes, lost)
    current = [*fresh_deletes, *read_deletes(unchanged, source.read)]
    gone_uris = {entry.uri for entry in removed}
    old_deletes = entries(source, _delete_manifests(was.values())) if gone_uris else []
    return Change(
        added=tuple(added),
        removed=frozenset(gone_uris),
        lineage={entry.uri: entry.first_row_id for entry in removed if entry.first_row_id is not None},
        deleted={**applied(current, added), **_union(current, touched)},
        restored=_union(lost, touched),
        before=applied(_readable(source, concerning(old_deletes, gone_uris)), removed),
        manifests_read=len(fresh) + opened + len(was.keys() - now.keys()),
    )


def _unchanged_deletes(
    source: Source,
    now: Mapping[str, ice.ManifestFile],
    fresh: Sequence[ice.ManifestFile],
    listed: Sequence[Entry],
    added: Sequence[Entry],
    touched: Iterable[str],
    fresh_deletes: Deletes,
    lost: Deletes,
) -> tuple[list[Entry], int]:
    """Delete files that both versions have and that must be read all the same, and how many manifests that took.

    That is: deletes of a data file that was added but is older than they are, and what still deletes rows of a file of
    which a delete file was removed. A deletion vector, once it is there, stands for all deletes of its file.
    """
    whole = {uri for entry, by_file in fresh_deletes if entry.blob is not None for uri in by_file}
    open_uris = ({uri for _, by_file in lost for uri in by_file} & set(touched)) - whole
    oldest = min((entry.sequence for entry in added), default=None)
    seen = {manifest.manifest_path for manifest in fresh}
    needed = [
        manifest
        for manifest in _delete_manifests(now.values())
        if manifest.manifest_path not in seen
        and (open_uris or (oldest is not None and (manifest.sequence_number or 0) >= oldest))
    ]
    known = {entry.key for entry, _ in fresh_deletes}
    others = [*entries(source, needed), *(entry for entry in _deletes(listed) if entry.key not in known)]
    wanted = concerning(others, {*open_uris, *(entry.uri for entry in added)})
    check_supported(wanted)
    return wanted, len(needed)


def _by_path(of: Iterable[ice.ManifestFile]) -> dict[str, ice.ManifestFile]:
    return {manifest.manifest_path: manifest for manifest in of}


def _known(
    source: Source, old: SourceState, now: Mapping[str, ice.ManifestFile]
) -> tuple[dict[str, ice.ManifestFile], list[Entry]] | None:
    """The old version's manifests, and the entries of those that the new one has not; None if they are gone."""
    if old.snapshot_id is None:
        return {}, []
    snapshot = source.metadata.snapshot_by_id(old.snapshot_id)
    if snapshot is None:
        return None
    try:
        was = _by_path(manifests(source, snapshot))
        return was, entries(source, [manifest for path, manifest in was.items() if path not in now])
    except CorruptDataError:
        return None


def _data(listed: Iterable[Entry]) -> list[Entry]:
    """Data files with rows, the oldest first."""
    data = [
        entry
        for entry in listed
        if entry.file.content == ice.DataFileContent.DATA and entry.file.record_count
    ]
    return sorted(data, key=lambda entry: entry.sequence)


def _deletes(listed: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in listed if entry.file.content != ice.DataFileContent.DATA]


def _delete_manifests(of: Iterable[ice.ManifestFile]) -> list[ice.ManifestFile]:
    return [manifest for manifest in of if manifest.content == ice.ManifestContent.DELETES]


def _difference(new: list[Entry], old: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    here, there = {entry.key for entry in new}, {entry.key for entry in old}
    return [entry for entry in new if entry.key not in there], [
        entry for entry in old if entry.key not in here
    ]


def _union(deletes: Deletes, uris: Iterable[str]) -> dict[str, BitMap64]:
    wanted = set(uris)
    found: dict[str, BitMap64] = {}
    for _, by_file in deletes:
        for uri in by_file.keys() & wanted:
            found[uri] = found.get(uri, BitMap64()) | by_file[uri]
    return found


def _readable(source: Source, listed: list[Entry]) -> Deletes:
    """What the delete files of the old version deleted; those that the source has removed are left out."""
    found: Deletes = []
    for entry in listed:
        try:
            found += read_deletes([entry], source.read)
        except CorruptDataError:
            continue
    return found


def _against_table(source: Source, now: Mapping[str, ice.ManifestFile], registered: frozenset[str]) -> Change:
    """The change to a version whose predecessor is known only by the files that were registered from it."""
    listed = entries(source, now.values())
    check_supported(listed)
    data = _data(listed)
    here = {entry.uri for entry in data}
    deletes = read_deletes(_deletes(listed), source.read)
    return Change(
        added=tuple(entry for entry in data if entry.uri not in registered),
        removed=registered - here,
        deleted=applied(deletes, data),
        manifests_read=len(now),
    )
