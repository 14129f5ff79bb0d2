"""An index made ready for searching one snapshot: which slots are live, and where their vectors stand. Made once a view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Final

import numpy as np
import numpy.typing as npt

from vectorlake.index.protocol import Searcher
from vectorlake.index.slots import slot_words
from vectorlake.kernels import Metric
from vectorlake.kernels.reference import METRIC_CODES
from vectorlake.kernels.refine import METRIC_HAMMING
from vectorlake.metadata.index import Index
from vectorlake.schema import Field, is_multivector
from vectorlake.search.lean import Lean
from vectorlake.search.plan import Effort, Wish
from vectorlake.search.vectors import Addresses, Block, Rows, addresses, blocks_of, element_code
from vectorlake.table.coverage import Coverage, OpenSegment, column_of, coverage
from vectorlake.table.scan import width_of
from vectorlake.table.view import View

_KEPT_BYTES: Final = 64 << 20
"""Up to so many bytes of vectors that no segment covers are kept in memory between searches."""
_SMALL_ROWS: Final = 8192


@dataclass(frozen=True)
class ReadySegment:
    """An open segment with what a search needs of it.

    Attributes:
        opened: the segment.
        row_ids: int64 [slots], contiguous.
        live: how many slots are.
        words: the live slots as bits; None where all are.
        vectors: where the slots' vectors stand; None where they must be read.
    """

    opened: OpenSegment
    row_ids: npt.NDArray[np.int64]
    live: int
    words: npt.NDArray[np.uint32] | None
    vectors: Addresses | None

    @property
    def searcher(self) -> Searcher:
        return self.opened.searcher

    @property
    def slots(self) -> int:
        return len(self.row_ids)


@dataclass(frozen=True)
class Ready:
    """An index, ready to search one snapshot.

    Attributes:
        coverage: the segments that can be searched, and the rows that have to be scanned.
        field: the column.
        segments: those with live rows.
        kept: the vectors of the rows that have to be scanned; None where there are too many to keep.
        lean: the short way of single queries, where there is one.
    """

    view: View
    coverage: Coverage
    field: Field
    segments: tuple[ReadySegment, ...]
    kept: tuple[Block, ...] | None
    lean: Lean | None
    efforts: dict[tuple[Wish, int], Effort] = dataclass_field(default_factory=dict, compare=False, repr=False)
    """What was settled for a wish and a depth."""

    @property
    def index(self) -> Index:
        return self.coverage.index

    @property
    def live(self) -> int:
        """Rows in segments."""
        return sum(segment.live for segment in self.segments)

    def uncovered(self) -> Iterator[Block]:
        """The vectors of the rows that no segment covers."""
        yield from blocks_of(self.coverage.uncovered, self.field) if self.kept is None else self.kept


def ready(view: View, index: Index, *, without: frozenset[str] = frozenset()) -> Ready:
    """Make an index ready for a snapshot, or find it so.

    Args:
        without: ids of segments that turned out to be damaged: their rows are scanned.

    Raises:
        UnsupportedError: the column is gone or has another type.
        CorruptDataError: a file of the table itself is damaged.
    """
    key = ("ready index", index.name, index.model_id, tuple(s.id for s in index.segments), without)
    return view.memo.get(key, lambda: _ready(view, index, without))


def _ready(view: View, index: Index, without: frozenset[str]) -> Ready:
    field = column_of(view, index)
    covered = coverage(view, index, without=without)
    segments = tuple(
        segment for segment in (_segment(opened, field) for opened in covered.segments) if segment.live
    )
    width = width_of(field.to_storage().type)
    kept = None
    if covered.uncovered_rows * width <= _KEPT_BYTES and not is_multivector(field.type):
        kept = tuple(joined(blocks_of(covered.uncovered, field)))
    return Ready(view, covered, field, segments, kept, _lean(covered, field, segments))


def _lean(covered: Coverage, field: Field, segments: tuple[ReadySegment, ...]) -> Lean | None:
    if len(segments) != 1 or segments[0].vectors is None or covered.uncovered_rows:
        return None
    (one,) = segments
    assert one.vectors is not None
    metric = METRIC_CODES.get(Metric(covered.index.metric), METRIC_HAMMING)
    share = 1.0 if one.words is None else one.live / one.slots
    return Lean(one.searcher, one.words, share, metric, element_code(field), one.vectors.places, one.row_ids)


def joined(blocks: Iterator[Block]) -> Iterator[Block]:
    """Many small blocks as one, since each costs a search some time; those of mapped pages that are large stay there."""
    small: list[Block] = []
    for block in blocks:
        if len(block.vectors) < _SMALL_ROWS:
            small.append(block)
        else:
            yield block
    if small:
        valid = [np.ones(len(b.vectors), np.bool_) if b.valid is None else b.valid for b in small]
        together = np.concatenate(valid)
        yield Block(
            np.concatenate([block.vectors for block in small]),
            np.concatenate([block.row_ids for block in small]),
            None if together.all() else together,
        )


def _segment(opened: OpenSegment, field: Field) -> ReadySegment:
    row_ids = np.ascontiguousarray(opened.searcher.row_ids, np.int64)
    live = int(np.count_nonzero(opened.live))
    words = None if live == int(np.count_nonzero(row_ids >= 0)) else slot_words(opened.live)
    vectors = None
    if live and not is_multivector(field.type):
        vectors = addresses(opened.readers, opened.fragment, opened.position, field)
    return ReadySegment(opened, row_ids, live, words, vectors)


@dataclass(frozen=True)
class Chosen:
    """The rows that a selection leaves, as an index sees them.

    Attributes:
        rows: all of them, by fragment.
        words: for each segment its selected slots as bits.
        counts: for each segment how many.
        uncovered: those that no segment covers, by fragment.
    """

    rows: tuple[Rows, ...]
    words: tuple[npt.NDArray[np.uint32], ...]
    counts: tuple[int, ...]
    uncovered: tuple[Rows, ...]

    @property
    def survivors(self) -> int:
        """How many rows are left."""
        return sum(len(positions) for _, positions in self.rows)


def choose(prepared: Ready, rows: tuple[Rows, ...]) -> Chosen:
    """See selected rows as slots of segments, and as rows that no segment covers."""
    covered = prepared.coverage
    if not prepared.segments:
        return Chosen(rows, (), (), rows)
    readers = prepared.segments[0].opened.readers
    place = {reader.fragment.id: index for index, reader in enumerate(readers)}
    starts = np.cumsum([0, *(reader.fragment.row_count for reader in readers)])
    # One row more, never selected, for the slots that hold none.
    mask = np.zeros(int(starts[-1]) + 1, np.bool_)
    for reader, positions in rows:
        mask[starts[place[reader.fragment.id]] + positions] = True
    words, counts = [], []
    for segment in prepared.segments:
        allowed = mask[_flat(prepared, segment, starts)]
        words.append(slot_words(allowed))
        counts.append(int(np.count_nonzero(allowed)))
    left: list[Rows] = []
    for reader, positions in covered.uncovered:
        kept = positions[mask[starts[place[reader.fragment.id]] + positions]]
        if len(kept):
            left.append((reader, kept))
    return Chosen(rows, tuple(words), tuple(counts), tuple(left))


def _flat(prepared: Ready, segment: ReadySegment, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which row each slot holds, counting the rows of all fragments; the one behind the last where none."""

    def make() -> npt.NDArray[np.int64]:
        opened = segment.opened
        flat = starts[opened.fragment] + opened.position
        flat[opened.fragment < 0] = starts[-1]
        return np.asarray(flat, np.int64)

    key = ("slots as rows", segment.opened.segment.id, prepared.coverage.damaged)
    return prepared.view.memo.get(key, make)
