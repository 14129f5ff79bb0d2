"""Delete rows by filter: find their positions, write deletion vectors, and follow the fragments to a newer head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from pyroaring import BitMap64

from vectorlake.errors import ConflictError
from vectorlake.expr import Expr
from vectorlake.ids import NewId
from vectorlake.metadata.deletion import encode_deletes, to_bitmap
from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.commit import Delta, FragmentUpdate, touched
from vectorlake.plan.scan import fields_by_name
from vectorlake.table.log import TableLog
from vectorlake.table.scan import MORSEL_ROWS
from vectorlake.table.view import View

FOLDER: Final = "deletes"


def matching_positions(view: View, predicate: Expr) -> dict[int, BitMap64]:
    """Fragment id → positions of live rows for which the predicate is true."""
    fields = fields_by_name(view.snapshot.schema)
    found: dict[int, BitMap64] = {}
    for reader in view.readers(predicate):
        positions: list[np.ndarray] = []
        for low, high in reader.prune(predicate, fields):
            for start in range(low, high, MORSEL_ROWS):
                matched, _ = view.matches(reader, predicate, start, min(start + MORSEL_ROWS, high))
                assert matched is not None
                positions.append(matched)
        together = np.concatenate(positions) if positions else np.empty(0, np.int64)
        if len(together):
            found[reader.fragment.id] = to_bitmap(together)
    return found


def find_fragments(log: TableLog, head: Snapshot, fragment_ids: set[int]) -> dict[int, Fragment]:
    """Fragments of a snapshot by id; those it no longer has are left out."""
    found: dict[int, Fragment] = {}
    for ref in touched(head.manifests, sorted(fragment_ids)):
        manifest = log.manifest(ref)
        indices = np.flatnonzero(np.isin(manifest.fragment_ids, list(fragment_ids)))
        found.update({fragment.id: fragment for fragment in manifest.fragments(indices)})
    return found


def delete_positions(
    view: View, head: Snapshot, positions: Mapping[int, BitMap64], *, new_id: NewId
) -> Delta:
    """The change that deletes these rows from `head`, keeping what others have deleted since.

    Raises:
        ConflictError: a fragment with such rows has been replaced by another writer.
    """
    current = find_fragments(view.log, head, set(positions))
    if missing := set(positions) - set(current):
        raise ConflictError(
            f"{len(missing)} of the fragments with rows to delete were rewritten by another writer in the meantime; "
            "nothing was deleted: read the table again and retry"
        )
    unions: dict[int, BitMap64] = {}
    gone: set[int] = set()
    deleted = 0
    for fragment_id, bitmap in positions.items():
        fragment = current[fragment_id]
        before = view.load_deletes(fragment.deletes) if fragment.deletes else BitMap64()
        union = before | bitmap
        deleted += len(union) - len(before)
        # A fragment over a foreign file stays even when empty: a sync with its source must know that its rows were deleted.
        if len(union) == fragment.row_count and not any(file.foreign for file in fragment.files):
            gone.add(fragment_id)
        elif len(union) > len(before):
            unions[fragment_id] = union
    path = f"{FOLDER}/{new_id()}.dv"
    data, vectors = encode_deletes(path, unions.values())
    if data:
        view.store.put(path, data)  # the name is ours alone
    updates = tuple(
        FragmentUpdate(fragment_id, deletes=vector)
        for fragment_id, vector in zip(unions, vectors, strict=True)
    )
    return Delta("delete", updates=updates, removed=frozenset(gone), summary={"deleted_rows": deleted})
