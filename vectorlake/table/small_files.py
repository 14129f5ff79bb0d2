"""Read many small fragments at once: whole Arrow files on local disk, without a reader object for each.

A table that was filled by small appends has thousands of fragments of some rows. What it costs to read them is what it
costs to open them; a compaction reads all of each, once, so that a plain read of the file's bytes does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa

from vectorlake.errors import CorruptDataError
from vectorlake.metadata.deletion import checksum_of
from vectorlake.metadata.fragment import DataFile, Fragment, Layout
from vectorlake.schema import ROW_ID_FIELD_ID, VERSION_FIELD_ID, Field
from vectorlake.table.context import Integrity
from vectorlake.table.view import View

MOST_BYTES: Final = 4 * 1024 * 1024
"""Larger files gain nothing from being read so."""

Simple: TypeAlias = Callable[[Fragment], bool]


def simple_fragments(view: View) -> Simple | None:
    """What tells whether a fragment can be read by `read_together`; None if none of the table's can."""
    if view.store.local_path("") is None or view.files.integrity is not Integrity.LENGTH:
        return None
    wanted = {field.id: field.to_storage().type for field in view.snapshot.schema.fields}
    known: dict[int, frozenset[int] | None] = {}

    def held(layout: Layout) -> frozenset[int] | None:
        """The fields that a file of this layout holds as the table has them today; None if any differs."""
        if id(layout) not in known:
            same = not layout.by_field_id and all(
                wanted.get(field.id) == field.to_storage().type for field in layout.fields
            )
            known[id(layout)] = frozenset(field.id for field in layout.fields) if same else None
        return known[id(layout)]

    def simple(fragment: Fragment) -> bool:
        if fragment.deletes is not None or fragment.constants or fragment.first_row_id is None:
            return False
        found: set[int] = set()
        for file in fragment.files:
            fields = held(file.layout)
            if (
                fields is None
                or file.format != "arrow"
                or file.foreign
                or file.size > MOST_BYTES
                or (file.row_start, file.row_stop) != (0, fragment.row_count)
                or found & fields
            ):
                return False
            found |= fields
        return found == wanted.keys() and not found & {ROW_ID_FIELD_ID, VERSION_FIELD_ID}

    return simple


def read_together(view: View, fragments: Sequence[Fragment], fields: Sequence[Field]) -> pa.RecordBatch:
    """All rows of some simple fragments, one after the other: the table's columns, then row ids and versions.

    Raises:
        CorruptDataError: a file is missing, or not what the manifest recorded.
    """
    root = view.store.local_path("")
    assert root is not None
    names = [field.name for field in fields]
    parts: dict[int, list[pa.Array]] = {field.id: [] for field in fields}
    for fragment in fragments:
        for file in fragment.files:
            batch = _read(root, file)
            for stored in file.layout.fields:
                parts[stored.id].append(batch.column(stored.name))
    columns = [_joined(parts[field.id]) for field in fields]
    firsts = [fragment.first_row_id or 0 for fragment in fragments]
    ids = [
        np.arange(first, first + fragment.row_count, dtype=np.int64)
        for first, fragment in zip(firsts, fragments, strict=True)
    ]
    versions = [max(file.sequence for file in f.files) for f in fragments]
    counts = [fragment.row_count for fragment in fragments]
    columns += [pa.array(np.concatenate(ids)), pa.array(np.repeat(np.asarray(versions, np.int64), counts))]
    return pa.RecordBatch.from_arrays(columns, names=[*names, "_row_id", "_last_updated_version"])


def _joined(arrays: list[pa.Array]) -> pa.Array:
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)


def _read(root: Path, file: DataFile) -> pa.RecordBatch:
    where = f"{root}/{file.path}"
    try:
        with open(where, "rb") as opened:
            data = opened.read()
    except FileNotFoundError as e:
        raise CorruptDataError(f"{where} is missing; restore it or open another version") from e
    if len(data) != file.size:
        raise CorruptDataError(f"{where} has {len(data)} bytes, the manifest says {file.size}; run verify")
    # What is copied gets a new checksum: damage that is not found now would never be.
    if file.checksum is not None and checksum_of(data) != file.checksum:
        raise CorruptDataError(f"{where} is damaged: its checksum is not the manifest's; run verify")
    try:
        reader = pa.ipc.open_file(pa.py_buffer(data))
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate()  # offsets that point outside would end the process when they are followed
    except (pa.ArrowInvalid, OSError) as e:
        raise CorruptDataError(f"{where} is damaged: {e}; run verify") from e
    whole = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
    if whole.num_rows != file.row_stop:
        raise CorruptDataError(f"{where} has {whole.num_rows} rows, the manifest says {file.row_stop}")
    return whole
