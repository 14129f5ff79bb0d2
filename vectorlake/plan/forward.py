"""What a branch's files become on the main line: values written at any version of the branch count as of one. Pure.

The main line takes a branch over as one version, n + 1. Files written on the branch have the branch's versions as their
sequences, which later versions of the main line would reach again with other values: so they are lowered to n + 1
(format specification, "Branches").
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow as pa

from vectorlake.metadata.fragment import DataFile, Fragment, Layout
from vectorlake.metadata.manifest import Manifest
from vectorlake.plan.commit import without_fields
from vectorlake.schema import VERSION_FIELD_ID


def with_sequences_at_most(manifest: Manifest, version: int) -> Manifest:
    """A manifest in which no file has a sequence above `version`.

    Of files whose sequences become equal that way, none keeps a field that a later one has too, and none keeps the
    versions of its rows if a later one holds newer values of them. Vectorised: only fragments with such files become values.
    """
    sequences, fragments = _flat(manifest, "sequence")
    if not (sequences > version).any():
        return manifest
    late = sequences >= version
    shared = np.union1d(
        _sharing(manifest, late, fragments), _outdated(manifest, np.where(late, sequences, 0), fragments)
    )
    if len(shared):
        mended = [_one_file_a_field(fragment, version) for fragment in manifest.fragments(shared)]
        manifest = manifest.replace(updated=mended)
        sequences, _ = _flat(manifest, "sequence")
    return _with_sequences(manifest, np.minimum(sequences, version))


def _sharing(manifest: Manifest, late: np.ndarray, fragments: np.ndarray) -> np.ndarray:
    """Indices of the fragments of which two late files have a field in common."""
    layouts, _ = _flat(manifest, "layout")
    at = np.flatnonzero(late)
    several = np.flatnonzero(np.bincount(fragments[at], minlength=len(manifest)) > 1)
    if not len(several):
        return several
    meeting = _meeting(manifest.layouts)
    at = at[np.isin(fragments[at], several)]
    bounds = np.searchsorted(fragments[at], [several, several + 1])
    known: dict[bytes, bool] = {}
    found: list[int] = []
    for index, start, stop in zip(several.tolist(), *bounds.tolist(), strict=True):
        group = layouts[at[start:stop]]
        key = group.tobytes()
        if key not in known:
            pairs = np.triu_indices(len(group), 1)
            known[key] = bool(meeting[group[pairs[0]], group[pairs[1]]].any())
        if known[key]:
            found.append(index)
    return np.array(found, np.int64)


def _outdated(manifest: Manifest, late: np.ndarray, fragments: np.ndarray) -> np.ndarray:
    """Indices of the fragments of which a late file holds versions of rows, and another is later yet."""
    layouts, _ = _flat(manifest, "layout")
    versions = [any(field.id == VERSION_FIELD_ID for field in layout.fields) for layout in manifest.layouts]
    holding = np.zeros(len(manifest), np.int64)
    np.maximum.at(holding, fragments, np.where(np.array(versions, bool)[layouts], late, 0))
    latest = np.zeros(len(manifest), np.int64)
    np.maximum.at(latest, fragments, late)
    return np.flatnonzero((holding > 0) & (latest > holding))


def _meeting(layouts: Sequence[Layout]) -> np.ndarray:
    """Which layouts have a field in common: a matrix of booleans."""
    ids = [frozenset(field.id for field in layout.fields) for layout in layouts]
    return np.array([[bool(one & other) for other in ids] for one in ids], bool)


def _one_file_a_field(fragment: Fragment, version: int) -> Fragment:
    """The fragment with each field left only in the last of its late files that has it, and rows' versions in the latest."""
    kept: list[DataFile] = []
    later: frozenset[int] = frozenset()
    latest = max(file.sequence for file in fragment.files)
    for file in sorted(fragment.files, key=lambda file: file.sequence, reverse=True):
        if file.sequence < version:
            kept.append(file)
        elif not file.field_ids <= later:
            gone = later if file.sequence == latest else later | {VERSION_FIELD_ID}
            kept.append(without_fields(file, gone))
            later |= file.field_ids
    return msgspec.structs.replace(fragment, files=tuple(reversed(kept)))


def _flat(manifest: Manifest, member: str) -> tuple[np.ndarray, np.ndarray]:
    """A member of all files of all fragments, and the index of the fragment of each."""
    files = _files(manifest)
    lengths = np.diff(files.offsets.to_numpy())
    values = files.flatten().field(member).to_numpy(zero_copy_only=False)
    return values, np.repeat(np.arange(len(files)), lengths)


def _files(manifest: Manifest) -> pa.ListArray:
    joined = manifest.table["files"].combine_chunks()
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined


def _with_sequences(manifest: Manifest, sequences: np.ndarray) -> Manifest:
    files = _files(manifest)
    flat = files.flatten()
    members = list(flat.type)
    children = [flat.field(index) for index in range(len(members))]
    children[flat.type.get_field_index("sequence")] = pa.array(sequences, pa.int64())
    offsets = files.offsets.to_numpy()
    changed = pa.ListArray.from_arrays(
        pa.array(offsets - offsets[0], pa.int32()),
        pa.StructArray.from_arrays(children, fields=members),
        type=files.type,
    )
    index = manifest.table.column_names.index("files")
    table = manifest.table.set_column(index, manifest.table.schema.field(index), changed)
    return Manifest(table, manifest.layouts, manifest.features)
