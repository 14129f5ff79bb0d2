"""The runs of rows that have bounding balls, some fragments at a time: what an exact search may choose from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vectorlake.errors import CorruptDataError, DamagedIndexWarning
from vectorlake.kernels.balls import Balls, together
from vectorlake.schema import Field, FixedListType
from vectorlake.search.blocks import Part, ranges_of
from vectorlake.search.selection import Selection
from vectorlake.table.balls import known_balls, read_balls
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.scan import default_threads, ordered_map
from vectorlake.table.view import View

_WINDOW_ROWS: Final = 1 << 23
"""Rows whose balls are in memory at a time; those of a smaller table are kept, with its row ids."""


@dataclass(frozen=True)
class Window:
    """Some fragments, and the runs of those that have balls.

    Attributes:
        bounded: fragments with balls.
        unbounded: those without.
        balls: of all runs; None if there are none.
        fragment: int64 [runs], an index into `bounded`.
        starts: int64 [runs], the first row of each.
        mapped: whether the vectors of all runs are in memory, so that looking twice costs no reading.
    """

    bounded: tuple[FragmentReader, ...]
    unbounded: tuple[FragmentReader, ...]
    balls: Balls | None
    fragment: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    mapped: bool

    @property
    def stops(self) -> npt.NDArray[np.int64]:
        """The row after the last of each run."""
        return np.empty(0, np.int64) if self.balls is None else self.balls.stops

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Rows of each run."""
        return self.stops - self.starts

    def parts(self, runs: npt.NDArray[np.int64]) -> Iterator[Part]:
        """Some runs, ascending, as ranges of rows; those that follow each other are one."""
        fragments, starts, stops = self.fragment[runs], self.starts[runs], self.stops[runs]
        apart = (fragments[1:] != fragments[:-1]) | (starts[1:] != stops[:-1])
        first = np.flatnonzero(np.concatenate([[True], apart]))
        last = np.append(first[1:], len(runs)) - 1
        for index in np.unique(fragments).tolist():
            mine = fragments[first] == index
            yield (
                self.bounded[index],
                list(zip(starts[first[mine]].tolist(), stops[last[mine]].tolist(), strict=True)),
            )


def windows(view: View, field: Field) -> Iterator[Window]:
    """All fragments of a snapshot, some at a time."""
    if view.snapshot.num_rows <= _WINDOW_ROWS:
        yield view.memo.get(("balls", field.id), lambda: _kept(view, field))
        return
    held: list[FragmentReader] = []
    rows = 0
    for reader in view.readers():
        if held and rows + reader.fragment.row_count > _WINDOW_ROWS:
            yield _window(view, field, held)
            held, rows = [], 0
        held.append(reader)
        rows += reader.fragment.row_count
    yield _window(view, field, held)


def has_balls(view: View) -> bool:
    """Whether any column of a snapshot may have balls."""
    return any(view.log.manifest(ref).has_balls for ref in view.snapshot.manifests)


def selected(view: View, window: Window, selection: Selection) -> tuple[npt.NDArray[np.bool_], list[Part]]:
    """Which runs may hold selected rows, by statistics, and the parts of the other fragments that may."""
    if selection.predicate is None:
        whole = [(reader, ranges_of(view, reader, selection)) for reader in window.unbounded]
        return np.ones(len(window.starts), np.bool_), [*whole]
    there = {fragment.id for fragment in view.fragments(selection.predicate)}
    may = np.zeros(len(window.starts), np.bool_)
    for index, reader in enumerate(window.bounded):
        if reader.fragment.id in there:
            mine = np.flatnonzero(window.fragment == index)
            for low, high in ranges_of(view, reader, selection):
                may[mine] |= (window.starts[mine] < high) & (window.stops[mine] > low)
    others = [reader for reader in window.unbounded if reader.fragment.id in there]
    return may, [(reader, ranges_of(view, reader, selection)) for reader in others]


def _kept(view: View, field: Field) -> Window:
    window = _window(view, field, list(view.readers()))
    if window.mapped:
        for reader in window.bounded:
            reader.keep_row_ids()
    return window


def _window(view: View, field: Field, readers: Sequence[FragmentReader]) -> Window:
    def load(reader: FragmentReader) -> Balls | None:
        return _balls(view, field, reader)

    loaded = list(ordered_map(load, readers, threads=default_threads(view.store)))
    found = [(reader, balls) for reader, balls in zip(readers, loaded, strict=True) if balls is not None]
    balls = [known for _, known in found]
    starts = [np.concatenate([[0], known.stops[:-1]]) for known in balls]
    return Window(
        tuple(reader for reader, _ in found),
        tuple(reader for reader, known in zip(readers, loaded, strict=True) if known is None),
        together(balls) if balls else None,
        np.repeat(np.arange(len(balls)), [len(known) for known in balls]),
        np.concatenate([np.empty(0, np.int64), *starts]),
        all(reader.mapped(field) is not None for reader, _ in found),
    )


def _balls(view: View, field: Field, reader: FragmentReader) -> Balls | None:
    segment = known_balls(reader.fragment, field)
    if segment is None:
        return None
    assert isinstance(field.type, FixedListType)
    rows, dimension = reader.fragment.row_count, field.type.size
    try:
        return read_balls(view.store, segment, rows=rows, dimension=dimension)
    except CorruptDataError as e:
        warnings.warn(f"{e}; all rows of the fragment are looked at", DamagedIndexWarning, stacklevel=2)
        return None
