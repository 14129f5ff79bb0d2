"""What differs between two versions, fragment by fragment, told from their manifests alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.manifest import Manifest, concat


@dataclass(frozen=True)
class Difference:
    """Fragments of two versions: those of only one of them, and those whose files or deletes differ."""

    added: tuple[Fragment, ...] = ()
    removed: tuple[Fragment, ...] = ()
    changed: tuple[tuple[Fragment, Fragment], ...] = ()
    """(before, after)"""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def diff_manifests(before: Sequence[Manifest], after: Sequence[Manifest]) -> Difference:
    """What differs between the fragments of some manifests and those of others.

    A fragment's physical rows never change under its id, so two fragments of one id differ in the paths of their files
    or in their deletion vector, or not at all. Vectorised: only fragments that differ become values.
    """
    old, new = concat(before) if before else None, concat(after) if after else None
    old_ids = old.fragment_ids if old else np.empty(0, np.int64)
    new_ids = new.fragment_ids if new else np.empty(0, np.int64)
    _, old_at, new_at = np.intersect1d(old_ids, new_ids, assume_unique=True, return_indices=True)
    removed = np.setdiff1d(np.arange(len(old_ids)), old_at, assume_unique=True)
    added = np.setdiff1d(np.arange(len(new_ids)), new_at, assume_unique=True)
    changed: tuple[tuple[Fragment, Fragment], ...] = ()
    if old and new and len(old_at):
        same = pc.equal(_marks(old).take(pa.array(old_at)), _marks(new).take(pa.array(new_at)))
        differ = np.flatnonzero(~same.to_numpy(zero_copy_only=False))
        changed = tuple(
            zip(old.fragments(old_at[differ]), new.fragments(new_at[differ]), strict=True)
            if len(differ)
            else ()
        )
    return Difference(
        added=tuple(new.fragments(added)) if new and len(added) else (),
        removed=tuple(old.fragments(removed)) if old and len(removed) else (),
        changed=changed,
    )


def _marks(manifest: Manifest) -> pa.Array:
    """One string a fragment, equal exactly if files and deletion vector are."""
    files = _plain(manifest.table["files"])
    offsets = files.offsets.to_numpy()
    paths = pa.ListArray.from_arrays(
        pa.array(offsets - offsets[0], pa.int32()), pc.struct_field(files.flatten(), "path")
    )
    deletes = _plain(manifest.table["deletes"])
    vector = pc.binary_join_element_wise(
        pc.struct_field(deletes, "path"), pc.struct_field(deletes, "offset").cast(pa.string()), "@"
    )
    return pc.binary_join_element_wise(pc.binary_join(paths, "|"), pc.fill_null(vector, ""), " ")


def _plain(column: pa.ChunkedArray) -> pa.Array:
    joined = column.combine_chunks()
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined
