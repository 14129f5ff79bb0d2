"""Check a version's files: there, of the recorded length and checksum, with the rows that the manifest counts on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from vectorlake.errors import CorruptDataError, NotFoundError, UnsupportedError
from vectorlake.formats.checksum import source_checksum
from vectorlake.metadata.fragment import DataFile, Fragment, KeySegment
from vectorlake.table.files import check_unchanged
from vectorlake.table.keys import hashes_of, key_fields
from vectorlake.table.view import View


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with one file of a table."""

    path: str
    problem: str


def verify(view: View, *, progress: Callable[[str], None] | None = None) -> Iterator[Finding]:
    """Every problem found in the files of a snapshot; none if all is well. Reads every byte of our own files.

    Foreign files are compared by length and e-tag (we have no checksum of them) and opened.
    """
    seen: set[str] = set()
    for ref in view.snapshot.manifests:
        try:
            manifest = view.log.read_manifest(ref)
        except CorruptDataError as e:
            yield Finding(ref.path, str(e))
            continue
        rows = int(manifest.row_counts.sum())
        if (len(manifest), rows) != (ref.fragments, ref.rows):
            yield Finding(
                ref.path,
                f"holds {len(manifest)} fragments, {rows} rows; the snapshot says {ref.fragments}, {ref.rows}",
            )
        for fragment in manifest.fragments():
            yield from _fragment(view, fragment, seen, progress)


def _fragment(
    view: View, fragment: Fragment, seen: set[str], progress: Callable[[str], None] | None
) -> Iterator[Finding]:
    for file in fragment.files:
        if file.row_stop - file.row_start != fragment.row_count:
            yield Finding(
                file.path,
                f"covers {file.row_stop - file.row_start} of the {fragment.row_count} rows of fragment {fragment.id}",
            )
        if file.path not in seen:
            seen.add(file.path)
            if progress:
                progress(file.path)
            yield from _file(view, file)
    if fragment.keys is not None:
        yield from _keys(view, fragment, fragment.keys)
    if fragment.deletes is not None:
        try:
            bitmap = view.load_deletes(fragment.deletes)
        except CorruptDataError as e:
            yield Finding(fragment.deletes.path, str(e))
            return
        if len(bitmap) != fragment.deletes.cardinality or (bitmap and max(bitmap) >= fragment.row_count):
            yield Finding(fragment.deletes.path, f"deletes rows that fragment {fragment.id} does not have")


def _keys(view: View, fragment: Fragment, segment: KeySegment) -> Iterator[Finding]:
    try:
        held = view.files.keys.read(segment)
        there = hashes_of(view.reader(fragment), key_fields(view.snapshot.schema, view.snapshot.primary_key))
    except CorruptDataError as e:
        # A damaged data file is told of itself.
        if segment.path in str(e):
            yield Finding(segment.path, str(e))
        return
    if not (np.array_equal(held.hashes, there.hashes) and np.array_equal(held.positions, there.positions)):
        yield Finding(segment.path, f"does not hold the keys of fragment {fragment.id}: repair the table")


def _file(view: View, file: DataFile) -> Iterator[Finding]:
    source = view.files.source(file)
    try:
        if file.foreign:
            check_unchanged(file, source)
        elif (size := source.store.head(source.path).size) != file.size:
            yield Finding(file.path, f"has {size} bytes, the manifest says {file.size}")
            return
        if file.checksum is not None and (found := source_checksum(source)) != file.checksum:
            yield Finding(file.path, f"has checksum {found}, the manifest says {file.checksum}")
            return
        rows = view.files.open(file).num_rows
    except NotFoundError:
        yield Finding(file.path, "is missing")
    except (CorruptDataError, UnsupportedError) as e:
        yield Finding(file.path, str(e))
    else:
        if rows < file.row_stop:
            yield Finding(file.path, f"has {rows} rows, the manifest expects {file.row_stop}")
