"""Make an index's files: train a model on a column, encode rows as segments, merge segments. Nothing is committed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from vectorlake.ids import NewId
from vectorlake.index.arrays import Cuts, MemoryArrays, write_arrays
from vectorlake.index.protocol import ROW_IDS, Arrays, ArraySource, Block, Config, IndexKind
from vectorlake.metadata.index import IndexFile, IndexSegment
from vectorlake.store.protocol import Store
from vectorlake.table.coverage import SKIPPED_ROW_IDS
from vectorlake.table.index_source import ColumnVectors
from vectorlake.tracing import span

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (rows done, rows in all)."""
FOLDER: Final = "index"
_NOTHING: Final = "nothing"
"""The array of a model's file when a kind learns nothing: a file needs one."""
_PILOT_ROWS: Final = 4096
"""So many rows are encoded to see how much memory a row of a segment takes, where that may matter."""
_SLACK: Final = 1.2


@dataclass(frozen=True)
class Work:
    """What building is done with.

    Attributes:
        memory: bytes to use, roughly.
        segment_rows: of a segment, at most.
    """

    store: Store
    new_id: NewId
    kind: IndexKind
    config: Config
    threads: int
    memory: int
    segment_rows: int
    progress: Progress | None = None


@dataclass(frozen=True)
class Made:
    """A segment's arrays, in memory yet."""

    arrays: Arrays
    cuts: Cuts
    rows: int

    @property
    def source(self) -> MemoryArrays:
        return MemoryArrays(self.arrays, self.cuts)


