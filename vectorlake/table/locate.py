"""Find rows by row id: which fragment holds each, and at which position."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vectorlake.errors import NotFoundError
from vectorlake.metadata.manifest import Manifest
from vectorlake.schema import ROW_ID_FIELD_ID, Field
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.view import View, to_output
from vectorlake.tracing import span


@dataclass(frozen=True)
class Located:
    """Live rows of one fragment: their positions there, and which of the row ids asked for they are."""

    reader: FragmentReader
    positions: np.ndarray
    request: np.ndarray


def locate(view: View, row_ids: np.ndarray) -> Iterator[Located]:
    """The live rows with some distinct row ids (int64), grouped by fragment; ids that are not there are left out."""
    order = np.argsort(row_ids, kind="stable")
    ids = row_ids[order]
    for ref in view.snapshot.manifests:
        manifest = view.log.manifest(ref)
        for fragment in manifest.fragments(_candidates(manifest, ids)):
            reader = view.reader(fragment)
            positions, at = _positions(reader, ids)
            live = ~np.isin(positions, reader.deleted)
            if live.any():
                yield Located(reader, positions[live], order[at[live]])


def take_rows(view: View, row_ids: np.ndarray, fields: list[Field]) -> pa.Table:
    """The rows with some row ids (int64), in the order given; an id may be given twice.

    Raises:
        NotFoundError: an id that no live row of this version has.
    """
    with span("take", table=view.store.uri, version=view.snapshot.version, rows=len(row_ids)) as told:
        table = _taken(view, row_ids, fields)
        if told.recording:
            told.set(columns=[field.name for field in fields], bytes=table.nbytes)
        return table


def _taken(view: View, row_ids: np.ndarray, fields: list[Field]) -> pa.Table:
    distinct, inverse = np.unique(row_ids, return_inverse=True)
    parts: list[pa.RecordBatch] = []
    request: list[np.ndarray] = [np.empty(0, np.int64)]
    for found in locate(view, distinct):
        parts.append(to_output(found.reader.take(fields, found.positions), fields))
        request.append(found.request)
    at = np.concatenate(request)
    if len(at) < len(distinct):
        missing = np.delete(distinct, at)
        shown = ", ".join(map(str, missing[:5])) + (" …" if len(missing) > 5 else "")
        raise NotFoundError(
            f"version {view.snapshot.version} of {view.store.uri} has no live row with row id {shown}"
        )
    table = pa.Table.from_batches(parts, schema=pa.schema([field.to_arrow() for field in fields]))
    order = np.empty(len(distinct), np.int64)
    order[at] = np.arange(len(at))
    wanted = order[inverse]
    if np.array_equal(wanted, np.arange(len(at))):
        return table
    return table.combine_chunks().take(pa.array(wanted))


def _candidates(manifest: Manifest, ids: np.ndarray) -> np.ndarray:
    """Indices of the fragments whose range of implied or explicit row ids holds any of some sorted ids."""
    first = manifest.table["first_row_id"].fill_null(0).to_numpy()
    found = _any_between(ids, first, first + manifest.row_counts - 1)
    low, high = manifest.bound("min", ROW_ID_FIELD_ID), manifest.bound("max", ROW_ID_FIELD_ID)
    if low is not None and high is not None:
        known = low.is_valid().to_numpy()
        found |= known & _any_between(ids, low.fill_null(0).to_numpy(), high.fill_null(-1).to_numpy())
    return np.flatnonzero(found)


def _any_between(ids: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.searchsorted(ids, low, side="left") < np.searchsorted(ids, high, side="right")


def _positions(reader: FragmentReader, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions in the fragment of those sorted ids that it holds, and their indices in `ids`."""
    fragment = reader.fragment
    if fragment.file_of(ROW_ID_FIELD_ID) is None:
        first = fragment.first_row_id or 0
        low, high = np.searchsorted(ids, [first, first + fragment.row_count])
        return ids[low:high] - first, np.arange(low, high)
    held = reader.row_ids(0, fragment.row_count)
    by_id = np.argsort(held, kind="stable")
    slots = np.searchsorted(held[by_id], ids)
    hit = (slots < len(held)) & (held[by_id][np.minimum(slots, len(held) - 1)] == ids)
    return by_id[slots[hit]], np.flatnonzero(hit)
