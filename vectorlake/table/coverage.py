"""What an index covers of a snapshot: its segments, opened, with the place of each slot's row; and the rows left to scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vectorlake.errors import CorruptDataError, InvalidInputError, UnsupportedError
from vectorlake.index.arrays import ArrayFile
from vectorlake.index.protocol import ROW_IDS, Config, IndexKind, Searcher
from vectorlake.index.registry import kind_for_reading
from vectorlake.kernels.metric import Metric
from vectorlake.metadata.index import Index, IndexFile, IndexSegment
from vectorlake.plan.index_coverage import Extent, Held, RowMap, place, uncovered
from vectorlake.schema import ROW_ID_FIELD_ID, VERSION_FIELD_ID, Field, FixedListType, ListType, ScalarType
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.view import View

NULL_ROW_IDS: Final = "null_row_ids"
"""The array of a segment's file with the ids of rows whose vector is null; absent if there is none."""
_NO_IDS: Final = np.empty(0, np.int64)


@dataclass(frozen=True)
class OpenSegment:
    """A segment that can be searched.

    Attributes:
        segment: what the snapshot says of it.
        searcher: opened; shared between snapshots.
        live: bool [slots]: the slot's row is in this snapshot, and its value is the one that was indexed.
        readers: the snapshot's fragments.
        fragment: int32 [slots] into readers, -1 where not live.
        position: int64 [slots], physical position in that fragment, -1 where not live.
        stale: slots whose row is in this snapshot with another value than was indexed, or in a newer segment.
    """

    segment: IndexSegment
    searcher: Searcher
    live: npt.NDArray[np.bool_]
    readers: tuple[FragmentReader, ...]
    fragment: npt.NDArray[np.int32]
    position: npt.NDArray[np.int64]
    stale: int


@dataclass(frozen=True)
class Coverage:
    """How to search an index in one snapshot: its segments, and a scan of what they don't cover.

    Attributes:
        index: what the snapshot says of it.
        kind: None if this release can't read it; everything is in `uncovered` then.
        config: likewise.
        segments: those with slots; a row is live in at most one of them.
        uncovered: (fragment, live positions there, ascending) that have to be scanned.
        covered_rows: live rows that need no scan: those in segments, and those without a vector.
        uncovered_rows: all other live rows.
        faults: what can't be read, each named with what to do about it: damaged or missing files, newer versions.
        damaged: ids of the segments that can't be read.
    """

    index: Index
    kind: IndexKind | None
    config: Config | None
    segments: tuple[OpenSegment, ...]
    uncovered: tuple[tuple[FragmentReader, npt.NDArray[np.int64]], ...]
    covered_rows: int
    uncovered_rows: int
    faults: tuple[str, ...]
    damaged: frozenset[str] = frozenset()


def coverage(view: View, index: Index, *, without: frozenset[str] = frozenset()) -> Coverage:
    """What an index covers of a snapshot; worked out once for a view. Safe to call from several threads.

    Args:
        without: ids of segments to leave out as if they were damaged: a fault that only a search has found.

    Raises:
        CorruptDataError: a file of the table itself is damaged. Damaged files of the index are told in `faults`.
        StorageError: the store can't be reached.
    """
    segments = tuple((segment.id, segment.version) for segment in index.segments)
    key = ("coverage", index.name, index.model_id, segments, without)
    return view.memo.get(key, lambda: _coverage(view, index, without))


def config_of(index: Index) -> Config:
    """How an index was made.

    Raises:
        UnsupportedError: by a metric that this release does not know.
    """
    try:
        metric = Metric(index.metric)
    except ValueError as e:
        raise UnsupportedError(
            f"index {index.name!r} has metric {index.metric!r}, unknown to this release: upgrade vectorlake"
        ) from e
    return Config(index.kind, metric, index.dimension, index.element, index.options)


def shape_of(field: Field) -> tuple[int, str] | None:
    """Elements of a column's vectors and their type, for multivectors those of one token; None for other columns."""
    kind = field.type
    if isinstance(kind, ListType):
        kind = kind.element.type
    if isinstance(kind, FixedListType) and isinstance(kind.element.type, ScalarType):
        return kind.size, kind.element.type.name
    return None


def column_of(view: View, index: Index) -> Field:
    """The column of an index, whatever its name is by now.

    Raises:
        UnsupportedError: it is gone, or no longer of the type that was indexed.
    """
    field = next((field for field in view.snapshot.schema.fields if field.id == index.field_id), None)
    if field is None:
        raise UnsupportedError(f"the column of index {index.name!r} was dropped: drop the index too")
    found = shape_of(field)
    if found != (index.dimension, index.element):
        was, now = (
            f"{index.element} × {index.dimension}",
            f"{found[1]} × {found[0]}" if found else "no vectors",
        )
        raise UnsupportedError(
            f"index {index.name!r} was made for vectors of {was}, and column {field.name!r} now holds {now}: rebuild it"
        )
    return field


