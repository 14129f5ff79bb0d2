"""Find the fragments of a table that lie in given foreign files."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.manifest import Manifest
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.table.log import TableLog


def fragments_of_files(log: TableLog, head: Snapshot, uris: Iterable[str]) -> dict[str, list[Fragment]]:
    """Fragments of a snapshot by the foreign file that holds their rows, in order; files without any are left out.

    `uris` are paths as the fragments' data files record them. Costs a vectorised search of the manifests; only the
    fragments found become values.
    """
    wanted = pa.array(sorted(set(uris)), pa.string())
    found: dict[str, list[Fragment]] = {}
    if not len(wanted):
        return found
    for ref in sorted(head.manifests, key=lambda ref: ref.min_fragment_id):
        manifest = log.manifest(ref)
        for fragment in manifest.fragments(_rows_with(manifest, wanted)):
            for file in fragment.files:
                if file.foreign:
                    found.setdefault(file.path, []).append(fragment)
    return found


def foreign_files(log: TableLog, head: Snapshot) -> set[str]:
    """The URIs of all foreign files of a snapshot."""
    found: set[str] = set()
    for ref in head.manifests:
        paths = _paths(log.manifest(ref))[0]
        found.update(paths.filter(pc.match_substring(paths, "://")).to_pylist())
    return found


def _paths(manifest: Manifest) -> tuple[pa.Array, np.ndarray]:
    """The paths of all files, and the row of the manifest that each belongs to."""
    files = manifest.table["files"].combine_chunks()
    return files.flatten().field("path"), pc.list_parent_indices(files).to_numpy()


def _rows_with(manifest: Manifest, wanted: pa.Array) -> np.ndarray:
    paths, rows = _paths(manifest)
    return np.unique(rows[pc.is_in(paths, wanted).to_numpy(zero_copy_only=False)])
