"""Check a version's files: there, of the recorded length and checksum, with the rows that the manifest counts on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.errors import CorruptDataError, NotFoundError, UnsupportedError
from vectorlake.formats.checksum import source_checksum
from vectorlake.formats.protocol import FileSource
from vectorlake.index.protocol import ROW_IDS
from vectorlake.kernels import Metric
from vectorlake.kernels.balls import reach
from vectorlake.metadata.fragment import BallSegment, DataFile, Fragment, KeySegment
from vectorlake.metadata.index import Index
from vectorlake.schema import FixedListType
from vectorlake.table.balls import known_balls, read_balls
from vectorlake.table.coverage import SKIPPED_ROW_IDS
from vectorlake.table.files import check_unchanged
from vectorlake.table.keys import enforced, hashes_of, key_fields
from vectorlake.table.vector_rows import vector_rows
from vectorlake.table.view import View


class Part(StrEnum):
    """Which part of a table something is wrong with."""

    MANIFEST = "manifest"
    DATA = "data"
    DELETES = "deletes"
    KEYS = "keys"
    BALLS = "balls"
    """Bounds by which exact searches skip rows. Damaged ones are not used, wrong ones would lose neighbours."""
    NUMBERS = "numbers"
    """Sequences, or ids that a snapshot says it has not given yet."""
    ROW_IDS = "row ids"
    PRIMARY_KEY = "primary key"
    INDEX = "index"
    """A segment of an index. Searches scan its rows instead."""
    INDEX_MODEL = "index model"
    """What an index has learnt. Searches do without the index."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with one file of a table, or with what its files say together."""

    path: str
    problem: str
    part: Part = Part.DATA
    fragment_id: int | None = None


def verify(view: View, *, progress: Callable[[str], None] | None = None) -> Iterator[Finding]:
    """Every problem found in the files of a snapshot; none if all is well. Reads every byte of our own files.

    Beside files: that no row id and, where it is enforced, no primary key is there twice, and that ids and sequences are
    ones that the snapshot has given (16 bytes a row in memory). Foreign files are compared by length and e-tag (we have
    no checksum of them) and opened.
    """
    seen: set[str] = set()
    sound = True
    for ref in view.snapshot.manifests:
        try:
            manifest = view.log.read_manifest(ref)
        except CorruptDataError as e:
            yield Finding(ref.path, str(e), Part.MANIFEST)
            sound = False
            continue
        rows = int(manifest.row_counts.sum())
        if (len(manifest), rows) != (ref.fragments, ref.rows):
            yield Finding(
                ref.path,
                f"holds {len(manifest)} fragments, {rows} rows; the snapshot says {ref.fragments}, {ref.rows}",
                Part.MANIFEST,
            )
        for fragment in manifest.fragments():
            for finding in _fragment(view, fragment, seen, progress):
                sound = False
                yield finding
            yield from _numbers(view, fragment)
    for index in view.snapshot.indexes:
        yield from _index(view, index, progress)
    if sound:  # what can't be read can't be compared
        yield from _doubled_row_ids(view)
        yield from _doubled_keys(view)


def _numbers(view: View, fragment: Fragment) -> Iterator[Finding]:
    snapshot = view.snapshot
    where = view.store.uri
    if fragment.id >= snapshot.next_fragment_id:
        yield Finding(
            where, f"fragment {fragment.id} has an id that was not given yet", Part.NUMBERS, fragment.id
        )
    if (fragment.first_row_id or 0) + fragment.row_count > snapshot.next_row_id:
        yield Finding(
            where, f"fragment {fragment.id} has row ids that were not given yet", Part.NUMBERS, fragment.id
        )
    for file in fragment.files:
        if file.sequence > snapshot.version:
            yield Finding(
                file.path,
                f"has sequence {file.sequence}, later than version {snapshot.version}",
                Part.NUMBERS,
                fragment.id,
            )


def _doubled_row_ids(view: View) -> Iterator[Finding]:
    parts = [np.empty(0, np.int64)]
    for reader in view.readers():
        live = reader.live(0, reader.fragment.row_count)
        ids = reader.row_ids(0, reader.fragment.row_count)
        parts.append(ids if live is None else ids[live])
    if len(double := _doubled(np.concatenate(parts))):
        shown = ", ".join(map(str, double[:5].tolist()))
        yield Finding(
            view.store.uri, f"{len(double)} row ids are there more than once: {shown}", Part.ROW_IDS
        )


def _doubled_keys(view: View) -> Iterator[Finding]:
    if not enforced(view.snapshot):
        return
    fields = key_fields(view.snapshot.schema, view.snapshot.primary_key)
    parts = [np.empty(0, np.uint64)]
    for reader in view.readers():
        keys = hashes_of(reader, fields)
        parts.append(keys.hashes[~np.isin(keys.positions, reader.deleted)])
    suspects = _doubled(np.concatenate(parts))
    if not len(suspects):
        return
    rows: list[pa.RecordBatch] = []
    for reader in view.readers():
        keys = hashes_of(reader, fields)
        hit = np.isin(keys.hashes, suspects) & ~np.isin(keys.positions, reader.deleted)
        rows.append(reader.take(fields, np.sort(keys.positions[hit].astype(np.int64))))
    names = [field.name for field in fields]
    counted = pa.Table.from_batches(rows).group_by(names).aggregate([([], "count_all")])
    double = counted.filter(pc.greater(counted["count_all"], 1))
    if double.num_rows:
        shown = double.select(names).slice(0, 3).to_pylist()
        yield Finding(
            view.store.uri,
            f"{double.num_rows} primary keys are there more than once, such as {shown}",
            Part.PRIMARY_KEY,
        )