def open_file(view: View, file: IndexFile) -> ArrayFile:
    """A file of an index, opened once for all snapshots of a table.

    Raises:
        CorruptDataError: it is missing or damaged.
    """
    return view.files.memo.get(("index file", file.path), lambda: ArrayFile(view.store, file))


def _coverage(view: View, index: Index, without: frozenset[str]) -> Coverage:
    readers = tuple(view.readers())
    faults: list[str] = []
    damaged: set[str] = set()
    opened: list[tuple[IndexSegment, Searcher | None, Held]] = []
    kind: IndexKind | None = None
    config: Config | None = None
    field = next((field for field in view.snapshot.schema.fields if field.id == index.field_id), None)
    try:
        kind = kind_for_reading(index.kind, index.kind_version, f"index {index.name!r}")
        config = config_of(index)
        field = column_of(view, index)
        model = open_file(view, index.model)
    except (UnsupportedError, CorruptDataError, InvalidInputError) as e:
        faults.append(str(e))
        damaged.update(segment.id for segment in index.segments)
    else:
        for segment in index.segments:
            try:
                if segment.id in without:
                    raise CorruptDataError(
                        f"index file {view.store.uri}/{segment.file.path} is damaged: rebuild index {index.name!r}"
                    )
                opened.append(_opened(view, kind, config, model, segment))
            except (UnsupportedError, CorruptDataError) as e:
                faults.append(str(e))
                damaged.add(segment.id)
    oldest = min((held.version for _, _, held in opened), default=0)
    extents = [_extent(reader, index.field_id, field, oldest) for reader in readers]
    rows = RowMap(extents)
    placed, covered = place(rows, [held for _, _, held in opened])
    left = uncovered(rows, extents, covered)
    uncovered_rows = sum(len(positions) for _, positions in left)
    return Coverage(
        index=index,
        kind=kind,
        config=config,
        segments=tuple(
            OpenSegment(segment, searcher, p.live, readers, p.fragment, p.position, p.stale)
            for (segment, searcher, _), p in zip(opened, placed, strict=True)
            if searcher is not None
        ),
        uncovered=tuple((readers[i], positions) for i, positions in left),
        covered_rows=view.snapshot.num_rows - uncovered_rows,
        uncovered_rows=uncovered_rows,
        faults=tuple(faults),
        damaged=frozenset(damaged),
    )


def _opened(
    view: View, kind: IndexKind, config: Config, model: ArrayFile, segment: IndexSegment
) -> tuple[IndexSegment, Searcher | None, Held]:
    """A segment with what it holds; without a searcher if it has no slots."""
    file = open_file(view, segment.file)
    nulls = file[NULL_ROW_IDS] if NULL_ROW_IDS in segment.file.arrays else _NO_IDS
    if not len(file[ROW_IDS]):
        return segment, None, Held(_NO_IDS, nulls, segment.version)
    searcher = view.files.memo.get(("searcher", segment.file.path), lambda: kind.open(model, file, config))
    return segment, searcher, Held(searcher.row_ids, nulls, segment.version)


def _extent(reader: FragmentReader, field_id: int, field: Field | None, oldest: int) -> Extent:
    """A fragment as coverage sees it; row ids and versions are read only where they can't be told without."""
    fragment = reader.fragment
    file = fragment.file_of(field_id)
    version = None if file is None else file.sequence
    holder = fragment.file_of(VERSION_FIELD_ID)
    moved = file is not None and holder is not None and file.sequence == holder.sequence
    versions = None
    if moved and file is not None and file.sequence > oldest:
        versions = reader.moved_versions(0, fragment.row_count)
    ids = None if fragment.file_of(ROW_ID_FIELD_ID) is None else reader.row_ids(0, fragment.row_count)
    value = fragment.constants.get(field_id, field.default if field else None)
    return Extent(
        rows=fragment.row_count,
        first_row_id=fragment.first_row_id or 0,
        row_ids=ids,
        deleted=reader.deleted,
        version=version,
        versions=versions,
        empty=file is None and value is None,
    )


def live_slots(segments: Sequence[OpenSegment]) -> int:
    """Slots of some segments that hold live rows."""
    return sum(int(np.count_nonzero(segment.live)) for segment in segments)
