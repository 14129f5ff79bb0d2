"""What changed between two versions of a source: files added and removed, rows deleted and restored.

Manifests never change, so those that both versions list are not opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pyiceberg.manifest as ice
from pyroaring import BitMap64

from vectorlake.errors import CorruptDataError
from vectorlake_iceberg._deletes import Deletes, applied, check_supported, read_deletes
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

    everything = _delete_manifests(now.values())
    opened = {manifest.manifest_path for manifest in fresh}
    oldest = min((entry.sequence for entry in added), default=None)
    needed = [
        manifest
        for manifest in everything
        if manifest.manifest_path not in opened
        and (removed_deletes or (oldest is not None and (manifest.sequence_number or 0) >= oldest))
    ]
    unchanged = entries(source, needed)
    check_supported(unchanged)
    current = read_deletes([*_deletes(listed), *unchanged], source.read)
    before_files = [entry for entry in removed if _may_have_deletes(was.values())]
    lost = _readable(source, removed_deletes)
    old_deletes = _readable(source, entries(source, _delete_manifests(was.values()))) if before_files else []
    touched = {uri for _, by_file in _of(current, added_deletes) for uri in by_file}
    touched |= {uri for _, by_file in lost for uri in by_file}
    touched -= {entry.uri for entry in (*added, *removed)}
    return Change(
        added=tuple(added),
        removed=frozenset(entry.uri for entry in removed),
        lineage={entry.uri: entry.first_row_id for entry in removed if entry.first_row_id is not None},
        deleted={**applied(current, added), **_union(current, touched)},
        restored=_union(lost, touched),
        before=applied(old_deletes, before_files),
        manifests_read=len(fresh) + len(needed) + len(was.keys() - now.keys()),
    )


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


def _may_have_deletes(of: Iterable[ice.ManifestFile]) -> bool:
    return bool(_delete_manifests(of))


def _difference(new: list[Entry], old: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    here, there = {entry.key for entry in new}, {entry.key for entry in old}
    return [entry for entry in new if entry.key not in there], [
        entry for entry in old if entry.key not in here
    ]


def _of(deletes: Deletes, wanted: Iterable[Entry]) -> Deletes:
    keys = {entry.key for entry in wanted}
    return [pair for pair in deletes if pair[0].key in keys]


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