def _doubled(values: np.ndarray) -> np.ndarray:
    values = np.sort(values)
    return np.unique(values[1:][values[1:] == values[:-1]])


def _fragment(
    view: View, fragment: Fragment, seen: set[str], progress: Callable[[str], None] | None
) -> Iterator[Finding]:
    for file in fragment.files:
        if file.row_stop - file.row_start != fragment.row_count:
            yield Finding(
                file.path,
                f"covers {file.row_stop - file.row_start} of the {fragment.row_count} rows of fragment {fragment.id}",
                fragment_id=fragment.id,
            )
        if file.path not in seen:
            seen.add(file.path)
            if progress:
                progress(file.path)
            for path, problem in _file(view, file):
                yield Finding(path, problem, fragment_id=fragment.id)
    if fragment.keys is not None:
        yield from _keys(view, fragment, fragment.keys)
    for segment in fragment.balls:
        yield from check_balls(view, fragment, segment)
    if fragment.deletes is not None:
        try:
            bitmap = view.load_deletes(fragment.deletes)
        except CorruptDataError as e:
            yield Finding(fragment.deletes.path, str(e), Part.DELETES, fragment.id)
            return
        if len(bitmap) != fragment.deletes.cardinality or (bitmap and max(bitmap) >= fragment.row_count):
            yield Finding(
                fragment.deletes.path,
                f"deletes rows that fragment {fragment.id} does not have",
                Part.DELETES,
                fragment.id,
            )


def _keys(view: View, fragment: Fragment, segment: KeySegment) -> Iterator[Finding]:
    try:
        held = view.files.keys.read(segment)
        there = hashes_of(view.reader(fragment), key_fields(view.snapshot.schema, view.snapshot.primary_key))
    except CorruptDataError as e:
        # A damaged data file is told of itself.
        if segment.path in str(e):
            yield Finding(segment.path, str(e), Part.KEYS, fragment.id)
        return
    if not (np.array_equal(held.hashes, there.hashes) and np.array_equal(held.positions, there.positions)):
        yield Finding(
            segment.path,
            f"does not hold the keys of fragment {fragment.id}: repair the table",
            Part.KEYS,
            fragment.id,
        )


def check_balls(view: View, fragment: Fragment, segment: BallSegment) -> Iterator[Finding]:
    """What is wrong with balls: every vector must be within the bounds of its run, as searches judge them."""
    field = next((one for one in view.snapshot.schema.fields if one.id == segment.field_id), None)
    if field is None or known_balls(fragment, field) is not segment:
        return
    assert isinstance(field.type, FixedListType)
    dimension = field.type.size
    try:
        balls = read_balls(view.store, segment, rows=fragment.row_count, dimension=dimension)
    except CorruptDataError as e:
        yield Finding(segment.path, str(e), Part.BALLS, fragment.id)
        return
    reader = view.reader(fragment)
    try:
        for run, (start, stop) in enumerate(pairwise([0, *balls.stops.tolist()])):
            vectors, valid = vector_rows(reader.read([field], start, stop).column(0))
            rows = vectors if valid is None else vectors[valid]
            rows = rows[np.isfinite(rows).all(axis=1)]
            ball = balls.part(run, run + 1)
            if any((reach(rows, ball, metric).least > 0).any() for metric in (Metric.L2, Metric.COSINE)):
                problem = f"does not bound the vectors of rows {start} to {stop} of fragment {fragment.id}"
                yield Finding(segment.path, problem, Part.BALLS, fragment.id)
    except CorruptDataError:
        return  # a damaged data file is told of itself


def _index(view: View, index: Index, progress: Callable[[str], None] | None) -> Iterator[Finding]:
    """What is wrong with the files of an index; every byte is read, whatever was opened before."""
    parts = [(index.model, Part.INDEX_MODEL), *((segment.file, Part.INDEX) for segment in index.segments)]
    for file, part in parts:
        if progress:
            progress(file.path)
        source = FileSource(view.store, file.path, file.size, file.checksum)
        try:
            if (found := source_checksum(source)) != file.checksum:
                yield Finding(
                    file.path, f"has checksum {found}, index {index.name!r} says {file.checksum}", part
                )
        except CorruptDataError as e:
            yield Finding(file.path, str(e), part)
    for segment in index.segments:
        held = segment.file.arrays
        slots = held[ROW_IDS].shape[0] if ROW_IDS in held else 0
        skipped = held[SKIPPED_ROW_IDS].shape[0] if SKIPPED_ROW_IDS in held else 0
        if ROW_IDS not in held or segment.rows > slots + skipped:
            yield Finding(
                segment.file.path,
                f"has {slots + skipped} slots, index {index.name!r} says {segment.rows} rows",
                Part.INDEX,
            )
        elif segment.version > view.snapshot.version:
            yield Finding(
                segment.file.path,
                f"is of version {segment.version}, later than version {view.snapshot.version}",
                Part.INDEX,
            )


def _file(view: View, file: DataFile) -> Iterator[tuple[str, str]]:
    source = view.files.source(file)
    try:
        if file.foreign:
            check_unchanged(file, source)
        elif (size := source.store.head(source.path).size) != file.size:
            yield (file.path, f"has {size} bytes, the manifest says {file.size}")
            return
        if file.checksum is not None and (found := source_checksum(source)) != file.checksum:
            yield (file.path, f"has checksum {found}, the manifest says {file.checksum}")
            return
        rows = view.files.open(file).num_rows
    except NotFoundError:
        yield (file.path, "is missing")
    except (CorruptDataError, UnsupportedError) as e:
        yield (file.path, str(e))
    else:
        if rows < file.row_stop:
            yield (file.path, f"has {rows} rows, the manifest expects {file.row_stop}")
