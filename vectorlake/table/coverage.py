"""What an index covers of a snapshot: its segments, opened, with the place of each slot's row; and the rows left to scan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from vectorlake.errors import CorruptDataError, InvalidInputError, UnsupportedError
from vectorlake.index.arrays import ArrayFile
from vectorlake.index.protocol import ROW_IDS, Config, IndexKind, Searcher
from vectorlake.index.registry import kind_for_reading
from vectorlake.kernels.metric import Metric
from vectorlake.metadata.index import Index, IndexFile, IndexSegment
from vectorlake.plan.index_coverage import Extent, Held, Placed, RowMap, place, uncovered
from vectorlake.schema import ROW_ID_FIELD_ID, VERSION_FIELD_ID, Field, FixedListType, ListType, ScalarType
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.view import View

SKIPPED_ROW_IDS: Final = "skipped_row_ids"
"""The array of a segment's file with the ids of rows whose vector is null or can match nothing; absent without any."""
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
    """

    segment: IndexSegment
    searcher: Searcher
    live: npt.NDArray[np.bool_]
    readers: tuple[FragmentReader, ...]
    fragment: npt.NDArray[np.int32]
    position: npt.NDArray[np.int64]


@dataclass(frozen=True)
class SegmentState:
    """How much of a segment a snapshot needs yet.

    Attributes:
        live: slots of live rows.
        skipped: int64, ids of live rows that are known to match nothing.
        stale: rows that are there with another value than was indexed, or that a newer segment has.
        dead: rows that it holds for nothing: deleted, or stale.
        fault: why it can't be read; everything else is zero then.
    """

    segment: IndexSegment
    live: int = 0
    skipped: npt.NDArray[np.int64] = field(default_factory=lambda: _NO_IDS)
    stale: int = 0
    dead: int = 0
    fault: str | None = None

    @property
    def live_rows(self) -> int:
        """Rows that the snapshot needs it for (slots, where a row has several)."""
        return self.live + len(self.skipped)


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
        states: of all segments that the index has.
    """

    index: Index
    kind: IndexKind | None
    config: Config | None
    segments: tuple[OpenSegment, ...]
    uncovered: tuple[tuple[FragmentReader, npt.NDArray[np.int64]], ...]
    covered_rows: int
    uncovered_rows: int
    faults: tuple[str, ...]
    states: tuple[SegmentState, ...] = ()

    @property
    def damaged(self) -> frozenset[str]:
        """Ids of the segments that can't be read."""
        return frozenset(state.segment.id for state in self.states if state.fault is not None)

    @property
    def model_fault(self) -> str | None:
        """Why nothing of the index can be read, if that is so."""
        return self.faults[0] if self.config is None or self.kind is None else None


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


def shape_of(column: Field) -> tuple[int, str] | None:
    """Elements of a column's vectors and their type, for multivectors those of one token; None for other columns."""
    kind = column.type
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
    known = next((known for known in view.snapshot.schema.fields if known.id == index.field_id), None)
    if known is None:
        raise UnsupportedError(f"the column of index {index.name!r} was dropped: drop the index too")
    found = shape_of(known)
    if found != (index.dimension, index.element):
        was, now = (
            f"{index.element} × {index.dimension}",
            f"{found[1]} × {found[0]}" if found else "no vectors",
        )
        raise UnsupportedError(
            f"index {index.name!r} was made for vectors of {was}, and column {known.name!r} now holds {now}: rebuild it"
        )
    return known


def open_file(view: View, file: IndexFile) -> ArrayFile:
    """A file of an index, opened once for all snapshots of a table.

    Raises:
        CorruptDataError: it is missing or damaged.
    """
    return view.files.memo.get(("index file", file.path), lambda: ArrayFile(view.store, file))


def opened(
    view: View, kind: IndexKind, config: Config, model: IndexFile | ArrayFile, segment: IndexSegment
) -> Searcher:
    """A segment open for searching, once for all snapshots of a table.

    Raises:
        CorruptDataError: a file is missing or damaged, or arrays don't fit each other.
    """
    learnt = open_file(view, model) if isinstance(model, IndexFile) else model
    file = open_file(view, segment.file)
    return view.files.memo.get(("searcher", segment.file.path), lambda: kind.open(learnt, file, config))


