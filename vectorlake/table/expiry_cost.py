"""What the expiry of some versions would free: the files, bytes and rows that no other version has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.metadata.manifest import Manifest
from vectorlake.metadata.snapshot import ManifestRef, Snapshot
from vectorlake.table.log import TableLog
from vectorlake.table.references import parallel, path_hashes

_BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Freed:
    """Files of the table's own with their bytes, and physical rows."""

    files: int = 0
    bytes: int = 0
    rows: int = 0


@dataclass
class _Tally:
    """Distinct things by hash, with a number each."""

    keys: list[np.ndarray] = field(default_factory=lambda: [np.empty(0, np.uint64)])
    numbers: list[np.ndarray] = field(default_factory=lambda: [np.empty(0, np.int64)])

    def add(self, keys: np.ndarray, numbers: np.ndarray) -> None:
        self.keys.append(keys)
        self.numbers.append(numbers)

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        keys, first = np.unique(np.concatenate(self.keys), return_index=True)
        return keys, np.concatenate(self.numbers)[first]


def cost(log: TableLog, versions: Sequence[int]) -> Freed:
    """What only these versions of the log's line need. Reads manifests, not data; sixteen bytes a file are kept."""
    doomed = frozenset(versions)
    going = _manifests(log.find(version) for version in versions)
    staying = _manifests(
        line.find(version)
        for line in log.main.lines()
        for version in line.versions()
        if not (line.folder == log.folder and version in doomed)
    )
    only = {path: ref for path, ref in going.items() if path not in staying}
    if not only:
        return Freed()
    files, rows = _Tally(), _Tally()
    for manifest in _read(log, only.values()):
        files.add(*_files(manifest))
        rows.add(*_fragments(manifest))
    file_keys, sizes = files.distinct()
    row_keys, counts = rows.distinct()
    for manifest in _read(log, staying.values()):
        kept = ~np.isin(file_keys, _files(manifest)[0])
        file_keys, sizes = file_keys[kept], sizes[kept]
        kept = ~np.isin(row_keys, _fragments(manifest)[0])
        row_keys, counts = row_keys[kept], counts[kept]
    size = int(sizes.sum()) + sum(ref.size for ref in only.values())
    return Freed(len(file_keys) + len(only), size, int(counts.sum()))


def _manifests(snapshots: Iterable[Snapshot | None]) -> dict[str, ManifestRef]:
    return {ref.path: ref for snapshot in snapshots if snapshot for ref in snapshot.manifests}


def _read(log: TableLog, refs: Iterable[ManifestRef]) -> Iterator[Manifest]:
    wanted = list(refs)
    for start in range(0, len(wanted), _BATCH):
        yield from parallel(log.read_manifest, wanted[start : start + _BATCH])


def _files(manifest: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the paths of the table's own data files and key segments, and their bytes."""
    found = _Tally()
    for column in manifest.table.columns:
        for chunk in column.chunks:
            values = chunk.flatten() if pa.types.is_list(chunk.type) else chunk
            if not pa.types.is_struct(values.type) or values.type.get_field_index("size") < 0:
                continue
            values = values.filter(values.is_valid())
            paths = pc.struct_field(values, "path")
            own = pc.invert(pc.match_substring(paths, "://"))
            sizes = pc.struct_field(values, "size").filter(own)
            found.add(path_hashes(paths.filter(own).to_pylist()), sizes.to_numpy(zero_copy_only=False))
    return np.concatenate(found.keys), np.concatenate(found.numbers)


def _fragments(manifest: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """A hash of each fragment, by where its rows begin in its first file, and its rows."""
    found = _Tally()
    counts = manifest.row_counts.astype(np.int64)
    done = 0
    for chunk in manifest.table["files"].chunks:
        offsets = chunk.offsets.to_numpy()
        filled = np.flatnonzero(np.diff(offsets))
        first = chunk.values.take(pa.array(offsets[:-1][filled]))
        start = pc.struct_field(first, "row_start").cast(pa.string())
        names = pc.binary_join_element_wise(pc.struct_field(first, "path"), start, "@")
        found.add(path_hashes(names.to_pylist()), counts[done + filled])
        done += len(chunk)
    return np.concatenate(found.keys), np.concatenate(found.numbers)