def train(work: Work, vectors: ColumnVectors, rng: np.random.Generator) -> Arrays:
    """Learn a model from the vectors, within half of the memory.

    Raises:
        InvalidInputError: nothing can be learnt from these vectors; there are none.
    """
    with span("train", kind=work.kind.name, rows=vectors.rows):
        return work.kind.train(vectors, work.config, rng=rng, threads=work.threads, memory=work.memory // 2)


def write_model(work: Work, model: Arrays, model_id: str) -> IndexFile:
    """Write a model."""
    return _written(work, f"{FOLDER}/{model_id}.arrow", dict(model) or {_NOTHING: np.empty(0, np.uint8)}, {})


def build(
    work: Work, model: Arrays | ArraySource, vectors: ColumnVectors, version: int
) -> Iterator[IndexSegment]:
    """Encode the vectors as segments and write them, one after the other: as many as the memory makes necessary."""
    for made, skipped in encoded(work, model, vectors):
        segment = write_segment(work, made, skipped, version)
        del made  # the next one needs the memory
        yield segment


def encoded(
    work: Work, model: Arrays | ArraySource, vectors: ColumnVectors
) -> Iterator[tuple[Made | None, npt.NDArray[np.int64]]]:
    """The vectors as segments in memory, each with the ids of rows that were skipped meanwhile; None without a vector."""
    most = _segment_rows(work, model, vectors)
    told = 0
    stream = _Stream(vectors.blocks(), total=vectors.rows, progress=work.progress)
    while stream.more():
        # No name for what is yielded: it would keep the memory that the next one needs.
        yield _encoded(work, model, stream, most), vectors.skipped[told:]
        told = len(vectors.skipped)
    if told < len(vectors.skipped):
        yield None, vectors.skipped[told:]
    if work.progress:
        work.progress(vectors.rows, vectors.rows)


def _encoded(work: Work, model: Arrays | ArraySource, stream: _Stream, most: int) -> Made:
    with span("encode", kind=work.kind.name) as seen:
        blocks = stream.take(most)
        arrays = work.kind.build(model, blocks, work.config, threads=work.threads, memory=work.memory // 4)
        seen.set(rows=stream.taken)
    return Made(arrays, work.kind.cuts(arrays), stream.taken)


def merged(
    work: Work,
    model: ArraySource,
    sources: Sequence[tuple[ArraySource, npt.NDArray[np.bool_]]],
) -> Made:
    """Several segments as one, of the slots that are marked."""
    arrays = work.kind.merge(model, sources, work.config)
    rows = int(np.count_nonzero(arrays[ROW_IDS] >= 0))
    return Made(arrays, work.kind.cuts(arrays), rows)


def write_segment(
    work: Work, made: Made | None, skipped: npt.NDArray[np.int64], version: int
) -> IndexSegment:
    """Write a segment; without `made` one that only knows rows that match nothing."""
    arrays = dict(made.arrays) if made else {ROW_IDS: np.empty(0, np.int64)}
    held = arrays[ROW_IDS]
    ids = np.concatenate([held[held >= 0], skipped])
    if len(skipped):
        arrays[SKIPPED_ROW_IDS] = np.sort(skipped)
    segment_id = work.new_id()
    file = _written(work, f"{FOLDER}/{segment_id}.arrow", arrays, made.cuts if made else {})
    return IndexSegment(
        id=segment_id,
        file=file,
        version=version,
        rows=len(np.unique(ids)),
        min_row_id=int(ids.min()) if len(ids) else 0,
        max_row_id=int(ids.max()) if len(ids) else -1,
    )


def discard(store: Store, files: Iterable[IndexFile]) -> None:
    """Remove files that will not be committed."""
    store.delete([file.path for file in files])


def _written(work: Work, path: str, arrays: Arrays, cuts: Cuts) -> IndexFile:
    with span("write", path=path) as told, work.store.staged(path) as local:
        file = write_arrays(local, arrays, cuts, name=path)
        told.set(bytes=file.size)
    return file


def _segment_rows(work: Work, model: Arrays | ArraySource, vectors: ColumnVectors) -> int:
    """Rows of a segment that fit into half of the memory."""
    width = vectors.dimension * vectors.dtype.itemsize + 16
    if not vectors.several and min(vectors.rows, work.segment_rows) * width <= work.memory // 2:
        return work.segment_rows
    pilot = vectors.sample(min(_PILOT_ROWS, work.memory // 8 // width), np.random.default_rng(0))
    half = len(pilot) // 2
    if not half:
        return work.segment_rows
    # By the difference of two, as what does not grow with the rows counts in neither.
    sizes = [_size_of(work, model, part) for part in (pilot[:half], pilot)]
    each = (sizes[1] - sizes[0]) / (len(pilot) - half) * _SLACK
    return max(1024, min(work.segment_rows, int(work.memory / 2 / max(each, 1))))


def _size_of(work: Work, model: Arrays | ArraySource, vectors: npt.NDArray[Any]) -> int:
    block = Block(vectors, np.arange(len(vectors), dtype=np.int64))
    arrays = work.kind.build(model, [block], work.config, threads=work.threads, memory=work.memory // 4)
    return sum(array.nbytes for array in arrays.values())


class _Stream:
    """Blocks handed out up to a number of rows at a time."""

    def __init__(self, blocks: Iterator[Block], *, total: int, progress: Progress | None) -> None:
        self._blocks = blocks
        self._rest: Block | None = None
        self._total = total
        self._done = 0
        self._progress = progress
        self.taken = 0

    def more(self) -> bool:
        """Whether any row is left."""
        if self._rest is None:
            self._rest = next(self._blocks, None)
        return self._rest is not None

    def take(self, most: int) -> Iterator[Block]:
        """Blocks of at most so many vectors together; `taken` tells how many, once they have been read."""
        self.taken = 0
        while self.taken < most and self.more():
            block = self._rest
            assert block is not None
            left = most - self.taken
            self._rest = None
            if len(block.row_ids) > left:
                left = _row_boundary(block.row_ids, left)
                if left < len(block.row_ids):
                    self._rest = Block(block.vectors[left:], block.row_ids[left:])
                block = Block(block.vectors[:left], block.row_ids[:left])
            self.taken += len(block.row_ids)
            self._done += len(block.row_ids)
            yield block
            if self._progress:
                self._progress(min(self._done, self._total), self._total)
            if self._rest is not None:
                return


def _row_boundary(row_ids: npt.NDArray[np.int64], at: int) -> int:
    """A place between two rows, the last up to `at` or the next behind it: the vectors of one stay in one segment."""
    before = np.flatnonzero(row_ids[:at] != row_ids[at])
    if len(before):
        return int(before[-1]) + 1
    behind = np.flatnonzero(row_ids[at:] != row_ids[at])
    return at + int(behind[0]) if len(behind) else len(row_ids)