def _coverage(view: View, index: Index, without: frozenset[str]) -> Coverage:
    readers = tuple(view.readers())
    opening = _opening(view, index, without)
    oldest = min((one.held.version for one in opening.segments), default=0)
    known = next((known for known in view.snapshot.schema.fields if known.id == index.field_id), None)
    extents = [_extent(reader, index.field_id, known, oldest) for reader in readers]
    rows = RowMap(extents)
    placed, covered = place(rows, [one.held for one in opening.segments])
    left = uncovered(rows, extents, covered)
    uncovered_rows = sum(len(positions) for _, positions in left)
    states = {one.segment.id: _state(one, there) for one, there in zip(opening.segments, placed, strict=True)}
    return Coverage(
        index=index,
        kind=opening.kind,
        config=opening.config,
        segments=tuple(
            OpenSegment(one.segment, one.searcher, there.live, readers, there.fragment, there.position)
            for one, there in zip(opening.segments, placed, strict=True)
            if one.searcher is not None
        ),
        uncovered=tuple((readers[i], positions) for i, positions in left),
        covered_rows=view.snapshot.num_rows - uncovered_rows,
        uncovered_rows=uncovered_rows,
        faults=opening.faults,
        states=tuple(
            states.get(segment.id) or SegmentState(segment, fault=opening.damaged[segment.id])
            for segment in index.segments
        ),
    )


@dataclass(frozen=True)
class _Opened:
    segment: IndexSegment
    searcher: Searcher | None
    """None if the segment has no slots."""
    held: Held


@dataclass(frozen=True)
class _Opening:
    kind: IndexKind | None
    config: Config | None
    segments: tuple[_Opened, ...]
    faults: tuple[str, ...]
    damaged: dict[str, str]


def _opening(view: View, index: Index, without: frozenset[str]) -> _Opening:
    """What of an index can be read, and why the rest can't."""
    try:
        kind = kind_for_reading(index.kind, index.kind_version, f"index {index.name!r}")
        config = config_of(index)
        column_of(view, index)
        model = open_file(view, index.model)
    except (UnsupportedError, CorruptDataError, InvalidInputError) as e:
        return _Opening(None, None, (), (str(e),), {segment.id: str(e) for segment in index.segments})
    opened: list[_Opened] = []
    damaged: dict[str, str] = {}
    for segment in index.segments:
        try:
            if segment.id in without:
                raise CorruptDataError(
                    f"index file {view.store.uri}/{segment.file.path} is damaged: rebuild index {index.name!r}"
                )
            opened.append(_opened(view, kind, config, model, segment))
        except (UnsupportedError, CorruptDataError) as e:
            damaged[segment.id] = str(e)
    return _Opening(kind, config, tuple(opened), tuple(damaged.values()), damaged)


def _opened(view: View, kind: IndexKind, config: Config, model: ArrayFile, segment: IndexSegment) -> _Opened:
    file = open_file(view, segment.file)
    skipped = file[SKIPPED_ROW_IDS] if SKIPPED_ROW_IDS in segment.file.arrays else _NO_IDS
    if not len(file[ROW_IDS]):
        return _Opened(segment, None, Held(_NO_IDS, skipped, segment.version))
    searcher = opened(view, kind, config, model, segment)
    return _Opened(segment, searcher, Held(searcher.row_ids, skipped, segment.version))


def _state(one: _Opened, there: Placed) -> SegmentState:
    live = int(np.count_nonzero(there.live))
    held = int(np.count_nonzero(one.held.row_ids >= 0)) + len(one.held.skipped)
    skipped = one.held.skipped[there.skipped]
    return SegmentState(one.segment, live, skipped, there.stale, held - live - len(skipped))


def _extent(reader: FragmentReader, field_id: int, known: Field | None, oldest: int) -> Extent:
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
    value = fragment.constants.get(field_id, known.default if known else None)
    return Extent(
        rows=fragment.row_count,
        first_row_id=fragment.first_row_id or 0,
        row_ids=ids,
        deleted=reader.deleted,
        version=version,
        versions=versions,
        empty=file is None and value is None,
    )
